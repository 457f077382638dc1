"""Depthwise convolution's forward pass and gradients: as many groups as channels, and outputs.

What it does not cover (`covers`) is stock Chainer's: several outputs a channel, and larger groups.
"""

from __future__ import annotations

import ctypes
import math

import numpy as np

from mnist_bn.kernels.arrays import empty_nchw, function, is_float32, nhwc, pointer
from mnist_bn.kernels.windows import windows

_LEAST_CHANNELS = 16  # with fewer, stock Chainer is as fast
_MOST_SLICES = 8  # as in parallel.h

_kernels: _Kernels | None = None


def use(library: ctypes.CDLL) -> None:
    """Sets the kernels."""
    global _kernels
    _kernels = _Kernels(library)


class _Kernels:
    def __init__(self, library: ctypes.CDLL):
        self.forward = function(library, "depthwise_forward", "ppppp")
        self.input_gradient = function(library, "depthwise_input_gradient", "pppp")
        self.weight_gradient = function(library, "depthwise_weight_gradient", "ppppp")


def covers(node, x: tuple, w: tuple, out: tuple, arrays: tuple) -> bool:
    """Returns whether the kernels can do it, and pay.

    Args:
        node: the convolution's, or that of one of its gradients.
        x, w, out: shapes of the images, `(N, C, H, W)`, of the weights and of a channel's output.
        arrays: those given.
    """
    return (
        _kernels is not None
        and is_float32(arrays)
        and node.groups == x[1] == w[0] >= _LEAST_CHANNELS
        and w[1] == node.dy == node.dx == 1
        and all(a.size for a in arrays)
        and min(out) > 0
    )


def _rows(w: np.ndarray) -> np.ndarray:
    """Returns weights, `(C, 1, KH, KW)`, as the kernels take them, `(KH * KW, C)`."""
    return np.ascontiguousarray(w.reshape(len(w), -1).T)


def _windows(node, x: tuple, w: tuple, out: tuple) -> ctypes.Array:
    return windows(x, w[2:], (node.sy, node.sx), (node.ph, node.pw), out)


def forward(node, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, out: tuple) -> np.ndarray:
    """Returns y, float32 `(N, C, *out)`."""
    assert _kernels is not None
    y = empty_nchw(*x.shape[:2], *out)
    images, rows, seen = nhwc(x), _rows(w), _windows(node, x.shape, w.shape, out)
    bias = None if b is None else np.ascontiguousarray(b)
    _kernels.forward(
        *(pointer(images), pointer(rows), None if bias is None else pointer(bias)),
        *(ctypes.addressof(seen), pointer(nhwc(y))),
    )
    return y


def input_gradient(node, x: tuple, w: np.ndarray, gy: np.ndarray) -> np.ndarray:
    """Returns gx, float32 of the shape x."""
    assert _kernels is not None
    gx = empty_nchw(*x)
    gradients, rows, seen = nhwc(gy), _rows(w), _windows(node, x, w.shape, gy.shape[2:])
    _kernels.input_gradient(
        pointer(gradients), pointer(rows), ctypes.addressof(seen), pointer(nhwc(gx))
    )
    return gx


def weight_gradient(node, x: np.ndarray, w: tuple, gy: np.ndarray) -> np.ndarray:
    """Returns gw, float32 of the shape w."""
    assert _kernels is not None
    rows = np.empty((math.prod(w[2:]), w[0]), np.float32)
    sums = np.empty((_MOST_SLICES, rows.size))
    images, gradients = nhwc(x), nhwc(gy)
    seen = _windows(node, x.shape, w, gy.shape[2:])
    _kernels.weight_gradient(
        *(pointer(images), pointer(gradients), ctypes.addressof(seen)),
        *(pointer(sums), pointer(rows)),
    )
    return np.ascontiguousarray(rows.T).reshape(w)
