"""Chainer's bookkeeping around each function, without its branches for what is not there.

`FunctionNode.apply` and what backpropagation calls for every gradient look for GPU arrays, ChainerX
arrays, memory layouts and hooks, several times each: with small networks that takes as long as the
arithmetic. Here one look finds that all is NumPy and plain; anything else goes Chainer's own way.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable

import chainer
import numpy as np
from chainer import backend
from chainer.backends import _cpu
from chainer.configuration import config, global_config
from chainer.function_node import FunctionNode
from chainer.functions.connection.convolution_2d import Convolution2DFunction, Convolution2DGradW
from chainer.functions.connection.deconvolution_2d import Deconvolution2DFunction
from chainer.functions.evaluation.accuracy import Accuracy
from chainer.functions.loss.softmax_cross_entropy import SoftmaxCrossEntropy
from chainer.functions.normalization.batch_normalization import (
    BatchNormalization,
    BatchNormalizationGrad,
)
from chainer.variable import Parameter, Variable, VariableNode

from mnist_bn.inputs import Input
from mnist_bn.kernels.seam import Replacements

_CHECKS_NO_TYPES = FunctionNode.check_type_forward
# These find nothing to refuse if no input has a layout, and do nothing else.
_CHECK_LAYOUTS_ONLY = {
    node.check_layout_forward
    for node in (
        FunctionNode,
        Convolution2DFunction,
        Convolution2DGradW,
        Deconvolution2DFunction,
        BatchNormalization,
        BatchNormalizationGrad,
    )
}
# What these find depends on dtypes and shapes, not on the node.
_CHECK_TYPES_ONLY = {node.check_type_forward for node in (Accuracy, SoftmaxCrossEntropy)}
_passed: set[tuple] = set()
VARIABLES = frozenset((Variable, Parameter, Input))  # of which there are no surprises


def replacements() -> Replacements:
    """Returns what replaces Chainer's functions for building and walking the graph."""
    return {
        (FunctionNode, "apply"): _apply,
        (Parameter, "cleargrad"): _cleargrad,
        (chainer, "is_arrays_compatible"): _is_arrays_compatible,
        (backend, "get_device_from_array"): _get_device_from_array,
    }


def _apply(original):
    """The wrap of `FunctionNode.apply`: the same steps, for NumPy arrays without hooks."""

    def apply(self, inputs):
        in_data = _plain_arrays(inputs)
        local = config._local.__dict__  # reading config.name takes ten times as long
        if (
            in_data is None
            or local.get("debug", global_config.debug)
            or local.get("schedule_func", global_config.schedule_func) is not None
            or self._n_local_function_hooks
            or chainer.get_function_hooks()
        ):
            return original(self, inputs)
        self._input_layouts = (None,) * len(in_data)
        if local.get("type_check", global_config.type_check):
            _check_types(self, in_data)
        if getattr(self.check_layout_forward, "__func__", None) not in _CHECK_LAYOUTS_ONLY:
            inputs = _as_variables(inputs)
            self.check_layout_forward(inputs)
        self._input_indexes_to_retain = self._output_indexes_to_retain = None
        outputs = self.forward(in_data)
        if not _are_plain(self, outputs):
            return _apply_with_outputs(original, self, inputs, outputs)
        self._output_layouts = (None,) * len(outputs)
        self._output_count = len(outputs)
        requires_grad = any([isinstance(x, Variable) and x._requires_grad for x in inputs])
        results = tuple([variable(y, requires_grad) for y in outputs])
        if local.get("enable_backprop", global_config.enable_backprop):
            _connect(self, inputs, results, outputs, config.lazy_grad_sum)
        return results

    return apply


def run(
    node: FunctionNode, inputs, arrays, settings: tuple, into: Variable, extra_rank: int
) -> None:
    """Does `apply` for what needs no check, with `into` for its output's Variable, and no hook.

    Args:
        inputs: Variables and arrays.
        arrays: theirs as `forward` is to have them.
        settings: what Chainer's configuration has, `enable_backprop` and `lazy_grad_sum` first.
        into: its `_requires_grad` is set; its array and node are not.
        extra_rank: how many more functions `node` stands for.
    """
    node._input_layouts = (None,) * len(inputs)
    node._input_indexes_to_retain = node._output_indexes_to_retain = None
    outputs = node.forward(tuple(arrays))
    node._output_layouts = (None,)
    node._output_count = 1
    fill(into, outputs[0])
    if settings[0]:
        _connect(node, inputs, (into,), outputs, settings[1], extra_rank)


def _check_types(node: FunctionNode, arrays: tuple[np.ndarray, ...]) -> None:
    """Does Chainer's check, unless it passed these types before or there is none."""
    # A class, an instance or a test's mock may bring checks of its own.
    check = getattr(node.check_type_forward, "__func__", None)
    if check is _CHECKS_NO_TYPES:
        return
    key = None
    if check in _CHECK_TYPES_ONLY:
        key = check, *[(a.dtype, a.shape) for a in arrays]
        if key in _passed:
            return
    node._check_data_type_forward(arrays)
    if key is not None:
        if len(_passed) >= 100:
            _passed.clear()
        _passed.add(key)


def _plain_arrays(inputs: Iterable) -> tuple[np.ndarray, ...] | None:
    """Returns the arrays of Variables and arrays, None unless all are NumPy's, of no layout."""
    arrays = []
    for x in inputs:
        if isinstance(x, Variable):
            if x._layout is not None or x._has_chainerx_array or type(x) not in VARIABLES:
                return None  # a subclass may see to anything in another way
            x = x._data[0]
        if type(x) is not np.ndarray:
            return None
        arrays.append(x)
    return tuple(arrays)


def _as_variables(inputs: Iterable) -> list[Variable]:
    return [x if isinstance(x, Variable) else variable(x) for x in inputs]


def _are_plain(node: FunctionNode, outputs: object) -> bool:
    """Whether `apply` need not convert or refuse what `forward` returned."""
    return (
        type(outputs) is tuple
        and all([type(y) is np.ndarray for y in outputs])
        and (
            node._output_layouts is None
            if node.is_elementwise
            else not any(node._output_layouts or ())
        )
        and (not node.is_elementwise or all([y.shape == outputs[0].shape for y in outputs]))
    )


def _apply_with_outputs(original, node: FunctionNode, inputs, outputs):
    """Lets Chainer's `apply` go on with outputs that are there: `forward` must not run twice."""
    retained = node._input_indexes_to_retain, node._output_indexes_to_retain

    def forward(in_data):
        node._input_indexes_to_retain, node._output_indexes_to_retain = retained
        return outputs

    own = vars(node).get("forward")
    node.forward = forward
    try:
        return original(node, inputs)
    finally:
        del node.forward
        if own is not None:
            node.forward = own


def variable(array: np.ndarray | None, requires_grad: bool = False, device=None) -> Variable:
    """Returns a Variable of an array that need not be checked; None is for `fill` to come."""
    v = Variable.__new__(Variable)
    v._requires_grad = requires_grad
    v._loss_scale = None
    v._grad_var = None
    v._device = device
    v._grad_valid = True
    v._layout = None
    v._grad = None
    if array is not None:
        fill(v, array)
    return v


def fill(v: Variable, array: np.ndarray) -> None:
    """Gives a Variable its array and its node."""
    node = VariableNode.__new__(VariableNode)
    node._variable = weakref.ref(v)
    node.name = None
    node._requires_grad = v._requires_grad
    node._layout = None
    node.dtype = array.dtype
    node.shape = array.shape
    v._data = [array]
    v._node = node


def gradients_with_graph(output: Variable, inputs, indexes, grad_outputs) -> tuple[Variable, ...]:
    """Returns the gradients for double backpropagation, as `backward` must.

    Args:
        output: the node's output, from `inputs` by Chainer's own functions.
        inputs, indexes, grad_outputs: as `backward` has them.
    """
    wanted = [inputs[i] for i in indexes]
    return chainer.grad([output], wanted, list(grad_outputs), enable_double_backprop=True)


def _connect(node, inputs, results, outputs, lazy_grad_sum: bool, extra_rank: int = 0) -> None:
    """Sets the edges from the outputs to the node and from the node to the inputs."""
    variables = _as_variables(inputs)
    node.inputs = nodes = tuple([x._node for x in variables])
    node.rank = max([x._rank for x in nodes], default=0) + extra_rank
    own = [y._node for y in results]
    for y in own:
        y._creator_node, y._rank = node, node.rank + 1
    node.outputs = tuple([weakref.ref(y) for y in own])
    if node._input_indexes_to_retain is not None:
        for index in node._input_indexes_to_retain:
            nodes[index]._data = variables[index]._data[0]  # as retain_data() does
    if node._output_indexes_to_retain is not None:
        retained = [outputs[index] for index in node._output_indexes_to_retain]
        for index, output in zip(node._output_indexes_to_retain, retained, strict=True):
            own[index]._data = output
        node._retained_output_data = tuple(retained)
    node.lazy_grad_sum = lazy_grad_sum


def _cleargrad(original):
    def cleargrad(self):
        if self._has_chainerx_array or self._data[0] is None:
            original(self)
        else:
            self._grad_var = self._grad = None
            self._grad_valid = True

    return cleargrad


def _is_arrays_compatible(original):
    def is_arrays_compatible(arrays):
        for array in arrays:
            if type(array) is not np.ndarray:
                return original(arrays)
        return True

    return is_arrays_compatible


def _get_device_from_array(original):
    cpu = _cpu.CpuDevice()

    def get_device_from_array(*arrays):
        for array in arrays:
            if array is not None and type(array) is not np.ndarray:
                return original(*arrays)
        return cpu

    return get_device_from_array
