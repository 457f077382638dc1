"""LogReport whose `log` is always strict JSON."""

from __future__ import annotations

from pathlib import Path

import chainer
from chainer.training import extensions

from mnist_bn import files


class LogReport(extensions.LogReport):
    """Chainer's LogReport, except that a number that is not finite is null in the file `log`.

    Stock Chainer writes a bare NaN, which strict JSON parsers refuse.
    """

    default_name = "LogReport"

    def __init__(self, **kwargs) -> None:
        super().__init__(log_name=None, **kwargs)

    def __call__(self, trainer: chainer.training.Trainer) -> None:
        entries = len(self.log)
        super().__call__(trainer)
        if len(self.log) > entries:
            files.write_json(Path(trainer.out) / "log", self.log)
