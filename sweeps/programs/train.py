"""Logistic regression by hand on points that the script draws: which side of a random line are they on?"""

import math
import random
import time

from ergodic_trial import trial

DIM = 5
STEPS = 60


def draw_points(count, line, source):
    points = []
    for _ in range(count):
        x = [source.gauss(0, 1) for _ in range(DIM)]
        side = sum(a * b for a, b in zip(x, line)) + source.gauss(0, 0.5)
        points.append((x, 1.0 if side > 0 else 0.0))
    return points


def predict(weights, x):
    z = sum(a * b for a, b in zip(weights, x))
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, z))))


def main():
    begun = time.monotonic()
    data = random.Random(1)
    line = [data.gauss(0, 1) for _ in range(DIM)]
    train = draw_points(100, line, data)
    test = draw_points(200, line, data)

    init = random.Random(trial.seed("init"))
    order = random.Random(trial.seed("order"))
    weights = [init.gauss(0, 1) for _ in range(DIM)]
    for step in range(1, STEPS + 1):
        batch = order.sample(train, 20)
        loss = 0.0
        gradient = [trial.wd * w for w in weights]
        for x, label in batch:
            p = predict(weights, x)
            loss -= math.log(p if label else 1 - p) / len(batch)
            for i in range(DIM):
                gradient[i] += (p - label) * x[i] / len(batch)
        weights = [w - trial.lr * g for w, g in zip(weights, gradient)]

        if step % 10 == 0:
            right = sum((predict(weights, x) > 0.5) == (label > 0.5) for x, label in test)
            trial.report(step, loss=loss, test_acc=right / len(test), wall=time.monotonic() - begun)


main()
