"""Blocks of convolution, normalization, ReLU and 2x2 max pooling.

Each function's last line is its definition, in Chainer's own functions. Where the kernels are in
use and cover the case, one function node does the same, faster: rounding differs, nothing else.
They cover float32 on the CPU, convolution with stride 1 and without padding, dilation or groups,
and BatchNormalization over all but the channels; links of exactly Chainer's classes, without hooks.
"""

from __future__ import annotations

import ctypes
import math

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
from chainer import function_node

from mnist_bn.kernels.arrays import (
    are_writable,
    as_float32_nhwc,
    checked,
    function,
    is_float32,
    keep_freed_memory,
    nchw,
    nhwc,
    pointer,
)
from mnist_bn.kernels.graph import gradients_with_graph, has_hooks, variable

# As in the kernels: what comes after the convolution, and where normalization's statistics are from
_RELU_POOL, _NORM_RELU_POOL, _RELU_NORM_POOL = range(3)
_NONE, _FIXED, _BATCH = range(3)
# With so few products to a sum, the backward pass computes the convolution again: that is faster
# than to write its output to memory and to read it.
_CHEAP_PRODUCTS = 32

_kernels: _Kernels | None = None


def conv_bn_relu_pool(x, conv: L.Convolution2D, bnorm: L.BatchNormalization) -> chainer.Variable:
    """Normalizes before the ReLU; `(N, C, H, W)` to `(N, out_channels, pooled H, pooled W)`."""
    if _covers(x, conv, bnorm):
        return _apply(_NORM_RELU_POOL, x, conv, bnorm)
    return F.max_pooling_2d(F.relu(bnorm(conv(x))), 2)


def conv_relu_bn_pool(x, conv: L.Convolution2D, bnorm: L.BatchNormalization) -> chainer.Variable:
    """Normalizes after the ReLU; `(N, C, H, W)` to `(N, out_channels, pooled H, pooled W)`."""
    if _covers(x, conv, bnorm):
        return _apply(_RELU_NORM_POOL, x, conv, bnorm)
    return F.max_pooling_2d(bnorm(F.relu(conv(x))), 2)


def conv_relu_pool(x, conv: L.Convolution2D) -> chainer.Variable:
    """Does not normalize; `(N, C, H, W)` to `(N, out_channels, pooled H, pooled W)`."""
    if _covers(x, conv):
        return _apply(_RELU_POOL, x, conv)
    return F.max_pooling_2d(F.relu(conv(x)), 2)


def use(library: ctypes.CDLL | None) -> None:
    """Sets the kernels that the blocks use from now on; None is Chainer's own functions."""
    global _kernels
    _kernels = None if library is None else _Kernels(library)
    if library is not None:
        keep_freed_memory()


class _Kernels:
    def __init__(self, library: ctypes.CDLL):
        sizes = "iiiiiiiii"
        self.forward = checked(
            function(library, "block_forward", "pppppppddppppp" + sizes, ctypes.c_int)
        )
        self.backward = checked(
            function(library, "block_backward", "pppppppppppppp" + sizes, ctypes.c_int)
        )
        self.width = function(library, "vector_width", "", ctypes.c_int)()


def _covers(x, conv, bnorm=None) -> bool:
    if _kernels is None or has_hooks() or chainer.config.schedule_func is not None:
        return False
    array = x.array if isinstance(x, chainer.Variable) else x
    return _covers_convolution(array, conv) and (
        bnorm is None or _covers_normalization(array, conv.W.shape, bnorm)
    )


def _covers_convolution(x, conv) -> bool:
    if type(conv) is not L.Convolution2D or conv._n_local_link_hooks:
        return False
    w, b = conv.W.array, None if conv.b is None else conv.b.array
    return (
        is_float32((x, w) if b is None else (x, w, b))
        and w.flags.c_contiguous
        and (b is None or b.flags.c_contiguous)
        and x.ndim == 4
        and x.size > 0
        and x.shape[1] == w.shape[1]
        and x.shape[2] >= w.shape[2]
        and x.shape[3] >= w.shape[3]
        and conv.stride in (1, (1, 1))
        and conv.pad in (0, (0, 0))
        and conv.dilate in (1, (1, 1))
        and conv.groups == 1
        and not conv.cudnn_fast
    )


def _covers_normalization(x: np.ndarray, w: tuple[int, ...], bnorm) -> bool:
    if (
        type(bnorm) is not L.BatchNormalization
        or bnorm._n_local_link_hooks
        or bnorm.axis is not None
        or bnorm.gamma is None
        or bnorm.beta is None
    ):
        return False
    arrays = (bnorm.gamma.array, bnorm.beta.array, bnorm.avg_mean, bnorm.avg_var)
    positions = len(x) * (x.shape[2] - w[2] + 1) * (x.shape[3] - w[3] + 1)
    return (
        is_float32(arrays)
        and all(a.shape == w[:1] and a.flags.c_contiguous for a in arrays)
        and are_writable((bnorm.avg_mean, bnorm.avg_var))
        and positions > 1  # of a single one Chainer warns
    )


def _apply(order: int, x, conv, bnorm=None) -> chainer.Variable:
    inputs = [x, conv.W]
    if conv.b is not None:
        inputs.append(conv.b)
    if bnorm is not None:
        inputs += [bnorm.gamma, bnorm.beta]
    return _Block(order, bnorm, conv.b is not None).apply(inputs)[0]


class _Block(function_node.FunctionNode):
    """Inputs: x, W, then b if the convolution has a bias, then gamma and beta if it normalizes."""

    def __init__(self, order: int, bnorm: L.BatchNormalization | None, has_bias: bool):
        self._order = order
        self._bnorm = bnorm
        self._has_bias = has_bias
        self._kernels = _kernels
        self._statistics = _NONE
        if bnorm is not None:
            self._statistics = _BATCH if chainer.config.train else _FIXED

    @property
    def label(self) -> str:
        """What a drawn graph calls the node."""
        return {
            _RELU_POOL: "Convolution, ReLU, max pooling",
            _NORM_RELU_POOL: "Convolution, BN, ReLU, max pooling",
            _RELU_NORM_POOL: "Convolution, ReLU, BN, max pooling",
        }[self._order]

    def _named(self, inputs) -> tuple:
        """Returns x, W, b, gamma, beta, with None for those that there are not."""
        x, w, *rest = inputs
        b = rest.pop(0) if self._has_bias else None
        gamma, beta = rest or (None, None)
        return x, w, b, gamma, beta

    def forward_cpu(self, inputs):
        x, w, b, gamma, beta = self._named(inputs)
        images = nhwc(x)
        n, height, width, channels = images.shape
        out_channels, _, kernel_height, kernel_width = w.shape
        rows, columns = height - kernel_height + 1, width - kernel_width + 1
        pooled = (n, (rows + 1) // 2, (columns + 1) // 2)
        lanes = math.ceil(out_channels / self._kernels.width) * self._kernels.width

        keep = chainer.config.enable_backprop
        normalizes, batch = self._statistics != _NONE, self._statistics == _BATCH
        needs_y = batch or self._order == _RELU_NORM_POOL
        y = extreme = index = saved = avg_mean = avg_var = None
        if keep and needs_y and channels * kernel_height * kernel_width > _CHEAP_PRODUCTS:
            y = np.empty((n, rows, columns, lanes), np.float32)
        if batch or (keep and normalizes):
            extreme = np.empty((*pooled, lanes), np.float32)
        if batch or keep:
            index = np.empty((*pooled, lanes), np.uint8)
        eps = decay = 0.0
        if normalizes:
            saved = np.zeros((2, lanes), np.float32)
            eps, decay = self._bnorm.eps, self._bnorm.decay
            if not (batch and chainer.config.in_recomputing):
                avg_mean, avg_var = self._bnorm.avg_mean, self._bnorm.avg_var
        out = np.empty((*pooled, out_channels), np.float32)
        self._sizes = (self._order, self._statistics, n, height, width, channels, out_channels)
        self._sizes += (kernel_height, kernel_width)
        self._kernels.forward(
            *_pointers(images, w, b, gamma, beta, avg_mean, avg_var),
            eps,
            decay,
            *_pointers(y, extreme, index, saved, out),
            *self._sizes,
        )
        if keep:
            self._kept = y, extreme, index, saved
            self._fixed = None if self._statistics != _FIXED else (avg_mean.copy(), avg_var.copy())
            self.retain_inputs(tuple(range(len(inputs))))
        return (nchw(out),)

    def backward(self, indexes, grad_outputs):
        inputs = self.get_retained_inputs()
        if chainer.config.enable_backprop:  # the gradient is to have a gradient
            return gradients_with_graph(self._plain(inputs), inputs, indexes, grad_outputs)
        x, w, b, gamma, beta = self._named([v.array for v in inputs])
        y, extreme, index, saved = self._kept
        images, gout = nhwc(x), as_float32_nhwc(grad_outputs[0].array)
        gx = np.empty(images.shape, np.float32) if 0 in indexes else None
        gw = np.empty(w.shape, np.float32) if 1 in indexes else None
        gb, ggamma, gbeta = (None if p is None else np.empty_like(p) for p in (b, gamma, beta))
        self._kernels.backward(
            *_pointers(images, w, b, gamma, y, extreme, index, saved, gout),
            *_pointers(gx, gw, gb, ggamma, gbeta),
            *self._sizes,
        )
        gradients = [nchw(gx) if gx is not None else None, gw]
        gradients += [g for g in (gb, ggamma, gbeta) if g is not None]
        return tuple([variable(gradients[i]) for i in indexes])

    def _plain(self, inputs) -> chainer.Variable:
        """Returns the block's output by Chainer's functions; running statistics stay."""
        x, w, b, gamma, beta = self._named(inputs)
        h = F.convolution_2d(x, w, b)
        if self._order != _NORM_RELU_POOL:
            h = F.relu(h)
        if self._statistics == _BATCH:
            h = F.batch_normalization(h, gamma, beta, eps=self._bnorm.eps)
        elif self._statistics == _FIXED:
            h = F.fixed_batch_normalization(h, gamma, beta, *self._fixed, eps=self._bnorm.eps)
        if self._order == _NORM_RELU_POOL:
            h = F.relu(h)
        return F.max_pooling_2d(h, 2)


def _pointers(*arrays: np.ndarray | None) -> list[int | None]:
    return [None if a is None else pointer(a) for a in arrays]
