"""Convolution with stride 1 and without padding, BN, ReLU and 2x2 max pooling: one kernel each way.

It covers float32 on the CPU.
"""

from __future__ import annotations

import ctypes
import math

import numpy as np
from chainer.configuration import config
from chainer.functions.activation.relu import ReLU
from chainer.functions.array.reshape import Reshape
from chainer.functions.connection.convolution_2d import Convolution2DFunction
from chainer.functions.normalization.batch_normalization import (
    BatchNormalization,
    FixedBatchNormalization,
    _impl_selector,
)
from chainer.functions.pooling.max_pooling_nd import MaxPoolingND

from mnist_bn.kernels import convolution, costs
from mnist_bn.kernels.arrays import (
    as_float32_nhwc,
    checked,
    function,
    is_float32,
    keep_freed_memory,
    nchw,
    nhwc,
    pointers,
)
from mnist_bn.kernels.fused import Fused, Part
from mnist_bn.kernels.waiting import function as waits
from mnist_bn.kernels.waiting import fusion as fuses

# As in the kernels: what comes after the convolution, and where normalization's statistics are from
_RELU_POOL, _NORM_RELU_POOL, _RELU_NORM_POOL = range(3)
_NONE, _FIXED, _BATCH = range(3)
# With so few products to a sum, the backward pass computes the convolution again: that is faster
# than to write its output to memory and to read it.
_CHEAP_PRODUCTS = 32
# ndim of x -> the axes that BatchNormalization averages over
_BN_AXES = {2: (0,), 4: (0, 2, 3)}


# --- The functions, and the shape of what they return ---


def _begins_a_block(node, *_) -> bool:
    return node.sy == node.sx == 1 and node.ph == node.pw == 0


@waits("c", Convolution2DFunction, starts=_begins_a_block)
def _convolution(node, inputs):
    x, w = inputs[0].shape, inputs[1].shape
    if not (
        len(x) == len(w) == 4
        and x[1] == w[1]
        and 0 not in x
        and 0 not in w
        and (len(inputs) == 2 or inputs[2].shape == w[:1])
        and node.groups == node.dy == node.dx == 1
        and not (node.cover_all or node.cudnn_fast)
    ):
        return None
    rows, columns = x[2] + 2 * node.ph - w[2], x[3] + 2 * node.pw - w[3]
    if rows < 0 or columns < 0:
        return None
    return x[0], w[0], rows // node.sy + 1, columns // node.sx + 1


def _has_maps_alone(node, inputs, others_have_them) -> bool:
    return inputs[0].ndim == 4 and not others_have_them


@waits("b", BatchNormalization, starts=_has_maps_alone, writes=("running_mean", "running_var"))
def _batch_normalization(node, inputs):
    mean, var = node.running_mean, node.running_var
    if node._impl_selector is not _impl_selector:
        return None
    if mean is None and var is None:
        return _normalized(node, inputs)
    if mean is None or var is None or not (mean.flags.writeable and var.flags.writeable):
        return None
    if not is_float32((mean, var)):
        return None
    return _normalized(node, (*inputs, mean, var))


@waits("b", FixedBatchNormalization, starts=_has_maps_alone)
def _normalized(node, inputs):
    shape = inputs[0].shape
    axes = _BN_AXES.get(len(shape))
    if axes is None or (node.axis is not None and node.axis != axes):
        return None
    if math.prod(shape) <= shape[1]:  # of a single number to a channel Chainer warns
        return None
    channels = shape[1:2]
    for a in inputs[1:]:
        if a.shape != channels:
            return None
    return shape


@waits("r", ReLU)
def _relu(node, inputs):
    return inputs[0].shape


@waits("p", MaxPoolingND)
def _max_pooling(node, inputs):
    (x,) = inputs
    if not (
        x.ndim == 4
        and x.size > 0
        and (node.ksize, node.stride, node.pad) == ((2, 2), (2, 2), (0, 0))
        and node.cover_all
        and not node.return_indices
    ):
        return None
    n, c, height, width = x.shape
    return n, c, (height + 1) // 2, (width + 1) // 2


@waits("s", Reshape)
def _reshape(node, inputs):
    (x,) = inputs
    known = math.prod([size for size in node.shape if size >= 0])
    if -1 not in node.shape:
        return tuple(node.shape) if known == x.size else None
    if min(node.shape) < -1 or known == 0 or x.size % known:
        return None
    return tuple([x.size // known if size == -1 else size for size in node.shape])


# --- Convolution, BN, ReLU, 2x2 max pooling ---

_kernels: _Kernels | None = None


def use(library: ctypes.CDLL) -> None:
    """Sets the kernels."""
    global _kernels
    _kernels = _Kernels(library)
    keep_freed_memory()


class _Kernels:
    def __init__(self, library: ctypes.CDLL):
        sizes = "i" * 10
        self.forward = checked(
            function(library, "block_forward", "pppppppddppppp" + sizes, ctypes.c_int)
        )
        self.backward = checked(
            function(library, "block_backward", "pppppppppppppp" + sizes, ctypes.c_int)
        )
        self.width = function(library, "vector_width", "", ctypes.c_int)()


_ORDERS = {"CRP": _RELU_POOL, "CBRP": _NORM_RELU_POOL, "CRBP": _RELU_NORM_POOL}


@fuses("|".join(_ORDERS))
class Block(Fused):
    """Inputs: x, W, b if the convolution has a bias; gamma, beta, mean, var as BN takes them."""

    def __init__(self, pattern: str, parts: list[Part]) -> None:
        super().__init__(pattern, parts)
        self._order = _ORDERS[pattern]
        self._has_bias = parts[0][1] == 3
        self._kernels = _kernels
        self._statistics, self._eps, self._decay, self._running = _NONE, 0.0, 0.0, (None, None)
        if self._order != _RELU_POOL:
            norm = parts[pattern.index("B")][0]
            self._statistics, self._eps = _FIXED, norm.eps
            if type(norm) is BatchNormalization:
                self._statistics, self._decay = _BATCH, norm.decay
                self._running = norm.running_mean, norm.running_var

    @classmethod
    def covers(cls, parts: list[Part], inputs: list, arrays: list[np.ndarray]) -> bool:
        """Returns whether the kernels can do it."""
        dense = arrays[1:]
        for node, _, position in parts[1:]:
            if position != 0:
                return False
            if type(node) is BatchNormalization and node.running_mean is not None:
                dense += [node.running_mean, node.running_var]
            elif type(node) is FixedBatchNormalization:
                for x in inputs[-2:]:
                    if type(x) is not np.ndarray:  # a Variable might want a gradient
                        return False
        for a in dense:
            if not a.flags.c_contiguous:
                return False
        return _begins_a_block(parts[0][0])

    @property
    def label(self) -> str:
        """What the node is called."""
        return {
            _RELU_POOL: "Convolution, ReLU, max pooling",
            _NORM_RELU_POOL: "Convolution, BN, ReLU, max pooling",
            _RELU_NORM_POOL: "Convolution, ReLU, BN, max pooling",
        }[self._order]

    def _named(self, arrays) -> tuple:
        """Returns x, W, b, gamma, beta, with None for those that there are not."""
        x, w, *rest = arrays
        b = rest.pop(0) if self._has_bias else None
        gamma, beta = rest[:2] or (None, None)
        return x, w, b, gamma, beta

    def forward(self, inputs):
        """Returns the output."""
        x, w, b, gamma, beta = self._named(inputs)
        images = nhwc(x)
        n, height, width, channels = images.shape
        out_channels, _, kernel_height, kernel_width = w.shape
        rows, columns = height - kernel_height + 1, width - kernel_width + 1
        pooled = (n, (rows + 1) // 2, (columns + 1) // 2)
        lanes = math.ceil(out_channels / self._kernels.width) * self._kernels.width

        keep = config.enable_backprop
        normalizes, batch = self._statistics != _NONE, self._statistics == _BATCH
        needs_y = batch or self._order == _RELU_NORM_POOL
        y = extreme = index = saved = None
        if keep and needs_y and channels * kernel_height * kernel_width > _CHEAP_PRODUCTS:
            y = np.empty((n, rows, columns, lanes), np.float32)
        if batch or (keep and normalizes):
            extreme = np.empty((*pooled, lanes), np.float32)
        if batch or keep:
            index = np.empty((*pooled, lanes), np.uint8)
        if normalizes:
            saved = np.zeros((2, lanes), np.float32)
        statistics = inputs[-2:] if self._statistics == _FIXED else self._running
        out = np.empty((*pooled, out_channels), np.float32)
        sizes = (n, height, width, channels, out_channels, kernel_height, kernel_width)
        case = costs.Case(*sizes, 1, 1, 0, 0, rows, columns, True, True)
        winograd = convolution.takes_winograd(case)
        self._sizes = (self._order, self._statistics, *sizes, winograd)
        self._kernels.forward(
            *pointers(images, w, b, gamma, beta, *statistics),
            *(self._eps, self._decay),
            *pointers(y, extreme, index, saved, out),
            *self._sizes,
        )
        self._running = None  # who has them keeps BN from waiting
        if keep:
            self._kept = y, extreme, index, saved
            self.retain_inputs(tuple(range(len(inputs))))
        return (nchw(out),)

    def gradients(self, indexes, inputs, gy):
        """Returns the gradients of the inputs that `indexes` has."""
        x, w, b, gamma, beta = self._named(inputs)
        y, extreme, index, saved = self._kept
        images, gout = nhwc(x), as_float32_nhwc(gy)
        gx = np.empty(images.shape, np.float32) if 0 in indexes else None
        gw = np.empty(w.shape, np.float32) if 1 in indexes else None
        gb, ggamma, gbeta = (None if p is None else np.empty_like(p) for p in (b, gamma, beta))
        self._kernels.backward(
            *pointers(images, w, b, gamma, y, extreme, index, saved, gout),
            *pointers(gx, gw, gb, ggamma, gbeta),
            *self._sizes,
        )
        gradients = [nchw(gx) if gx is not None else None, gw]
        gradients += [g for g in (gb, ggamma, gbeta) if g is not None]
        return [gradients[i] for i in indexes]
