"""Which convolves faster, a kernel or stock Chainer: estimates from shapes alone.

Stock Chainer copies each image into a matrix of its windows and lets BLAS multiply it. The kernels
copy nothing, and win until the multiplication is all that counts (many channels in and out on a
small map) or most of what they compute is thrown away (the gradient of one input channel, in
vectors of 16). Each side's time is a sum of what there is to do times constants: least-squares
fits, in nanoseconds, to some 1500 random cases on one core with AVX-512. Only the ratio is used.
No clock is looked at, so that a seed gives the same bits.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

_VECTOR = 16  # floats
_TILE = 4  # rows and columns of output that Winograd's algorithm computes at a time
_CHUNK = 4096  # floats of output that a kernel works on at a time
_L2 = 300_000  # floats
_FRESH = 8_000_000  # floats of memory that the system has to give, and clear, each time
# The kernel is called if its estimate is below this share of stock Chainer's: estimates err.
_MARGIN = 0.8


class Case(NamedTuple):
    """A convolution in the order of the kernels' arguments, and whether x and y lie as NHWC."""

    n: int
    height: int
    width: int
    in_channels: int
    out_channels: int
    kernel_height: int
    kernel_width: int
    stride_y: int
    stride_x: int
    pad_y: int
    pad_x: int
    out_height: int
    out_width: int
    x_is_nhwc: bool
    y_is_nhwc: bool

    @property
    def taps(self) -> int:
        return self.kernel_height * self.kernel_width

    @property
    def weights(self) -> int:
        return self.taps * self.in_channels * self.out_channels

    @property
    def inputs(self) -> int:
        """Pixels of x."""
        return self.n * self.height * self.width

    @property
    def outputs(self) -> int:
        """Pixels of y."""
        return self.n * self.out_height * self.out_width

    @property
    def is_padded(self) -> bool:
        return self.pad_y > 0 or self.pad_x > 0


@functools.lru_cache(4096)
def forward_pays(case: Case) -> bool:
    """Returns whether the kernel's forward pass is the faster one."""
    c = case
    images = 1 if c.is_padded else max(1, _CHUNK // (c.outputs // c.n * c.out_channels))
    ours = 33_700 + _packed(
        c.taps * c.in_channels * _whole(c.out_channels), -(-c.n // images), 0.63, 2.2, 0.075
    )
    ours += 0.185 * c.n * _steps(c.out_height, c.out_width, c.taps * c.in_channels, c.out_channels)
    ours += _copied(c.x_is_nhwc, c.n, c.inputs, c.in_channels)
    ours += 0.3 * c.inputs * c.in_channels * c.is_padded
    ours += c.outputs * (5.2 * (c.out_channels % _VECTOR > 0) + 0.19 * c.out_channels)
    stock = 98_000 + 300 * c.taps + _windows(c) + _far_windows(c) + 0.016 * c.outputs * c.weights
    return ours < _MARGIN * (stock + 0.55 * c.outputs * c.out_channels)


@functools.lru_cache(4096)
def input_gradient_pays(case: Case) -> bool:
    """Returns whether the kernel's gradient of the input is the faster one."""
    c = case
    ours = 34_900 + _packed(c.taps * c.out_channels * _whole(c.in_channels), c.n, 0.51, 4.6, 0.062)
    if c.kernel_width == 3 and c.stride_y == c.stride_x == 1:  # scattered
        vectors = _whole(c.in_channels) // _VECTOR
        loads = c.out_width + -(-c.out_width // 9)
        rows = c.n * c.kernel_height * c.out_height
        ours += 0.154 * rows * 3 * vectors * loads * c.out_channels
    else:
        ours += 0.182 * c.n * _phase_steps(c)
        phases = c.stride_y * c.stride_x  # each reads all weights to reorder its own
        ours += 0.2 * phases * c.weights * (phases > 1 and c.weights > 3 * _L2)
    ours += _copied(c.y_is_nhwc, c.n, c.outputs, c.out_channels) + 0.18 * c.outputs * c.out_channels
    ours += c.inputs * (0.25 * c.in_channels + 4 * (c.in_channels % _VECTOR > 0))
    stock = 55_000 + 1550 * c.taps + _windows(c, 0.9) + 0.017 * c.outputs * c.weights
    stock += 0.2 * c.inputs * c.in_channels
    return ours < _MARGIN * (stock + 0.26 * c.outputs * c.out_channels * c.y_is_nhwc)


@functools.lru_cache(4096)
def weight_gradient_pays(case: Case) -> bool:
    """Returns whether the kernel's gradient of the weights is the faster one."""
    c = case
    channels = _whole(c.out_channels)
    size, partial = c.taps * c.in_channels * channels, channels > c.out_channels
    images = max(1, _CHUNK // (c.outputs // c.n * channels))
    chunks = c.n if c.is_padded or partial else -(-c.n // images)
    passes, length = c.kernel_height, c.kernel_width * c.in_channels
    pairs, single = divmod(channels // _VECTOR, 2)
    if c.kernel_height == 3 and length <= 3:  # all rows of the kernel in one tile
        passes, length, pairs, single = 1, 3 * length, 0, channels // _VECTOR
    tiles = -(-length // 12)
    steps = pairs * _step(length / tiles, 2) + single * _step(length / tiles, 1)
    ours = 28_500 + _packed(size, chunks, 0.55, 3.0, 0.11) + 0.029 * chunks * size
    is_far = c.outputs // c.n * channels > _L2  # each tile reads gy anew
    reading = (0.67 + 1.6 * is_far) * channels / _VECTOR
    ours += c.outputs * passes * tiles * (0.168 * steps + reading)
    ours += _copied(c.x_is_nhwc, c.n, c.inputs, c.in_channels) + _copied(
        c.y_is_nhwc, c.n, c.outputs, c.out_channels
    )
    ours += 0.3 * c.inputs * c.in_channels * c.is_padded + 0.09 * c.outputs * channels * partial
    stock = 84_000 + 300 * c.taps + _windows(c) + _far_windows(c) + 0.0145 * c.outputs * c.weights
    return ours < _MARGIN * (stock + 0.39 * c.outputs * c.out_channels + 0.48 * c.weights)


@functools.lru_cache(4096)
def winograd_pays(case: Case) -> bool:
    """Returns whether the kernels' Winograd algorithm is faster than their direct convolution.

    Measured for each of the three passes, with AVX-512 and AVX2: within these bounds it takes 0.3
    to 0.95 of direct convolution's time (of 16 channels to 32, 13x13 pixels: 0.54 for a batch of
    100, 0.85 for one image). Outside, it may take longer. Tiles that are not half full save no
    products; for fewer than 8 tiles, the transforms of the weights take longer than the products
    that they save; fewer than 16 channels do not fill a vector; and of more than 256, the
    transformed weights are read from memory.
    """
    c = case
    tiles = c.n * -(-c.out_height // _TILE) * -(-c.out_width // _TILE)
    channels = c.in_channels, c.out_channels
    is_half_full = c.outputs >= _TILE**2 / 2 * tiles
    return min(channels) >= 16 and max(channels) <= 256 and tiles >= 8 and is_half_full


def _whole(channels: int) -> int:
    """Returns the channels in whole vectors."""
    return -(-channels // _VECTOR) * _VECTOR


def _packed(size: int, passes: int, once: float, fresh: float, again: float) -> float:
    """Returns the time to reorder `size` weights and to read them `passes` times."""
    return size * (once + fresh * (size > _FRESH) + again * passes * (size > _L2))


def _copied(is_nhwc: bool, n: int, pixels: int, channels: int) -> float:
    """Returns the time to bring `(N, C, H, W)` into NHWC memory."""
    if is_nhwc or channels == 1:
        return 0
    image = pixels // n
    if channels >= 512 and image % 1024 == 0:  # all channels of a pixel in one set of the cache
        return 4 * pixels * channels
    is_slow = channels < 8 or (channels >= 128 and image % 256 == 0)
    return (1 if is_slow else 0.5) * pixels * channels


def _windows(case: Case, base: float = 0.65) -> float:
    """Returns the time in which stock Chainer copies each window from or to a matrix of them.

    Args:
        base: nanoseconds for an element, if nothing makes it dearer.
    """
    c = case
    rows = c.n * c.taps * c.in_channels * c.out_height
    elements = rows * c.out_width
    is_strided = c.stride_y > 1 or c.stride_x > 1
    return 5.5 * rows + elements * (base + 0.6 * is_strided + 1.2 * (elements > _FRESH))


def _far_windows(case: Case) -> float:
    """Returns the time that it takes more from a large NHWC array, whose rows are not dense."""
    c = case
    is_far = c.x_is_nhwc and c.in_channels > 3 and c.inputs * c.in_channels > 1_000_000
    return 2.1 * c.outputs * c.taps * c.in_channels * is_far


def _step(pixels: float, vectors: int) -> float:
    """Returns the operations of a tile for a weight: products, loads, or the wait for a sum."""
    return max(pixels * vectors, pixels + vectors, 8)


def _steps(rows: int, columns: int, length: int, channels: int) -> float:
    """Returns the operations of convolving to an image of `channels`; `length` products a sum."""
    pairs, single = divmod(_whole(channels) // _VECTOR, 2)
    total = 0.0
    pixels: float
    for vectors, count, most in ((2, pairs, 12), (1, single, 14)):
        if columns <= most // 2 and rows > 1:  # two rows to a tile
            tiles, pixels = -(-rows // 2), 2 * columns
        else:
            strips = -(-columns // most)
            tiles, pixels = rows * strips, columns / strips
        total += count * tiles * _step(pixels, vectors)
    return total * length


def _phase_steps(case: Case) -> float:
    """Returns the operations of the interleaved convolutions that make a strided gx."""
    c = case
    rows, columns = -(-c.height // c.stride_y), -(-c.width // c.stride_x)
    # Whatever the phases' shares of the kernel: together they are the kernel.
    return _steps(rows, columns, c.taps * c.out_channels, c.in_channels)
