"""scikit-learn's bundled handwritten digits, made to look like MNIST: no network needed.

1,797 images, the test set of https://doi.org/10.24432/C50P49 (8x8 pixels, values 0 to 16).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
from PIL import Image

from mnist_bn.data import idx
from mnist_bn.data.dataset import Dataset, Split

# Leaves 300 test images: whole batches of 100, whose mean accuracy is that of the test set.
TRAIN_COUNT = 1497


def load() -> Dataset:
    """Loads 1,497 training and 300 test images, resized to 28x28 with Pillow's bilinear filter.

    A permutation of fixed seed splits them: the same images every time.
    """
    pixels, labels = _read()
    images = np.stack([_resize(image) for image in pixels])
    # RandomState, not default_rng: NumPy promises that its numbers never change.
    order = np.random.RandomState(0).permutation(len(labels))
    train, test = order[:TRAIN_COUNT], order[TRAIN_COUNT:]
    arrays = {
        "digits-train-images": images[train],
        "digits-train-labels": labels[train],
        "digits-test-images": images[test],
        "digits-test-labels": labels[test],
    }
    return Dataset(
        "digits",
        Split.from_bytes(images[train].reshape(-1, 784), labels[train]),
        Split.from_bytes(images[test].reshape(-1, 784), labels[test]),
        {name: idx.sha256(array) for name, array in arrays.items()},
        "scikit-learn",
    )


def _read() -> tuple[np.ndarray, np.ndarray]:
    """Returns scikit-learn's images, float `(1797, 8, 8)`, and labels, uint8 `(1797,)`."""
    package = importlib.util.find_spec("sklearn")
    for folder in (package and package.submodule_search_locations) or ():
        file = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if file.exists():  # to import scikit-learn takes a second
            rows = np.loadtxt(file, delimiter=",")
            return rows[:, :-1].reshape(-1, 8, 8), rows[:, -1].astype(np.uint8)
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.images, bunch.target.astype(np.uint8)


def _resize(image: np.ndarray) -> np.ndarray:
    """Resizes float (8, 8) in [0, 16] to uint8 (28, 28) in [0, 255]."""
    # Bytes first: Pillow then resizes with whole numbers, which are the same on every machine.
    grey = Image.fromarray(np.rint(image * (255 / 16)).astype(np.uint8))
    return np.asarray(grey.resize((28, 28), Image.Resampling.BILINEAR))
