"""`--observe reestimated-bn`: test accuracy with BN's statistics estimated anew without dropout."""

from __future__ import annotations

import math
from copy import deepcopy

import chainer
import chainer.links as L
import numpy as np

from mnist_bn.extensions.variance_shift import BNObserver

BATCH = 100


class ReestimatedBN(BNObserver):
    """Accuracy of the network with running statistics of one pass over the training images.

    Dropout is off in that pass, as it will be in the test: what Li et al. (arXiv 1801.05134,
    section 4) do to show that the variance shift is what costs the accuracy. The network itself
    stays as it is.

    Series: "accuracy", float64 `(T,)`, on the test images.
    """

    name = "reestimated-bn"

    def measure(self, network: chainer.Chain) -> dict[str, np.ndarray]:
        copy = reestimated(network, self.dataset.train.images, self.device)
        images, labels = self.dataset.test
        right = 0
        with chainer.using_config("train", False), chainer.no_backprop_mode():
            for start in range(0, len(images), BATCH):
                batch = slice(start, start + BATCH)
                logits, t = copy(self.device.send(images[batch])), self.device.send(labels[batch])
                right += int((logits.array.argmax(axis=1) == t).sum())
        return {"accuracy": np.float64(right / len(images))}


def reestimated(
    network: chainer.Chain, images: np.ndarray, device: chainer.backend.Device
) -> chainer.Chain:
    """Returns a copy of the network with running statistics estimated from the images.

    They are the averages of the batches' means and unbiased variances (Ioffe & Szegedy 2015,
    algorithm 2), with BN normalizing by the batch, as in training, and all else in test mode.

    Args:
        images: float32 `(N, ...)`; a batch is BATCH of them, or some less.
        device: where the network is.
    """
    copy = deepcopy(network)  # not Chain.copy: it parts links from lists that the network keeps
    links = [link for link in copy.links() if isinstance(link, L.BatchNormalization)]
    seen = 0
    with chainer.using_config("train", False), chainer.no_backprop_mode(), _BNByBatch():
        for batch in np.array_split(images, math.ceil(len(images) / BATCH)):
            for link in links:
                link.decay = seen / (seen + len(batch))
            copy(device.send(batch))
            seen += len(batch)
    return copy


class _BNByBatch(chainer.LinkHook):
    """Puts BN layers, and nothing else, in train mode; under any link hook no block is fused."""

    name = "BN by batch"

    def forward_preprocess(self, args) -> None:
        if isinstance(args.link, L.BatchNormalization):
            chainer.config.train = True

    def forward_postprocess(self, args) -> None:
        if isinstance(args.link, L.BatchNormalization):
            chainer.config.train = False
