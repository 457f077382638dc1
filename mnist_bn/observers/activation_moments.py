"""`--observe activation-moments`: mean and variance of every layer's channels against depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import chainer
import numpy as np

from mnist_bn import plotting
from mnist_bn.observers.arrays import Array
from mnist_bn.observers.measured import Measured, slope
from mnist_bn.observers.minibatch import MinibatchObserver
from mnist_bn.observers.probe import Layers

PAPER_LAYERS = np.array([*range(6, 109, 12), 110])


class ActivationMoments(MinibatchObserver):
    """How large and how far apart the channels of every layer's output are, before any BN.

    Bjorck et al. 2018, figure 4. Moments of a channel are over all images and positions.
    """

    name = "activation-moments"
    title = "Activations against depth, at initialisation"
    to_see = "See whether the moments stay level or grow from layer to layer."
    arrays: ClassVar = {
        "mean": Array("float64", ("layers",)),  # of the absolute means of the layer's channels
        "std": Array("float64", ("layers",)),  # of these means without the absolute
        "variance": Array("float64", ("layers",)),  # of a channel, averaged over the channels
    }

    def observe(self, network: chainer.Chain, x, t) -> dict[str, np.ndarray]:
        with Layers(lambda _, __, y: channel_moments(y)) as layers, chainer.no_backprop_mode():
            network(x)
        return {
            "mean": np.array([np.abs(mean).mean() for mean, _ in layers.seen]),
            "std": np.array([mean.std() for mean, _ in layers.seen]),
            "variance": np.array([variance.mean() for _, variance in layers.seen]),
        }

    @classmethod
    def figure(cls, groups: Sequence[Measured], title: str, subtitle: str) -> plotting.Figure:
        """Size and spread of the channel means, and the channel variance, of every layer's output.

        A residual block adds up; its second layer's output is small beside what the next one
        receives: of ResNet-110 the line is through the layers that the paper shows, all are dotted.
        """
        titles = {
            "mean": "Channel means: their mean absolute value",
            "std": "Channel means: their standard deviation",
            "variance": "Channel variance",
        }
        geometric, dotted = plotting.panels.geometric, plotting.appearance.DASHES[2]
        shown = []
        for key, heading in titles.items():
            lines = []
            for group in groups:
                values = group.first(key)
                label = f"{group.label}: ×{10 ** slopes(values).mean():.3f} a layer"  # noqa: RUF001
                chosen = layers = np.arange(1, values.shape[1] + 1)
                if len(layers) == PAPER_LAYERS[-1]:
                    chosen = PAPER_LAYERS
                    heading = f"{titles[key]} (dotted: every layer)"
                    lines.append(geometric(layers, values, "", group.colour, dotted))
                lines.append(geometric(chosen, values[:, chosen - 1], label, group.colour))
            shown.append(plotting.panels.Panel(heading, lines, log_y=True))
        return plotting.panels.stacked(shown, title, subtitle, "Layer")


def slopes(values: np.ndarray) -> np.ndarray:
    """Returns the least-squares slope of log10 of each row against the layer, `(seeds,)`.

    Args:
        values: `(seeds, layers)`; what is not above 0 is left out.
    """
    layers = np.arange(1, values.shape[1] + 1)
    return np.array([slope(layers, row) for row in values])


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
