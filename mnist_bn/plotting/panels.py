"""A figure of panels one above the other over one x axis, its lines named at their right ends."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mnist_bn.plotting import labels
from mnist_bn.plotting.canvas import (
    BOTTOM,
    LEFT,
    RIGHT,
    STRIP_NAME,
    add_axes,
    draw_range,
    draw_strip,
    label_logarithmic,
    new_page,
    strip_height,
    text_width,
    write_title,
)
from mnist_bn.plotting.curves import draw_unfinished, fate, say_not_recorded
from mnist_bn.plotting.groups import SeedGroup
from mnist_bn.plotting.notation import OneNotation, decimal

WIDTH, HEIGHT, GAP = 6.0, 2.8, 0.55  # of a panel, and between two, inches
SUBTITLE_WIDTH = 8.5  # inches; a wider one has several lines
MAX_TICKS = 10  # with names


@dataclass(frozen=True)
class Series:
    """A line: y over x, both `(n,)`, with a band from `low` to `high` if they are given.

    An empty label names nothing. `crosses` are the x of what has no y, such as diverged runs: they
    stand in a strip beside the panel. One that `is_cut_short` ends in an open circle.
    """

    x: np.ndarray
    y: np.ndarray
    label: str
    colour: str
    dashes: str | tuple = "-"
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    marker: str = ""
    crosses: Sequence[float] = ()
    is_cut_short: bool = False


@dataclass(frozen=True)
class Panel:
    """What one panel shows; `limits` of the y axis, None to fit the lines.

    `lost` says what the crosses of its series mean. Their strip is below, or above if
    `lost_is_high`, as of a loss.
    """

    title: str
    series: Sequence[Series] = field(default_factory=list)
    limits: tuple[float, float] | None = None
    log_y: bool = False
    integer: bool = False
    lost: str = "diverged"
    lost_is_high: bool = False

    @property
    def crossed(self) -> list[tuple[Sequence[float], str]]:
        """Places and colour of each series that has crosses."""
        return [(series.crosses, series.colour) for series in self.series if len(series.crosses)]

    def room(self, is_above: bool) -> float:
        """Inches that its strip takes above it, or below."""
        return strip_height(len(self.crossed)) * (is_above == self.lost_is_high)


def dotted(curves: Sequence[SeedGroup]) -> str:
    """Returns how dotted lines of these curves look: "dotted", or if each is a point, "hollow"."""
    return "dotted" if max(len(run.log) for curve in curves for run in curve.runs) > 1 else "hollow"


def of_curve(
    curve: SeedGroup, key: str, label: str, colour: str, dashes: str | tuple = "-"
) -> Series:
    """Mean over seeds of one series of the log, and if it has a label, their range and fate."""
    band = curve.band(key)
    low, high = (band.low, band.high) if label else (None, None)
    lost = {run.diverged_at for run in curve.diverged if run.diverged_at is not None and label}
    label += fate(curve) if label else ""
    return Series(
        *(band.epochs, band.mean, label, colour, dashes, low, high),
        crosses=sorted(lost),
        is_cut_short=curve.is_cut_short,
    )


def of_seeds(
    x: np.ndarray,
    values: np.ndarray,
    label: str,
    colour: str,
    dashes: str | tuple = "-",
    marker: str = "",
) -> Series:
    """Returns the mean of `(seeds, n)` and, if there are several, their range."""
    low, high = (values.min(axis=0), values.max(axis=0)) if len(values) > 1 else (None, None)
    return Series(x, values.mean(axis=0), label, colour, dashes, low, high, marker=marker)


def geometric(
    x: np.ndarray,
    values: np.ndarray,
    label: str,
    colour: str,
    dashes: str | tuple = "-",
    marker: str = "",
) -> Series:
    """Returns the geometric mean of `(seeds, n)` and its range, for a logarithmic axis.

    There is none if a value is not above 0.
    """
    with np.errstate(invalid="ignore"):
        values = np.where(values > 0, values, np.nan)
        mean = np.exp(np.log(values).mean(axis=0))
    limits = values.min(axis=0), values.max(axis=0)
    return Series(x, mean, label, colour, dashes, *limits, marker=marker)


def stacked(
    panels: Sequence[Panel],
    title: str,
    subtitle: str,
    x_label: str,
    log_x: bool = False,
    x_ticks: Mapping[float, str] | None = None,
) -> Figure:
    """Draws the panels, the first on top.

    Args:
        x_ticks: the places on the x axis that have a name, in ascending order; None counts.
    """
    named = [_end(panel, series) for panel in panels for series in panel.series if series.label]
    strips = [f"✕ {panel.lost}" for panel in panels if panel.crossed]
    column = max(
        labels.column_width(named), *(STRIP_NAME + text_width(strip) for strip in [*strips, ""])
    )
    heights = [panel.room(False) + HEIGHT + panel.room(True) for panel in panels]
    height = sum(heights) + GAP * (len(panels) - 1)
    figure = new_page(title, subtitle, WIDTH + column, height, SUBTITLE_WIDTH)
    room = figure.get_size_inches()[0] - LEFT - RIGHT
    every = [x for panel in panels for series in panel.series for x in (*series.x, *series.crosses)]
    first, last = min(every, default=1), max(every, default=1)
    for i, panel in enumerate(panels):
        below = sum(heights[i + 1 :]) + GAP * (len(panels) - 1 - i)
        axes = add_axes(figure, LEFT, BOTTOM + below + panel.room(False), WIDTH, HEIGHT)
        write_title(axes, panel.title, room, panel.room(True))
        if log_x:
            axes.set_xscale("log")
            margin = (last / first) ** 0.05 if last > first else 2
            axes.set_xlim(first / margin, last * margin)
        elif x_ticks:
            _name_ticks(axes, x_ticks)
        else:
            axes.set_xlim(0, last if last > 0 else 1)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        _draw(axes, panel)
        lowest = i == len(panels) - 1
        axes.tick_params(labelbottom=lowest)
        axes.set_xlabel(x_label if lowest else "")
        ends = [_end(panel, series) for series in panel.series if series.label]
        labels.label_ends(axes, ends)
        draw_strip(axes, panel.crossed, panel.lost, panel.lost_is_high)
    return figure


def _name_ticks(axes: Axes, ticks: Mapping[float, str]) -> None:
    """Names at their places, every second or fewer if they are too many to be read."""
    places = list(ticks)
    margin = 0.04 * (places[-1] - places[0]) or 0.5
    axes.set_xlim(places[0] - margin, places[-1] + margin)
    step = math.ceil(len(places) / MAX_TICKS)
    axes.set_xticks(places[::step], [ticks[place] for place in places[::step]])


def _draw(axes: Axes, panel: Panel) -> None:
    if panel.log_y:
        axes.set_yscale("log")
    if not panel.crossed and not any(np.isfinite(series.y).any() for series in panel.series):
        say_not_recorded(axes)
    for series in panel.series:
        if series.low is not None and series.high is not None:
            draw_range(axes, series.x, series.low, series.high, color=series.colour)
        axes.plot(
            series.x,
            series.y,
            color=series.colour,
            linestyle=series.dashes,
            linewidth=1.7 if series.dashes == "-" else 1.1,
        )
    if panel.integer:
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))
    # Also if they fit the lines: from here on they stay, and the names are placed by them.
    axes.set_ylim(*(panel.limits or axes.get_ylim()))
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            low, high = axis.get_view_interval()
            label_logarithmic(axis, 8, (1, 2, 5) if high < 200 * low else (1,))
    if not panel.log_y:
        axes.yaxis.set_major_formatter(OneNotation(is_aligned=True))
    for series in panel.series:
        _draw_markers(axes, series)


def _draw_markers(axes: Axes, series: Series) -> None:
    """The series' marker at each point in the axes, whole also at their edge.

    A point without a neighbour makes no line: it gets a marker in any case, a hollow one if the
    line would be dashed.
    """
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    x, y = np.asarray(series.x, np.float64), np.asarray(series.y, np.float64)
    there = np.isfinite(y)
    neighbours = np.pad(there, 1)
    alone = there & ~neighbours[:-2] & ~neighbours[2:]
    shown = there & (left <= x) & (x <= right) & (low <= y) & (y <= high)
    shown &= alone | bool(series.marker)
    axes.plot(
        x[shown],
        y[shown],
        color=series.colour,
        marker=series.marker or "o",
        # A point has no dashes.
        markerfacecolor=series.colour if series.dashes == "-" or series.marker else "white",
        linestyle="none",
        clip_on=False,
        zorder=2.1,
        gid="markers",
    )
    if series.is_cut_short and there.any():
        draw_unfinished(axes, x[there][-1], y[there][-1], series.colour)


def _end(panel: Panel, series: Series) -> labels.EndLabel:
    there = np.isfinite(series.y)
    lost = math.inf if panel.lost_is_high else -math.inf
    x, y = (series.x[there][-1], series.y[there][-1]) if there.any() else (math.nan, lost)
    text = series.label
    if panel.limits and there.any() and not panel.limits[0] <= y <= panel.limits[1]:
        text += f"  {'↓' if y < panel.limits[0] else '↑'}"
        # A logarithmic panel's values may be cut, far outside, and a cross has none.
        is_known = not panel.log_y and max(series.crosses, default=-math.inf) < x
        text += f" {decimal(float(f'{y:.3g}'))}" * bool(is_known)
    return labels.EndLabel(text, series.colour, float(x), float(y), series.dashes)
