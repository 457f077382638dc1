"""Whether a run is finished already, by what its result folder holds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mnist_bn.config import RunConfig
from mnist_bn.errors import UserError
from mnist_bn.preparation import PreparedRun
from mnist_bn.storage import result_folder
from mnist_bn.storage.identity import difference
from mnist_bn.trainer import schedule


def is_finished(run: PreparedRun) -> bool:
    """Tells whether the run's result folder holds its final parameters, or those of a longer one.

    Raises:
        UserError: the folder holds another run's results, which must not be overwritten.
    """
    config, folder = run.config, run.folder
    # Not Path.exists, which raises for a folder that may not be entered.
    if not os.path.exists(folder / result_folder.MODEL):
        return False
    args = result_folder.read_args(folder)
    if other := difference(args, run.identity):
        raise UserError(
            f"{folder} holds a finished run with {other}: "
            "choose another --out, or remove that folder to train anew"
        )
    was_broken_off = _was_broken_off(folder, args)
    # One that ended because it diverged would have ended so at any greater length.
    if not was_broken_off and _steps_beyond(run, args) < 0:
        return False
    # Not the files: a run that diverged before its first evaluation has measured nothing.
    observed = args.get("observe") or ""
    for name in config.observed:
        if name not in observed.split(","):
            raise UserError(
                f"{folder} holds a finished run without --observe {name}: "
                "choose another --out, or remove that folder to train anew"
            )
    return config.on_divergence != "continue" or not was_broken_off


def longer_than_asked(runs: Sequence[PreparedRun]) -> str | None:
    """Returns in one line which of the finished runs are longer than asked for, None for none."""
    lines = []
    for run in runs:
        args = result_folder.read_args(run.folder)
        if _steps_beyond(run, args) > 0 and not _was_broken_off(run.folder, args):
            there = schedule.describe_length(_config_of(run.folder, args))
            asked = schedule.describe_length(run.config)
            lines.append(f"{run.folder} holds a finished run of {there}, more than the {asked} ")
    if not lines:
        return None
    others = f", and {len(lines) - 1} more such" if len(lines) > 1 else ""
    return f"{lines[0]}asked for{others}: skipped (a shorter one goes into another --out)"


def _steps_beyond(run: PreparedRun, args: dict) -> int:
    """Returns how many steps the run that `args` describes is longer than that asked for."""
    images = len(run.dataset.train.labels)
    there = schedule.last_iteration(_config_of(run.folder, args), images)
    return there - schedule.last_iteration(run.config, images)


def _config_of(folder: Path, args: dict) -> RunConfig:
    try:
        return RunConfig.from_args(args)
    except UserError as error:
        raise UserError(
            f"{folder / 'args'}: not the settings of a run ({error}); choose another --out, or "
            "remove the folder to train anew"
        ) from None


def _was_broken_off(folder: Path, args: dict) -> bool:
    """Tells whether the finished run ended early because it diverged."""
    log = result_folder.read_log(folder)
    has_diverged = any(isinstance(entry, dict) and "diverged_at" in entry for entry in log)
    return args.get("on_divergence") == "stop" and has_diverged
