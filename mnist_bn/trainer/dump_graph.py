"""DumpGraph that writes its file whole, and starts no other program."""

from __future__ import annotations

import os
import re
from pathlib import Path

import chainer
from chainer.computational_graph import ComputationalGraph, build_computational_graph
from chainer.function_node import FunctionNode
from chainer.training import Trainer, extensions

from mnist_bn.storage import files


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
            loss = trainer.observation[self._root_name]
            graph = build_computational_graph(
                [loss],
                variable_style=self._variable_style,
                function_style=self._function_style,
            )
            with files.replacing(self._path(trainer)) as file:
                file.write(_to_dot(graph, loss).encode())
        finally:
            chainer.config.keep_graph_on_report = self._original_flag

    def _path(self, trainer: Trainer) -> Path:
        return Path(trainer.out) / self._filename


def _to_dot(graph: ComputationalGraph, loss: chainer.Variable) -> str:
    """Returns Chainer's text of the graph, with the nodes numbered from the loss on.

    Chainer calls them by their places in memory, in the order of a set: two runs that are the same
    would differ.
    """
    numbers = {node: number for number, node in enumerate(_nodes_from(loss))}
    graph.nodes.sort(key=numbers.get)
    graph.edges.sort(key=lambda edge: [numbers[node] for node in edge])
    names = {str(id(node)): str(number) for node, number in numbers.items()}
    return re.sub(r"\d+", lambda found: names.get(found[0], found[0]), graph.dump())


def _nodes_from(loss: chainer.Variable) -> list:
    nodes = [loss.node]
    seen = {None, loss.node}
    for node in nodes:
        for before in node.inputs if isinstance(node, FunctionNode) else [node.creator_node]:
            if before not in seen:
                seen.add(before)
                nodes.append(before)
    return nodes
