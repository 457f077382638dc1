"""`--observe training-accuracy`: what the network as it is makes of images it has learned from."""

from __future__ import annotations

import chainer
import numpy as np

from mnist_bn.extensions.observer import Observer

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
        images, labels = (array[:IMAGES] for array in self.dataset.train)
        right = 0
        with chainer.using_config("train", False), chainer.no_backprop_mode():
            for start in range(0, len(images), BATCH):
                batch = slice(start, start + BATCH)
                x, t = self.device.send((images[batch], labels[batch]))
                right += int((network(x).array.argmax(axis=1) == t).sum())
        return {"accuracy": np.float64(right / len(images))}
