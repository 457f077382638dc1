"""Reading result folders: a folder in, a `Run` out, whatever lies in it.

A result folder is one that holds a file named exactly `log` (a JSON list, one object an epoch, as
Chainer's LogReport writes it) or `args` (a JSON object: the run's settings).
"""

import math
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from mnist_bn.errors import UsageError, UserError
from mnist_bn.plotting import logs, recorded
from mnist_bn.plotting.logs import (
    CURVE_KEYS,
    TRAIN_ACCURACY,
    TRAIN_LOSS,
    VALIDATION_ACCURACY,
    VALIDATION_LOSS,
)
from mnist_bn.plotting.words import bounded, printable

__all__ = ["CURVE_KEYS", "TRAIN_ACCURACY", "TRAIN_LOSS", "VALIDATION_ACCURACY"]
__all__ += ["VALIDATION_LOSS", "Run", "find_result_folders", "printable", "read_run", "read_runs"]

EARLIER = "earlier"  # in a result folder: runs that were there before, set aside
_SIGNS = {"log", "args"}  # of a result folder
_MAX_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Run:
    """One result folder: its settings (`args`, {} if there are none) and its log.

    `log` has one dict an epoch (or each few iterations), ascends in it and names each once; `unit`
    is what it counts in, "epoch" or "iteration". `notes` says what had to be left out, `unreadable`
    names the observers whose files are to be.
    """

    folder: Path
    args: dict[str, Any]
    log: tuple[dict[str, Any], ...]
    unit: str = "epoch"
    notes: tuple[str, ...] = ()
    unreadable: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """The folder's name, for a run that recorded nothing better."""
        return printable(self.folder.name or self.folder.resolve().name)

    @property
    def model(self) -> str | None:
        """The network as recorded, `MnistCNN` or `path/to/net.py:MyNet`; None: not recorded."""
        return _word(self.args.get("model"))

    @property
    def optimizer(self) -> str | None:
        return _word(self.args.get("optimizer"))

    @property
    def dataset(self) -> str | None:
        return _word(self.args.get("dataset"))

    @property
    def semantics(self) -> str | None:
        return _word(self.args.get("semantics"))

    @property
    def study(self) -> str | None:
        return _word(self.args.get("study"))

    @property
    def seed(self) -> str | None:
        return _word(self.args.get("seed"))

    @cached_property
    def epochs(self) -> np.ndarray:
        """Epochs (or iterations: `unit`) of the log, (E,) int64."""
        return np.array([entry[self.unit] for entry in self.log], dtype=np.int64)

    @cached_property
    def diverged_at(self) -> int | None:
        """The first epoch (or iteration) with a loss or an accuracy that is not finite, or recorded
        as the one in which the run diverged; None if there is none."""
        for entry in self.log:
            if "diverged_at" in entry or any(
                logs.number(entry[key]) == math.inf for key in CURVE_KEYS if key in entry
            ):
                return entry[self.unit]
        return None

    @cached_property
    def progress(self) -> tuple[int, int | None, str]:
        """How far the log goes, how far it was to go (None: not recorded), and in what unit."""
        unit = "iteration" if self.args.get("iteration") else "epoch"
        reached, length = self.log[-1].get(unit), self.args.get(unit)
        if _is_count(reached) and _is_count(length):
            return reached, length, unit
        return int(self.epochs[-1]), None, self.unit

    @cached_property
    def has_failed(self) -> bool:
        """Whether an error ended the run."""
        return not self._has("model.npz") and self._has("error.txt")

    @cached_property
    def is_cut_short(self) -> bool:
        """Whether the run failed, was stopped, or goes on still: its log is no finished run's.

        `model.npz` is written last; a run without one is told by the length that it was to have.
        """
        reached, length, _ = self.progress
        if self.diverged_at is not None or length is None or self._has("model.npz"):
            return False
        return reached < length or self.has_failed

    def _has(self, name: str) -> bool:
        return os.path.lexists(self.folder / name)

    @property
    def has_trained_on(self) -> bool:
        """Whether the run was to train on if it diverged: its numbers from then on count too."""
        return self.args.get("on_divergence") == "continue"

    def values(self, key: str) -> np.ndarray:
        """One series of the log, (E,) float64; NaN: no number, or of a run that ended by diverging
        the epoch in which it did, and what follows."""
        values = np.array([logs.number(entry.get(key, "")) for entry in self.log], dtype=np.float64)
        values[np.isinf(values)] = np.nan
        if self.diverged_at is not None and not self.has_trained_on:
            values[self.epochs >= self.diverged_at] = np.nan
        return values


def read_runs(roots: Sequence[Path], note: Callable[[str], None]) -> list[Run]:
    """Read every result folder in and under `roots`; what cannot be read costs one note, no more.

    Raises UsageError if none of `roots` is a folder.
    """
    runs = []
    for folder in find_result_folders(roots, note):
        try:
            run = read_run(folder)
        except UserError as error:
            note(f"{error}; skipped")
            continue
        if run.notes:
            note(f"{printable(folder)}: {'; '.join(run.notes)}")
        runs.append(run)
    return runs


def find_result_folders(roots: Iterable[Path], note: Callable[[str], None]) -> list[Path]:
    """Folders that hold a `log` or an `args`, each once, in the order of their names.

    Not those in a result folder's `earlier`, unless it is one of `roots`.

    Raises UsageError if none of `roots` is a folder.
    """
    folders, wrong = [], []
    for root in roots:
        if os.path.isdir(root):
            folders.append(root)
            continue
        what = "is not a folder" if os.path.lexists(root) else "no such folder"
        what = "is a file" if os.path.isfile(root) else what
        wrong.append(f"{printable(root)}: {what}")
    if wrong and not folders:
        expected = "expected a result folder, or a folder of them, as train_mnist.py writes"
        raise UsageError(f"{', '.join(wrong)}; {expected}")
    for line in wrong:
        note(f"{line}; skipped")

    def unreadable(error: OSError) -> None:
        note(f"{printable(error.filename)}: cannot be read ({error.strerror}); skipped")

    seen: set[tuple[int, int]] = set()
    return [found for root in folders for found in _walk(root, seen, unreadable)]


def _walk(
    root: Path, seen: set[tuple[int, int]], unreadable: Callable[[OSError], None]
) -> Iterator[Path]:
    """The result folders in and under `root`, but for folders that are in `seen` already."""
    waiting = [os.fspath(root)]
    while waiting:
        folder = waiting.pop()
        try:
            status = os.stat(folder)
            with os.scandir(folder) as entries:
                names = {entry.name: _is_folder(entry) for entry in entries}
        except OSError as error:
            unreadable(error)
            continue
        identity = (status.st_dev, status.st_ino)
        if identity in seen:  # named twice, or a loop of symbolic links
            continue
        seen.add(identity)
        if _SIGNS & names.keys():
            yield Path(folder)
        if names.keys() & {*_SIGNS, ".lock"}:  # also one that has been set aside, and no more
            names.pop(EARLIER, None)
        below = (name for name, is_folder in names.items() if is_folder)
        waiting += [os.path.join(folder, name) for name in sorted(below, reverse=True)]


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of symbolic links
        return False


def read_run(folder: Path) -> Run:
    """Read one result folder; raises UserError when there is no epoch in it to draw."""
    notes: list[str] = []
    try:
        args = _read_args(folder, notes)
        entries = _read_log(folder, notes)
        unit = logs.unit_of(entries, args)
        run = Run(folder, args, logs.one_run(entries, unit, notes), unit, tuple(notes))
        if not run.log:
            raise UserError("; ".join(["no finished epoch in its log", *notes]))
        if run.diverged_at is None and all(np.isnan(run.values(key)).all() for key in CURVE_KEYS):
            raise UserError(f"no number in its log under {', '.join(CURVE_KEYS)}")
    except UserError as error:
        raise UserError(f"{printable(folder)}: {error}") from None
    return run


def _read_args(folder: Path, notes: list[str]) -> dict[str, Any]:
    if not os.path.lexists(folder / "args"):
        return {}
    try:
        text = _read_text(folder, "args")
    except UserError as error:
        notes.append(f"{error}, so its settings are not known")
        return {}
    return recorded.parse(text, notes)


def _read_log(folder: Path, notes: list[str]) -> list[Any]:
    if not os.path.lexists(folder / "log"):
        raise UserError("args but no log, so no finished epoch")
    return logs.parse(_read_text(folder, "log"), notes)


def _read_text(folder: Path, name: str) -> str:
    try:
        status = os.stat(folder / name)
        if not stat.S_ISREG(status.st_mode):  # a folder, or a pipe that would block for ever
            raise UserError(f"{name} is not a file")
        if status.st_size > _MAX_BYTES:
            raise UserError(f"{name} is larger than {_MAX_BYTES // 2**20} MiB")
        return (folder / name).read_bytes().decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise UserError(f"{name} cannot be read ({error.strerror})") from None


def _word(value: Any) -> str | None:
    """A recorded name or number as one printable word; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        return None
    return bounded(printable(str(value)))


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
