"""Finding and loading the trainer snapshots of a result folder."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import chainer
import numpy as np
from chainer.serializers import NpzDeserializer

from mnist_bn.errors import UserError

NAME = re.compile(r"snapshot_iter_(\d+)")


def newest(folder: Path) -> Path | None:
    """Returns the snapshot of the most iterations in `folder`, None where there is none."""
    snapshots = {
        int(match[1]): path for path in folder.iterdir() if (match := NAME.fullmatch(path.name))
    }
    return snapshots[max(snapshots)] if snapshots else None


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
