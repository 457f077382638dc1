"""`--observe gradient-norms`: how large the gradient of each parameter is."""

from __future__ import annotations

import math

import chainer
import numpy as np

from mnist_bn.observers.base import Observer


class GradientNorms(Observer):
    """Euclidean norm of each parameter's gradient in the last minibatch.

    Series: the parameter's path, such as "l1/W", float64 `(T,)`; NaN where it has no gradient.
    """

    name = "gradient-norms"

    def measure(self, network: chainer.Chain) -> dict[str, np.ndarray]:
        return {
            path.lstrip("/"): np.float64(_norm(parameter.grad))
            for path, parameter in sorted(network.namedparams())
        }


def _norm(gradient: chainer.types.NdArray | None) -> float:
    # In float64: the square of a gradient that is still finite may not be in float32.
    return math.nan if gradient is None else float((gradient.astype(np.float64) ** 2).sum()) ** 0.5
