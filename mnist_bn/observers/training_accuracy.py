"""`--observe training-accuracy`: what the network as it is makes of images it has learned from."""

from __future__ import annotations

import chainer
import numpy as np

from mnist_bn import data
from mnist_bn.observers.accuracy import accuracy
from mnist_bn.observers.base import Observer

IMAGES = 1000  # as CS231n's Solver
BATCH = 500


class TrainingAccuracy(Observer):
    """Accuracy on the first IMAGES training images, in test mode.

    The log's own is another: it is of minibatches in training mode, averaged since the last
    evaluation while the network changes.

    Series: "accuracy", float64 `(T,)`.
    """

    name = "training-accuracy"

    def measure(self, network: chainer.Chain) -> dict[str, np.ndarray]:
        first = data.Split(*(array[:IMAGES] for array in self.dataset.train))
        return {"accuracy": accuracy(network, first, self.device, BATCH)}
