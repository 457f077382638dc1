"""Convolution and linear layers on a GPU by kernels of our own: see kernels/product.cu.

CuPy's own go through cuBLAS, which cannot be captured in a graph, and of a convolution write each
image's patches to memory first.
"""

from __future__ import annotations

import math

import cupy
import numpy as np
from chainer.functions.connection.convolution_2d import Convolution2DFunction, Convolution2DGradW
from chainer.functions.connection.deconvolution_2d import Deconvolution2DFunction
from chainer.functions.connection.linear import LinearFunction, LinearGradData, LinearGradWeight

from mnist_bn.gpu.raw import BLOCKS, are_float32, launch, reduced
from mnist_bn.kernels.seam import Replacements


def replacements() -> Replacements:
    """Returns what has Chainer's convolution and linear functions compute here, on a GPU."""
    return {
        (Convolution2DFunction, "forward_gpu"): _convolution,
        (Deconvolution2DFunction, "forward_gpu"): _deconvolution,
        (Convolution2DGradW, "forward_gpu"): _convolution_weights,
        (LinearFunction, "forward"): _linear,
        (LinearGradData, "forward"): _linear_data,
        (LinearGradWeight, "forward"): _linear_weights,
    }


# --- Chainer's functions ---


def _convolution(original):
    def forward_gpu(self, inputs):
        if not _is_plain(self, inputs) or self.cover_all:
            return original(self, inputs)
        self.retain_inputs((0, 1))
        x, w, b = _with_bias(inputs)
        y = cupy.empty((len(x), len(w), *self._get_out_size(x.shape, w.shape)), np.float32)
        sizes = _sizes(self, x.shape, w.shape, y.shape)
        tiles = _tiles(len(w), y.size // len(w))
        grid = _grid(tiles, len(w), y.size // len(w))
        _launch("convolution_forward", tiles, w[0].size, sizes, grid, x, w, b, y, len(x))
        return (y,)

    return forward_gpu


def _deconvolution(original):
    def forward_gpu(self, inputs):
        if not _is_plain(self, inputs):
            return original(self, inputs)
        self.retain_inputs((0, 1))
        gy, w, b = _with_bias(inputs)
        self._calc_out_size(gy.shape, w.shape)
        self._set_cover_all(gy.shape, w.shape)
        channels = w.shape[1]
        gx = cupy.empty((len(gy), channels, self.outh, self.outw), np.float32)
        sizes = _sizes(self, gx.shape, w.shape, gy.shape)
        tiles = _tiles(channels, gx.size // channels)
        grid = _grid(tiles, channels, gx.size // channels)
        summed = w.size // channels
        _launch("convolution_data", tiles, summed, sizes, grid, gy, w, b, gx, len(gy))
        return (gx,)

    return forward_gpu


def _convolution_weights(original):
    def forward_gpu(self, inputs):
        x, gy = inputs
        if not _is_plain(self, inputs) or self.W_dtype != np.float32:
            return original(self, inputs)
        self.retain_inputs((0, 1))
        sizes = _sizes(self, x.shape, self.W_shape, gy.shape)
        x, gy = cupy.ascontiguousarray(x), cupy.ascontiguousarray(gy)
        m, n = self.W_shape[0], math.prod(self.W_shape[1:])
        k = gy.size // m
        tiles = _largest_tiles(m, n)
        parts, each = _split(tiles, m, n, k)
        sums = cupy.empty((parts, *self.W_shape), np.float32)
        grid = _grid(tiles, m, n, parts)
        _launch("convolution_weights", tiles, each, sizes, grid, x, gy, sums, len(x), each)
        return (reduced(sums),)

    return forward_gpu


def _linear(original):
    def forward(self, inputs):
        if not are_float32(inputs):
            return original(self, inputs)
        self.retain_inputs((0, 1))
        x, w, b = _with_bias(inputs)
        return (_product(x, w, True, True, len(x), len(w), x.shape[1], b),)

    return forward


def _linear_data(original):
    def forward(self, inputs):
        if not are_float32(inputs):
            return original(self, inputs)
        self.retain_inputs((0, 1))
        w, gy = inputs
        return (_product(gy, w, True, False, len(gy), w.shape[1], len(w)),)

    return forward


def _linear_weights(original):
    def forward(self, inputs):
        if not are_float32(inputs) or self._w_dtype != np.float32:
            return original(self, inputs)
        self.retain_inputs((0, 1))
        x, gy = inputs
        return (_product(gy, x, False, False, gy.shape[1], x.shape[1], len(x)),)

    return forward


def _with_bias(inputs) -> tuple:
    """Returns the inputs, contiguous, with None for a bias that there is not."""
    x, w, *b = map(cupy.ascontiguousarray, inputs)
    return x, w, b[0] if b else None


def _is_plain(node, inputs) -> bool:
    """Whether the convolution is of one group, without dilation and a layout of its own."""
    return (
        are_float32(inputs)
        and node.groups == node.dy == node.dx == 1
        and not getattr(node, "cudnn_fast", False)
        and all(layout is None for layout in node.input_layouts)
    )


# --- Kernels ---


def _product(a, b, a_by_k: bool, b_by_k: bool, m: int, n: int, k: int, bias=None) -> cupy.ndarray:
    """Returns the sums over k of a (m, k) and b (n, k), either transposed unless it is "by k"."""
    a, b = cupy.ascontiguousarray(a), cupy.ascontiguousarray(b)
    tiles = _tiles(m, n)
    parts, each = _split(tiles, m, n, k)
    order = (("A_IS_BY_K", int(a_by_k)), ("B_IS_BY_K", int(b_by_k)))
    sums = cupy.empty((parts, m, n), np.float32)
    own_bias = bias if parts == 1 else None
    grid = _grid(tiles, m, n, parts)
    _launch("linear", tiles, each, order, grid, a, b, own_bias, sums, m, n, k, each)
    return reduced(sums, bias)


def _launch(
    operation: str, tiles: tuple[int, int], summed: int, sizes: tuple, grid: tuple, *arguments
) -> None:
    """Launches a kernel that multiplies by `product`, with tiles as deep as the sum needs."""
    tile = (("TM", tiles[0]), ("TN", tiles[1]), ("DEPTH", 16 if summed <= 16 else 32))
    launch(("product", operation), operation, (*tile, *sizes), grid, *arguments)


def _sizes(node, x: tuple, w: tuple, y: tuple) -> tuple[tuple[str, int], ...]:
    """Returns what the kernels are compiled for of a convolution, by their names there."""
    names = ("C", "H", "W", "OC", "KH", "KW", "OH", "OW", "SY", "SX", "PH", "PW")
    values = (*x[1:], w[0], *w[2:], *y[2:], node.sy, node.sx, node.ph, node.pw)
    return tuple(zip(names, values, strict=True))


def _largest_tiles(m: int, n: int) -> tuple[int, int]:
    """Returns rows and columns of a tile, no larger than is needed."""
    rows, columns = (next((t for t in (16, 32) if size <= t), 64) for size in (m, n))
    return rows, columns


def _tiles(m: int, n: int) -> tuple[int, int]:
    """Returns rows and columns of a tile: large ones, unless there are then too few."""
    rows, columns = _largest_tiles(m, n)
    while _count(rows, columns, m, n) < BLOCKS // 2 and max(rows, columns) > 16:
        if columns >= rows:
            columns //= 2
        else:
            rows //= 2
    return rows, columns


def _count(rows: int, columns: int, m: int, n: int) -> int:
    return -(-m // rows) * -(-n // columns)


def _split(tiles: tuple[int, int], m: int, n: int, k: int) -> tuple[int, int]:
    """Returns among how many blocks a sum is split, and how many products each adds."""
    wanted = max(1, min(BLOCKS // _count(*tiles, m, n), k // 64))
    each = -(-k // wanted)
    return -(-k // each), each


def _grid(tiles: tuple[int, int], m: int, n: int, parts: int = 1) -> tuple[int, int, int]:
    return -(-n // tiles[1]), -(-m // tiles[0]), parts
