"""Convolution's forward pass and gradients behind Chainer's own function nodes."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator

import numpy as np
from chainer.functions.connection.convolution_2d import Convolution2DFunction, Convolution2DGradW
from chainer.functions.connection.deconvolution_2d import Deconvolution2DFunction
from chainer.functions.math.sum import Sum

from mnist_bn.errors import UsageError
from mnist_bn.kernels import costs, depthwise
from mnist_bn.kernels.arrays import checked, empty_nchw, is_float32, is_nhwc, nhwc, pointer
from mnist_bn.kernels.registry import Registry
from mnist_bn.kernels.seam import Replacements

# Arguments and result of the kernels: three or four arrays, and the geometry.
_FORWARD = "pppp" + "i" * 14, ctypes.c_int
_GRADIENT = "ppp" + "i" * 14, ctypes.c_int

METHODS = ("auto", "direct", "winograd")
_SWITCH = "MNIST_BN_CONVOLUTION"

_method = METHODS[0]
_is_direct = False

replaces = Registry()


def method_asked_for() -> str:
    """Returns how to convolve, one of METHODS, from the environment variable.

    "direct" multiplies each weight with each pixel under it; "winograd" is Winograd's algorithm
    F(4x4, 3x3) for all 3x3 kernels of stride 1 and padding 0 or 1; "auto" takes it if
    `costs.winograd_pays`.

    Raises:
        UsageError: it is none of METHODS.
    """
    method = os.environ.get(_SWITCH) or METHODS[0]
    if method not in METHODS:
        raise UsageError(f"{_SWITCH}={method}: expected {', '.join(METHODS[:-1])} or {METHODS[-1]}")
    return method


def use(method: str) -> None:
    """Sets how the kernels convolve from now on."""
    global _method
    _method = method


def method_in_use() -> str:
    """Returns how the kernels convolve."""
    return _method


@contextlib.contextmanager
def directly() -> Iterator[None]:
    """Within the block, the kernels convolve directly, whatever `use` is told.

    So infinities and NaN stand in the elements in which stock Chainer has them. With Winograd's
    algorithm they come out as NaN in any element of the same tile of 4x4.
    """
    global _is_direct
    before, _is_direct = _is_direct, True
    try:
        yield
    finally:
        _is_direct = before


def takes_winograd(case: costs.Case) -> bool:
    """Returns whether the kernels convolve this case with Winograd's algorithm."""
    c = case
    return (
        not _is_direct
        and _method != "direct"
        and c.kernel_height == c.kernel_width == 3
        and c.stride_y == c.stride_x == 1
        and c.pad_y <= 1
        and c.pad_x <= 1
        and (_method == "winograd" or costs.winograd_pays(c))
    )


def replacements(library: ctypes.CDLL) -> Replacements:
    """Returns what replaces which method; see `seam`.

    Covered: float32, any size of kernel, stride and padding, one group or as many as channels, no
    dilation, wherever `costs` finds that it pays. Arrays that are not NHWC are copied.
    """
    return replaces.replacements(library, checked)


def _covers(node, arrays: tuple) -> bool:
    return (
        is_float32(arrays)
        and node.groups == 1
        and node.dy == node.dx == 1
        and not getattr(node, "cudnn_fast", False)
        and all(layout is None for layout in node.input_layouts)
        and all(a.size for a in arrays)
    )


def _geometry(node, n: int, x: tuple, w: tuple, y: tuple) -> tuple[int, ...]:
    """Returns the kernels' arguments; x, w and y are shapes without the batch."""
    return (n, x[1], x[2], x[0], *w[:1], *w[2:], node.sy, node.sx, node.ph, node.pw, *y[1:])


def _out_shape(node, x: tuple, w: tuple) -> tuple[int, int, int]:
    return (
        w[0],
        (x[1] + 2 * node.ph - w[2]) // node.sy + 1,
        (x[2] + 2 * node.pw - w[3]) // node.sx + 1,
    )


def _fits(node, x: tuple, w: tuple) -> bool:
    """Returns whether the kernel fits into the padded image, and all the image is under it."""
    return not getattr(node, "cover_all", False) and (
        x[1] + 2 * node.ph >= w[2] and x[2] + 2 * node.pw >= w[3]
    )


@replaces(Convolution2DFunction, "forward_cpu", "convolution_forward", *_FORWARD)
def _forward(node, inputs, kernel):
    x, w = inputs[:2]
    b = inputs[2] if len(inputs) == 3 else None
    if not _fits(node, x.shape[1:], w.shape):
        return NotImplemented
    out = _out_shape(node, x.shape[1:], w.shape)
    if node.groups > 1 and depthwise.covers(node, x.shape, w.shape, out[1:], inputs):
        node.retain_inputs((0, 1))
        return (depthwise.forward(node, x, w, b, out[1:]),)
    if not _covers(node, inputs):
        return NotImplemented
    geometry = _geometry(node, len(x), x.shape[1:], w.shape, out)
    case = costs.Case(*geometry, is_nhwc(x), True)
    winograd = takes_winograd(case)
    if not (winograd or costs.forward_pays(case)):
        return NotImplemented
    node.retain_inputs((0, 1))
    images, w, y = nhwc(x), np.ascontiguousarray(w), empty_nchw(len(x), *out)
    bias = None if b is None else np.ascontiguousarray(b)
    at_bias = None if bias is None else pointer(bias)
    kernel(pointer(images), pointer(w), at_bias, pointer(nhwc(y)), *geometry, winograd)
    return (y,)


@replaces(Deconvolution2DFunction, "forward_cpu", "convolution_input_gradient", *_GRADIENT)
def _input_gradient(node, inputs, kernel):
    """Deconvolution, which is how Chainer writes a convolution's input gradient, too."""
    gy, w = inputs[:2]
    if node.outh is None or node.outw is None:
        node._calc_out_size(gy.shape, w.shape)
    x = (w.shape[1] * node.groups, node.outh, node.outw)
    # gy of another size: Chainer takes what cover_all convolutions give, too.
    if not _fits(node, x, w.shape) or _out_shape(node, x, w.shape) != gy.shape[1:]:
        return NotImplemented
    if node.groups > 1 and depthwise.covers(node, (len(gy), *x), w.shape, gy.shape[2:], inputs):
        node.retain_inputs((0, 1))
        gx = depthwise.input_gradient(node, (len(gy), *x), w, gy)
        return (_with_bias(gx, inputs),)
    if not _covers(node, inputs):
        return NotImplemented
    geometry = _geometry(node, len(gy), x, w.shape, gy.shape[1:])
    case = costs.Case(*geometry, True, is_nhwc(gy))
    winograd = takes_winograd(case)
    if not (winograd or costs.input_gradient_pays(case)):
        return NotImplemented
    node.retain_inputs((0, 1))
    gradients, w, gx = nhwc(gy), np.ascontiguousarray(w), empty_nchw(len(gy), *x)
    kernel(pointer(gradients), pointer(w), pointer(nhwc(gx)), *geometry, winograd)
    return (_with_bias(gx, inputs),)


def _with_bias(y: np.ndarray, inputs: tuple) -> np.ndarray:
    """Adds the third of the inputs, if there is one, to NHWC memory."""
    if len(inputs) == 3:
        rows = nhwc(y)
        rows += inputs[2]
    return y


@replaces(Convolution2DGradW, "forward_cpu", "convolution_weight_gradient", *_GRADIENT)
def _weight_gradient(node, inputs, kernel):
    x, gy = inputs
    w = node.W_shape
    if (
        node.groups > 1
        and node.W_dtype == np.float32
        and _fits(node, x.shape[1:], w)
        and _out_shape(node, x.shape[1:], w) == gy.shape[1:]
        and depthwise.covers(node, x.shape, w, gy.shape[2:], inputs)
    ):
        node.retain_inputs((0, 1))
        return (depthwise.weight_gradient(node, x, w, gy),)
    if not (
        node.W_dtype == np.float32
        and _covers(node, inputs)
        and _fits(node, x.shape[1:], w)
        and _out_shape(node, x.shape[1:], w) == gy.shape[1:]
    ):
        return NotImplemented
    geometry = _geometry(node, len(x), x.shape[1:], w, gy.shape[1:])
    case = costs.Case(*geometry, is_nhwc(x), is_nhwc(gy))
    winograd = takes_winograd(case)
    if not (winograd or costs.weight_gradient_pays(case)):
        return NotImplemented
    node.retain_inputs((0, 1))
    images, gradients, gw = nhwc(x), nhwc(gy), np.empty(w, np.float32)
    kernel(pointer(images), pointer(gradients), pointer(gw), *geometry, winograd)
    return (gw,)


@replaces(Sum, "forward", "channel_sums", "plip", ctypes.c_int)
def _bias_gradient(node, inputs, kernel):
    """A sum over all but the channels of NHWC memory, which is how Chainer writes it."""
    (x,) = inputs
    if not (
        node.axis == (0, 2, 3)
        and not node.keepdims
        and is_float32(inputs)
        and x.ndim == 4
        and x.size
        and x.shape[1] > 1  # else it is a sum of all, for which NumPy has vectors
        and is_nhwc(x)
    ):
        return NotImplemented
    sums = np.empty(x.shape[1], np.float32)
    kernel(pointer(nhwc(x)), x.size // sums.size, sums.size, pointer(sums))
    return (sums,)
