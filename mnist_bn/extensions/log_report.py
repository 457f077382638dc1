"""LogReport whose `log` is always strict JSON, and which goes on exactly where it was."""

from __future__ import annotations

import json
from pathlib import Path

import chainer
import numpy as np
from chainer.training import extensions

from mnist_bn import files

_SUMS = ("_x", "_x2", "_n")


class LogReport(extensions.LogReport):
    """Chainer's LogReport, with two differences.

    A number that is not finite is null in the file `log`: stock Chainer writes a bare NaN, which
    strict JSON parsers refuse. And the sums of the epoch so far come back from a snapshot with
    their types: stock Chainer makes float64 of float32, and the means then round differently.
    """

    default_name = "LogReport"

    def __init__(self, **kwargs) -> None:
        super().__init__(log_name=None, **kwargs)

    def __call__(self, trainer: chainer.training.Trainer) -> None:
        entries = len(self.log)
        super().__call__(trainer)
        if len(self.log) > entries:
            self.write(trainer)

    def write(self, trainer: chainer.training.Trainer) -> None:
        """Writes the file `log`."""
        files.write_json(Path(trainer.out) / "log", self.log)

    def initialize(self, trainer: chainer.training.Trainer) -> None:
        for summary in self._summary._summaries.values():
            for name in _SUMS:
                value = getattr(summary, name)
                if isinstance(value, np.ndarray):
                    setattr(summary, name, trainer.updater.device.send(value))

    def serialize(self, serializer) -> None:
        if hasattr(self._trigger, "serialize"):
            self._trigger.serialize(serializer["_trigger"])
        self._log = json.loads(str(serializer("_log", json.dumps(self._log))))
        summaries = self._summary._summaries
        names = json.loads(str(serializer("_names", json.dumps(list(summaries)))))
        if isinstance(serializer, chainer.Deserializer):
            self._init_summary()
            summaries = self._summary._summaries
        for i, name in enumerate(names):
            for part in _SUMS:
                value = _serialize_number(serializer, f"{i}{part}", getattr(summaries[name], part))
                setattr(summaries[name], part, value)


def _serialize_number(serializer, key: str, value):
    """Saves or returns a Python number as such, and any other as an array of its type."""
    if not isinstance(serializer, chainer.Deserializer):
        is_python = type(value) in (int, float)
        serializer(f"{key}/is_python", is_python)
        serializer(key, value)
        return value
    array = serializer(key, None)
    return array.item() if serializer(f"{key}/is_python", False) else array
