"""A fully connected layer with its ReLU and dropout.

The function's last line is its definition, in Chainer's own functions. Where the kernels are in use
and cover the case, one function node does the same to the bit, with one third of the bookkeeping.
They cover NumPy arrays and links of exactly Chainer's class with a bias, without hooks.
"""

from __future__ import annotations

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
from chainer import function_node
from chainer.functions.activation.relu import ReLU, ReLUGrad2
from chainer.functions.connection.linear import LinearFunction
from chainer.functions.noise.dropout import Dropout, DropoutGrad

from mnist_bn.kernels.graph import gradients_with_graph, has_hooks, variable
from mnist_bn.kernels.layers import linear_gradients

_is_on = False


def use(is_on: bool) -> None:
    """Sets whether one function node does it all from now on."""
    global _is_on
    _is_on = is_on


def linear_relu_dropout(x, linear: L.Linear, ratio: float = 0.5) -> chainer.Variable:
    """`(N, ...)` to `(N, out_size)`; dropout is for training only."""
    if _covers(x, linear):
        return _LinearReLUDropout(ratio).apply((x, linear.W, linear.b))[0]
    return F.dropout(F.relu(linear(x)), ratio)


def _covers(x, linear: L.Linear) -> bool:
    array = x.array if isinstance(x, chainer.Variable) else x
    return (
        _is_on
        and type(linear) is L.Linear
        and linear.b is not None
        and linear.W.array is not None
        and not linear._n_local_link_hooks
        and not has_hooks()
        and chainer.config.schedule_func is None
        and type(array) is type(linear.W.array) is np.ndarray
        and array.ndim >= 2
        and array.dtype == linear.W.dtype == linear.b.dtype
        and array[0].size == linear.W.shape[1]
    )


class _LinearReLUDropout(function_node.FunctionNode):
    """Inputs: x, W, b."""

    def __init__(self, ratio: float) -> None:
        self._ratio = ratio
        self._mask: np.ndarray | None = None

    @property
    def label(self) -> str:
        """What a drawn graph calls the node."""
        return "Linear, ReLU, dropout"

    def forward_cpu(self, inputs):
        x, w, b = inputs
        rows = x.reshape(len(x), -1)  # (N, in_size)
        (y,) = LinearFunction().forward((rows, w, b))
        (y,) = ReLU().forward_cpu((y,))
        if chainer.config.train:
            dropout = Dropout(self._ratio)
            (y,) = dropout.forward_cpu((y,))
            self._mask = dropout.mask
        self._rows = rows
        self.retain_inputs((0, 1, 2))
        self.retain_outputs((0,))
        return (y,)

    def backward(self, indexes, grad_outputs):
        inputs = self.get_retained_inputs()
        if chainer.config.enable_backprop:  # the gradient is to have a gradient
            return gradients_with_graph(self._plain(inputs), inputs, indexes, grad_outputs)
        x, w, _ = (v.array for v in inputs)
        g = grad_outputs[0].array
        if self._mask is not None:
            (g,) = DropoutGrad(self._mask).forward((g,))
        # Dropout leaves zero or what is above it.
        (g,) = ReLUGrad2(self.get_retained_outputs()[0].array).forward_cpu((g,))
        gradients = linear_gradients(indexes, self._rows, w, g)
        if indexes[0] == 0:
            gradients[0] = gradients[0].reshape(x.shape)
        return tuple([variable(gradient) for gradient in gradients])

    def _plain(self, inputs) -> chainer.Variable:
        """Returns the output by Chainer's functions, with the same mask."""
        x, w, b = inputs
        h = F.relu(F.linear(x, w, b))
        return h if self._mask is None else h * self._mask
