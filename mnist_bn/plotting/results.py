"""Reading result folders: a folder in, a `Run` out, whatever lies in it.

A result folder is one that holds a file named exactly `log` (a JSON list, one object an epoch, as
Chainer's LogReport writes it) or `args` (a JSON object: the run's settings).
"""

import json
import math
import os
import re
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mnist_bn.errors import UsageError, UserError

TRAIN_LOSS, TRAIN_ACCURACY = "main/loss", "main/accuracy"
VALIDATION_LOSS, VALIDATION_ACCURACY = "validation/main/loss", "validation/main/accuracy"
CURVE_KEYS = (TRAIN_LOSS, TRAIN_ACCURACY, VALIDATION_LOSS, VALIDATION_ACCURACY)

_MAX_BYTES = 64 * 2**20
_MAX_POSITION = 100_000_000
_MAX_NUMBER = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Run:
    """One result folder: its settings (`args`, {} if there are none) and its log.

    `log` has one dict an epoch (or each few iterations: `unit`), ascends in it and names each once.
    `notes` says what had to be left out.
    """

    folder: Path
    args: dict[str, Any]
    log: tuple[dict[str, Any], ...]
    notes: tuple[str, ...] = ()

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
    def unit(self) -> str:
        """What the log counts in: "epoch" or "iteration"."""
        return _unit(self.args)

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
                _number(entry[key]) == math.inf for key in CURVE_KEYS if key in entry
            ):
                return entry[self.unit]
        return None

    @cached_property
    def progress(self) -> tuple[int, int | None, str]:
        """How far the log goes, how far it was to go (None: not recorded), and in what unit."""
        unit = "iteration" if self.args.get("iteration") else "epoch"
        reached, length = self.log[-1].get(unit), self.args.get(unit)
        is_known = all(
            isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in (reached, length)
        )
        return (reached, length, unit) if is_known else (int(self.epochs[-1]), None, self.unit)

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
        values = np.array([_number(entry.get(key, "")) for entry in self.log], dtype=np.float64)
        values[np.isinf(values)] = np.nan
        if self.diverged_at is not None and not self.has_trained_on:
            values[self.epochs >= self.diverged_at] = np.nan
        return values


def read_runs(roots: Sequence[Path], note: Callable[[str], None]) -> list[Run]:
    """Read every result folder in and under `roots`; what cannot be read costs one note, no more.

    Raises UsageError for a root that is not a folder.
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
    """Folders that hold a `log` or an `args`, each once, in the order of their names."""

    def unreadable(error: OSError) -> None:
        note(f"{printable(error.filename)}: cannot be read ({error.strerror}); skipped")

    found, seen = [], set()
    for root in roots:
        if not os.path.isdir(root):
            wrong = "is not a folder" if os.path.lexists(root) else "no such folder"
            wrong = "is a file" if os.path.isfile(root) else wrong
            raise UsageError(
                f"{printable(root)}: {wrong}; expected a result folder, or a folder"
                " of them, as train_mnist.py writes"
            )
        for parent, folders, files in os.walk(root, onerror=unreadable, followlinks=True):
            try:
                status = os.stat(parent)
            except OSError as error:
                unreadable(error)
                continue
            identity = (status.st_dev, status.st_ino)
            if identity in seen:  # named twice, or a loop of symbolic links
                folders.clear()
                continue
            seen.add(identity)
            folders.sort()
            if {"log", "args"}.intersection(files + folders):
                found.append(Path(parent))
    return found


def read_run(folder: Path) -> Run:
    """Read one result folder; raises UserError when there is no epoch in it to draw."""
    notes: list[str] = []
    try:
        args = _read_args(folder, notes)
        log = _one_entry_each(_unit(args), _read_log(folder, notes), notes)
        run = Run(folder, args, log, tuple(notes))
        if not log:
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
        args = json.loads(_read_text(folder, "args"))
    except UserError as error:
        notes.append(f"{error}, so its settings are not known")
        return {}
    except (ValueError, RecursionError):
        args = None
    if not isinstance(args, dict):
        notes.append("args is not a JSON object, so its settings are not known")
        return {}
    return args


def _read_log(folder: Path, notes: list[str]) -> list[Any]:
    if not os.path.lexists(folder / "log"):
        raise UserError("args but no log, so no finished epoch")
    text = _read_text(folder, "log")
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError):
        entries = _complete_entries(text)
        if not entries:
            raise UserError("log is not the JSON list that LogReport writes") from None
        notes.append(f"log is cut off or damaged after {_count(len(entries), 'complete entry')}")
    if not isinstance(entries, list):
        raise UserError("log is not the JSON list that LogReport writes")
    return entries


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


def _complete_entries(text: str) -> list[Any]:
    """What a list's text holds before it breaks off."""
    start = re.match(r"\s*\[", text)
    if start is None:
        return []
    decoder, entries, position = json.JSONDecoder(), [], start.end()
    between = re.compile(r"[\s,]*")
    while True:
        try:
            entry, position = decoder.raw_decode(text, between.match(text, position).end())
        except (ValueError, RecursionError):
            return entries
        entries.append(entry)


def _unit(args: dict[str, Any]) -> str:
    counts_iterations = args.get("iteration") or args.get("evaluate_every")
    return "iteration" if counts_iterations else "epoch"


def _one_entry_each(unit: str, entries: list[Any], notes: list[str]) -> tuple[dict[str, Any], ...]:
    """Entries sorted by epoch; of several for an epoch the last, as after a resumed run."""
    by_epoch: dict[int, dict[str, Any]] = {}
    unusable = repeated = not_numbers = 0
    for entry in entries:
        epoch = _position(entry, unit)
        if epoch is None:
            unusable += 1
            continue
        repeated += epoch in by_epoch
        not_numbers += sum(math.isnan(_number(entry[key])) for key in CURVE_KEYS if key in entry)
        by_epoch[epoch] = entry | {unit: epoch}
    if unusable:
        notes.append(f"{_count(unusable, 'entry')} without a usable {unit} left out")
    if repeated:
        notes.append(f"{_count(repeated, 'entry')} repeating an {unit}, the last one kept")
    if not_numbers:
        notes.append(f"{_count(not_numbers, 'value')} that should be a number left out")
    return tuple(by_epoch[epoch] for epoch in sorted(by_epoch))


def _position(entry: Any, unit: str) -> int | None:
    at = _number(entry.get(unit, "")) if isinstance(entry, dict) else math.nan
    return int(at) if 0 <= at <= _MAX_POSITION and at == int(at) else None


def _number(value: Any) -> float:
    """A JSON value as a number: inf for one that is not finite (null, NaN, ±Infinity, beyond
    float32, which no loss can be), NaN for what is no number at all."""
    if value is None:
        return math.inf
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value) if abs(value) <= _MAX_NUMBER else math.inf


def _word(value: Any) -> str | None:
    """A recorded name or number as one printable word; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        return None
    try:
        return printable(value)
    except ValueError:  # an integer of thousands of digits
        return None


def printable(text: str | Path) -> str:
    """Text from a file or a folder's name, safe to print and to draw."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text))


def _count(n: int, noun: str) -> str:
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{n} {noun if n == 1 else plural}"
