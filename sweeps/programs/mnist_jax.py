"""A perceptron with one hidden layer in JAX, whose whole epoch is one compiled loop."""

import json
import struct

import jax
import jax.numpy as jnp
import numpy as np
from ergodic_trial import trial

EPOCHS = 10
BATCH = 50
WIDTH = 64


def read_part(part):
    """Reads images, [image, pixel] from 0 to 1, and labels of mnist-2000.safetensors."""
    with open("mnist-2000.safetensors", "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = file.read()

    def numbers(name):
        first, end = header[name]["data_offsets"]
        return np.frombuffer(data[first:end], dtype=np.uint8).reshape(header[name]["shape"])

    images = numbers(f"x_{part}").reshape(-1, 28 * 28)
    return jnp.asarray(images, jnp.float32) / 255, jnp.asarray(numbers(f"y_{part}"), jnp.int32)


def draw_weights(key):
    first, second = jax.random.split(key)
    return {
        "hidden": jax.random.normal(first, (28 * 28, WIDTH)) * (2 / (28 * 28)) ** 0.5,
        "head": jax.random.normal(second, (WIDTH, 10)) * (1 / WIDTH) ** 0.5,
    }


def predict(weights, images):
    return jax.nn.relu(images @ weights["hidden"]) @ weights["head"]


def loss_of(weights, images, labels):
    logs = jax.nn.log_softmax(predict(weights, images))
    return -jnp.mean(jnp.take_along_axis(logs, labels[:, None], axis=1))


@jax.jit
def train_epoch(weights, images, labels, order):
    def step(weights, batch):
        gradient = jax.grad(loss_of)(weights, images[batch], labels[batch])
        return jax.tree.map(lambda w, g: w - trial.lr * g, weights, gradient), None

    return jax.lax.scan(step, weights, order.reshape(-1, BATCH))[0]


def main():
    images, labels = read_part("train")
    test_images, test_labels = read_part("test")
    weights = draw_weights(jax.random.key(trial.seed("init")))
    order = jax.random.key(trial.seed("order"))

    for epoch in range(1, EPOCHS + 1):
        order, draw = jax.random.split(order)
        weights = train_epoch(weights, images, labels, jax.random.permutation(draw, len(images)))
        right = jnp.mean(predict(weights, test_images).argmax(1) == test_labels)
        loss = loss_of(weights, images, labels)
        # A loss that is not finite makes the trial diverged.
        trial.report(epoch * len(images) // BATCH, train_loss=float(loss), test_acc=float(right))


main()
