"""The noise of batch gradients by NumPy (float64) as an oracle. Regenerate: `python tests/oracles/noise.py` (needs
numpy); writes noise.json beside it.

A perceptron of 25 inputs, hidden widths 16 and 12 and 10 classes on 40 images; 32 pairs of batches of 8 images. Numbers are drawn as in
trajectories.py says: weights, "noise.images", labels of "noise.labels", and image j of batch b is number 8b + j of "noise.batches" mod 40.
Without norm, layers have biases of 0, and "the weights" are all parameters; with batch norm they are those of fc1 and fc2."""
import json, math, os
import numpy as np
M = 2**64 - 1
INPUTS, HIDDEN, CLASSES, IMAGES, BATCH, PAIRS = 25, (16, 12), 10, 40, 8, 32


def bits(name, n):
    h = 0xCBF29CE484222325
    for c in name.encode():
        h = ((h ^ c) * 0x100000001B3) & M
    for i in range(n):
        z = (h + i * 0x9E3779B97F4A7C15) & M
        z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & M
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) & M
        yield z ^ z >> 31


def values(name, shape, std):
    u = np.array([(z >> 40) / 2**23 - 1 for z in bits(name, math.prod(shape))])
    return (u * std * math.sqrt(3)).reshape(shape)


def gradient(weights, norm, eps, x, y):
    """The gradient of the mean cross-entropy, by the chain rule: those of the weights, then those of the biases."""
    n = len(y)
    kept = []
    for w in weights[:-1]:
        z = x @ w
        if norm:
            inv = 1 / np.sqrt(z.var(0) + eps)
            z = (z - z.mean(0)) * inv
        else:
            inv = None
        kept.append((x, z, inv))
        x = np.maximum(z, 0)
    logits = x @ weights[-1]
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    p[np.arange(n), y] -= 1
    g = p / n
    of_weights, of_biases = [x.T @ g], [g.sum(0)]
    g = g @ weights[-1].T
    for w, (x, z, inv) in zip(weights[-2::-1], kept[::-1]):
        g = g * (z > 0)
        if norm:
            g = inv * (g - g.mean(0) - z * (g * z).mean(0))
        of_weights.insert(0, x.T @ g)
        of_biases.insert(0, g.sum(0))
        g = g @ w.T
    return of_weights + ([] if norm else of_biases)


def noise(norm, eps):
    widths = (INPUTS, *HIDDEN, CLASSES)
    names = ("fc1", "fc2", "head")
    weights = [values(f"{l}.weight", (a, b), math.sqrt(2 / a)) for l, a, b in zip(names, widths, widths[1:])]
    images = values("noise.images", (IMAGES, INPUTS), 1)
    labels = np.array([z % CLASSES for z in bits("noise.labels", IMAGES)])
    batches = np.array([z % IMAGES for z in bits("noise.batches", 2 * PAIRS * BATCH)]).reshape(-1, BATCH)
    gradients = [gradient(weights, norm, eps, images[b], labels[b]) for b in batches]
    differences = [[a - b for a, b in zip(g, h)] for g, h in zip(gradients[::2], gradients[1::2])]

    whole = np.array([np.concatenate([x.ravel() for x in d]) for d in differences])
    squares = (whole**2).sum(1)
    gram = whole @ whole.T
    other = ~np.eye(PAIRS, dtype=bool)
    w = weights[:2] if norm else weights + [np.zeros(b) for b in widths[1:]]
    w = np.concatenate([x.ravel() for x in w])
    of_weights = np.array([np.concatenate([x.ravel() for x in (d[:2] if norm else d)]) for d in differences])
    cosines = of_weights @ w / np.linalg.norm(of_weights, axis=1) / np.linalg.norm(w)
    largest = np.sort(np.sqrt(squares))[::-1]
    return dict(
        norm=norm, eps=eps,
        grad_noise_trace=squares.mean() * BATCH / 2,
        grad_noise_hill=1 / np.log(largest[:8] / largest[8]).mean(),
        grad_noise_cos=math.sqrt((cosines**2).mean()),
        grad_noise_dim=np.outer(squares, squares)[other].mean() / (gram**2)[other].mean(),
    )


if __name__ == "__main__":
    cases = [noise(False, 0.0), noise(True, 1e-5), noise(True, 0.5)]
    out = os.path.splitext(os.path.abspath(__file__))[0] + ".json"
    json.dump(dict(numpy=np.__version__, cases=cases), open(out, "w"), indent=1)
