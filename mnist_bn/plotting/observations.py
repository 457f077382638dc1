"""What observers measured (`--observe`): reading a run's NPZ files, and a figure of each."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mnist_bn.errors import UserError
from mnist_bn.plotting import comparison, film, minibatch, panels
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
from mnist_bn.plotting.canvas import BETWEEN
from mnist_bn.plotting.curves import fate
from mnist_bn.plotting.groups import Curve, group_runs
from mnist_bn.plotting.results import VALIDATION_ACCURACY, Run
from mnist_bn.plotting.words import printable
from mnist_bn.storage import archives

COLOURS = (BLACK, BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY)
MAX_LINES = 14
MAX_TIME, MAX_NAME = 10**9, 200

Observed = dict[str, np.ndarray]

# Of each observer's arrays, by name (* is any): the kind of number (dtype.kind), and the shape
# after the axis of time: None is any length, a word one that is the same all over the file.
_LAYOUT = {
    "dead-units": {"*": ("b", (None,))},
    "weight-updates": {"*": ("u", (None, None, None))},
    "activation-percentiles": {"*": ("f", (3, None))},
    "gradient-norms": {"*": ("f", ())},
    "training-accuracy": {"accuracy": ("f", ())},
    "activation-moments": {key: ("f", ("layers",)) for key in ("mean", "std", "variance")},
    "channel-gradients": {"gradient": ("f", (None, None)), "layer": ("i", ())},
    "diverging-step": {
        "lr": ("f", ()),
        "fraction": ("f", ("fractions",)),
        "loss": ("f", ("fractions",)),
        "mean/*": ("f", ("fractions", None)),
        "variance/*": ("f", ("fractions", None)),
    },
    "gradient-histogram": {
        **{key: ("f", ("layers",)) for key in ("std", "kurtosis", "minimum", "maximum")},
        "layer": ("i", ()),
        "counts": ("i", (None,)),
        "limit": ("f", ()),
    },
    "gradient-noise": {
        "batch_size": ("i", ("sizes",)),
        "noise": ("f", ("sizes",)),
        "constant": ("f", ()),
    },
    "kernel-gradients": {
        "layer": ("i", ("chosen",)),
        "sum_of_absolute": ("f", ("chosen",)),
        "absolute_of_sum": ("f", ("chosen",)),
    },
    "output-gradients": {"gradient": ("f", ("images", None)), "label": ("i", ("images",))},
    "relative-loss": {
        "step_size": ("f", ("steps",)),
        "relative_loss": ("f", ("steps",)),
        "loss": ("f", ()),
    },
    "variance-shift": {
        f"{part}/*": ("f", (None,))
        for part in ("shift", "real_mean", "real_var", "moving_mean", "moving_var")
    },
    "reestimated-bn": {"accuracy": ("f", ())},
}
# Arrays that are an axis.
_LOGARITHMIC = {"batch_size", "step_size"}


def read(run: Run, name: str) -> Observed | None:
    """Returns what the observer `name` measured, arrays `(T, ...)`; None: it was not there.

    None also for a file that is known to be no such time series: `without_bad_files`.

    Raises:
        UserError: the file is no such time series.
    """
    path = run.folder / f"{name}.npz"
    if name in run.unreadable or not os.path.lexists(path):
        return None
    try:
        series = archives.read(path, checksum_required=False)
        wrong = _what_is_wrong(name, series)
    except UserError as error:
        wrong = str(error)
    if wrong is not None:
        raise UserError(
            f"{printable(path)}: expected the arrays that --observe {name} writes "
            f"({printable(wrong)})"
        )
    return series


def without_bad_files(
    runs: Sequence[Run], curves: Sequence[Curve], note: Callable[[str], None]
) -> list[Run]:
    """Returns the runs, of which a bad file counts as not there, with a note of each.

    Bad is a file that `read` refuses, and one of other shapes than that of the first seed of its
    curve, the number of measurements aside.
    """
    shapes: dict[tuple[Path, str], dict[str, tuple[int, ...]]] = {}
    bad: set[tuple[Path, str]] = set()
    for run, name in itertools.product(runs, _LAYOUT):
        try:
            series = read(run, name)
        except UserError as error:
            note(f"{error}; not drawn")
            bad.add((run.folder, name))
        else:
            if series is not None:
                shapes[run.folder, name] = {key: a.shape[1:] for key, a in series.items()}
    for curve, name in itertools.product(curves, _LAYOUT):
        there = [run.folder for run in curve.runs if (run.folder, name) in shapes]
        for folder in there[1:]:
            if shapes[folder, name] != shapes[there[0], name]:
                note(
                    f"{printable(folder / name)}.npz: its arrays are of other shapes than those in "
                    f"{printable(there[0])}, another seed; not drawn"
                )
                bad.add((folder, name))
    unreadable = [frozenset(name for name in _LAYOUT if (run.folder, name) in bad) for run in runs]
    return [replace(run, unreadable=names) for run, names in zip(runs, unreadable, strict=True)]


def _what_is_wrong(name: str, series: Observed) -> str | None:
    """Returns why these are not the series of the observer `name`; None: they are."""
    clock = [series.get(key, np.zeros(0)) for key in ("epoch", "iteration")]
    if not all(array.dtype.kind == "i" and array.ndim == 1 and len(array) for array in clock):
        return "no times in it"
    if any(array.shape[:1] != clock[0].shape for array in series.values()):
        return "its arrays differ in length"
    if any(array.min() < 0 or array.max() > MAX_TIME for array in clock):
        return "its times are none"
    if not all(key.isprintable() and len(key) <= MAX_NAME for key in series):
        return "a name in it is none"
    accuracy = series.get("accuracy", np.zeros(1))
    if not ((accuracy >= 0) & (accuracy <= 1)).all():
        return "accuracy is not from 0 to 1"
    measured = measurements(series)
    lengths: dict[str, int] = {}
    found = set()
    parts: dict[str, dict[str, tuple[int, ...]]] = {}  # of each layer, by what stands before it
    for key, array in measured.items():
        pattern = next((name for name in _LAYOUT[name] if fnmatchcase(key, name)), None)
        if pattern is None or not _fits(array, *_LAYOUT[name][pattern], lengths):
            return f"{key} is {array.dtype}, of shape {array.shape}"
        found.add(pattern)
        if pattern.endswith("/*"):
            parts.setdefault(pattern, {})[key.removeprefix(pattern[:-1])] = array.shape
    if missing := _LAYOUT[name].keys() - found:
        return "nothing but times in it" if not measured else f"no array {min(missing)} in it"
    if any(part != next(iter(parts.values())) for part in parts.values()):
        return "it has not the same of every layer"
    numbers = measured.get("layer", np.ones(1, np.int64))
    if numbers.min() < 1 or numbers.max() > lengths.get("layers", numbers.max()):
        return "layer is no layer"
    for key in _LOGARITHMIC & measured.keys():
        if not (np.isfinite(measured[key]) & (measured[key] > 0)).all():
            return f"{key} is not above 0"
    return None


def _fits(array: np.ndarray, kind: str, shape: Sequence, lengths: dict[str, int]) -> bool:
    """Tells whether a series has the layout; `lengths` are those that words have so far."""
    if array.dtype.kind != kind or array.ndim != len(shape) + 1:
        return False
    for n, wanted in zip(array.shape[1:], shape, strict=True):
        expected = lengths.setdefault(wanted, n) if isinstance(wanted, str) else wanted or n
        if not n or n != expected:
            return False
    return True


def read_all(runs: Sequence[Run], name: str) -> list[Observed]:
    """Returns what the observer `name` measured in each of these runs that has it.

    Raises:
        UserError: a file is no such time series, or its arrays are of other shapes than the
            first's, apart from the number of measurements: a run that diverged has fewer.
    """
    found = [(run, series) for run in runs if (series := read(run, name)) is not None]
    shapes = [{key: array.shape[1:] for key, array in series.items()} for _, series in found]
    for (run, _), shape in zip(found, shapes, strict=True):
        if shape != shapes[0]:
            raise UserError(
                f"{printable(run.folder / name)}.npz: expected arrays of the same shapes as in "
                f"{printable(found[0][0].folder)}; draw these runs apart"
            )
    return [series for _, series in found]


def times(run: Run, series: Observed) -> np.ndarray:
    """Returns when each measurement was taken, `(T,)`: epochs or iterations, as the run's log."""
    return series[run.unit]


def measurements(series: Observed) -> Observed:
    """Returns the series without the times."""
    return {key: array for key, array in series.items() if key not in ("epoch", "iteration")}


def dead(flat: np.ndarray) -> np.ndarray:
    """Returns which units are dead, bool `(T, units)`: flat now and at the measurement before.

    With a measurement an epoch that is the dying-ReLU study's definition: dW is flat for two epochs
    or more.
    """
    before = np.zeros_like(flat)
    before[1:] = flat[:-1]
    return flat & before


def twice(unit: str) -> str:
    """Returns in words for how long dW was flat of a unit that `dead` finds."""
    return "in two epochs or more" if unit == "epoch" else "at two evaluations running or more"


def draw(
    runs: Sequence[Run], out: Path, formats: Sequence[str] = ("png",), leave_out: Sequence[str] = ()
) -> list[Path]:
    """Draws each run's measurements, a figure for each observer; returns the files.

    Args:
        leave_out: names of observers that other figures show.

    Raises:
        UserError: a file cannot be read or written.
    """
    paths, taken = [], Counter()
    with style(), np.errstate(all="ignore"):  # what was lost or zero is drawn as such
        for run in runs:
            taken[run.name.casefold()] += 1
            again = taken[run.name.casefold()]  # folders of one name in several places
            prefix = run.name if again == 1 else f"{run.name}-{again}"
            for name, figure_of in _FIGURES.items():
                if name not in leave_out and (series := read(run, name)) is not None:
                    figure = figure_of(run, series)
                    paths += comparison.save(figure, out, f"{prefix}-{name}", formats)
            for name, shown in minibatch.FIGURES.items():
                series = None if shown.observer in leave_out else read(run, shown.observer)
                if series is not None:
                    group = minibatch.Group(run.model or run.name, BLUE, [series])
                    parts = [run.name, comparison.data(group_runs([run]))]
                    parts.append("one minibatch, in train mode")
                    said = f"{BETWEEN.join(parts)}\n{shown.to_see}"
                    figure = shown.draw([group], shown.title, said)
                    paths += comparison.save(figure, out, f"{prefix}-{name}", formats)
            if film.NAME not in leave_out and (series := read(run, film.NAME)) is not None:
                paths += film.save({run.name: series}, out, f"{prefix}-{film.NAME}", run.unit)
    return paths


def _dead_units(run: Run, series: Observed) -> Figure:
    """The count of dead units by each definition, a panel each."""
    titles = {
        "flat_update": f"Units whose dW is flat {twice(run.unit)}",
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
            panels.Series(x, count, f"{key.partition('/')[2]}  {count[-1]}", *_look(i))
            for i, (key, count) in enumerate(zip(found, counts, strict=True))
        ]
        top = max((count.max(initial=0) for count in counts), default=0)
        shown.append(
            panels.Panel(title, lines, (-0.04 * max(top, 5), 1.1 * max(top, 5)), False, True)
        )
    return _figure(run, shown, "Dead units", "See how many units each sign finds, and since when.")


def _percentiles(run: Run, series: Observed) -> Figure:
    """The 15th, 50th and 85th percentile of what a nonlinearity receives, a panel each."""
    shown = [
        percentile_panel(f"Input of {name}, its first unit", times(run, series), array[:, :, 0])
        for name, array in measurements(series).items()
    ]
    to_see = (
        "Over 500 test images. See whether the median (50th) and the spread (15th to 85th, dashed)"
        " move while the network trains."
    )
    return _figure(run, shown, "Percentiles of activations", to_see)


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
                panels.Series(times(run, series), norms[key], key + _zero(norms[key]), *_look(i))
                for i, key in enumerate(keys[:MAX_LINES])
            ]
            few = f", the first {MAX_LINES} of {len(keys)}" * (len(keys) > MAX_LINES)
            panel = panels.Panel(f"Norm of the gradient: {kind}{few}", lines, log_y=True)
            shown.append(panel)
    to_see = "Of the last minibatch. See whether gradients vanish or explode in some of the layers."
    return _figure(run, shown, "Norms of gradients", to_see)


def _training_accuracy(run: Run, series: Observed) -> Figure:
    """Accuracy on training images in test mode, from 0 to 1."""
    measured = measurements(series)
    lines = [
        panels.Series(times(run, series), values, f"{key}  {values[-1]:.4f}", *_look(i))
        for i, (key, values) in enumerate(measured.items())
    ]
    panel = panels.Panel("Training images, in test mode", lines, (0, 1))
    to_see = "Unlike the log's training accuracy, measured without dropout, and after the epoch."
    return _figure(run, [panel], "Training accuracy", to_see.replace("epoch", run.unit))


def shifts(series: Observed) -> Observed:
    """Returns of `variance-shift` the shift of each BN layer, `(T, channels)`, in their order."""
    return {
        key.removeprefix("shift/"): array
        for key, array in series.items()
        if key.startswith("shift/")
    }


def layer_ticks(layers: Sequence[str]) -> dict[float, str]:
    """Returns where on an x axis the layers are, from 1 on: their names, or numbers for many."""
    are_few = len(layers) <= panels.MAX_TICKS
    return {i: name if are_few else str(i) for i, name in enumerate(layers, start=1)}


def _variance_shift(run: Run, series: Observed) -> Figure:
    """The shift against the BN layer, averaged over channels; a line for some of the times."""
    layers = shifts(series)
    ticks = layer_ticks(list(layers))
    mean = np.array([array.mean(axis=1) for array in layers.values()]).T  # (T, layers)
    x = times(run, series)
    some = sorted(set(np.linspace(0, len(x) - 1, len(COLOURS)).astype(int)))
    lines = [
        panels.Series(np.array(list(ticks)), mean[i], f"{run.unit} {x[i]}", colour, marker="o")
        for i, colour in zip(some, COLOURS, strict=False)
    ]
    # A ratio: logarithmic, but for one so near 1 that the axis would have no tick.
    panel = panels.Panel(
        f"max(real / moving, moving / real) variance{test_mode([run])}, mean over channels",
        lines,
        log_y=mean.max() > 3,
    )
    to_see = (
        "At 1 BN meets in the test the variance of training. See whether the shift grows from"
        " layer to layer."
    )
    return _figure(run, [panel], "Variance shift", to_see, "BN layer", ticks)


def test_mode(runs: Sequence[Run]) -> str:
    """Returns " in test mode" for observers that measure so, of runs evaluated in train mode."""
    return " in test mode" * any(run.semantics == "2016" for run in runs)


def _reestimated_bn(run: Run, series: Observed) -> Figure:
    """Test accuracy as the run was evaluated, and with BN's statistics estimated anew."""
    label = "train mode" if run.semantics == "2016" else "statistics of training"
    kept = panels.Series(run.epochs, run.values(VALIDATION_ACCURACY), label, BLACK)
    anew = panels.Series(
        times(run, series), series["accuracy"], f"estimated anew{test_mode([run])}", BLUE
    )
    panel = panels.Panel("Test accuracy", [kept, anew])
    to_see = "See how much accuracy BN's statistics of training cost, those with dropout on."
    return _figure(run, [panel], "BN's statistics estimated anew, without dropout", to_see)


def _zero(norms: np.ndarray) -> str:
    """What to add to the name of a line that a logarithmic axis cannot show."""
    return " (always 0)" if not norms.any() else ""


def _look(i: int) -> tuple[str, str | tuple]:
    """Colour and dashes of the i-th line."""
    again, colour = divmod(i, len(COLOURS))
    return COLOURS[colour], DASHES[again % len(DASHES)]


def _figure(
    run: Run,
    shown: Sequence[panels.Panel],
    title: str,
    to_see: str,
    x_label: str | None = None,
    x_ticks: dict[float, str] | None = None,
) -> Figure:
    title = f"{title}, {run.model}" if run.model else title
    said = f"{_subtitle(run)}\n{to_see}"
    return panels.stacked(shown, title, said, x_label or run.unit.capitalize(), x_ticks=x_ticks)


def _subtitle(run: Run) -> str:
    (curve,) = group_runs([run])
    parts = [run.name, comparison.conditions([curve])]
    parts += [fate(curve).strip(" ()")] * bool(fate(curve))
    return BETWEEN.join(parts)


_FIGURES: dict[str, Callable[[Run, Observed], Figure]] = {
    "dead-units": _dead_units,
    "activation-percentiles": _percentiles,
    "gradient-norms": _gradient_norms,
    "training-accuracy": _training_accuracy,
    "variance-shift": _variance_shift,
    "reestimated-bn": _reestimated_bn,
}
