"""What PyTorch and JAX train on one core, for comparison with `ergodic-worker bench`: the same networks (batch norm
without scale and shift, a head that is not trained), cross-entropy, SGD with momentum 0.9 and weight decay 5e-4, on noise.

    pip install torch jax numpy
    taskset -c 0 python tests/peers/throughput.py FRAMEWORK WORKLOAD BATCH [STEPS]

FRAMEWORK: torch, torch-channels-last, torch-compile or jax. WORKLOAD: mlp, cnn4 or preresnet20.
Prints samples per CPU second, the best of three timings. Compare only what was measured on the same machine in the same hour.
"""
import math
import os
import sys
import time

SHAPES = {"mlp": (28, 28, 1), "cnn4": (28, 28, 1), "preresnet20": (32, 32, 3)}


def network(ops, workload, x):
    """Logits of a batch. `ops` makes the weights when it is gone through for the first time."""
    layer = lambda x, out, stride: ops.relu(ops.norm(ops.conv(x, out, 3, stride)))
    if workload == "mlp":
        x = ops.relu(ops.norm(ops.linear(ops.flat(x), 128)))
    elif workload == "cnn4":
        for out, stride in ((16, 1), (32, 2), (64, 2), (64, 2)):
            x = layer(x, out, stride)
        x = ops.flat(x)
    else:
        x = ops.conv(x, 16, 3, 1)
        for stage, out in enumerate((16, 32, 64)):
            for block in range(3):
                stride = 2 if stage and not block else 1
                h = ops.relu(ops.norm(x))
                stream = x if stride == 1 else ops.conv(h, out, 1, stride)
                x = ops.conv(layer(h, out, stride), out, 3, 1) + stream
        x = ops.mean(ops.relu(ops.norm(x)))
    return ops.linear(x, 10)


class Ops:
    """Weights in the order of their use; the last one, of the head, is not trained."""

    def __init__(self):
        self.weights, self.making = [], True

    def begin(self, weights=None):
        if weights is not None:
            self.weights, self.making = list(weights), False
        self.at = 0
        return self

    def weight(self, shape, fan_in):
        if self.making:
            self.weights.append(self.normal(shape) * math.sqrt(2 / fan_in))
        self.at += 1
        return self.weights[self.at - 1]


def torch_step(workload, batch, how):
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(1)

    class Torch(Ops):
        statistics = {}
        normal = staticmethod(torch.randn)
        relu = staticmethod(F.relu)
        flat = staticmethod(lambda x: x.flatten(1))
        mean = staticmethod(lambda x: x.mean((2, 3)))

        def conv(self, x, out, kernel, stride):
            shape = (out, x.shape[1], kernel, kernel)
            return F.conv2d(x, self.weight(shape, math.prod(shape[1:])), None, stride, kernel // 2)

        def linear(self, x, out):
            return F.linear(x, self.weight((out, x.shape[1]), x.shape[1]))

        def norm(self, x):
            width = x.shape[1]
            running = self.statistics.setdefault(self.at, (torch.zeros(width), torch.ones(width)))
            return F.batch_norm(x, *running, None, None, True, 0.1, 1e-5)

    height, width, channels = SHAPES[workload]
    x, y = torch.randn(batch, channels, height, width), torch.arange(batch) % 10
    ops = Torch()
    with torch.no_grad():
        network(ops.begin(), workload, x)
    weights = ops.weights
    if how == "torch-channels-last":
        x = x.to(memory_format=torch.channels_last)
        weights = [w.to(memory_format=torch.channels_last) if w.dim() == 4 else w for w in weights]
    trained = [w.requires_grad_() for w in weights[:-1]]
    optimizer = torch.optim.SGD(trained, lr=0.1, momentum=0.9, weight_decay=5e-4)
    loss_of = lambda: F.cross_entropy(network(ops.begin(weights), workload, x), y)
    loss_of = torch.compile(loss_of) if how == "torch-compile" else loss_of

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def jax_step(workload, batch):
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
    import jax
    import jax.numpy as jnp

    key = [jax.random.PRNGKey(0)]

    def noise(shape):
        key[0], now = jax.random.split(key[0])
        return jax.random.normal(now, shape)

    class Jax(Ops):
        normal = staticmethod(noise)
        relu = staticmethod(jax.nn.relu)
        flat = staticmethod(lambda x: x.reshape(x.shape[0], -1))
        mean = staticmethod(lambda x: x.mean((1, 2)))

        def conv(self, x, out, kernel, stride):
            shape, padding = (kernel, kernel, x.shape[-1], out), ((kernel // 2,) * 2,) * 2
            w = self.weight(shape, math.prod(shape[:-1]))
            return jax.lax.conv_general_dilated(x, w, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))

        def linear(self, x, out):
            return x @ self.weight((x.shape[1], out), x.shape[1])

        def norm(self, x):
            axes = tuple(range(x.ndim - 1))
            return (x - x.mean(axes)) * jax.lax.rsqrt(x.var(axes) + 1e-5)

    x, y = noise((batch, *SHAPES[workload])), jnp.arange(batch) % 10
    ops = Jax()
    network(ops.begin(), workload, x)
    *trained, head = ops.weights

    def loss_of(trained, x, y):
        logits = network(ops.begin([*trained, head]), workload, x)
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1).mean()

    def update(trained, momenta, x, y):
        loss, gradients = jax.value_and_grad(loss_of)(trained, x, y)
        momenta = [0.9 * m + g + 5e-4 * w for m, g, w in zip(momenta, gradients, trained)]
        return [w - 0.1 * m for w, m in zip(trained, momenta)], momenta, loss

    update = jax.jit(update, donate_argnums=(0, 1))
    state = [trained, [jnp.zeros_like(w) for w in trained]]

    def step():
        *state[:], loss = update(*state, x, y)
        return loss.block_until_ready()

    return step


def main():
    how, workload, batch = sys.argv[1], sys.argv[2], int(sys.argv[3])
    steps = int(sys.argv[4]) if len(sys.argv) > 4 else 20
    step = jax_step(workload, batch) if how == "jax" else torch_step(workload, batch, how)
    for _ in range(4):
        step()
    best = math.inf
    for _ in range(3):
        begin = time.process_time()
        for _ in range(steps):
            step()
        best = min(best, (time.process_time() - begin) / steps)
    print(f"{how} {workload} B={batch}: {batch / best:.0f} samples per CPU second")


if __name__ == "__main__":
    main()
