"""`--observe dead-units`: which units do not learn any more, and which are never active."""

from __future__ import annotations

import chainer
import numpy as np
from chainer.backends import cuda

from mnist_bn.observers.probe import nonlinearity_inputs
from mnist_bn.observers.weight_updates import UpdateObserver, layers

BATCH = 500


class DeadUnits(UpdateObserver):
    """What says of a unit that it is dead, measured three ways.

    Series, bool `(T, units)`, of which a unit is a row of a weight matrix or a convolution's output
    channel:

    - "flat_update/l1": dW is flat (its largest value is its least) over all of the unit's inputs;
      the dying-ReLU study calls a unit dead whose dW is flat in two epochs or more;
    - "flat_gradient/l1": the same of the gradient in the last minibatch alone;
    - "never_positive/relu1": the input of the nonlinearity is above 0 for no training image (and
      at no position), in test mode.

    Weight decay adds a share of each weight to its gradient: with it only the last finds any.
    """

    name = "dead-units"

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
        images = self.dataset.train.images
        never: dict[str, chainer.types.NdArray] = {}
        for start in range(0, len(images), BATCH):
            batch = images[start : start + BATCH]
            for name, x in nonlinearity_inputs(network, batch, self.device).items():
                axes = tuple(axis for axis in range(x.ndim) if axis != 1)
                quiet = x.max(axis=axes) <= 0
                never[name] = never[name] & quiet if name in never else quiet
        return {name: cuda.to_cpu(quiet) for name, quiet in never.items()}


def _is_flat(rows: np.ndarray) -> np.ndarray:
    """Returns bool `(units,)` for `(units, ...)`; a unit with values that are no numbers is not."""
    rows = rows.reshape(len(rows), -1)
    return rows.max(axis=1) == rows.min(axis=1)
