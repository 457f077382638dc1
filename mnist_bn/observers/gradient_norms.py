"""`--observe gradient-norms`: how large the gradient of each parameter is."""

from __future__ import annotations

import math
from typing import ClassVar

import chainer
import numpy as np

from mnist_bn import plotting
from mnist_bn.devices import NdArray
from mnist_bn.observers.arrays import Array, Values
from mnist_bn.observers.base import Observer
from mnist_bn.observers.measured import Measured

MAX_LINES = 14  # in a panel


class GradientNorms(Observer):
    """Euclidean norm of each parameter's gradient in the last minibatch, NaN if it has none."""

    name = "gradient-norms"
    title = "Norms of gradients"
    to_see = "Of the last minibatch. See whether gradients vanish or explode in some of the layers."
    arrays: ClassVar = {"*": Array("float64")}  # the parameter's path, such as "l1/W"

    def measure(self, network: chainer.Chain) -> Values:
        return {
            path.lstrip("/"): np.float64(_norm(parameter.grad))
            for path, parameter in sorted(network.namedparams())
        }

    @classmethod
    def panels(cls, group: Measured) -> list[plotting.panels.Panel]:
        """The norm of each parameter's gradient, weights above and all others below."""
        kinds: dict[str, list[str]] = {"weights": [], "all other parameters": []}
        for name in group.names:
            kinds["weights" if name.endswith("/W") else "all other parameters"].append(name)
        shown = []
        for kind, names in kinds.items():
            lines = []
            for i, name in enumerate(names[:MAX_LINES]):
                x, norms = group.over_time(name)
                # A logarithmic axis cannot show it.
                label = name + " (always 0)" * (not norms.any())
                look = plotting.appearance.line_look(i)
                lines.append(plotting.panels.of_seeds(x, norms, label, *look))
            few = f", the first {MAX_LINES} of {len(names)}" * (len(names) > MAX_LINES)
            heading = f"Norm of the gradient: {kind}{few}"
            shown += [plotting.panels.Panel(heading, lines, log_y=True)] * bool(lines)
        return shown


def _norm(gradient: NdArray | None) -> float:
    # In float64: the square of a gradient that is still finite may not be in float32.
    return math.nan if gradient is None else float((gradient.astype(np.float64) ** 2).sum()) ** 0.5
