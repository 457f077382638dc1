"""`--observe gradient-histogram`: the distribution of each layer's weight gradients."""

from __future__ import annotations

import chainer
import numpy as np
from chainer.backends import cuda

from mnist_bn.observers.minibatch import MinibatchObserver, backpropagate, layer_at
from mnist_bn.observers.probe import Layers

LAYER = 55  # of 110: Bjorck et al. 2018, figure 2
BINS = 101


class GradientHistogram(MinibatchObserver):
    """Histogram of the weight gradients of the middle layer, and of every layer a summary.

    Series: "std", "kurtosis" (3 of a normal distribution), "minimum" and "maximum", float64
    `(T, layers)`; "layer", int64 `(T,)`, which the histogram is of; "counts", int64 `(T, BINS)`, in
    bins of one width from -"limit" to "limit", float64 `(T,)`.
    """

    name = "gradient-histogram"

    def observe(self, network: chainer.Chain, x, t) -> dict[str, np.ndarray]:
        with Layers(lambda link, *_: link.W) as layers:
            backpropagate(network, x, t)
        gradients = [cuda.to_cpu(weights.grad).astype(np.float64) for weights in layers.seen]
        layer = layer_at(LAYER, len(gradients))
        chosen = gradients[layer - 1].ravel()
        limit = np.abs(chosen).max()
        return {
            "std": np.array([gradient.std() for gradient in gradients]),
            "kurtosis": np.array([kurtosis(gradient) for gradient in gradients]),
            "minimum": np.array([gradient.min() for gradient in gradients]),
            "maximum": np.array([gradient.max() for gradient in gradients]),
            "layer": np.int64(layer),
            "counts": _counts(chosen, limit),
            "limit": limit,
        }


def kurtosis(values: np.ndarray) -> float:
    """Returns the fourth central moment over the square of the second; NaN where all are equal."""
    centred = values - values.mean()
    return float((centred**4).mean() / np.square((centred**2).mean()))


def _counts(values: np.ndarray, limit: float) -> np.ndarray:
    if not 0 < limit < np.inf:  # gradients that are all zero, or lost
        return np.zeros(BINS, np.int64)
    return np.histogram(values, BINS, (-limit, limit))[0]
