"""Figures of several axes beside and below each other, each with scales of its own; heat maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mnist_bn.plotting.canvas import add_grid, new_page, write_title
from mnist_bn.plotting.notation import OneNotation

WIDTH, HEIGHT = 3.3, 2.8  # of axes, inches
GAP_X, GAP_Y = 0.8, 0.85
SUBTITLE_WIDTH = 7.0  # inches that a subtitle may take beside narrower axes
BAR_GAP, BAR_WIDTH, BAR_NUMBERS = 0.08, 0.1, 0.55  # of a colour bar


@dataclass(frozen=True)
class HeatMap:
    """Values `(H, W)`, drawn from below upwards, with a colour bar.

    `extent` is the x of the left and right edge and the y of the lower and upper one; None counts
    from 1. If `is_signed`, white is 0.
    """

    title: str
    values: np.ndarray
    x_label: str
    y_label: str
    extent: tuple[float, float, float, float] | None = None
    is_signed: bool = False


def grid(
    rows: int, columns: int, title: str, subtitle: str, gap_x: float = GAP_X
) -> tuple[Figure, list[list[Axes]]]:
    """Returns a figure with its head, and its axes, row by row from above."""
    width, height = columns * (WIDTH + gap_x) - min(gap_x, GAP_X), rows * (HEIGHT + GAP_Y) - GAP_Y
    figure = new_page(title, subtitle, width, height, max(width, SUBTITLE_WIDTH))
    return figure, add_grid(figure, [WIDTH] * columns, [HEIGHT] * rows, gap_x, GAP_Y)


def heat_maps(rows: Sequence[Sequence[HeatMap]], title: str, subtitle: str) -> Figure:
    """Draws rows of heat maps, each from the left."""
    room = GAP_X + BAR_GAP + BAR_WIDTH + BAR_NUMBERS
    figure, every = grid(len(rows), max(map(len, rows)), title, subtitle, room)
    for maps, row in zip(rows, every, strict=True):
        for heat_map, axes in zip(maps, row, strict=False):
            _draw(figure, axes, heat_map)
        for axes in row[len(maps) :]:
            axes.remove()
    return figure


def _draw(figure: Figure, axes: Axes, heat_map: HeatMap) -> None:
    values = np.ma.masked_invalid(heat_map.values)
    height, width = values.shape
    limit = float(np.max(np.abs(values))) if values.count() else 1.0
    highest = (limit or 1) if heat_map.is_signed else None
    image = axes.imshow(
        values,
        cmap="RdBu_r" if heat_map.is_signed else "viridis",
        aspect="auto",
        interpolation="nearest",
        origin="lower",
        extent=heat_map.extent or (0.5, width + 0.5, 0.5, height + 0.5),
        vmin=None if highest is None else -highest,
        vmax=highest,
    )
    write_title(axes, heat_map.title, WIDTH + GAP_X)
    axes.set_xlabel(heat_map.x_label)
    axes.set_ylabel(heat_map.y_label)
    axes.grid(False)
    if heat_map.extent is None:
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    place = axes.get_position()
    inch = 1 / figure.get_size_inches()[0]
    bar = figure.add_axes((place.x1 + BAR_GAP * inch, place.y0, BAR_WIDTH * inch, place.height))
    figure.colorbar(image, cax=bar)
    bar.yaxis.set_major_locator(MaxNLocator(nbins=5))
    bar.yaxis.set_major_formatter(OneNotation(is_aligned=True))
    bar.grid(False)
