"""Finding and loading the trainer snapshots of a result folder."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import chainer
import numpy as np
from chainer.serializers import NpzDeserializer

from mnist_bn.config import IDENTITY
from mnist_bn.errors import UsageError, UserError

NAME = re.compile(r"snapshot_iter_(\d+)")


def newest(folder: Path) -> Path | None:
    """Returns the snapshot of the most iterations in `folder`, None where there is none."""
    snapshots = {
        int(match[1]): path for path in folder.iterdir() if (match := NAME.fullmatch(path.name))
    }
    return snapshots[max(snapshots)] if snapshots else None


def check_same_run(path: Path, args: dict) -> None:
    """Checks that the run which took the snapshot had the settings `args`; `epoch` may differ.

    A snapshot without `args` beside it, such as stock Chainer's, is taken as it is.

    Raises:
        UsageError: a setting differs.
    """
    try:
        taken_with = json.loads((path.parent / "args").read_bytes())
    except (OSError, ValueError):
        return
    if not isinstance(taken_with, dict):
        return
    for setting in [*IDENTITY, "model_sha256"]:
        if setting != "epoch" and taken_with.get(setting) != args[setting]:
            raise UsageError(
                f"{path} was taken with {setting} {taken_with.get(setting)}, not {args[setting]}: "
                "resume with the same settings (only --epoch may differ)"
            )


def load(path: Path, trainer: chainer.training.Trainer) -> None:
    """Loads the snapshot `path` into `trainer`; nothing is ever unpickled.

    Raises:
        UserError: the file cannot be read, or is no snapshot of such a run.
    """
    try:
        with np.load(path, allow_pickle=False) as npz:
            NpzDeserializer(npz).load(trainer)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path}: not a snapshot of this run ({error}); expected one made by the same model, "
            "optimizer and settings"
        ) from None
