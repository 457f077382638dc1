"""LogReport whose `log` is always strict JSON, and which goes on exactly where it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import chainer
import numpy as np
from chainer.training import extensions

from mnist_bn.errors import UserError
from mnist_bn.storage.growing import GrowingArray
from mnist_bn.storage.json_list import JsonListFile
from mnist_bn.trainer.divergence import is_divergence

if TYPE_CHECKING:
    from mnist_bn.gpu.sums import Sums  # it needs CuPy

_SUMS = ("_x", "_x2", "_n")


class LogReport(extensions.LogReport):
    """Chainer's LogReport, with three differences.

    A number that is not finite is null in the file `log`: stock Chainer writes a bare NaN, which
    strict JSON parsers refuse. And the sums of the epoch so far come back from a snapshot with
    their types: stock Chainer makes float64 of float32, and the means then round differently. And
    an entry takes no longer if many have been written before it; of a long log, the last two
    seconds may be missing from the file while the run goes on (see `json_list`).

    Args:
        sums: on a GPU, what the training step adds up by itself.
        kwargs: as Chainer's.
    """

    default_name = "LogReport"

    def __init__(self, sums: Sums | None = None, **kwargs) -> None:
        self._sums = sums
        super().__init__(log_name=None, **kwargs)
        self._file: JsonListFile | None = None
        # The entries as lines of JSON, for snapshots: each is made once.
        self._lines = GrowingArray(np.zeros(0, np.uint8))

    def __call__(self, trainer: chainer.training.Trainer) -> None:
        entries = len(self.log)
        super().__call__(trainer)
        if len(self.log) > entries:
            self._lines.extend(_lines(self.log[entries:]))
            self._file_of(trainer).extend(self.log)

    def write(self, trainer: chainer.training.Trainer) -> None:
        """Writes the file `log` anew."""
        self._file_of(trainer).write(self.log)

    def finalize(self) -> None:
        """Leaves the whole log in the file `log`, and nothing beside it."""
        if self._file is not None:
            self._file.close(self.log)

    def _file_of(self, trainer: chainer.training.Trainer) -> JsonListFile:
        if self._file is None:
            self._file = JsonListFile(Path(trainer.out) / "log")
        return self._file

    def _init_summary(self) -> None:
        super()._init_summary()
        if self._sums is not None:
            self._summary._summaries.update(self._sums.summaries())

    def initialize(self, trainer: chainer.training.Trainer) -> None:
        summaries = self._summary._summaries
        if self._sums is not None:
            summaries.update(self._sums.summaries(summaries))
        for summary in summaries.values():
            for name in _SUMS:
                value = getattr(summary, name)
                if isinstance(value, np.ndarray):
                    setattr(summary, name, trainer.updater.device.send(value))

    def serialize(self, serializer) -> None:
        if hasattr(self._trigger, "serialize"):
            self._trigger.serialize(serializer["_trigger"])
        if isinstance(serializer, chainer.Deserializer):
            self._log = _read_log(serializer("_log", None))
            self._lines = GrowingArray(_lines(self._log))
        else:
            serializer("_log", self._lines.rows())
        summaries = self._summary._summaries
        names = json.loads(str(serializer("_names", json.dumps(list(summaries)))))
        if isinstance(serializer, chainer.Deserializer):
            self._init_summary()
            summaries = self._summary._summaries
            _check_names(names)
        for i, name in enumerate(names):
            for part in _SUMS:
                value = _serialize_number(serializer, f"{i}{part}", getattr(summaries[name], part))
                setattr(summaries[name], part, value)


def _lines(entries: list[dict]) -> np.ndarray:
    return np.frombuffer(b"".join(json.dumps(e).encode() + b"\n" for e in entries), np.uint8)


def _read_log(array: np.ndarray) -> list[dict]:
    """Returns the log of a snapshot: lines of JSON, or of an older one the list as text.

    Raises:
        UserError: it is none.
    """
    if array.dtype == np.uint8:
        lines = array.tobytes().splitlines()
        log: object = [_from_json(line, "a line of the log") for line in lines]
    else:
        log = _from_json(str(array), "the log")
    if not isinstance(log, list) or not all(map(_is_entry, log)):
        raise UserError("damaged: expected the log to hold numbers of epochs or iterations")
    return log


def _from_json(text: bytes | str, what: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise UserError(f"damaged: expected {what} to be JSON") from None


def _is_entry(entry: object) -> bool:
    if not isinstance(entry, dict):
        return False
    numbers = {key: value for key, value in entry.items() if key != "diverged_at"}
    are_numbers = all(type(value) in (int, float) for value in numbers.values())
    counts = [numbers.get("epoch"), numbers.get("iteration")]
    return (
        are_numbers
        and "elapsed_time" in numbers
        and all(type(count) is int for count in counts)
        and is_divergence(entry.get("diverged_at"))
    )


def _check_names(names: object) -> None:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError("damaged: expected the names of what the log sums up")


def _serialize_number(serializer, key: str, value):
    """Saves or returns a Python number as such, and any other as an array of its type."""
    if not isinstance(serializer, chainer.Deserializer):
        is_python = type(value) in (int, float)
        serializer(f"{key}/is_python", is_python)
        serializer(key, value)
        return value
    array = serializer(key, None)
    is_python = bool(serializer(f"{key}/is_python", False))
    if array is not None and (array.shape != () or array.dtype.kind not in "fi"[: 1 + is_python]):
        raise UserError("damaged: expected the log to sum up numbers")
    return array.item() if is_python else array
