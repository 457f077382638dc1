"""Backpropagation's loop, without its branches for what is not there.

Chainer's looks up the device of every array and goes through several properties for every gradient:
with small networks that takes as long as the arithmetic.
"""

from __future__ import annotations

import functools
import heapq
from collections.abc import Iterable

import chainer
import numpy as np
from chainer import _backprop, _backprop_utils
from chainer.configuration import config
from chainer.function_node import FunctionNode
from chainer.variable import Variable, VariableNode, _check_grad_type

from mnist_bn.kernels.fused import Fused
from mnist_bn.kernels.graph import variable
from mnist_bn.kernels.seam import Replacements


def replacements() -> Replacements:
    """Returns what replaces Chainer's loop."""
    return {(Variable, "backward"): _backward, (_backprop, "_backprop_to_all"): _backprop_to_all}


def _backward(original):
    """The wrap of `Variable.backward`: the same for a loss without a gradient yet."""

    @functools.wraps(original)
    def backward(self, retain_grad=False, enable_double_backprop=False, loss_scale=None):
        y = self.array if type(self) is Variable and self._layout is None else None
        if type(y) is not np.ndarray or y.ndim != 0 or not (self._grad is self._grad_var is None):
            original(self, retain_grad, enable_double_backprop, loss_scale)
            return
        gy = np.ones((), y.dtype)
        if loss_scale is not None:
            gy *= loss_scale
        with chainer.using_config("enable_backprop", enable_double_backprop):
            _backprop._backprop_to_all([(self._node, variable(gy, True))], retain_grad, loss_scale)

    return backward


def _backprop_to_all(original):
    """The wrap: the same steps in the same order, for NumPy arrays without hooks for all."""

    def backprop_to_all(outputs, retain_grad, loss_scale):
        if config.debug or chainer.get_function_hooks() or not _are_plain(g for _, g in outputs):
            original(outputs, retain_grad, loss_scale)
        else:
            _Backpropagation(retain_grad, loss_scale).run(outputs)

    return backprop_to_all


def _are_plain(gradients: Iterable[Variable | None]) -> bool:
    return all([g is None or type(g._data[0]) is np.ndarray for g in gradients])


class _Backpropagation:
    def __init__(self, retain_grad: bool, loss_scale: float | None) -> None:
        self._retain_grad = retain_grad
        self._loss_scale = loss_scale
        self._grads: dict[VariableNode, list[Variable]] = {}
        self._candidates: list[tuple[int, int, FunctionNode]] = []  # a heap, the last rank first
        self._seen: set[FunctionNode] = set()
        self._leaves: set[VariableNode] = set()

    def run(self, outputs: list[tuple[VariableNode, Variable]]) -> None:
        """Sets the gradients of the leaves, and of all if they are to be retained."""
        for y, gy in outputs:
            self._of(y).append(gy)
            self._go_on_from(y)
        while self._candidates:
            _, _, func = heapq.heappop(self._candidates)
            self._step(func)
        for x in self._leaves:
            variable, gx = x._variable(), self._pop(x)
            if variable is None:
                continue
            if variable._has_chainerx_array or gx is None:
                variable._set_grad_var_without_check(gx)
            else:
                variable._grad_var, variable._grad = gx, gx._data[0]
            variable._loss_scale = self._loss_scale
        assert not any(self._grads.values())

    def _go_on_from(self, x: VariableNode) -> None:
        func = x._creator_node
        if func is None:
            self._leaves.add(x)
        elif func not in self._seen:
            heapq.heappush(self._candidates, (-func.rank, len(self._seen), func))
            self._seen.add(func)

    def _of(self, x: VariableNode) -> list[Variable]:
        """Returns the gradients to be summed: a leaf's begin with the one that it has."""
        gradients = self._grads.get(x)
        if gradients is None:
            gradients = self._grads[x] = []
            if x._creator_node is None:
                x._check_old_style_gradient()
                own = _take_gradient(x)
                if own is not None:
                    gradients.append(own)
        return gradients

    def _pop(self, x: VariableNode) -> Variable | None:
        gradients = self._grads.pop(x, None)
        if gradients is None:
            return _take_gradient(x)
        return gradients[0] if len(gradients) == 1 else _backprop_utils._reduce(gradients)

    def _step(self, func: FunctionNode) -> None:
        """Goes back through one function."""
        inputs = func.inputs
        indexes = tuple([i for i, x in enumerate(inputs) if x._requires_grad])
        outputs = [y() for y in func.outputs]
        gys = tuple(
            [None if y is None or y._creator_node is None else self._pop(y) for y in outputs]
        )
        if not indexes:
            return
        gxs = {inputs[i]: self._of(inputs[i]) for i in indexes}
        if func._local_function_hooks or not _are_plain(gys):
            _with_hooks_and_device(func, indexes, gys, gxs)
        else:
            _accumulate(func, indexes, gys, gxs)
        if self._retain_grad:
            for y, gy in zip(outputs, gys, strict=True):
                if y is not None:
                    y._set_grad_var_if_available(gy)
        for x, gradients in gxs.items():
            for gx in gradients:
                if gx is not None:
                    array = gx._data[0]
                    if (
                        type(array) is not np.ndarray
                        or array.dtype != x.dtype
                        or array.shape != x.shape
                    ):
                        _check_grad_type(func, x, True, array)  # it may raise
            if gradients:
                self._go_on_from(x)


def _accumulate(func, indexes, gys, gxs) -> None:
    """Does Chainer's `backprop_step`: at once if the node is ours and no gradient is there yet."""
    if not isinstance(func, Fused) or len(gxs) < len(indexes) or any(gxs.values()):
        _backprop_utils.backprop_step(func, indexes, gys, gxs, False)
        return
    for gradients, gx in zip(gxs.values(), func.backward(indexes, gys), strict=True):
        if gx is not None:
            gradients.append(gx)


def _take_gradient(x: VariableNode) -> Variable | None:
    """Takes the gradient away from the node's Variable."""
    variable = x._variable()
    if variable is None:
        return None
    if variable._grad is None and variable._grad_var is None and not variable._has_chainerx_array:
        return None
    return _backprop_utils._grad_var_from_alive_node(x)


def _with_hooks_and_device(func, indexes, gys, gxs) -> None:
    """Does a step as Chainer does, with the function's own hooks, where its arrays are."""
    in_data = tuple([x.data for x in func.inputs])
    out_grad = tuple([None if g is None else g.raw_array for g in gys])
    hooks = func.local_function_hooks.values() if func._n_local_function_hooks else ()
    with chainer.using_device(chainer.backend.get_device_from_array(*in_data, *out_grad)):
        for hook in hooks:
            hook.backward_preprocess(func, in_data, out_grad)
        _backprop_utils.backprop_step(func, indexes, gys, gxs, False)
        for hook in hooks:
            hook.backward_postprocess(func, in_data, out_grad)
