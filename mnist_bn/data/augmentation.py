"""Augmentation of training images at random, where the batch lives."""

from __future__ import annotations

import chainer
import numpy as np

from mnist_bn.data.iterators import send_batch
from mnist_bn.devices import NdArray

PADDING = 4  # of each side


def crop_flip(images: NdArray) -> NdArray:
    """Pads each image by 4 zeros a side, crops it to its size again, and flips one in two.

    The standard augmentation of CIFAR-10 (He et al. 2016, section 4.2), of images that are not yet
    normalized: what is padded is black. All is drawn from NumPy's global random state, also for
    a GPU, so that a snapshot holds what it depends on.

    Args:
        images: (N, C, H, W), of NumPy or CuPy.

    Returns:
        A new array of the same shape and type, of copied values alone.
    """
    xp = chainer.backend.get_array_module(images)
    count, channels, height, width = images.shape
    offsets = np.random.randint(0, 2 * PADDING + 1, (2, count))
    flipped = xp.asarray(np.flatnonzero(np.random.randint(0, 2, count)))

    side = (PADDING, PADDING)
    padded = xp.pad(images, ((0, 0), (0, 0), side, side))
    of_image, of_channel, of_row, of_column = padded.strides
    crops = xp.lib.stride_tricks.as_strided(
        padded,
        (count, 2 * PADDING + 1, 2 * PADDING + 1, channels, height, width),
        (of_image, of_row, of_column, of_channel, of_row, of_column),
    )
    top, left = xp.asarray(offsets)
    augmented = crops[xp.arange(count), top, left]  # (N, C, H, W)
    augmented[flipped] = augmented[flipped][..., ::-1]
    return augmented


@chainer.dataset.converter()
def send_crop_flipped(
    batch: tuple[NdArray, ...], device: chainer.backend.Device | None
) -> tuple[NdArray, ...]:
    """Sends a batch of images and labels to `device`, and augments the images there."""
    images, labels = send_batch(batch, device)
    return crop_flip(images), labels


# By name, what brings a training batch to its device.
CONVERTERS = {"none": send_batch, "crop-flip": send_crop_flipped}
