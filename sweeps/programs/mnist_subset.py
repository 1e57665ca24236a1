"""Writes mnist-2000.safetensors: the first 2000 training and 2000 test images of MNIST, whose folder the command line names.

    python3 mnist_subset.py DIR/mnist

It needs nothing but the standard library.
"""

import gzip
import json
import pathlib
import struct
import sys

IMAGES = 2000
PIXELS = 28 * 28


def read_idx(folder, name, header, count):
    path = folder / name
    opener = open if path.exists() else gzip.open
    with opener(path if path.exists() else f"{path}.gz", "rb") as file:
        file.read(header)
        return file.read(count)


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: python3 mnist_subset.py FOLDER, where FOLDER has train-images-idx3-ubyte and its three companions")

    folder = pathlib.Path(sys.argv[1])
    header, data = {}, b""
    for part, prefix in (("train", "train"), ("test", "t10k")):
        images = read_idx(folder, f"{prefix}-images-idx3-ubyte", 16, IMAGES * PIXELS)
        labels = read_idx(folder, f"{prefix}-labels-idx1-ubyte", 8, IMAGES)
        for name, shape, numbers in (("x", [IMAGES, 28, 28, 1], images), ("y", [IMAGES], labels)):
            header[f"{name}_{part}"] = {"dtype": "U8", "shape": shape, "data_offsets": [len(data), len(data) + len(numbers)]}
            data += numbers

    text = json.dumps(header).encode()
    with open("mnist-2000.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


main()
