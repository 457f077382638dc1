"""`--observe reestimated-bn`: test accuracy with BN's statistics re-estimated without dropout."""

from __future__ import annotations

import math
from collections import Counter
from copy import deepcopy
from typing import ClassVar

import chainer
import chainer.links as L
import numpy as np

from mnist_bn import plotting
from mnist_bn.data import Split
from mnist_bn.observers.accuracy import accuracy
from mnist_bn.observers.arrays import ACCURACY, Values
from mnist_bn.observers.measured import Measured
from mnist_bn.observers.variance_shift import BNObserver, test_mode

BATCH = 100


class ReestimatedBN(BNObserver):
    """Accuracy of the network with running statistics of one pass over the training images.

    Dropout is off in that pass, as it will be in the test, so that it shifts no variance. Hendrycks
    & Gimpel (arXiv 1607.02488) do so with the variances. The network itself stays as it is.
    """

    name = "reestimated-bn"
    title = "BN's statistics re-estimated, without dropout"
    to_see = "See how much accuracy BN's statistics of training cost, those with dropout on."
    arrays: ClassVar = {"accuracy": ACCURACY}  # on the test images

    def measure(self, network: chainer.Chain) -> Values:
        copy = reestimated(network, self.dataset.train, self.device)
        return {"accuracy": accuracy(copy, self.dataset.test, self.device, BATCH)}

    @classmethod
    def panels(cls, group: Measured) -> list[plotting.panels.Panel]:
        """Test accuracy as the run was evaluated, and with BN's statistics re-estimated."""
        mode, of_seeds = test_mode(group.runs), plotting.panels.of_seeds
        label = "train mode" if mode else "statistics of training"
        kept = group.logged(plotting.results.VALIDATION_ACCURACY)
        lines = [
            of_seeds(*kept, label, plotting.appearance.BLACK),
            of_seeds(*group.over_time("accuracy"), f"re-estimated{mode}", plotting.appearance.BLUE),
        ]
        return [plotting.panels.Panel("Test accuracy", lines)]


def reestimated(
    network: chainer.Chain, split: Split, device: chainer.backend.Device
) -> chainer.Chain:
    """Returns a copy of the network with running statistics estimated from the images.

    They are the averages of the batches' means and unbiased variances (Ioffe & Szegedy 2015,
    algorithm 2), with BN normalizing by the batch, as in training, and all else in test mode; of a
    layer that is used several times, over all its uses.

    Args:
        split: the images; a batch is BATCH of them, or some less.
        device: where the network is.
    """
    copy = deepcopy(network)  # not Chain.copy: it parts links from lists that the network keeps
    with chainer.using_config("train", False), chainer.no_backprop_mode(), _BNByBatch():
        count = len(split.labels)
        for batch in np.array_split(np.arange(count), math.ceil(count / BATCH)):
            copy(device.send(split.part(batch).images))
    return copy


class _BNByBatch(chainer.LinkHook):
    """Puts BN layers, and nothing else, in train mode, their statistics averages from here on.

    Under any link hook no block is fused.
    """

    name = "BN by batch"

    def __init__(self) -> None:
        self._seen: Counter[int] = Counter()  # images, by the link's id

    def forward_preprocess(self, args) -> None:
        link = args.link
        if isinstance(link, L.BatchNormalization):
            images = len(args.args[0] if args.args else args.kwargs["x"])
            before = self._seen[id(link)]
            link.decay = before / (before + images)
            if not before and link.avg_var is not None:
                # What is not finite would stay so when multiplied by a decay of 0.
                link.avg_mean[...] = link.avg_var[...] = 0
            self._seen[id(link)] += images
            self._train, chainer.config.train = chainer.config.train, True

    def forward_postprocess(self, args) -> None:
        if isinstance(args.link, L.BatchNormalization):
            chainer.config.train = self._train
