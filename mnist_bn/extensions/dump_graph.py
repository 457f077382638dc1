"""DumpGraph that says which file could not be written."""

from __future__ import annotations

from pathlib import Path

from chainer.training import Trainer, extensions

from mnist_bn import files


class DumpGraph(extensions.DumpGraph):
    """Chainer's DumpGraph: the computational graph of the first iteration, as `cg.dot`.

    Raises:
        CannotWriteError: the file cannot be written.
    """

    # Before all others: what they hold of the iteration is then complete (see `checkpoint`).
    priority = 20_000

    def __call__(self, trainer: Trainer) -> None:
        try:
            super().__call__(trainer)
        except OSError as error:
            raise files.CannotWriteError(Path(trainer.out) / self._filename, error) from error
