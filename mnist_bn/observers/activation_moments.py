"""`--observe activation-moments`: mean and variance of every layer's channels against depth."""

from __future__ import annotations

import chainer
import numpy as np

from mnist_bn.observers.minibatch import MinibatchObserver
from mnist_bn.observers.probe import Layers


class ActivationMoments(MinibatchObserver):
    """How large and how far apart the channels of every layer's output are, before any BN.

    Bjorck et al. 2018, figure 4. Series, float64 `(T, layers)`: "mean", of the absolute means of a
    layer's channels over all images and positions; "std", of these means without the absolute,
    over the channels; "variance", of a channel, averaged over the channels.
    """

    name = "activation-moments"

    def observe(self, network: chainer.Chain, x, t) -> dict[str, np.ndarray]:
        with Layers(lambda _, __, y: channel_moments(y)) as layers, chainer.no_backprop_mode():
            network(x)
        return {
            "mean": np.array([np.abs(mean).mean() for mean, _ in layers.seen]),
            "std": np.array([mean.std() for mean, _ in layers.seen]),
            "variance": np.array([variance.mean() for _, variance in layers.seen]),
        }


def channel_moments(y: chainer.Variable) -> tuple[np.ndarray, np.ndarray]:
    """Returns each channel's mean and variance over images and positions, float64 `(C,)`.

    Args:
        y: float32 `(N, C, ...)`.
    """
    axes = tuple(axis for axis in range(y.ndim) if axis != 1)
    mean = y.array.mean(axis=axes, dtype=np.float64)
    centred = y.array - mean.astype(y.dtype).reshape(1, -1, *[1] * (y.ndim - 2))
    # In float64: the square of what is finite in float32 may not be.
    variance = (centred.astype(np.float64) ** 2).mean(axis=axes)
    return chainer.backends.cuda.to_cpu(mean), chainer.backends.cuda.to_cpu(variance)
