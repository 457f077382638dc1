"""Images as float32 in [0, 1] and as the bytes that they come from."""

import numpy as np
import pytest

from mnist_bn.data import Split


@pytest.mark.parametrize("shape", [(784,), (3, 32, 32)])
def test_bytes_come_back_as_they_were(shape):
    images = np.resize(np.arange(256, dtype=np.uint8), (2, *shape))
    split = Split.from_bytes(images, np.zeros(2))
    assert split.images.shape == (2, *shape)
    as_bytes = split.to_bytes()
    assert as_bytes.dtype == np.uint8
    assert np.array_equal(as_bytes, images)


@pytest.mark.parametrize(
    "value",
    [0.5, -0.0, -1 / 255, 256 / 255, np.nan, np.inf, np.nextafter(np.float32(1), np.float32(0))],
)
def test_other_numbers_are_no_bytes(value):
    images = np.zeros((2, 784), np.float32)
    images[1, 5] = value
    assert Split(images, np.zeros(2, np.int32)).to_bytes() is None


def test_images_of_another_type_are_no_bytes():
    assert Split(np.zeros((2, 784)), np.zeros(2, np.int32)).to_bytes() is None
