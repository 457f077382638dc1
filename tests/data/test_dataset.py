"""Images as float32 in [0, 1] and as the bytes that they come from."""

import numpy as np
import pytest

from mnist_bn.data import Split


@pytest.mark.parametrize("shape", [(784,), (3, 32, 32)])
def test_bytes_come_back_as_they_were(shape):
    images = np.resize(np.arange(256, dtype=np.uint8), (2, *shape))
    split = Split.from_bytes(images, np.zeros(2))
    assert split.shape == split.images.shape == (2, *shape)
    assert np.array_equal(split.pixels, images)
    assert np.array_equal(np.rint(split.images * 255), images)
    part = split.part(np.array([1]))
    assert part.pixels.dtype == np.uint8
    assert part.images.tobytes() == split.images[1:].tobytes()


def test_images_of_another_type_are_kept_as_they_are():
    images = np.random.RandomState(0).rand(2, 784).astype(np.float32)
    assert Split(images, np.zeros(2, np.int32)).images is images
