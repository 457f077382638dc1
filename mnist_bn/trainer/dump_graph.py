"""DumpGraph that writes its file whole, and starts no other program."""

from __future__ import annotations

from pathlib import Path

import chainer
from chainer.computational_graph import build_computational_graph
from chainer.training import Trainer, extensions

from mnist_bn.storage import files


class DumpGraph(extensions.DumpGraph):
    """Chainer's DumpGraph: the computational graph of the first iteration, as `cg.dot`.

    Chainer's also has Graphviz draw it, if that is installed: a training run that waits for another
    program fails with it. `dot -Tpng cg.dot -o cg.png` draws it at any time.

    Raises:
        CannotWriteError: the file cannot be written.
    """

    # Before all others: what they hold of the iteration is then complete (see `checkpoint`).
    priority = 20_000

    def __call__(self, trainer: Trainer) -> None:
        try:
            graph = build_computational_graph(
                [trainer.observation[self._root_name]],
                variable_style=self._variable_style,
                function_style=self._function_style,
            )
            with files.replacing(Path(trainer.out) / self._filename) as file:
                file.write(graph.dump().encode())
        finally:
            chainer.config.keep_graph_on_report = self._original_flag
