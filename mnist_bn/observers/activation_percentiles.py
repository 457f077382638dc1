"""`--observe activation-percentiles`: the distribution of what each nonlinearity receives."""

from __future__ import annotations

from copy import deepcopy
from typing import ClassVar

import chainer
import numpy as np
from chainer.backends import cuda

from mnist_bn import plotting
from mnist_bn.errors import UsageError
from mnist_bn.observers.arrays import Array
from mnist_bn.observers.base import Observer, fixed_random_state
from mnist_bn.observers.measured import Measured
from mnist_bn.observers.probe import NONLINEARITIES, nonlinearity_inputs

PERCENTILES = (15, 50, 85)  # Ioffe & Szegedy 2015, figure 1 b and c
IMAGES = 500


class ActivationPercentiles(Observer):
    """Percentiles of the input of every nonlinearity, unit by unit, in test mode.

    They are over the first IMAGES test images and, after a convolution, over all positions.
    """

    name = "activation-percentiles"
    title = "Percentiles of activations"
    to_see = (
        f"Over {IMAGES} test images. See whether the median (50th) and the spread (15th to 85th, "
        "dashed) move while the network trains."
    )
    arrays: ClassVar = {"*": Array("float32", (3, None))}  # units of "sigmoid1" and so on

    def check(self, network: chainer.Chain) -> None:
        """Checks that there is a nonlinearity."""
        # A copy: layers without an input size get their weights with the first images.
        copy = deepcopy(network)
        with fixed_random_state(self.device):
            found = nonlinearity_inputs(copy, self.dataset.test.part(slice(1)).images, self.device)
        if not found:
            raise UsageError(
                f"--observe {self.name}: expected a network with one of the nonlinearities "
                f"{', '.join(NONLINEARITIES)}; {type(network).__name__} uses none"
            )

    def measure(self, network: chainer.Chain) -> dict[str, np.ndarray]:
        images = self.dataset.test.part(slice(IMAGES)).images
        inputs = nonlinearity_inputs(network, images, self.device)
        return {name: _percentiles(cuda.to_cpu(x)) for name, x in inputs.items()}

    @classmethod
    def panels(cls, group: Measured) -> list[plotting.panels.Panel]:
        """The percentiles of what the first unit of a nonlinearity receives, a panel each."""
        shown = []
        for name in group.names:
            x, values = group.over_time(name)  # (seeds, T, 3, units)
            shown.append(percentile_panel(f"Input of {name}, its first unit", x, values[..., 0]))
        return shown


def percentile_panel(
    title: str,
    x: np.ndarray,
    percentiles: np.ndarray,
    colour: str | None = None,
    limits: tuple[float, float] | None = None,
) -> plotting.panels.Panel:
    """Returns a panel of three percentiles, `(seeds, T, 3)`, against x, `(T,)`."""
    colour, dashed = colour or plotting.appearance.BLUE, plotting.appearance.DASHES[1]
    lines = [
        plotting.panels.of_seeds(x, percentiles[:, :, i], f"{PERCENTILES[i]}th", colour, dashes)
        for i, dashes in enumerate((dashed, "-", dashed))
    ]
    return plotting.panels.Panel(title, lines, limits)


def _percentiles(x: np.ndarray) -> np.ndarray:
    """Returns `(3, channels)` for `(N, channels, ...)`."""
    axes = tuple(axis for axis in range(x.ndim) if axis != 1)
    return np.percentile(x, PERCENTILES, axis=axes).astype(np.float32)
