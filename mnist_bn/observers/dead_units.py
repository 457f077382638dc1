"""`--observe dead-units`: which units do not learn any more, and which are never active."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import chainer
import numpy as np
from chainer.backends import cuda

from mnist_bn import plotting
from mnist_bn.devices import NdArray
from mnist_bn.observers.arrays import Array
from mnist_bn.observers.measured import Measured
from mnist_bn.observers.probe import nonlinearity_inputs
from mnist_bn.observers.weight_updates import UpdateObserver, layers

BATCH = 500


class DeadUnits(UpdateObserver):
    """What says of a unit that it is dead, measured three ways.

    A unit is a row of a weight matrix or a convolution's output channel.

    - "flat_update/l1": dW is flat (its largest value is its least) over all of the unit's inputs;
      the dying-ReLU study calls a unit dead whose dW is flat in two epochs or more;
    - "flat_gradient/l1": the same of the gradient in the last minibatch alone;
    - "never_positive/relu1": the input of the nonlinearity is above 0 for no training image (and
      at no position), in test mode.

    Weight decay adds a share of each weight to its gradient: with it only the last finds any.
    """

    name = "dead-units"
    title = "Dead units"
    to_see = "See how many units each sign finds, and since when."
    arrays: ClassVar = {"*": Array("bool", (None,))}  # each unit of a layer

    def measure(self, network: chainer.Chain) -> dict[str, np.ndarray]:
        series = {
            f"flat_update/{name}": _is_flat(update)
            for name, update in self.updates(network).items()
        }
        for name, weights in layers(network).items():
            # A layer that is not in use has no gradient.
            gradient = np.zeros(weights.shape) if weights.grad is None else weights.grad
            series[f"flat_gradient/{name}"] = _is_flat(cuda.to_cpu(gradient))
        for name, never in self._never_positive(network).items():
            series[f"never_positive/{name}"] = never
        return series

    def _never_positive(self, network: chainer.Chain) -> dict[str, np.ndarray]:
        train = self.dataset.train
        never: dict[str, NdArray] = {}
        for start in range(0, len(train.labels), BATCH):
            batch = train.part(slice(start, start + BATCH)).images
            for name, x in nonlinearity_inputs(network, batch, self.device).items():
                axes = tuple(axis for axis in range(x.ndim) if axis != 1)
                quiet = x.max(axis=axes) <= 0
                never[name] = never[name] & quiet if name in never else quiet
        return {name: cuda.to_cpu(quiet) for name, quiet in never.items()}

    @classmethod
    def panels(cls, group: Measured) -> list[plotting.panels.Panel]:
        """The count of dead units by each definition, a panel each."""
        titles = {
            "flat_update": f"Units whose dW is flat {twice(group.unit)}",
            "flat_gradient": "Units whose last gradient is flat",
            "never_positive": "Units that no training image makes positive",
        }
        shown = []
        for kind, title in titles.items():
            lines: list[plotting.panels.Series] = []
            top = 5
            for key in (name for name in group.names if name.startswith(f"{kind}/")):
                x, counts = group.over_time(key, partial(count, kind))
                label = f"{key.partition('/')[2]}  {counts[:, -1].mean():g}"
                look = plotting.appearance.line_look(len(lines))
                lines.append(plotting.panels.of_seeds(x, counts, label, *look))
                top = max(top, counts.max())
            limits = (-0.04 * top, 1.1 * top)
            shown.append(plotting.panels.Panel(title, lines, limits, integer=True))
        return shown


def count(kind: str, units: np.ndarray) -> np.ndarray:
    """Returns how many units are dead, `(T,)`.

    Args:
        kind: by which definition, such as "flat_update".
        units: what was measured of them, bool `(T, units)`.
    """
    return (dead(units) if kind == "flat_update" else units).sum(axis=1)


def dead(flat: np.ndarray) -> np.ndarray:
    """Returns which units are dead, bool `(T, units)`: flat now and at the measurement before.

    With a measurement an epoch that is the dying-ReLU study's definition: dW is flat for two epochs
    or more.
    """
    before = np.zeros_like(flat)
    before[1:] = flat[:-1]
    return flat & before


def twice(unit: str) -> str:
    """Returns in words for how long dW was flat of a unit that `dead` finds."""
    return "in two epochs or more" if unit == "epoch" else "at two evaluations running or more"


def _is_flat(rows: np.ndarray) -> np.ndarray:
    """Returns bool `(units,)` for `(units, ...)`; a unit with values that are no numbers is not."""
    rows = rows.reshape(len(rows), -1)
    return rows.max(axis=1) == rows.min(axis=1)
