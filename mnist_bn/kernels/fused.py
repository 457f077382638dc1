"""Function nodes that stand for several of Chainer's."""

from __future__ import annotations

import contextlib
import copy
import weakref
from collections.abc import Iterable

import chainer
import numpy as np
from chainer.configuration import config
from chainer.function_node import FunctionNode
from chainer.variable import Variable, VariableNode

from mnist_bn.kernels.graph import gradients_with_graph, variable

# A node that a fused one stands for, which has not been applied; how many inputs it takes; the
# position among them of what the part before returns, None for the first part
Part = tuple[FunctionNode, int, int | None]


class Fused(FunctionNode):
    """Does what its parts would one after another; its inputs are theirs, in order.

    A subclass has `forward`, which retains all inputs, and `gradients`.

    Args:
        pattern: the parts' letters, as in `waiting.fusion`.
        parts: in the order of their application.
    """

    def __init__(self, pattern: str, parts: list[Part]) -> None:
        self.pattern = pattern
        self.parts = parts

    @classmethod
    def covers(cls, parts: list[Part], inputs: list, arrays: list[np.ndarray]) -> bool:
        """Returns whether the class can do it.

        Args:
            parts: they match a pattern that the class is declared for.
            inputs: Variables, steps that return one, and arrays.
            arrays: theirs.
        """
        raise NotImplementedError

    def gradients(
        self, indexes: tuple[int, ...], inputs: list[np.ndarray], gy: np.ndarray
    ) -> list[np.ndarray]:
        """Returns the gradients of the inputs that `indexes` has."""
        raise NotImplementedError

    def backward(self, indexes, grad_outputs):
        """Returns the gradients; see FunctionNode."""
        if config.enable_backprop:  # the gradient is to have a gradient
            # An input may come of another: its gradient is not to go through that one, too.
            inputs = [chainer.functions.identity(x) for x in self.get_retained_inputs()]
            return gradients_with_graph(self.replay(inputs), inputs, indexes, grad_outputs)
        arrays = [x._data for x in self.inputs]
        gradients = self.gradients(indexes, arrays, grad_outputs[0]._data[0])
        return tuple([variable(g) for g in gradients])

    def replay(self, inputs: Iterable[Variable]) -> Variable:
        """Returns the output by copies of the parts; running statistics stay."""
        inputs, y = iter(inputs), None
        for node, count, position in self.parts:
            own = [y if i == position else next(inputs) for i in range(count)]
            (y,) = copy.copy(node).apply(own)
        return y

    def give_way(self) -> FunctionNode:
        """Puts the parts in the node's place in the graph, and returns the last."""
        y = self.outputs[0]()
        settings = contextlib.ExitStack()
        with settings, _no_hooks():
            settings.enter_context(chainer.force_backprop_mode())
            settings.enter_context(chainer.using_config("lazy_grad_sum", self.lazy_grad_sum))
            node = self.replay(self.get_retained_inputs()).creator_node
        node.outputs = (weakref.ref(y),)
        y.creator_node = node
        if node._retained_output_data is not None and y._data is None:
            y._data = node._retained_output_data[0]
        return node


def unfuse(outputs: Iterable[VariableNode]) -> None:
    """Puts Chainer's own nodes in the place of each fused one in the outputs' history.

    It is for whoever looks at the graph, and costs as much as the forward pass.
    """
    nodes, seen = [y._creator_node for y in outputs], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        if isinstance(node, Fused):
            node = node.give_way()
        seen.add(node)
        nodes += [x._creator_node for x in node.inputs or ()]


@contextlib.contextmanager
def _no_hooks():
    hooks = chainer.get_function_hooks()
    kept = dict(hooks)
    hooks.clear()
    try:
        yield
    finally:
        hooks.update(kept)
