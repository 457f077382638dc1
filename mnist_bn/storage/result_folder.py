"""What a result folder holds already, and how it is set aside when a run begins anew in it.

An earlier run's files go to `earlier/<n>/` in the folder. That is begun and ended by a rename, so
what a kill interrupts is carried through when a run next starts there: no folder ever holds the
files of two runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import stat
import sys
from collections.abc import Collection
from pathlib import Path

from mnist_bn.config import RunConfig
from mnist_bn.errors import UserError
from mnist_bn.storage import files, snapshots
from mnist_bn.terminal import wording
from mnist_bn.trainer import schedule

EARLIER = "earlier"
_UNFINISHED = f".setting-aside{files.UNFINISHED}"

MODEL, ERROR, LOG, ARGS = "model.npz", "error.txt", "log", "args"
_PICTURES = ("cg.dot", "cg.png", "loss.png", "accuracy.png")
_SNAPSHOT = re.compile(r"snapshot_iter_\d+(\.refused\d*)?")
_EVENTS = re.compile(r"events\.out\.tfevents\..+")  # TensorBoard's


def read_args(folder: Path) -> dict:
    """Returns the settings of the run in a result folder.

    Raises:
        UserError: there are none, or none that can be read.
    """
    path = folder / ARGS
    try:
        return files.read_json_object(path)
    except UserError:
        raise UserError(
            f"{path}: expected the settings (a JSON object) of the run in this folder; "
            "choose another --out, or remove the folder to train anew"
        ) from None


def run_id(folder: Path) -> str | None:
    """Returns the ID of the run that a result folder is of, None if there is none."""
    try:
        return files.read_json_object(folder / ARGS).get("run_id")
    except UserError:
        return None


def read_log(folder: Path) -> list:
    """Returns the log's entries, none if it cannot be read."""
    try:
        log = json.loads(files.read_bytes(folder / LOG, files.MAX_JSON_BYTES))
    except (UserError, ValueError, RecursionError):
        return []
    return log if isinstance(log, list) else []


def _files_of_run(folder: Path, measured: Collection[str]) -> list[Path]:
    """Returns what a run writes and is there, in the order in which it is best taken away.

    `model.npz`, without which no run is finished, comes first, and `args`, without which nobody
    knows which run it is, last.
    """
    middle = {*_PICTURES, LOG, ERROR, *measured}
    found = sorted(
        path
        for path in folder.iterdir()
        if path.name in middle or _SNAPSHOT.fullmatch(path.name) or _EVENTS.fullmatch(path.name)
    )
    every = [folder / MODEL, *found, folder / ARGS]
    return [path for path in every if os.path.lexists(path) and not _is(stat.S_ISDIR, path)]


def make_room(folder: Path, begins: str, measured: Collection[str]) -> None:
    """Sets aside an earlier run's files, with a line on stderr that says what they are.

    Of a run that had neither logged nor saved anything they are removed.

    Args:
        begins: what begins now, in words such as "training anew".
        measured: the names of the files that observers write.

    Raises:
        CannotWriteError: a file cannot be moved.
        UserError: there are files with such names, and no `args` of a run of ours.
    """
    found = _files_of_run(folder, measured)
    _check_are_ours(folder, found)
    if not _is_worth_keeping(folder, found):
        for path in found:
            files.remove(path)
        return
    what = describe(folder)
    aside = _set_aside(folder, measured)
    how = "it had no snapshot to go on from"
    if newest := next(iter(snapshots.found(aside)), None):
        how = f"to go on with that run: --resume {shlex.quote(str(newest))}; next time: --autoload"
    where = aside.relative_to(folder)
    note = f"note: {folder} held {what}: set aside in {where}, {begins} ({how})"
    wording.say(note, file=sys.stderr)


def _set_aside(folder: Path, measured: Collection[str]) -> Path:
    """Moves the files of the run that a folder holds to a new `earlier/<n>`, which it returns.

    Raises:
        CannotWriteError: the system refuses; what is left is moved when it is tried again.
    """
    unfinished = folder / EARLIER / _UNFINISHED
    try:
        unfinished.mkdir(parents=True, exist_ok=True)
        for path in _files_of_run(folder, measured):
            path.replace(unfinished / path.name)
        numbers = [int(p.name) for p in unfinished.parent.iterdir() if p.name.isdecimal()]
        aside = unfinished.with_name(str(max(numbers, default=0) + 1))
        unfinished.rename(aside)
    except OSError as error:
        raise files.CannotWriteError(unfinished.parent, error) from error
    return aside


def finish_setting_aside(folder: Path, measured: Collection[str]) -> None:
    """Carries through what a kill has interrupted, with a line; forgets what had not begun.

    Args:
        measured: the names of the files that observers write.

    Raises:
        CannotWriteError: a file cannot be moved.
    """
    unfinished = folder / EARLIER / _UNFINISHED
    with contextlib.suppress(OSError):  # it is not there, or not empty
        unfinished.rmdir()
    if os.path.lexists(unfinished):
        aside = _set_aside(folder, measured).relative_to(folder)
        print(
            f"note: {folder} held a run that was being set aside: now in {aside}", file=sys.stderr
        )


def describe(folder: Path) -> str:
    """Returns in words what the folder holds, such as "an unfinished run (3 of 8 epochs)"."""
    log = read_log(folder)
    last = log[-1] if log and isinstance(log[-1], dict) else {}
    what = "a failed" if os.path.lexists(folder / ERROR) else "an unfinished"
    try:
        config = RunConfig.from_args(read_args(folder))
    except UserError:
        return f"{what} run"
    _, unit = schedule.length(config)
    if isinstance(diverged_at := last.get("diverged_at"), dict):
        return f"a run that diverged at iteration {diverged_at.get('iteration')}"
    if os.path.exists(folder / MODEL):
        return f"a finished run of {schedule.describe_length(config)}"
    logged = last.get(unit)
    reached = logged if isinstance(logged, int) else 0
    if unit == "iteration":
        reached = max([reached, *map(snapshots.iteration, snapshots.found(folder))])
    return f"{what} run ({reached} of {schedule.describe_length(config)})"


def _check_are_ours(folder: Path, found: list[Path]) -> None:
    # A link or a pipe is no file that could be lost.
    regular = [path for path in found if _is(stat.S_ISREG, path) and path.name != ERROR]
    if not regular:
        return
    try:
        args = files.read_json_object(folder / ARGS)
    except UserError:
        args = {}
    if not isinstance(args.get("model"), str):
        raise UserError(
            f"{regular[0]}: not of a run of this program, as no `args` beside it says which: move "
            "it away, or choose another --out"
        )


def _is_worth_keeping(folder: Path, found: list[Path]) -> bool:
    replaceable = {*_PICTURES, ARGS, LOG}
    log = folder / LOG
    others = [path for path in found if path.name not in replaceable]
    return any(not _EVENTS.fullmatch(path.name) for path in others) or (
        _is(stat.S_ISREG, log) and (bool(read_log(folder)) or log.stat().st_size > len("[]\n"))
    )


def _is(kind, path: Path) -> bool:
    try:
        return kind(path.lstat().st_mode)
    except OSError:
        return False
