"""scikit-learn's digits in MNIST's clothes."""

import hashlib
import struct

import numpy as np
from scipy import ndimage
from sklearn.datasets import load_digits

from mnist_bn import data
from mnist_bn.data import digits


def test_shapes_types_and_ranges():
    dataset = data.load("digits")
    assert (dataset.name, dataset.origin, dataset.note) == ("digits", "scikit-learn", "")
    for split, count in ((dataset.train, 1497), (dataset.test, 300)):
        assert split.images.shape == (count, 784)
        assert split.labels.shape == (count,)
        assert split.images.dtype == np.float32
        assert split.labels.dtype == np.int32
        assert split.images.min() == 0
        assert split.images.max() == 1
        assert set(split.labels) == set(range(10))


def test_every_image_is_in_one_split_with_its_own_label():
    dataset = data.load("digits")
    bunch = load_digits()
    grey = np.rint(bunch.images * 255 / 16)
    # Another library's bilinear resize, with pixel centres where Pillow has them.
    expected = ndimage.zoom(
        grey, (1, 3.5, 3.5), order=1, mode="grid-constant", grid_mode=True, cval=0
    )
    inner = np.s_[:, 2:-2, 2:-2]  # at the border Pillow repeats the edge
    order = np.random.RandomState(0).permutation(len(grey))
    images = np.concatenate([dataset.train.images, dataset.test.images]).reshape(-1, 28, 28) * 255
    labels = np.concatenate([dataset.train.labels, dataset.test.labels])

    assert np.abs(images - expected[order])[inner].max() <= 1
    np.testing.assert_array_equal(labels, bunch.target[order])


def test_the_same_every_time():
    first, second = digits.load(), digits.load()
    assert first.sha256 == second.sha256
    np.testing.assert_array_equal(first.train.images, second.train.images)
    np.testing.assert_array_equal(first.test.labels, second.test.labels)


def test_sha256_is_of_the_arrays():
    dataset = digits.load()
    content = struct.pack(">2I", 2049, 300) + dataset.test.labels.astype(np.uint8).tobytes()
    assert dataset.sha256["digits-test-labels"] == hashlib.sha256(content).hexdigest()
    pixels = np.rint(dataset.train.images * 255).astype(np.uint8).tobytes()
    content = struct.pack(">4I", 2051, 1497, 28, 28) + pixels
    assert dataset.sha256["digits-train-images"] == hashlib.sha256(content).hexdigest()
