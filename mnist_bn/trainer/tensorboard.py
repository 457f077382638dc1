"""TensorBoard's event files, beside the log."""

from __future__ import annotations

import importlib.util
from typing import Any

from chainer.training import Trainer, extension

from mnist_bn.errors import UsageError
from mnist_bn.terminal import wording

POSITIONS = ("epoch", "iteration", "elapsed_time")


def check() -> None:
    """Checks that tensorboardX, which writes the files, is installed.

    Raises:
        UsageError: it is not; the line says how to install it.
    """
    if importlib.util.find_spec("tensorboardX") is None:
        command = wording.pip_install("requirements-tensorboard.txt")
        raise UsageError(f"--tensorboard: there is no tensorboardX here; install it by {command}")


class TensorBoard(extension.Extension):
    """Writes each new entry of the log as scalars at its iteration.

    A run that goes on from a snapshot has TensorBoard forget what came after it.
    """

    name = "TensorBoard"
    # After LogReport, whose newest entry it writes.
    priority = extension.PRIORITY_READER - 1

    def __init__(self) -> None:
        self._writer: Any = None
        self._written = 0

    def initialize(self, trainer: Trainer) -> None:
        """Begins a file; the entries of the log that are there are in those before it."""
        from tensorboardX import SummaryWriter

        log = trainer.get_extension("LogReport").log
        self._written = len(log)
        iteration = trainer.updater.iteration
        # The name has whole seconds only: one that goes on at once would begin the same file anew.
        self._writer = SummaryWriter(
            trainer.out, purge_step=iteration + 1, filename_suffix=f".{iteration:09d}"
        )

    def __call__(self, trainer: Trainer) -> None:
        """Writes what is new."""
        log = trainer.get_extension("LogReport").log
        for entry in log[self._written :]:
            for key, value in entry.items():
                if key not in POSITIONS and isinstance(value, (int, float)):
                    self._writer.add_scalar(key, value, entry["iteration"])
        self._written = len(log)
        self._writer.flush()

    def finalize(self) -> None:
        """Closes the file, however training ends."""
        if self._writer is not None:
            self._writer.close()
