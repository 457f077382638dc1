"""`--observe training-accuracy`: what the network as it is makes of images it has learned from."""

from __future__ import annotations

from typing import ClassVar

import chainer

from mnist_bn import plotting
from mnist_bn.observers.accuracy import accuracy
from mnist_bn.observers.arrays import ACCURACY, Values
from mnist_bn.observers.base import Observer
from mnist_bn.observers.measured import Measured

IMAGES = 1000  # as CS231n's Solver
BATCH = 500


class TrainingAccuracy(Observer):
    """Accuracy on the first IMAGES training images, in test mode.

    The log's own is another: it is of minibatches in training mode, averaged since the last
    evaluation while the network changes.
    """

    name = "training-accuracy"
    title = "Training accuracy"
    to_see = "Unlike the log's training accuracy, measured without dropout, and after the {unit}."
    arrays: ClassVar = {"accuracy": ACCURACY}

    def measure(self, network: chainer.Chain) -> Values:
        first = self.dataset.train.part(slice(IMAGES))
        return {"accuracy": accuracy(network, first, self.device, BATCH)}

    @classmethod
    def panels(cls, group: Measured) -> list[plotting.panels.Panel]:
        """Accuracy on training images in test mode, from 0 to 1."""
        x, values = group.over_time("accuracy")
        label = f"accuracy  {values[:, -1].mean():.4f}"
        line = plotting.panels.of_seeds(x, values, label, *plotting.appearance.line_look(0))
        return [plotting.panels.Panel("Training images, in test mode", [line], (0, 1))]
