"""Pooling: Chainer's function nodes with kernels inside, as in `layers`."""

from __future__ import annotations

import ctypes
import math

import numpy as np
from chainer.functions.pooling.average_pooling_2d import AveragePooling2D, AveragePooling2DGrad
from chainer.functions.pooling.max_pooling_nd import MaxPoolingND, MaxPoolingNDGrad
from chainer.utils.conv import get_conv_outsize

from mnist_bn.kernels.arrays import is_float32, is_nhwc, nchw, nhwc, pointer
from mnist_bn.kernels.layers import LARGEST_SINGLE_CHANNEL, is_single_channel
from mnist_bn.kernels.registry import Registry
from mnist_bn.kernels.seam import Replacements
from mnist_bn.kernels.windows import windows

_FEW_CHANNELS = 8

replaces = Registry()


def replacements(library: ctypes.CDLL) -> Replacements:
    """Returns what replaces the methods of Chainer's function nodes."""
    indexes = property(_indexes, _set_indexes, _delete_indexes)
    return replaces.replacements(library) | {(MaxPoolingND, "indexes"): lambda original: indexes}


# --- Max pooling ---

_2X2 = (2, 2), (2, 2), (0, 0)  # size, stride and padding of what is pooled faster still
_MOST_PLACES = 256  # of a window: its places are counted in a byte


def _is_stocks(x: np.ndarray, size: tuple, stride: tuple) -> bool:
    """Whether stock Chainer is as fast, or faster: see `layers` of such limits.

    So of few channels, and of windows that skip pixels, which must not all be copied for it.
    """
    is_large = x.size > LARGEST_SINGLE_CHANNEL
    skips = math.prod(size) < math.prod(stride)
    return is_large and (x.shape[1] < _FEW_CHANNELS or (skips and not is_nhwc(x)))


@replaces(MaxPoolingND, "forward_cpu", "max_pool_forward", "pppp")
def _max_pool_forward(node, inputs, kernel):
    (x,) = inputs
    if (
        x.ndim != 4
        or node.return_indices  # promised as int64
        or math.prod(node.ksize) > _MOST_PLACES
        or not is_float32(inputs)
        or x.size == 0
        or is_single_channel(x)
        or (_is_stocks(x, node.ksize, node.stride) and (node.ksize, node.stride, node.pad) != _2X2)
    ):
        return NotImplemented
    n, c = x.shape[:2]
    out = tuple(
        get_conv_outsize(*sizes, node.cover_all)
        for sizes in zip(x.shape[2:], node.ksize, node.stride, node.pad, strict=True)
    )
    if min(out) < 1:
        return NotImplemented
    y = np.empty((n, *out, c), np.float32)
    indexes = np.empty(y.shape, np.uint8)
    rows = nhwc(x)
    seen = windows(x.shape, node.ksize, node.stride, node.pad, out)
    kernel(pointer(rows), ctypes.addressof(seen), pointer(y), pointer(indexes))
    node._in_shape = x.shape
    node._in_dtype = x.dtype
    node.indexes = nchw(indexes)
    return (nchw(y),)


@replaces(MaxPoolingNDGrad, "forward_cpu", "max_pool_backward", "pppp")
def _max_pool_backward(node, inputs, kernel):
    (gy,) = inputs
    func = node.func
    indexes = vars(func).get("indexes")  # as the kernel left them, or Chainer's int64
    if (
        type(indexes) is not np.ndarray
        or indexes.dtype != np.uint8
        or not is_float32(inputs)
        or gy.shape != indexes.shape
    ):
        return NotImplemented
    n, c, h, w = func._in_shape
    gx = np.empty((n, h, w, c), np.float32)
    gradient, positions = nhwc(gy), nhwc(indexes)
    seen = windows(func._in_shape, func.ksize, func.stride, func.pad, gy.shape[2:])
    kernel(pointer(gradient), pointer(positions), ctypes.addressof(seen), pointer(gx))
    return (nchw(gx),)


def _indexes(node) -> np.ndarray:
    """What is seen of `indexes`: the kernel's bytes become int64, as Chainer's, when looked at.

    From then on they are Chainer's array, which may be written to.
    """
    indexes = vars(node).get("indexes")
    if indexes is None:
        raise AttributeError(f"{type(node).__name__!r} object has no attribute 'indexes'")
    if indexes.dtype == np.uint8:
        indexes = vars(node)["indexes"] = np.ascontiguousarray(indexes, np.intp)
    return indexes


def _set_indexes(node, indexes) -> None:
    vars(node)["indexes"] = indexes


def _delete_indexes(node) -> None:
    del vars(node)["indexes"]


# --- Average pooling ---


def _average_windows(node, x: tuple, out: tuple) -> ctypes.Array:
    return windows(x, (node.kh, node.kw), (node.sy, node.sx), (node.ph, node.pw), out)


@replaces(AveragePooling2D, "forward_cpu", "average_pool_forward", "ppp")
def _average_pool_forward(node, inputs, kernel):
    (x,) = inputs
    size, stride = (node.kh, node.kw), (node.sy, node.sx)
    if not is_float32(inputs) or x.size == 0 or _is_stocks(x, size, stride):
        return NotImplemented
    n, c, h, w = x.shape
    out = (
        get_conv_outsize(h, node.kh, node.sy, node.ph),
        get_conv_outsize(w, node.kw, node.sx, node.pw),
    )
    if min(out) < 1:
        return NotImplemented
    y = np.empty((n, *out, c), np.float32)
    rows, seen = nhwc(x), _average_windows(node, x.shape, out)
    kernel(pointer(rows), ctypes.addressof(seen), pointer(y))
    node._in_shape = x.shape
    node._in_dtype = x.dtype
    return (nchw(y),)


@replaces(AveragePooling2DGrad, "forward_cpu", "average_pool_backward", "ppp")
def _average_pool_backward(node, inputs, kernel):
    (gy,) = inputs
    n, c, h, w = node._in_shape
    size, stride = (node.kh, node.kw), (node.sy, node.sx)
    if not is_float32(inputs) or gy.size == 0 or _is_stocks(gy, size, stride):
        return NotImplemented
    gx = np.empty((n, h, w, c), np.float32)
    gradient, seen = nhwc(gy), _average_windows(node, node._in_shape, gy.shape[2:])
    kernel(pointer(gradient), ctypes.addressof(seen), pointer(gx))
    return (nchw(gx),)
