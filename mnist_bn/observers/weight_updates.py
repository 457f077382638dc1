"""`--observe weight-updates`: pictures of dW, what an epoch changes in the weights of each unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import chainer
import chainer.links as L
import numpy as np
from chainer.backends import cuda
from chainer.training import Trainer

from mnist_bn import plotting
from mnist_bn.errors import UsageError, UserError
from mnist_bn.observers.arrays import Array
from mnist_bn.observers.base import Observer, serialize_arrays
from mnist_bn.observers.measured import Head, Measured

IMAGE = (28, 28)


def layers(network: chainer.Chain) -> dict[str, chainer.Parameter]:
    """Returns the weights of each linear and convolutional layer, `(units, ...)`, by its path."""
    return {
        path.lstrip("/"): link.W
        for path, link in network.namedlinks()
        if isinstance(link, (L.Linear, L.Convolution2D))
    }


class UpdateObserver(Observer):
    """An observer of dW: a layer's weights now less those at the last measurement.

    At one evaluation an epoch, the default, that is what the epoch has changed.
    """

    def __init__(self, dataset, device) -> None:
        super().__init__(dataset, device)
        self._before: dict[str, np.ndarray] = {}

    def initialize(self, trainer: Trainer) -> None:
        """Keeps the initial weights, if none came with a snapshot.

        Raises:
            UserError: the snapshot's are of other shapes.
        """
        super().initialize(trainer)
        network = trainer.updater.get_optimizer("main").target.predictor
        if not self._before:
            self._keep(network)
        shapes = {name: weights.shape for name, weights in layers(network).items()}
        if {name: np.shape(weights) for name, weights in self._before.items()} != shapes:
            raise UserError(f"--observe {self.name}: the snapshot has weights of other layers")

    def check(self, network: chainer.Chain) -> None:
        """Checks that each layer has its weights, and not only from the first batch on."""
        for name, weights in layers(network).items():
            if weights.array is None:
                raise UsageError(
                    f"--observe {self.name}: expected layers of known input size, as L.Linear(784, "
                    f"10); {name} of {type(network).__name__} gets its own with the first batch"
                )

    def updates(self, network: chainer.Chain) -> dict[str, np.ndarray]:
        """Returns dW of each layer, `(units, ...)`, since this was last called."""
        before = self._before
        self._keep(network)
        return {name: after - before[name] for name, after in self._before.items()}

    def _keep(self, network: chainer.Chain) -> None:
        self._before = {
            name: cuda.to_cpu(weights.array).copy() for name, weights in layers(network).items()
        }

    def serialize(self, serializer: chainer.Serializer | chainer.Deserializer) -> None:
        """Saves or loads the last weights, too."""
        super().serialize(serializer)
        self._before = serialize_arrays(serializer["before"], self._before)


class WeightUpdates(UpdateObserver):
    """Pictures of the dW of every unit that looks at the image itself.

    In the scaling of the dying-ReLU study: black is the unit's least change and white its largest,
    (dW - min) / (max - min + 1e-4) * 255.
    """

    name = "weight-updates"
    # Of a layer by its path, such as "l1": units, height, width.
    arrays: ClassVar = {"*": Array("uint8", (None, None, None))}

    def check(self, network: chainer.Chain) -> None:
        """Checks that there is such a unit."""
        super().check(network)
        if all(_tile(weights) is None for weights in layers(network).values()):
            raise UsageError(
                f"--observe {self.name}: expected a layer that looks at the image itself (linear "
                "with 784 inputs, or convolution with 1 channel); "
                f"{type(network).__name__} has none"
            )

    def measure(self, network: chainer.Chain) -> dict[str, np.ndarray]:
        return {
            name: _scaled(update.reshape(len(update), *tile))
            for name, update in self.updates(network).items()
            if (tile := _tile(update)) is not None
        }

    @classmethod
    def figures(cls, groups: Sequence[Measured], head: Head) -> plotting.Figures:
        """A film of all runs side by side."""
        filmed = {
            run.name: series
            for group in groups
            for run, series in zip(group.runs, group.seeds, strict=True)
        }
        yield cls.name, plotting.film.Film(filmed, groups[0].unit)


def _tile(weights: np.ndarray) -> tuple[int, int] | None:
    """Returns height and width of a unit's weights as a picture, None if they are none."""
    if weights.ndim == 4 and weights.shape[1] == 1:
        return weights.shape[2:]
    return IMAGE if weights.shape[1:] == (IMAGE[0] * IMAGE[1],) else None


def _scaled(update: np.ndarray) -> np.ndarray:
    """Returns `(units, height, width)` as uint8, each unit by its own least and largest value."""
    least = update.min(axis=(1, 2), keepdims=True)
    largest = update.max(axis=(1, 2), keepdims=True)
    grey = (update - least) / (largest - least + 1e-4) * 255
    # Not a number, after divergence, is black.
    return np.nan_to_num(grey, nan=0, posinf=0, neginf=0).clip(0, 255).astype(np.uint8)
