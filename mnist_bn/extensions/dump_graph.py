"""DumpGraph that writes its file whole, and starts no other program."""

from __future__ import annotations

import os
from pathlib import Path

import chainer
from chainer.computational_graph import build_computational_graph
from chainer.training import Trainer, extensions

from mnist_bn import files


class DumpGraph(extensions.DumpGraph):
    """Chainer's DumpGraph: the computational graph of the first iteration, as `cg.dot`.

    A run that goes on from a snapshot of another folder writes that of its own first iteration.

    Chainer's also has Graphviz draw it, if that is installed: a training run that waits for another
    program fails with it. `dot -Tpng cg.dot -o cg.png` draws it at any time.

    Raises:
        CannotWriteError: the file cannot be written.
    """

    # Before all others: what they hold of the iteration is then complete (see `checkpoint`).
    priority = 20_000

    def initialize(self, trainer: Trainer) -> None:
        """Sees to it that the next iteration's graph is kept, if there is none yet."""
        self._flag_called = self._flag_called and os.path.lexists(self._path(trainer))
        super().initialize(trainer)

    def __call__(self, trainer: Trainer) -> None:
        try:
            graph = build_computational_graph(
                [trainer.observation[self._root_name]],
                variable_style=self._variable_style,
                function_style=self._function_style,
            )
            with files.replacing(self._path(trainer)) as file:
                file.write(graph.dump().encode())
        finally:
            chainer.config.keep_graph_on_report = self._original_flag

    def _path(self, trainer: Trainer) -> Path:
        return Path(trainer.out) / self._filename
