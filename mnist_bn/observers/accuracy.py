"""The accuracy of a network as it is, for the observers that measure it."""

from __future__ import annotations

import chainer
import numpy as np

from mnist_bn.data.dataset import Split


def accuracy(
    network: chainer.Chain, split: Split, device: chainer.backend.Device, batch: int
) -> np.float64:
    """Returns which part of the images the network gets right, in test mode.

    Args:
        split: images and labels, of which `batch` at a time are sent to the device.
        device: where the network is.
    """
    right = 0
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        for start in range(0, len(split.labels), batch):
            x, t = map(device.send, split.part(slice(start, start + batch)))
            right += int((network(x).array.argmax(axis=1) == t).sum())
    return np.float64(right / len(split.labels))
