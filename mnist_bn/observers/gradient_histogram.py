"""`--observe gradient-histogram`: the distribution of each layer's weight gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import chainer
import numpy as np
from chainer.backends import cuda

from mnist_bn import plotting
from mnist_bn.observers.arrays import Array
from mnist_bn.observers.measured import Head, Measured, range_of
from mnist_bn.observers.minibatch import MinibatchObserver, backpropagate, layer_at
from mnist_bn.observers.probe import Layers

LAYER = 55  # of 110: Bjorck et al. 2018, figure 2
BINS = 101


class GradientHistogram(MinibatchObserver):
    """Histogram of the weight gradients of the middle layer, and of every layer a summary."""

    name = "gradient-histogram"
    title = "Weight gradients at initialisation"
    to_see = (
        "A line a seed. See how wide the gradients spread and how heavy their tails are: a normal "
        "distribution's kurtosis is 3."
    )
    arrays: ClassVar = {
        "std": Array("float64", ("layers",)),
        "kurtosis": Array("float64", ("layers",)),  # 3 of a normal distribution
        "minimum": Array("float64", ("layers",)),
        "maximum": Array("float64", ("layers",)),
        "layer": Array("int64", (), "a layer"),  # that the histogram is of
        "counts": Array("int64", (None,)),  # in bins of one width from -"limit" to "limit"
        "limit": Array("float64"),
    }

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

    @classmethod
    def figures(cls, groups: Sequence[Measured], head: Head) -> plotting.Figures:
        """The histogram, and the scale of every layer's gradients."""
        yield from super().figures(groups, head)
        title = "Weight gradients of every layer, at initialisation"
        to_see = "See how large the gradients of each layer are, and how heavy their tails."
        yield "gradient-scale", _scale(groups, *head(title, to_see))

    @classmethod
    def figure(cls, groups: Sequence[Measured], title: str, subtitle: str) -> plotting.Figure:
        """The weight gradients of the middle layer, each network on its own scale."""
        canvas, heat_maps = plotting.canvas, plotting.heat_maps
        figure, (row,) = heat_maps.grid(1, len(groups), title, subtitle)
        for group, axes in zip(groups, row, strict=True):
            for counts, limit in zip(group.first("counts"), group.first("limit"), strict=True):
                if not (0 < limit < np.inf and counts.sum() > 0):
                    continue
                edges = np.linspace(-limit, limit, len(counts) + 1)
                axes.stairs(counts / (counts.sum() * np.diff(edges)), edges, color=group.colour)
            axes.set_yscale("log")
            canvas.label_logarithmic(axes.yaxis, ticks=7)
            layer = int(group.first("layer")[0])
            spread = range_of(group.first("kurtosis")[:, layer - 1])
            heading = f"{group.label}, layer {layer}: kurtosis {spread}"
            canvas.write_title(axes, heading, heat_maps.WIDTH + canvas.RIGHT)
            axes.set_xlabel("Gradient of a weight")
            canvas.label_linear(axes.xaxis, ticks=5)
        row[0].set_ylabel("Density")
        return figure


def _scale(groups: Sequence[Measured], title: str, subtitle: str) -> plotting.Figure:
    """Standard deviation and kurtosis of every layer's weight gradients."""
    titles = {
        "std": "Standard deviation of a layer's weight gradients",
        "kurtosis": "Kurtosis (3: normal distribution)",
    }
    shown = []
    for key, heading in titles.items():
        lines = []
        for group in groups:
            values = group.first(key)
            layers = np.arange(1, values.shape[1] + 1)
            line = plotting.panels.geometric(layers, values, group.label, group.colour)
            lines.append(line)
        shown.append(plotting.panels.Panel(heading, lines, log_y=True))
    return plotting.panels.stacked(shown, title, subtitle, "Layer")


def kurtosis(values: np.ndarray) -> float:
    """Returns the fourth central moment over the square of the second; NaN if all are equal."""
    centred = values - values.mean()
    return float((centred**4).mean() / np.square((centred**2).mean()))


def _counts(values: np.ndarray, limit: float) -> np.ndarray:
    if not 0 < limit < np.inf:  # gradients that are all zero, or lost
        return np.zeros(BINS, np.int64)
    return np.histogram(values, BINS, (-limit, limit))[0]
