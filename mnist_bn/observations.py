"""What observers measured (`--observe`): reading a run's files, and drawing them.

A figure is of a run, or of the seeds of a network together; each observer's file has its own.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from mnist_bn import plotting
from mnist_bn.errors import UserError
from mnist_bn.observers import observers
from mnist_bn.observers.arrays import what_is_wrong
from mnist_bn.observers.base import Observer
from mnist_bn.observers.measured import Measured, Observed, measurements
from mnist_bn.observers.minibatch import WHEN, MinibatchObserver
from mnist_bn.plotting import comparison
from mnist_bn.plotting.appearance import BLUE
from mnist_bn.plotting.canvas import BETWEEN
from mnist_bn.plotting.curves import fate
from mnist_bn.plotting.groups import SeedGroup, group_runs
from mnist_bn.plotting.results import Run
from mnist_bn.plotting.words import printable
from mnist_bn.storage import archives

MAX_TIME, MAX_NAME = 10**9, 200


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
        wrong = _no_series(series) or what_is_wrong(observers()[name].arrays, measurements(series))
    except UserError as error:
        wrong = str(error)
    if wrong is not None:
        raise UserError(
            f"{printable(path)}: expected the arrays that --observe {name} writes "
            f"({printable(wrong)})"
        )
    return series


def _no_series(series: Observed) -> str | None:
    """Returns why these arrays are no series in time, with names to draw; None: they are."""
    clock = [series.get(key, np.zeros(0)) for key in ("epoch", "iteration")]
    if not all(array.dtype.kind == "i" and array.ndim == 1 and len(array) for array in clock):
        return "no times in it"
    if any(array.shape[:1] != clock[0].shape for array in series.values()):
        return "its arrays differ in length"
    if any(array.min() < 0 or array.max() > MAX_TIME for array in clock):
        return "its times are none"
    if not all(key.isprintable() and len(key) <= MAX_NAME for key in series):
        return "a name in it is none"
    return None


def measured(runs: Sequence[Run], name: str, label: str = "", colour: str = "") -> Measured:
    """Returns what the observer `name` measured in those of these runs that have it.

    Args:
        runs: the seeds of one network.
        label, colour: of the network in a figure.

    Raises:
        UserError: a file is no such time series, or its arrays are of other shapes than the
            first's, apart from the number of measurements: a run that diverged has fewer.
    """
    found = [(run, series) for run in runs if (series := read(run, name)) is not None]
    for run, series in found:
        if _shapes(series) != _shapes(found[0][1]):
            raise UserError(
                f"{printable(run.folder / name)}.npz: expected arrays of the same shapes as in "
                f"{printable(found[0][0].folder)}; draw these runs apart"
            )
    return Measured(label, colour, [series for _, series in found], [run for run, _ in found])


def without_bad_files(
    runs: Sequence[Run], groups: Sequence[SeedGroup], note: Callable[[str], None]
) -> list[Run]:
    """Returns the runs, of which a bad file counts as not there, with a note of each.

    Bad is a file that `read` refuses, and one of other shapes than that of the first seed of its
    group, the number of measurements aside.
    """
    shapes: dict[tuple[Path, str], dict[str, tuple[int, ...]]] = {}
    bad: set[tuple[Path, str]] = set()
    for run, name in itertools.product(runs, observers()):
        try:
            series = read(run, name)
        except UserError as error:
            note(f"{error}; not drawn")
            bad.add((run.folder, name))
        else:
            if series is not None:
                shapes[run.folder, name] = _shapes(series)
    for group, name in itertools.product(groups, observers()):
        there = [run.folder for run in group.runs if (run.folder, name) in shapes]
        for folder in there[1:]:
            if shapes[folder, name] != shapes[there[0], name]:
                note(
                    f"{printable(folder / name)}.npz: its arrays are of other shapes than those in "
                    f"{printable(there[0])}, another seed; not drawn"
                )
                bad.add((folder, name))
    unreadable = [
        frozenset(name for name in observers() if (run.folder, name) in bad) for run in runs
    ]
    return [replace(run, unreadable=names) for run, names in zip(runs, unreadable, strict=True)]


def _shapes(series: Observed) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each array after the axis of time."""
    return {key: array.shape[1:] for key, array in series.items()}


def times(run: Run, series: Observed) -> np.ndarray:
    """Returns when each measurement was taken, `(T,)`: epochs or iterations, as the run's log."""
    return series[run.unit]


def figures(runs: Sequence[Run], leave_out: Sequence[str] = ()) -> plotting.Figures:
    """Yields what was measured in each run and, if there are several seeds, in these together.

    Args:
        leave_out: names of observers that other figures show.

    Raises:
        UserError: a file cannot be read.
    """
    taken: Counter[str] = Counter()
    alone = [group for run in runs for group in group_runs([run])]
    several = [group for group in group_runs(runs) if len(group.runs) > 1]
    with np.errstate(all="ignore"):  # what was lost or zero is drawn as such
        for group in alone + several:
            name = _name(group)
            taken[name.casefold()] += 1
            again = taken[name.casefold()]  # folders of one name in several places
            prefix = f"{name}-" if again == 1 else f"{name}-{again}-"
            for observer in observers().values():
                if observer.name not in leave_out:
                    for file_name, figure in _figures_of(group, observer):
                        yield f"{prefix}{file_name}", figure


def _figures_of(group: SeedGroup, observer: type[Observer]) -> plotting.Figures:
    """Yields what one observer measured; nothing of several seeds if only one has it."""
    first = group.runs[0]
    # At initialisation no run has diverged, and none is unfinished.
    runs = group.runs if observer.at is not None else group.finished or group.runs
    found = measured(runs, observer.name, first.model or first.name, BLUE)
    if len(found.seeds) < min(2, len(group.runs)):
        return
    head = partial(_head, group, observer, len(found.seeds))
    yield from observer.figures([found], head)


def _name(group: SeedGroup) -> str:
    """The folder's name of a run, that of seeds without the seed."""
    first = group.runs[0]
    return (
        first.name
        if len(group.runs) == 1
        else f"{first.name.removesuffix(f'-s{first.seed}')}-seeds"
    )


def _head(
    group: SeedGroup, observer: type[Observer], seeds: int, title: str, to_see: str
) -> tuple[str, str]:
    """Title and subtitle of a figure: whose runs, how they were evaluated, what to see."""
    model = group.runs[0].model
    if issubclass(observer, MinibatchObserver):
        parts = [comparison.data([group]), WHEN]
        number = number_of_seeds(observer, seeds)
        ending = ""
    else:
        title = f"{title}, {model}" if model else title
        parts = [comparison.conditions([group])]
        number = f"mean and range of {comparison.seeds(seeds)}"
        ending = fate(group).strip(" ()")
    parts = [_name(group), *parts, number * (len(group.runs) > 1), ending]
    return title, f"{BETWEEN.join(filter(None, parts))}\n{to_see.format(unit=group.unit)}"


def number_of_seeds(observer: type[MinibatchObserver], seeds: int) -> str:
    """Returns how many seeds a figure shows, in words such as "3 seeds"."""
    number = comparison.seeds(seeds)
    return f"the first of {number}" if observer.shows_first_seed and seeds > 1 else number
