"""Snapshots: the whole state of a run in one file, and the way back from it.

A snapshot is Chainer's serialization of the Trainer, with what that leaves out: the state of the
random number generators, which run it is and with what settings, and, if it was taken before an
evaluation, all that the evaluation and its measurements belong to: the iteration's observation and
the gradients. Its format is that of `archives`.
"""

from __future__ import annotations

import contextlib
import json
import re
import uuid
from collections.abc import Container
from pathlib import Path
from typing import NamedTuple

import chainer
import numpy as np
from chainer.serializers import DictionarySerializer, NpzDeserializer
from chainer.training import Trainer

from mnist_bn.errors import UserError
from mnist_bn.storage import archives, random_state, snapshot_check
from mnist_bn.trainer import update_rules

FORMAT = 1
KEPT = 2  # snapshots in a folder: the newest, and one in case that it is damaged

_NAME = re.compile(r"snapshot_iter_(\d+)")
_HEADER = "mnist_bn/header"
_OBSERVATION = "mnist_bn/observation/"
_GRADIENT = "mnist_bn/gradient"
_RANDOM = "mnist_bn/random/"


class BadSnapshotError(UserError):
    """A file is no snapshot, or a damaged one, or one of another version of this program."""


class Snapshot(NamedTuple):
    """A snapshot as it was read: its file, its header and its arrays by their names."""

    path: Path
    header: dict
    arrays: dict[str, np.ndarray]


class Run(NamedTuple):
    """What a snapshot says of its run: the settings that its numbers depend on, each of which must
    be the same to go on, the circumstances, which change rounding only, and the run's ID. A run of
    before there were IDs has none."""

    identity: dict
    circumstances: dict
    run_id: str | None = None


def new_run_id() -> str:
    """Returns an ID that no other run has; it draws from none of the seeded generators."""
    return uuid.uuid4().hex


def path_of(trainer: Trainer) -> Path:
    """Returns where a snapshot of the trainer as it is now belongs."""
    return Path(trainer.out) / f"snapshot_iter_{trainer.updater.iteration}"


def capture(
    trainer: Trainer, run: Run, *, is_evaluated: bool = True, has_gradients: bool = False
) -> dict[str, np.ndarray]:
    """Returns copies of the arrays of a snapshot.

    Args:
        is_evaluated: False before the extensions of the iteration: `finish_iteration` calls them.
        has_gradients: then also keep the gradients, for those that measure them.
    """
    serializer = DictionarySerializer()
    serializer.save(trainer)
    # Chainer says None by an array that holds the Python object, which would be pickled.
    # It keeps a link's parameters in a set, whose order differs from process to process.
    target = sorted(serializer.target.items())
    nothing = [key for key, value in target if _is_none(value)]
    arrays = {key: _copy(value) for key, value in target if key not in nothing}
    header = {"format": FORMAT, "none": nothing, "observation": None, **run._asdict()}
    header["optimizer"] = update_rules.numbers(trainer.updater.get_optimizer("main"))
    if not is_evaluated:
        header["observation"] = list(trainer.observation)
        for i, value in enumerate(trainer.observation.values()):
            arrays[f"{_OBSERVATION}{i}"] = _on_cpu(value)
        for path, parameter in _parameters(trainer) if has_gradients else ():
            if parameter.grad is not None:
                arrays[f"{_GRADIENT}{path}"] = _on_cpu(parameter.grad)
    header["random"], words = random_state.capture()
    arrays |= {f"{_RANDOM}{name}": array for name, array in words.items()}
    arrays[_HEADER] = _encode(header)
    return arrays


def _encode(header: dict) -> np.ndarray:
    return np.frombuffer(json.dumps(header).encode(), np.uint8)


def save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes a snapshot; then removes those before the last but one.

    Raises:
        CannotWriteError: it cannot be written; the older ones are as they were.
    """
    archives.write(path, arrays)
    earlier = [other for other in found(path.parent) if iteration(other) < iteration(path)]
    for old in earlier[KEPT - 1 :]:
        with contextlib.suppress(OSError):
            old.unlink()


def with_run_id(snapshot: Snapshot, run_id: str) -> dict[str, np.ndarray]:
    """Returns a snapshot's arrays as the beginning of another run."""
    return {**snapshot.arrays, _HEADER: _encode({**snapshot.header, "run_id": run_id})}


def found(folder: Path) -> list[Path]:
    """Returns the snapshots in a folder, the newest (of the most iterations) first."""
    paths = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
    return sorted(paths, key=iteration, reverse=True)


def read(path: Path) -> Snapshot:
    """Reads a snapshot; nothing is ever unpickled.

    Raises:
        BadSnapshotError: it is damaged, or something else.
        UserError: it cannot be read.
    """
    try:
        arrays = archives.read(path)
    except archives.BadArchiveError as error:
        raise BadSnapshotError(str(error)) from None
    try:
        header = json.loads(arrays[_HEADER].tobytes())
        version, *said = (header[key] for key in ("format", "identity", "circumstances"))
        is_known = version == FORMAT and all(isinstance(part, dict) for part in said)
    except (KeyError, ValueError, TypeError, RecursionError):
        raise BadSnapshotError(
            f"{path}: not a snapshot of this program (parameters, as model.npz, are for --init)"
        ) from None
    if not is_known:
        raise BadSnapshotError(
            f"{path}: a snapshot of another version of this program (format {version}; this one "
            f"reads {FORMAT})"
        )
    return Snapshot(path, header, arrays)


def is_snapshot(names: Container[str]) -> bool:
    """Tells whether an archive whose arrays have these names is a snapshot."""
    return _HEADER in names


def load(snapshot: Snapshot, trainer: Trainer) -> None:
    """Puts the trainer, and the random number generators, in the state of the snapshot.

    Raises:
        BadSnapshotError: it does not fit the trainer, which is of no use then.
        UserError: an extension says in its own line why not.
    """
    try:
        snapshot_check.check_header(snapshot.header, snapshot.arrays, _OBSERVATION)
        snapshot_check.check(snapshot.arrays, trainer)
        # Before Chainer asks for the state of what is updated; not there in earlier snapshots.
        numbers = snapshot.header.get("optimizer", {})
        update_rules.restore(trainer.updater.get_optimizer("main"), numbers)
        nothing = dict.fromkeys(snapshot.header["none"], np.asarray(None))
        NpzDeserializer(_Arrays({**snapshot.arrays, **nothing})).load(trainer)
        # Last: making a network and its optimizer draws random numbers.
        words = {name: snapshot.arrays[f"{_RANDOM}{name}"] for name in random_state.GENERATORS}
        random_state.restore(snapshot.header["random"], words)
    except UserError as error:
        raise UserError(f"{snapshot.path}: {error}") from None
    except Exception as error:
        # Whatever the network's and the extensions' own code makes of another version's arrays.
        raise BadSnapshotError(
            f"{snapshot.path}: does not fit this network ({type(error).__name__}: {error}); it was "
            "taken with another version of the code"
        ) from None


class _Arrays(dict):
    """The arrays of a snapshot, with the state of parameters that had no shape yet: None.

    Chainer saves no state of them, and then asks for it.
    """

    def __missing__(self, key: str) -> np.ndarray:
        rule = key.rpartition("/")[0]
        parameter = rule.replace("updater/optimizer:", "updater/model:", 1)
        if parameter != rule and _is_none(self.get(parameter)):
            return np.asarray(None)
        raise KeyError(key)


def finish_iteration(snapshot: Snapshot, trainer: Trainer) -> None:
    """Calls the extensions of the last iteration, if the snapshot was taken before them.

    As Trainer.run does after an update; for a trainer that is running.
    """
    names = snapshot.header["observation"]
    if names is None:
        return
    send = trainer.updater.device.send
    trainer.observation = {
        name: send(snapshot.arrays[f"{_OBSERVATION}{i}"]) for i, name in enumerate(names)
    }
    for path, parameter in _parameters(trainer):
        if (gradient := snapshot.arrays.get(f"{_GRADIENT}{path}")) is not None:
            parameter.grad = send(gradient)
    entries = sorted(trainer._extensions.values(), key=lambda entry: -entry.priority)
    with trainer.reporter.scope(trainer.observation):
        for entry in entries:
            if entry.trigger(trainer):
                entry.extension(trainer)


def _parameters(trainer: Trainer) -> list[tuple[str, chainer.Parameter]]:
    return sorted(trainer.updater.get_optimizer("main").target.namedparams())


def iteration(path: Path) -> int:
    """Returns the number of the step after which a snapshot was taken, by its name."""
    return int(path.name.rpartition("_")[2])


def _copy(value: np.ndarray) -> np.ndarray:
    """Returns a copy; of a read-only array, to which things are added at most, the array."""
    array = np.asanyarray(value)
    return np.array(array) if array.flags.writeable else array


def _is_none(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == object and value[()] is None


def _on_cpu(value: object) -> np.ndarray:
    """Returns a number that was reported: a Variable, an array of any device, or a scalar."""
    array = getattr(value, "array", value)
    return np.array(array.get() if hasattr(array, "get") else array)
