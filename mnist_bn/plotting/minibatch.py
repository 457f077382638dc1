"""Figures of what observers measure on one minibatch, of one network or of several side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from mnist_bn.plotting import heat_maps, panels
from mnist_bn.plotting.appearance import BLACK, BLUE, DASHES, GREY, VERMILLION
from mnist_bn.plotting.canvas import RIGHT, write_title
from mnist_bn.plotting.heat_maps import HeatMap
from mnist_bn.plotting.notation import OneNotation, decimal

Observed = dict[str, np.ndarray]

PAPER_LAYERS = np.array([*range(6, 109, 12), 110])
LOSS_LIMITS = (1e-3, 1e4)  # of the relative loss that is drawn


@dataclass(frozen=True)
class Group:
    """What was measured of one network, a time series for each seed."""

    label: str
    colour: str
    seeds: Sequence[Observed]

    def first(self, key: str) -> np.ndarray:
        """Returns the first measurement of each seed, `(seeds, ...)`."""
        return np.array([series[key][0] for series in self.seeds])


def gradient_histogram(groups: Sequence[Group], title: str, subtitle: str) -> Figure:
    """The weight gradients of the middle layer, each network on its own scale."""
    figure, (row,) = heat_maps.grid(1, len(groups), title, subtitle)
    for group, axes in zip(groups, row, strict=True):
        for counts, limit in zip(group.first("counts"), group.first("limit"), strict=True):
            if not (0 < limit < np.inf and counts.sum() > 0):
                continue
            edges = np.linspace(-limit, limit, len(counts) + 1)
            axes.stairs(counts / (counts.sum() * np.diff(edges)), edges, color=group.colour)
        axes.set_yscale("log")
        _label_logarithmic(axes)
        layer = int(group.first("layer")[0])
        kurtosis = group.first("kurtosis")[:, layer - 1]
        title = f"{group.label}, layer {layer}: kurtosis {_range(kurtosis)}"
        write_title(axes, title, heat_maps.WIDTH + RIGHT)
        axes.set_xlabel("Gradient of a weight")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.xaxis.set_major_formatter(OneNotation())
    row[0].set_ylabel("Density")
    return figure


def gradient_scale(groups: Sequence[Group], title: str, subtitle: str) -> Figure:
    """Standard deviation and kurtosis of every layer's weight gradients."""
    shown = [
        panels.Panel("Standard deviation of a layer's weight gradients", [], log_y=True),
        panels.Panel("Kurtosis (3: normal distribution)", [], log_y=True),
    ]
    for panel, key in zip(shown, ("std", "kurtosis"), strict=True):
        panel.series.extend(_by_layer(group, group.first(key), group.label) for group in groups)
    return panels.stacked(shown, title, subtitle, "Layer")


def relative_loss(groups: Sequence[Group], title: str, subtitle: str) -> Figure:
    """L(w - a g) / L(w) against a, a panel for each network, every seed a line."""
    low, high = LOSS_LIMITS
    shown = []
    for group in groups:
        lines = []
        every = sorted({int(i) for series in group.seeds for i in series["iteration"]})
        colours = dict(zip(every, (BLACK, BLUE, VERMILLION) * len(every), strict=False))
        unnamed = set(every)
        for series in group.seeds:
            for i, iteration in enumerate(series["iteration"].tolist()):
                # What overflowed is above the axis.
                y = np.nan_to_num(series["relative_loss"][i], nan=np.inf)
                y = np.clip(y, low / 10, high * 10)
                label = f"minibatch {iteration + 1}" if iteration in unnamed else ""
                unnamed.discard(iteration)
                x, colour = series["step_size"][i], colours[iteration]
                lines.append(panels.Series(x, y, label, colour))
        heading = f"{group.label}: loss after the step, over loss before"
        shown.append(panels.Panel(heading, lines, LOSS_LIMITS, log_y=True))
    return panels.stacked(shown, title, subtitle, "Step size", log_x=True)


def activation_moments(groups: Sequence[Group], title: str, subtitle: str) -> Figure:
    """Size and spread of the channel means, and the channel variance, of every layer's output.

    A residual block adds up; its second layer's output is small beside what the next one receives:
    of ResNet-110 the line is through the layers that the paper shows, all are dotted.
    """
    titles = {
        "mean": "Channel means: their mean absolute value",
        "std": "Channel means: their standard deviation",
        "variance": "Channel variance",
    }
    shown = []
    for key, heading in titles.items():
        lines = []
        for group in groups:
            values = group.first(key)
            label = f"{group.label}: ×{10 ** slopes(values).mean():.3f} a layer"  # noqa: RUF001
            layers = np.arange(1, values.shape[1] + 1)
            chosen = PAPER_LAYERS if len(layers) == PAPER_LAYERS[-1] else layers
            if chosen is PAPER_LAYERS:
                lines.append(_band(layers, values, "", group.colour, DASHES[2]))
            lines.append(_band(chosen, values[:, chosen - 1], label, group.colour))
        dotted = " (dotted: every layer)" * any(line.dashes != "-" for line in lines)
        shown.append(panels.Panel(heading + dotted, lines, log_y=True))
    return panels.stacked(shown, title, subtitle, "Layer")


def slopes(values: np.ndarray) -> np.ndarray:
    """Returns the least-squares slope of log10 of each row against the layer, `(seeds,)`.

    Args:
        values: `(seeds, layers)`; what is not above 0 is left out.
    """
    layers = np.arange(1, values.shape[1] + 1)
    return np.array([_slope(layers, row) for row in values])


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    """Returns the least-squares slope of log10 y against x, NaN from fewer than two points."""
    there = np.isfinite(y) & (y > 0)
    return np.polyfit(x[there], np.log10(y[there]), 1)[0] if there.sum() > 1 else np.nan


def diverging_step(groups: Sequence[Group], title: str, subtitle: str) -> Figure:
    """Mean and variance of channels against the fraction of a step; of each network's first seed.

    A row of maps for each network and moment, a column for each layer.
    """
    rows = []
    for group in groups:
        series = group.seeds[0]
        lr, last = series["lr"][0], series["loss"][0, -1]
        step = f"{decimal(lr)}; loss {series['loss'][0, 0]:.3g} → {last:.3g}"
        for moment, shown in (("mean", "|mean|"), ("variance", "variance")):
            row = []
            for key in series:
                kind, _, layer = key.partition("/")
                if kind != moment:
                    continue
                with np.errstate(divide="ignore"):
                    values = np.log10(np.abs(series[key][0]))
                row.append(
                    HeatMap(
                        f"{group.label}, layer {layer}: log10 {shown}",
                        values,
                        "Channel",
                        f"% of the step ({step})" if not row else "",
                        (0.5, values.shape[1] + 0.5, 0, 100),
                    )
                )
            rows.append(row)
    return heat_maps.heat_maps(rows, title, subtitle)


def output_gradients(groups: Sequence[Group], title: str, subtitle: str) -> Figure:
    """The gradient of the loss by image and class; of each network's first seed."""
    row = []
    for group in groups:
        gradient = group.first("gradient")[0]
        images, classes = gradient.shape
        extent = (-0.5, classes - 0.5, 0.5, images + 0.5)
        y_label = "" if row else "Image"
        heading = f"{group.label} (first seed)"
        row.append(HeatMap(heading, gradient, "Class", y_label, extent, is_signed=True))
    return heat_maps.heat_maps([row], title, subtitle)


def dependence_on_input(gradients: np.ndarray) -> np.ndarray:
    """Returns how much the gradient of the class that is pushed down most differs by image.

    The standard deviation over the mean of what is positive in the column whose sum is largest,
    `(seeds,)`: 0 where every image of another class has the same gradient.

    Args:
        gradients: of the output, `(seeds, N, classes)`.
    """
    found = []
    for one in gradients.astype(np.float64):
        column = one[:, np.maximum(one, 0).sum(axis=0).argmax()]
        positive = column[column > 0]
        found.append(positive.std() / positive.mean() if positive.size else np.nan)
    return np.array(found)


def same_sign(gradients: np.ndarray) -> np.ndarray:
    """Returns the fraction of images of one sign in the column where it is largest, `(seeds,)`.

    The gradient is softmax less 1 for the image's class and 0 for the others: it is positive in a
    column for every image of another class, whatever the network.

    Args:
        gradients: of the output, `(seeds, N, classes)`.
    """
    positive, negative = (gradients > 0).mean(axis=1), (gradients < 0).mean(axis=1)
    return np.maximum(positive, negative).max(axis=1)


def kernel_gradients(groups: Sequence[Group], title: str, subtitle: str) -> Figure:
    """Sum of absolute summands against absolute sum, and their ratio, against the layer."""
    sums = panels.Panel("Sum of absolute values; absolute value of the sum, dashed", [], log_y=True)
    ratios = panels.Panel("Their ratio", [], log_y=True)
    for group in groups:
        layers = group.first("layer")[0]
        absolute, plain = group.first("sum_of_absolute"), group.first("absolute_of_sum")
        for values, label, dashes in ((absolute, group.label, "-"), (plain, "", DASHES[1])):
            sums.series.append(_band(layers, values, label, group.colour, dashes, "o"))
        ratios.series.append(_band(layers, absolute / plain, group.label, group.colour, marker="o"))
    return panels.stacked([sums, ratios], title, subtitle, "Layer")


def channel_gradients(groups: Sequence[Group], title: str, subtitle: str) -> Figure:
    """Mean absolute gradient by input and output channel; of each network's first seed."""
    row = []
    for group in groups:
        heading = f"{group.label}, layer {group.first('layer')[0]} (first seed)"
        y_label = "" if row else "Output channel"
        row.append(HeatMap(heading, group.first("gradient")[0], "Input channel", y_label))
    return heat_maps.heat_maps([row], title, subtitle)


def gradient_noise(groups: Sequence[Group], title: str, subtitle: str) -> Figure:
    """The noise of SGD's gradient against the batch size, in units of the bound's constant C."""
    lines = []
    for group in groups:
        sizes = group.first("batch_size")[0]
        noise = group.first("noise") / group.first("constant")[:, None]
        label = f"{group.label}: slope {_range(noise_slopes(group))}"
        lines.append(_band(sizes, noise, label, group.colour, marker="o"))
    sizes = groups[0].first("batch_size")[0]
    lines.append(panels.Series(sizes, 1 / sizes, "the bound, 1 / |B|", GREY, DASHES[1]))
    heading = "E |g - g_B|², over C (in a step of size a: times a²)"
    panel = panels.Panel(heading, lines, log_y=True)
    return panels.stacked([panel], title, subtitle, "Batch size |B|", log_x=True)


def noise_slopes(group: Group) -> np.ndarray:
    """Returns the slope of log noise against log batch size, `(seeds,)`; -1 by the bound."""
    sizes = np.log10(group.first("batch_size")[0])
    return np.array([_slope(sizes, noise) for noise in group.first("noise")])


def _by_layer(group: Group, values: np.ndarray, label: str) -> panels.Series:
    return _band(np.arange(1, values.shape[1] + 1), values, label, group.colour)


def _band(x, values, label, colour, dashes="-", marker="") -> panels.Series:
    """The mean of `(seeds, n)` and its range, geometric as the axes are logarithmic.

    There is none where a value is not above 0.
    """
    with np.errstate(invalid="ignore"):
        values = np.where(values > 0, values, np.nan)
        mean = np.exp(np.log(values).mean(axis=0))
    limits = values.min(axis=0), values.max(axis=0)
    return panels.Series(x, mean, label, colour, dashes, *limits, marker=marker)


def _range(values: np.ndarray) -> str:
    low, high = (f"{value:.2g}" for value in (values.min(), values.max()))
    text = low if low == high else f"{low} to {high}"
    return text.replace("-", "\N{MINUS SIGN}")


def _label_logarithmic(axes: Axes) -> None:
    axes.yaxis.set_major_locator(LogLocator(numticks=7))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(OneNotation())


class Measurement(NamedTuple):
    """A figure of what an observer measured: its title, what to look for, and what draws it."""

    observer: str
    title: str
    to_see: str
    draw: Callable[[Sequence[Group], str, str], Figure]


FIGURES: dict[str, Measurement] = {  # by file name
    "activation-moments": Measurement(
        "activation-moments",
        "Activations against depth, at initialisation",
        "See whether the moments stay level or grow from layer to layer.",
        activation_moments,
    ),
    "channel-gradients": Measurement(
        "channel-gradients",
        "Mean absolute gradient between channels, at initialisation",
        "See whether a few channels, bright rows or columns, have most of the gradient.",
        channel_gradients,
    ),
    "diverging-step": Measurement(
        "diverging-step",
        "Channel moments in the course of one step",
        "Read upwards: see whether the moments grow while the step is taken, most in the last "
        "layers. Each map has its own scale.",
        diverging_step,
    ),
    "gradient-histogram": Measurement(
        "gradient-histogram",
        "Weight gradients at initialisation",
        "A line a seed. See how wide the gradients spread and how heavy their tails are: a normal "
        "distribution's kurtosis is 3.",
        gradient_histogram,
    ),
    "gradient-scale": Measurement(
        "gradient-histogram",
        "Weight gradients of every layer, at initialisation",
        "See how large the gradients of each layer are, and how heavy their tails.",
        gradient_scale,
    ),
    "gradient-noise": Measurement(
        "gradient-noise",
        "Noise of SGD's gradient",
        "See how fast the noise falls as batches grow: by the bound with a slope of minus 1.",
        gradient_noise,
    ),
    "kernel-gradients": Measurement(
        "kernel-gradients",
        "Summands of a kernel's gradient, at initialisation",
        "See how far the parts of a gradient cancel: where the ratio is 1 they do not.",
        kernel_gradients,
    ),
    "output-gradients": Measurement(
        "output-gradients",
        "Gradient of the loss in the output, at initialisation",
        "See whether one class is pushed down alike for every image: a column of one colour.",
        output_gradients,
    ),
    "relative-loss": Measurement(
        "relative-loss",
        "Loss along the gradient",
        "A line a seed. See how large a step can be before the loss grows: above 1 it has grown.",
        relative_loss,
    ),
}
FIRST_SEED = ("channel-gradients", "diverging-step", "output-gradients")  # show only that
