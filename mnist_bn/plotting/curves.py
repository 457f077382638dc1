"""Drawing learning curves: the figure of four panels, and the overview of small multiples."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from mnist_bn.plotting import labels
from mnist_bn.plotting.appearance import ink
from mnist_bn.plotting.canvas import (
    CROSS,
    FONT_SIZE,
    LEFT,
    RIGHT,
    SUBTITLE_LINE,
    TITLE_SIZE,
    TOP,
    add_grid,
    broken,
    draw_range,
    draw_strip,
    label_logarithmic,
    new_page,
    strip_height,
    text_width,
    write_title,
)
from mnist_bn.plotting.groups import Band, SeedGroup
from mnist_bn.plotting.notation import OneNotation, decimal
from mnist_bn.plotting.results import (
    CURVE_KEYS,
    TRAIN_ACCURACY,
    TRAIN_LOSS,
    VALIDATION_ACCURACY,
    VALIDATION_LOSS,
    Run,
)

LEGEND_HEIGHT = 0.22
REACH = 4  # how far an axis reaches, in distances of the median first epoch from the best value
NOTE_HEIGHT = 0.16


@dataclass(frozen=True)
class Line:
    """A curve and how it looks in one figure."""

    curve: SeedGroup
    label: str
    colour: str
    marker: str
    dashes: str | tuple = "-"


def learning_curves(lines: Sequence[Line], title: str, subtitle: str) -> Figure:
    """Accuracy above, loss below; training left, validation right, where the curves are named."""
    rows = ((TRAIN_ACCURACY, VALIDATION_ACCURACY), (TRAIN_LOSS, VALIDATION_LOSS))
    # Each panel has its own: dropout keeps the training accuracy far below the validation's.
    limits = {key: accuracy_limits(_bands(lines, (key,))) for key in rows[0]}
    limits |= {key: loss_limits(_bands(lines, (key,))) for key in rows[1]}
    aside = _aside(lines)
    ends = [
        [
            _end(line, keys[1], limits[keys[1]], shift)
            for line, shift in zip(lines, aside, strict=True)
        ]
        for keys in rows
    ]
    # Below the accuracies and above the losses: both are in the gap between the rows.
    strips = [
        strip_height(max(len(_outside(lines, key, limits[key])) for key in keys)) for keys in rows
    ]
    widths, gap_x, gap_y = (3.6, 5.0), 0.8, 0.6 + sum(strips)
    heights = [max(height, labels.LINE_HEIGHT * (len(lines) + 1)) for height in (3.4, 2.5)]
    column = max(labels.column_width(row) for row in ends)
    content = max(sum(widths) + gap_x + column, text_width(title, TITLE_SIZE, "bold"))
    figure = new_page(title, subtitle, content, sum(heights) + gap_y, content)
    grid = add_grid(figure, widths, heights, gap_x, gap_y)
    for row, keys in enumerate(rows):
        for side, (key, part) in enumerate(zip(keys, ("Training", "Validation"), strict=True)):
            axes = grid[row][side]
            _draw_panel(axes, lines, key, limits[key], is_loss=row == 1)
            outside = _outside(lines, key, limits[key])
            above = strip_height(len(outside)) * row
            write_title(axes, f"{part} {'loss' if row else 'accuracy'}", widths[side], above)
            draw_strip(axes, outside, "diverged" if side else "", is_above=row == 1)
        labels.label_ends(axes, ends[row])
    return figure


def _draw_panel(
    axes: Axes, lines: Sequence[Line], key: str, limits: tuple[float, float], is_loss: bool
) -> None:
    """Curves on their scale; the losses are the lower panels, which name the x axis."""
    _scale(axes, limits, _epochs(lines), log=is_loss and limits[0] > 0)
    draw_lines(axes, lines, key)
    axes.tick_params(labelbottom=is_loss)
    axes.set_xlabel(_x_label(lines) if is_loss else "")


def small_multiples(
    panels: Sequence[tuple[str, Sequence[Line]]], title: str, subtitle: str
) -> Figure:
    """Validation accuracy in one panel for each name, all on the same axes, with one legend."""
    every = [line for _, lines in panels for line in lines]
    columns = min(4, math.ceil(math.sqrt(len(panels))))
    rows = math.ceil(len(panels) / columns)
    limits = accuracy_limits(_bands(every, (VALIDATION_ACCURACY,)))
    notes = [_unseen(lines, limits) for _, lines in panels]
    room = NOTE_HEIGHT * max(map(len, notes))
    gap_x, gap_y, height = 0.25, 0.5 + room, 2.0 if columns > 2 else 2.8
    content = max(9.5 - LEFT - RIGHT, columns * 3.25)
    said = broken(subtitle, content)
    content = max(content, *map(text_width, said))
    legend = _legend_rows({line.label: line for line in every}, content)
    below = 0.2 + LEGEND_HEIGHT * len(legend) + room
    all_rows = rows * (height + gap_y) - gap_y
    figure = new_page(title, subtitle, content, all_rows, content, below)
    width = (content + gap_x) / columns - gap_x
    grid = itertools.chain(*add_grid(figure, [width] * columns, [height] * rows, gap_x, gap_y))
    for i, ((name, lines), axes) in enumerate(zip(panels, grid, strict=False)):
        write_title(axes, name, width, NOTE_HEIGHT * len(notes[i]))
        _scale(axes, limits, _epochs(every))
        draw_lines(axes, lines, VALIDATION_ACCURACY)
        _write_notes(axes, notes[i])
        lowest = i + columns >= len(panels)
        axes.tick_params(labelleft=i % columns == 0, labelbottom=lowest)
        axes.set_xlabel(_x_label(every) if lowest else "")
    for axes in grid:
        axes.remove()
    _draw_legend(figure, legend, TOP + (len(said) - 1) * SUBTITLE_LINE)
    return figure


def draw_lines(axes: Axes, lines: Sequence[Line], key: str) -> None:
    """Each curve's mean, a band over its seeds' range, and signs where a seed did not finish.

    If there is one epoch only, the points stand beside each other, with their range as a bar.
    """
    for i, (line, aside) in enumerate(zip(lines, _aside(lines), strict=True)):
        band = line.curve.band(key)
        step = max(1, math.ceil(len(band.epochs) / 6))
        order = 2.5 - i * 0.01
        if len(line.curve.finished) > 1:
            look = {"color": line.colour, "zorder": order, "gid": "band"}
            draw_range(axes, band.epochs + aside, band.low, band.high, **look)
        axes.plot(
            band.epochs + aside,
            band.mean,
            markevery=(i % step, step),
            zorder=order,
            gid="curve",
            **_look(line),
        )
        if line.curve.is_cut_short and len(band.epochs):
            draw_unfinished(axes, band.epochs[-1] + aside, band.mean[-1], line.colour)
        for run in line.curve.diverged:
            _draw_diverged(axes, run, key, line.colour)
    if not any(_is_shown(line, key) for line in lines):
        say_not_recorded(axes)


def say_not_recorded(axes: Axes) -> None:
    """Words in the middle of axes that have nothing to show."""
    axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", color="#8c8c8c")


def _aside(lines: Sequence[Line]) -> list[float]:
    """How far each curve is moved to the right: not at all, if there is more than one epoch."""
    first, last = _epochs(lines)
    n = len(lines)
    return [0.6 * ((i + 0.5) / n - 0.5) if first == last else 0.0 for i in range(n)]


def draw_unfinished(axes: Axes, x: float, y: float, colour: str) -> None:
    """An open circle where a curve ends before its time, if that is inside the axes."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    if not (left <= x <= right and low <= y <= high):
        return
    axes.plot(
        [x],
        [y],
        marker="o",
        markersize=9,
        markerfacecolor="none",
        markeredgecolor=colour,
        markeredgewidth=1.4,
        linestyle="none",
        clip_on=False,  # whole also at the edge
        zorder=4,
        gid="unfinished",
    )


def _draw_diverged(axes: Axes, run: Run, key: str, colour: str) -> None:
    """A thin line through the numbers of a seed that diverged, and a ✕ at the last of them that is
    not after the divergence, if that lies inside the axes (if not: `_outside`).
    """
    values = run.values(key)
    there = np.isfinite(values)
    axes.plot(run.epochs[there], values[there], color=colour, linewidth=0.8, gid="diverged-seed")
    x, y = _last_before(run, key)
    low, high = axes.get_ylim()
    if low <= y <= high:
        axes.plot(
            [x],
            [y],
            color=colour,
            markersize=7,
            markeredgewidth=2,
            gid="diverged",
            **CROSS,
        )


def _last_before(run: Run, key: str) -> tuple[int, float]:
    """Epoch and value of the last number of a diverged run that is not after the divergence.

    If there is none, its first epoch and where the curve has gone.
    """
    values = run.values(key)
    before = np.isfinite(values) & (run.epochs <= run.diverged_at)
    if not before.any():
        return int(run.epochs[0]), _lost(key)
    return int(run.epochs[before][-1]), float(values[before][-1])


def _outside(
    lines: Sequence[Line], key: str, limits: tuple[float, float]
) -> list[tuple[list[int], str]]:
    """Of each curve with diverged seeds whose ✕ is not in the axes: their epochs, its colour."""
    rows = []
    for line in lines:
        ends = [_last_before(run, key) for run in line.curve.diverged]
        places = [x for x, y in ends if not limits[0] <= y <= limits[1]]
        if places:
            rows.append((places, line.colour))
    return rows


def accuracy_limits(bands: Sequence[Band]) -> tuple[float, float]:
    """Limits of an accuracy axis that show every curve and its band from the first epoch on.

    Left out are points more than `REACH` times as far below the best value as the median curve
    starts: one curve that stays, starts or dips so far below the others would flatten them.
    """
    bands = [band for band in bands if len(band.epochs)]
    if not bands:
        return 0.0, 1.0
    points = np.concatenate([values for band in bands for values in band[1:]])
    best = points.max()
    start = np.median([band.mean[0] for band in bands])
    worst = points[points >= best - REACH * max(0.0, best - start)].min()
    scale = max(1.0, abs(best))
    pad = 0.04 * (best - worst) if best - worst > 1e-9 * scale else 0.005 * scale
    return float(worst - pad), float(best + pad)


def loss_limits(bands: Sequence[Band]) -> tuple[float, float]:
    """Limits of a loss axis, logarithmic (lower limit above 0) if all values are above 0.

    They are `accuracy_limits` upside down.
    """
    bands = [band for band in bands if len(band.epochs)]
    if not bands:
        return 0.1, 1.0
    log = min(band.low.min() for band in bands) > 0
    scale = np.log10 if log else np.asarray
    low, high = accuracy_limits(
        [Band(b.epochs, -scale(b.mean), -scale(b.high), -scale(b.low)) for b in bands]
    )
    return (10.0**-high, 10.0**-low) if log else (-high, -low)


def _bands(lines: Sequence[Line], keys: Sequence[str]) -> list[Band]:
    return [line.curve.band(key) for line in lines for key in keys]


def _epochs(lines: Sequence[Line]) -> tuple[int, int]:
    """First and last epoch that is drawn."""
    epochs = [line.curve.band(key).epochs for line in lines for key in CURVE_KEYS]
    epochs += [
        run.epochs[(run.epochs <= run.diverged_at) | run.has_trained_on]
        for line in lines
        for run in line.curve.diverged
    ]
    drawn = np.concatenate(epochs)
    return int(drawn.min()), int(drawn.max())


def _x_label(lines: Sequence[Line]) -> str:
    return lines[0].curve.unit.capitalize()


def _is_shown(line: Line, key: str) -> bool:
    return len(line.curve.band(key).epochs) > 0 or len(line.curve.diverged) > 0


def _lost(key: str) -> float:
    """Where a curve without a number has gone: up for a loss, down for an accuracy."""
    return math.inf if key in (TRAIN_LOSS, VALIDATION_LOSS) else -math.inf


def _scale(
    axes: Axes, limits: tuple[float, float], epochs: tuple[int, int], log: bool = False
) -> None:
    first, last = epochs
    pad = 0.02 * (last - first) or 0.5
    axes.set_xlim(first - pad, last + pad)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0f}"))
    if log:
        axes.set_yscale("log")
        is_narrow = limits[1] < 30 * limits[0]
        label_logarithmic(axes.yaxis, 12, (1, 2, 5) if is_narrow else (1, 3))
    else:
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=(1, 2, 5, 10)))
        axes.yaxis.set_major_formatter(OneNotation())
    axes.set_ylim(*limits)


def _end(line: Line, key: str, limits: tuple[float, float], aside: float = 0.0) -> labels.EndLabel:
    """The label at a curve's right end; it gives the value of an end outside the limits."""
    band = line.curve.band(key)
    x, y = (band.epochs[-1], band.mean[-1]) if len(band.epochs) else (math.nan, _lost(key))
    text = line.label + fate(line.curve)
    text += " (not recorded)" * (not _is_shown(line, key))
    if math.isfinite(y) and not limits[0] <= y <= limits[1]:
        text += f"  {'↓' if y < limits[0] else '↑'} {decimal(float(f'{y:.3g}'))}"
    return labels.EndLabel(text, line.colour, float(x) + aside, float(y), line.dashes, line.marker)


def fate(curve: SeedGroup) -> str:
    """Returns what to add to a curve's name if seeds diverged or did not finish; else nothing."""
    seeds = len(curve.runs)
    if not curve.survivors:
        return " (diverged)" if seeds == 1 else f" ({seeds} of {seeds} diverged)"
    parts = [f"{len(curve.finished)} of {seeds} seeds"] * bool(curve.unfinished)
    parts += [f"{len(curve.diverged)} of {seeds} diverged"] * bool(curve.diverged)
    parts += [_how_far(curve.finished[0])] * curve.is_cut_short
    return f" ({', '.join(parts)})" if parts else ""


def _how_far(run: Run) -> str:
    """Of a run that is cut short: "failed at epoch 3 of 10", or "stopped" if no error is."""
    reached, length, unit = run.progress
    return f"{'failed' if run.has_failed else 'stopped'} at {unit} {reached} of {length}"


def _unseen(lines: Sequence[Line], limits: tuple[float, float]) -> list[labels.EndLabel]:
    """Labels of curves of which seeds diverged, that end below the axis, or have no numbers.

    A gap must not look like no run, and the legend does not tell.
    """
    ends = [(line.curve, _end(line, VALIDATION_ACCURACY, limits)) for line in lines]
    return [
        end._replace(text=f"✕ {end.text}") if curve.diverged else end
        for curve, end in ends
        if curve.diverged or end.y < limits[0]
    ]


def _write_notes(axes: Axes, notes: Sequence[labels.EndLabel]) -> None:
    """Labels between a panel and its title, where they cover no curve."""
    for i, note in enumerate(reversed(notes)):
        axes.annotate(
            note.text,
            (0, 1),
            (0, 5 + 72 * NOTE_HEIGHT * i),
            xycoords="axes fraction",
            textcoords="offset points",
            color=ink(note.colour),
            fontsize=8,
            gid="note",
        )


def _legend_rows(lines: dict[str, Line], width: float) -> list[list[tuple[float, Line]]]:
    """Rows of legend entries, each with its place from the left in inches, wrapped at `width`."""
    rows: list[list[tuple[float, Line]]] = [[]]
    x = 0.0
    for name, line in lines.items():
        entry = 0.36 + text_width(name)
        if rows[-1] and x + entry > width:
            rows.append([])
            x = 0.0
        rows[-1].append((x, line))
        x += entry + 0.35
    return rows


def _draw_legend(figure: Figure, rows: list[list[tuple[float, Line]]], top: float) -> None:
    """Short lines and names under the subtitle, `top` inches below the figure's edge."""
    width, height = figure.get_size_inches()
    for row, entries in enumerate(rows):
        y = (height - top + 0.1 - LEGEND_HEIGHT * row) / height
        for x, line in entries:
            figure.add_artist(
                Line2D(
                    [(LEFT + x + part) / width for part in (0, 0.14, 0.28)],
                    [y] * 3,
                    markevery=[1],
                    **_look(line),
                )
            )
            figure.text(
                (LEFT + x + 0.36) / width,
                y,
                line.label,
                fontsize=FONT_SIZE,
                va="center_baseline",
            )


def _look(line: Line) -> dict:
    return {
        "color": line.colour,
        "linestyle": line.dashes,
        "marker": line.marker,
        "markeredgecolor": "white",
        "markeredgewidth": 0.5,
    }
