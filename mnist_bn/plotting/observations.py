"""What observers measured (`--observe`): reading a run's NPZ files, and a figure of each."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mnist_bn.errors import UserError
from mnist_bn.plotting import comparison, film, panels
from mnist_bn.plotting.appearance import (
    BLACK,
    BLUE,
    DASHES,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    style,
)
from mnist_bn.plotting.groups import group_runs
from mnist_bn.plotting.results import Run, printable

COLOURS = (BLACK, BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY)
MAX_LINES = 14

Observed = dict[str, np.ndarray]


def read(run: Run, name: str) -> Observed | None:
    """Returns what the observer `name` measured, arrays `(T, ...)`; None: it was not there.

    Raises:
        UserError: the file is no such time series.
    """
    path = run.folder / f"{name}.npz"
    if not path.exists():
        return None
    try:
        # Opened here: of what is no archive, NumPy leaves the file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as npz:
            series = dict(npz)
        times = series["epoch"].shape + series["iteration"].shape
        if len(times) != 2 or any(array.shape[:1] != times[:1] for array in series.values()):
            raise ValueError("its arrays differ in length")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{printable(path)}: expected the arrays that --observe {name} writes ({error}); "
            "remove the file to draw the rest"
        ) from None
    return series


def times(run: Run, series: Observed) -> np.ndarray:
    """Returns when each measurement was taken, `(T,)`: epochs or iterations, as the run's log."""
    return series[run.unit]


def measurements(series: Observed) -> Observed:
    """Returns the series without the times."""
    return {key: array for key, array in series.items() if key not in ("epoch", "iteration")}


def dead(flat: np.ndarray) -> np.ndarray:
    """Returns which units are dead, bool `(T, units)`: flat now and at the measurement before.

    The dying-ReLU study's definition: dW is flat for two epochs or more.
    """
    before = np.zeros_like(flat)
    before[1:] = flat[:-1]
    return flat & before


def draw(
    runs: Sequence[Run], out: Path, formats: Sequence[str] = ("png",), leave_out: Sequence[str] = ()
) -> list[Path]:
    """Draws each run's measurements, a figure for each observer; returns the files.

    Args:
        leave_out: names of observers that other figures show.

    Raises:
        UserError: a file cannot be read or written.
    """
    paths = []
    with style():
        for run in runs:
            for name, figure_of in _FIGURES.items():
                if name not in leave_out and (series := read(run, name)) is not None:
                    figure = figure_of(run, series)
                    paths += comparison.save(figure, out, f"{run.name}-{name}", formats)
            if film.NAME not in leave_out and (series := read(run, film.NAME)) is not None:
                paths += film.save({run.name: series}, out, f"{run.name}-{film.NAME}")
    return paths


def _dead_units(run: Run, series: Observed) -> Figure:
    """The count of dead units by each definition, a panel each."""
    titles = {
        "flat_update": "Units whose dW is flat in two epochs or more",
        "flat_gradient": "Units whose last gradient is flat",
        "never_positive": "Units that no training image makes positive",
    }
    x = times(run, series)
    shown = []
    for kind, title in titles.items():
        found = [key for key in series if key.startswith(f"{kind}/")]
        counts = [
            (dead(series[key]) if kind == "flat_update" else series[key]).sum(axis=1)
            for key in found
        ]
        lines = [
            panels.Series(x, count, f"{key.partition('/')[2]}  {count[-1]}", colour)
            for key, count, colour in zip(found, counts, _colours(found), strict=False)
        ]
        top = max((count.max(initial=0) for count in counts), default=0)
        shown.append(
            panels.Panel(title, lines, (-0.04 * max(top, 5), 1.1 * max(top, 5)), False, True)
        )
    return _figure(run, shown, "Dead units")


def _percentiles(run: Run, series: Observed) -> Figure:
    """The 15th, 50th and 85th percentile of what a nonlinearity receives, a panel each."""
    shown = [
        percentile_panel(f"Input of {name}, its first unit", times(run, series), array[:, :, 0])
        for name, array in measurements(series).items()
    ]
    return _figure(run, shown, "Percentiles of activations")


def percentile_panel(
    title: str,
    x: np.ndarray,
    percentiles: np.ndarray,
    colour: str = BLUE,
    limits: tuple[float, float] | None = None,
) -> panels.Panel:
    """Returns a panel of three percentiles, `(T, 3)`, against x, `(T,)`."""
    names, dashes = ("15th", "50th", "85th"), (DASHES[1], "-", DASHES[1])
    lines = [
        panels.Series(x, y, name, colour, dash)
        for name, dash, y in zip(names, dashes, percentiles.T, strict=True)
    ]
    return panels.Panel(title, lines, limits)


def _gradient_norms(run: Run, series: Observed) -> Figure:
    """The norm of each parameter's gradient, weights above and all others below."""
    norms = measurements(series)
    kinds = {"weights": [], "all other parameters": []}
    for key in norms:
        kinds["weights" if key.endswith("/W") else "all other parameters"].append(key)
    shown = []
    for kind, keys in kinds.items():
        if keys:
            lines = [
                panels.Series(times(run, series), norms[key], key, colour)
                for key, colour in zip(keys[:MAX_LINES], _colours(keys), strict=False)
            ]
            panel = panels.Panel(f"Norm of the gradient: {kind}", lines, log_y=True)
            shown.append(panel)
    return _figure(run, shown, "Gradients")


def _colours(keys: Sequence[str]) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(len(keys))]


def _figure(run: Run, shown: Sequence[panels.Panel], title: str) -> Figure:
    subtitle = "  ·  ".join((run.name, comparison.conditions(group_runs([run]))))
    return panels.stacked(shown, title, subtitle, run.unit.capitalize())


_FIGURES: dict[str, Callable[[Run, Observed], Figure]] = {
    "dead-units": _dead_units,
    "activation-percentiles": _percentiles,
    "gradient-norms": _gradient_norms,
}
