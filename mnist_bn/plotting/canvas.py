"""What every figure is made of: the sheet, its head, axes placed in inches, and strips of marks."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from matplotlib.textpath import text_to_path
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from mnist_bn.plotting.notation import OneNotation

LEFT, RIGHT, BOTTOM, TOP = 0.75, 0.2, 0.6, 1.15  # margins of a figure, inches
FONT_SIZE, TITLE_SIZE, AXES_TITLE_SIZE = 9, 15, 11  # points
SUBTITLE_LINE = 0.18  # inches from one line of a subtitle to the next
STRIP_ROW, STRIP_GAP, STRIP_PAD = 0.13, 0.06, 0.05  # inches
STRIP_NAME = 0.14  # inches from a strip to its name: a mark may stand on its edge
BETWEEN = "  ·  "  # the parts of a subtitle
# How a run that has ended is marked, also on the edge of the axes.
CROSS: dict[str, Any] = {"marker": "x", "linestyle": "none", "clip_on": False, "zorder": 4}


def new_page(
    title: str, subtitle: str, width: float, height: float, broken_at: float, below: float = 0.0
) -> Figure:
    """Returns a figure with its head, as wide as what is on it or a line of the subtitle.

    Args:
        width, height: of what is drawn on it, inside the margins, inches.
        broken_at: inches of a line of the subtitle, at most.
        below: inches between the head and what is drawn.
    """
    lines = broken(subtitle, broken_at)
    top = TOP + (len(lines) - 1) * SUBTITLE_LINE + below
    full_width = LEFT + max(width, *map(text_width, lines)) + RIGHT
    figure = Figure(figsize=(full_width, BOTTOM + height + top))
    FigureCanvasAgg(figure)
    _write_head(figure, title, lines)
    return figure


def add_grid(
    figure: Figure, widths: Sequence[float], heights: Sequence[float], gap_x: float, gap_y: float
) -> list[list[Axes]]:
    """Returns rows of axes from above, of these sizes in inches, from the lower left margin on."""
    return [
        [
            add_axes(
                figure,
                LEFT + math.fsum(w + gap_x for w in widths[:column]),
                BOTTOM + math.fsum(h + gap_y for h in heights[row + 1 :]),
                width,
                height,
            )
            for column, width in enumerate(widths)
        ]
        for row, height in enumerate(heights)
    ]


def add_axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place and of a size in inches."""
    full_width, full_height = figure.get_size_inches()
    return figure.add_axes(
        (left / full_width, bottom / full_height, width / full_width, height / full_height)
    )


def _write_head(figure: Figure, title: str, lines: Sequence[str]) -> None:
    """Writes the title, smaller if it is too long for the figure, and the subtitle's lines."""
    width, height = figure.get_size_inches()
    size = _size_within(title, TITLE_SIZE, width - LEFT - RIGHT)
    figure.text(LEFT / width, 1 - 0.42 / height, title, fontsize=size, weight="bold")
    for i, line in enumerate(lines):
        y = 1 - (0.67 + SUBTITLE_LINE * i) / height
        figure.text(LEFT / width, y, line, fontsize=FONT_SIZE, color="#5a5a5a")


def write_title(axes: Axes, title: str, room: float, above: float = 0.0) -> None:
    """Writes the title of axes, `above` inches higher; smaller if it is wider than `room`."""
    size = _size_within(title, AXES_TITLE_SIZE, room)
    axes.set_title(title, fontsize=size, y=1.0, pad=8 + 72 * above)


def _size_within(title: str, size: float, room: float) -> float:
    """Returns the font size, or a smaller one in which a bold title is as wide as `room` inches."""
    width = text_width(title, size, "bold")
    return size if width <= room else 0.97 * size * room / width  # letters of whole pixels vary


def broken(subtitle: str, width: float) -> list[str]:
    """Returns the subtitle in lines of `width` inches at most.

    It is broken where it says so, between its parts, and within a part only if that is too wide.
    """
    lines = []
    for paragraph in subtitle.split("\n"):
        pieces = paragraph.split(BETWEEN)
        lines += [
            line
            for joined in _filled(pieces, BETWEEN, width)
            for line in (
                _filled(joined.split(" "), " ", width) if text_width(joined) > width else [joined]
            )
        ]
    return lines


def _filled(pieces: Sequence[str], between: str, width: float) -> list[str]:
    """Returns the pieces joined into as few lines as `width` inches allow."""
    first, *rest = pieces
    lines = [first]
    for piece in rest:
        longer = f"{lines[-1]}{between}{piece}"
        if text_width(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(piece)
    return lines


def text_width(text: str, size: float = FONT_SIZE, weight: str = "normal") -> float:
    """Width in inches of a text as it will be drawn."""
    font = FontProperties(family="DejaVu Sans", size=size, weight=weight)
    with boxes_for_unknown_letters():
        return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] / 72


@contextlib.contextmanager
def boxes_for_unknown_letters() -> Iterator[None]:
    """A letter that the font lacks is drawn as a box, without Matplotlib's warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield


def label_linear(axis: Axis, ticks: int) -> None:
    """Labels an axis with so many numbers, at most, all in one notation."""
    axis.set_major_locator(MaxNLocator(nbins=ticks))
    axis.set_major_formatter(OneNotation())


def label_logarithmic(axis: Axis, ticks: int, subs: Sequence[float] = (1,)) -> None:
    """Labels a logarithmic axis in plain numbers: the style draws no formulas.

    Args:
        ticks: how many, at most.
        subs: at which multiples of the powers of ten.
    """
    axis.set_major_locator(LogLocator(subs=subs, numticks=ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(OneNotation())


def draw_range(axes: Axes, x: np.ndarray, low: np.ndarray, high: np.ndarray, **look) -> None:
    """Draws the range of the seeds: a band, or of a single point, which has no band, a bar."""
    if len(x) == 1:
        axes.vlines(x, low, high, linewidth=1.2, **look)
    else:
        axes.fill_between(x, low, high, alpha=0.14, linewidth=0, **look)


def strip_height(rows: int) -> float:
    """Returns the room in inches that a strip of so many rows takes beside its axes."""
    return STRIP_GAP + 2 * STRIP_PAD + rows * STRIP_ROW if rows else 0.0


def draw_strip(
    axes: Axes, rows: Sequence[tuple[Sequence[float], str]], name: str, is_above: bool
) -> None:
    """Draws ✕ for what has no place on the y axis, in a grey strip above or below the axes.

    Call it when the limits of the axes are final. A title above it is the caller's to move.

    Args:
        rows: the x of the marks and their colour, a row for each curve.
        name: what the marks mean, written beside the strip; empty: nothing is.
        is_above: above for what is too large, such as a lost loss; below for a lost accuracy.
    """
    if not rows:
        return
    inch_x, inch_y = (axes.figure.dpi / size for size in (axes.bbox.width, axes.bbox.height))
    height = strip_height(len(rows)) - STRIP_GAP
    bottom = STRIP_GAP if is_above else -STRIP_GAP - height
    zero = float(is_above)
    strip = Rectangle(
        (0, zero + bottom * inch_y),
        *(1, height * inch_y),
        transform=axes.transAxes,
        facecolor="#f0f0f0",
        clip_on=False,
        zorder=0.5,
        gid="strip",
    )
    axes.add_artist(strip)
    for i, (places, colour) in enumerate(rows):
        y = zero + (bottom + height - STRIP_PAD - STRIP_ROW * (i + 0.5)) * inch_y
        axes.plot(
            places,
            [y] * len(places),
            transform=axes.get_xaxis_transform(),
            color=colour,
            markersize=6,
            markeredgewidth=1.8,
            gid="lost",
            **CROSS,
        )
    if name:
        axes.text(
            1 + STRIP_NAME * inch_x,
            zero + (bottom + height / 2) * inch_y,
            f"✕ {name}",
            transform=axes.transAxes,
            fontsize=FONT_SIZE,
            color="#5a5a5a",
            va="center",
            gid="strip-name",
        )
    if not is_above:
        axes.tick_params(axis="x", pad=3.5 + 72 * strip_height(len(rows)))
