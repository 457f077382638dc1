"""Names at the right ends of curves, moved apart so that none covers another."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from mnist_bn.plotting.appearance import ink
from mnist_bn.plotting.canvas import FONT_SIZE, text_width

LINE_HEIGHT = 0.168  # inches from one label to the next
COLUMN_GAP = 0.3  # inches between the axes and the labels, where the leader lines run
SAMPLE, SAMPLE_GAP = 0.3, 0.06  # inches of a piece of a curve before its name, and after that


class EndLabel(NamedTuple):
    """A label and the right end of its curve: epoch `x`, value `y` (infinite: off the axes)."""

    text: str
    colour: str
    x: float
    y: float
    dashes: str | tuple = "-"
    marker: str = ""


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> np.ndarray:
    """Positions (n,) nearest to `wanted` (least squares), in [low, high] and at least `gap` apart.

    If they do not fit the gap shrinks. Positions less i·gap must ascend, so this is an isotonic
    regression, solved by pooling adjacent violators.
    """
    places = np.asarray(wanted, dtype=np.float64)
    if places.size == 0:
        return places
    gap = min(gap, (high - low) / max(1, places.size - 1))
    order = np.argsort(places, kind="stable")
    steps = gap * np.arange(places.size)
    pools: list[tuple[float, int]] = []  # mean, size
    for value in places[order] - steps:
        mean, size = float(value), 1
        while pools and pools[-1][0] > mean:
            before, n = pools.pop()
            mean, size = (before * n + mean * size) / (n + size), n + size
        pools.append((mean, size))
    ascending = np.repeat([mean for mean, _ in pools], [size for _, size in pools])
    placed = np.empty_like(wanted)
    placed[order] = np.clip(ascending, low, high - steps[-1]) + steps
    return placed


def label_ends(axes: Axes, labels: Sequence[EndLabel]) -> None:
    """Write the labels in a column right of the axes, whose limits must be final.

    A thin leader joins a curve's end to its label. If the end lies outside the axes' range, the
    label sits at the edge where the curve left. If a curve is dashed, a piece of each stands
    before its name.
    """
    height, width = axes.bbox.height / axes.figure.dpi, axes.bbox.width / axes.figure.dpi
    ends = [_in_axes(axes, label.x, label.y) for label in labels]
    # From below, so that of curves with one end the first comes on top.
    wanted = [np.clip(y, 0, 1) for _, y in reversed(ends)]
    positions = spread(wanted, LINE_HEIGHT / height, 0, 1)[::-1]
    column = 1 + COLUMN_GAP / width
    text = column + _sample_room(labels) / width
    for label, (x, y), position in zip(labels, ends, positions, strict=True):
        if np.isfinite(label.y) and 0 <= y <= 1:
            bend = column - 0.2 * COLUMN_GAP / width
            start = max(x, 1) + 0.12 * COLUMN_GAP / width
            axes.plot(
                [x, start, bend, column - 0.05 * COLUMN_GAP / width],
                [y, y, position, position],
                color=label.colour,
                linewidth=0.6,
                # Across the axes it must not look like a curve, dotted or not.
                alpha=0.4 if x < 0.9 else 1,
                transform=axes.transAxes,
                clip_on=False,
                gid="leader",
            )
        if text > column:
            axes.plot(
                [column, column + 0.5 * SAMPLE / width, column + SAMPLE / width],
                [position] * 3,
                color=label.colour,
                linestyle=label.dashes,
                marker=label.marker,
                markevery=[1],
                markersize=4,
                linewidth=1.4,
                transform=axes.transAxes,
                clip_on=False,
                gid="sample",
            )
        axes.text(
            text,
            position,
            label.text,
            color=ink(label.colour),
            fontsize=FONT_SIZE,
            va="center_baseline",
            transform=axes.transAxes,
            gid="end-label",
        )


def column_width(labels: Sequence[EndLabel]) -> float:
    """Returns the width in inches of the labels and of the room between them and the axes."""
    widest = max((text_width(label.text) for label in labels), default=0)
    return COLUMN_GAP + _sample_room(labels) + widest


def _sample_room(labels: Sequence[EndLabel]) -> float:
    is_needed = any(label.dashes != "-" for label in labels)
    return (SAMPLE + SAMPLE_GAP) * is_needed


def _in_axes(axes: Axes, x: float, y: float) -> tuple[float, float]:
    """A point of the data in fractions of the axes; an infinite one is on their edge."""
    if not np.isfinite(y):
        return 1.0, float(y > 0)
    return tuple(axes.transAxes.inverted().transform(axes.transData.transform((x, y))))
