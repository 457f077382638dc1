"""A linear layer's products: a kernel's if its threads gain, else the BLAS library's."""

from __future__ import annotations

import ctypes

import numpy as np

from mnist_bn.kernels.arrays import function, pointers

# Of shapes only, so that a seed gives the same bits. Measured on one core with AVX2 beside
# OpenBLAS: within these bounds the kernels take 0.95 to 1.1 of its time, and two threads gain.
# BLAS is ahead for a few rows, and for weights that the L2 cache does not hold.
_LEAST_PRODUCTS = 4_000_000
_MOST_WEIGHTS = 2**19
_LEAST_ROWS = 16

_kernels: _Kernels | None = None


def use(library: ctypes.CDLL) -> None:
    """Sets the kernels."""
    global _kernels
    _kernels = _Kernels(library)


class _Kernels:
    def __init__(self, library: ctypes.CDLL):
        self.forward = function(library, "linear_forward", "ppppiii")
        self.input_gradient = function(library, "linear_input_gradient", "pppiii")
        self.weight_gradient = function(library, "linear_weight_gradient", "pppiii")


def forward(x: np.ndarray, w: np.ndarray, b: np.ndarray | None) -> np.ndarray:
    """Returns `x W' + b`, float32 `(N, out_size)`.

    Args:
        x, w, b: float32 `(N, in_size)`, `(out_size, in_size)`, `(out_size,)`.
    """
    n, outputs, inputs = len(x), *w.shape
    if not _pays(n, inputs, outputs):
        y = x.dot(w.T)
        if b is not None:
            y += b
        return y
    assert _kernels is not None
    y = np.empty((n, outputs), np.float32)
    x, w = np.ascontiguousarray(x), np.ascontiguousarray(w)
    b = None if b is None else np.ascontiguousarray(b)
    _kernels.forward(*pointers(x, w, b, y), n, inputs, outputs)
    return y


def gradients(
    indexes: tuple[int, ...], x: np.ndarray, w: np.ndarray, gy: np.ndarray
) -> list[np.ndarray]:
    """Returns those of a linear layer's gradients that `indexes` asks for: of x, W, b.

    Args:
        x, w, gy: float32 `(N, in_size)`, `(out_size, in_size)`, `(N, out_size)`.
    """
    of_input, of_weights = (
        (_input_gradient, _weight_gradient) if _pays(len(x), *w.shape) else (_gy_w, _gy_x)
    )
    gradients = (lambda: of_input(w, gy), lambda: of_weights(x, gy), lambda: gy.sum(axis=0))
    return [gradients[i]() for i in indexes]


def _pays(n: int, inputs: int, outputs: int) -> bool:
    weights = inputs * outputs
    return (
        _kernels is not None
        and weights <= _MOST_WEIGHTS
        and n * weights >= _LEAST_PRODUCTS
        and min(n, inputs, outputs) >= _LEAST_ROWS
    )


def _gy_w(w: np.ndarray, gy: np.ndarray) -> np.ndarray:
    return gy.dot(w)


def _gy_x(x: np.ndarray, gy: np.ndarray) -> np.ndarray:
    return gy.T.dot(x)


def _input_gradient(w: np.ndarray, gy: np.ndarray) -> np.ndarray:
    assert _kernels is not None
    gx = np.empty((len(gy), w.shape[1]), np.float32)
    gy, w = np.ascontiguousarray(gy), np.ascontiguousarray(w)
    _kernels.input_gradient(*pointers(gy, w, gx), *gx.shape, gy.shape[1])
    return gx


def _weight_gradient(x: np.ndarray, gy: np.ndarray) -> np.ndarray:
    assert _kernels is not None
    gw = np.empty((gy.shape[1], x.shape[1]), np.float32)
    x, gy = np.ascontiguousarray(x), np.ascontiguousarray(gy)
    _kernels.weight_gradient(*pointers(x, gy, gw), len(x), *gw.shape[::-1])
    return gw
