"""The network `cnn4` of width 16 in PyTorch: what mnist-builtin.toml trains, as a program.

Its initial weights, loss, optimizer and input are those of the built-in network; its random numbers are PyTorch's.
"""

import json
import math
import struct

import torch
from ergodic_trial import trial
from torch import nn

EPOCHS = 4
BATCH = 50
WIDTH = 16


def read_safetensors(path):
    """Reads the tensors of a file, which are all of bytes."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = file.read()

    def tensor(name):
        first, end = header[name]["data_offsets"]
        numbers = torch.frombuffer(bytearray(data[first:end]), dtype=torch.uint8)
        return numbers.reshape(header[name]["shape"])

    return {name: tensor(name) for name in header}


def load_data():
    """Returns images with mean 0 and deviation 1 over the training images, [image, channel, height, width], and labels."""
    tensors = read_safetensors("mnist-2000.safetensors")
    parts = {}
    train = tensors["x_train"].double()
    for part in ("train", "test"):
        images = (tensors[f"x_{part}"].double() - train.mean()) / train.std(unbiased=False)
        parts[part] = images.permute(0, 3, 1, 2).float(), tensors[f"y_{part}"].long()
    return parts


def build_network(generator):
    """Builds cnn4: four convolutions with batch norm and ReLU, and a linear head without bias."""
    layers, channels = [], 1
    for factor, stride in ((1, 1), (2, 2), (4, 2), (4, 2)):
        width = factor * WIDTH
        convolution = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(width, affine=False), nn.ReLU()]
        channels = width

    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * 4 * channels, 10, bias=False))
    with torch.no_grad():
        for weight in network.parameters():
            fan_in = weight[0].numel()
            weight.normal_(0, math.sqrt(2 / fan_in), generator=generator)
    return network


def evaluate(network, images, labels):
    network.eval()
    with torch.no_grad():
        logits = network(images)
    network.train()
    loss = nn.functional.cross_entropy(logits, labels)
    return loss.item(), (logits.argmax(1) == labels).double().mean().item()


def main():
    torch.set_num_threads(1)
    parts = load_data()
    images, labels = parts["train"]
    network = build_network(torch.Generator().manual_seed(trial.seed("init")))
    order = torch.Generator().manual_seed(trial.seed("order"))
    optimizer = torch.optim.SGD(network.parameters(), lr=trial.lr, momentum=0.9, weight_decay=trial.wd)

    step = 0
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images), generator=order).split(BATCH):
            loss = nn.functional.cross_entropy(network(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            if not math.isfinite(loss.item()):
                trial.diverged(step)
                return

        test_loss, test_acc = evaluate(network, *parts["test"])
        trial.report(step, test_acc=test_acc, test_loss=test_loss)


main()
