"""Augmentation of training images at random, where the batch lives."""

from __future__ import annotations

import chainer
import numpy as np

from mnist_bn.iterators import send_batch

PADDING = 4  # of each side


def crop_flip(images: chainer.types.NdArray) -> chainer.types.NdArray:
    """Pads each image by 4 zeros a side, crops it to its size again and flips every other one.

    The standard augmentation of CIFAR-10 (He et al. 2016, section 4.2). All offsets are drawn from
    NumPy's global random state, also for a GPU, so that a snapshot holds what they depend on.

    Args:
        images: (N, C, H, W), of NumPy or CuPy.

    Returns:
        A new array of the same shape and type, of copied values alone.
    """
    xp = chainer.backend.get_array_module(images)
    count, channels, height, width = images.shape
    top, left = np.random.randint(0, 2 * PADDING + 1, (2, count, 1))
    is_flipped = np.random.randint(0, 2, (count, 1)).astype(bool)
    columns = np.arange(width)
    rows = top + np.arange(height)  # (N, H)
    columns = left + np.where(is_flipped, columns[::-1], columns)  # (N, W)

    padded_width = width + 2 * PADDING
    places = rows[:, :, None] * padded_width + columns[:, None, :]  # (N, H, W)
    sides = (PADDING, PADDING)
    padded = xp.pad(images, ((0, 0), (0, 0), sides, sides)).reshape(count, channels, -1)
    places = xp.asarray(places.reshape(count, 1, height * width))
    return xp.take_along_axis(padded, places, axis=2).reshape(images.shape)


@chainer.dataset.converter()
def send_crop_flipped(
    batch: tuple[chainer.types.NdArray, ...], device: chainer.backend.Device | None
) -> tuple[chainer.types.NdArray, ...]:
    """Sends a batch of images and labels to `device`, and augments the images there."""
    images, labels = send_batch(batch, device)
    return crop_flip(images), labels


# By name, what brings a training batch to its device.
CONVERTERS = {"none": send_batch, "crop-flip": send_crop_flipped}
