"""Windows on maps, as the kernels take them."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable

Sizes = Iterable[int]  # of rows and columns


def windows(x: tuple[int, ...], size: Sizes, stride: Sizes, pad: Sizes, out: Sizes) -> ctypes.Array:
    """Returns the kernels' `Windows`; x is a shape `(N, C, H, W)`."""
    n, c, h, w = x
    return (ctypes.c_int64 * 12)(n, h, w, c, *size, *stride, *pad, *out)
