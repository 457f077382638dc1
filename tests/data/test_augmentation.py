"""Random crops and flips: what they may be, how often, and the same bits on every way to them."""

import chainer
import numpy as np
import pytest

from mnist_bn.data import Split
from mnist_bn.data.augmentation import crop_flip, send_crop_flipped
from mnist_bn.data.iterators import ArrayIterator, DeviceIterator

CPU = chainer.get_device("@numpy")


def every_version(image):
    """All that the augmentation may make of an image (C, H, W), by offsets and flip."""
    padded = np.zeros((image.shape[0], image.shape[1] + 8, image.shape[2] + 8), image.dtype)
    padded[:, 4:-4, 4:-4] = image
    versions = {}
    for top in range(9):
        for left in range(9):
            crop = padded[:, top : top + image.shape[1], left : left + image.shape[2]]
            versions[crop.tobytes()] = (top, left, False)
            versions[crop[:, :, ::-1].tobytes()] = (top, left, True)
    return versions


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 5, 9)])
@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_each_image_is_one_of_the_162_versions_of_it(shape, dtype):
    images = np.random.RandomState(0).randint(1, 256, (8, *shape)).astype(dtype)
    before = images.copy()
    np.random.seed(0)
    augmented = crop_flip(images)
    assert (augmented.shape, augmented.dtype) == (images.shape, dtype)
    for image, result in zip(images, augmented, strict=True):
        versions = every_version(image)
        assert len(versions) == 162
        assert result.tobytes() in versions
    assert np.array_equal(images, before)


def test_offsets_and_flips_are_uniform_and_of_each_image_alone():
    image = np.random.RandomState(0).rand(1, 5, 5).astype(np.float32)
    versions = every_version(image)
    assert len(versions) == 162
    np.random.seed(0)
    drawn = [versions[one.tobytes()] for one in crop_flip(np.stack([image] * 20_000))]
    tops, lefts, flips = np.array(drawn, int).T
    for offsets in (tops, lefts):
        # 20,000 / 9 each, standard deviation 44.
        assert np.abs(np.bincount(offsets, minlength=9) - 20_000 / 9).max() < 5 * 44.4
    assert abs(flips.mean() - 0.5) < 5 * 0.5 / np.sqrt(20_000)
    for a, b in ((tops, lefts), (tops, flips), (lefts, flips), (tops[1:], tops[:-1])):
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(20_000)


def test_numpys_global_random_state_decides():
    images = np.random.RandomState(0).rand(6, 3, 8, 8).astype(np.float32)
    np.random.seed(3)
    state = np.random.get_state()
    first, second = crop_flip(images), crop_flip(images)
    np.random.set_state(state)
    assert crop_flip(images).tobytes() == first.tobytes() != second.tobytes()


def test_batches_of_both_iterators_are_the_same_bits():
    rng = np.random.RandomState(0)
    split = Split.from_bytes(rng.randint(0, 256, (20, 3, 8, 8), np.uint8), rng.randint(0, 10, 20))
    seen = []
    for make in (
        lambda: ArrayIterator(split, 6),
        lambda: DeviceIterator(split, 6, chainer.get_device("@numpy")),
    ):
        np.random.seed(0)
        iterator = make()
        batches = [send_crop_flipped(next(iterator), CPU) for _ in range(10)]  # 3 epochs
        seen.append([(images.tobytes(), labels.tobytes()) for images, labels in batches])
    assert seen[0] == seen[1]
