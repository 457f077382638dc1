"""CUDA kernels by their files in kernels/, compiled for the sizes that they are used with."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import cupy
import numpy as np

THREADS = 256  # of a block, in every kernel
# Blocks that keep a large card busy: two for each of its multiprocessors.
BLOCKS = 256
_MAX_SIZE = 2**31 - 1  # of an array: its indexes are 32-bit integers there
_FOLDER = Path(__file__).with_name("kernels")


def are_float32(arrays: Sequence) -> bool:
    """Whether all are CuPy's arrays of float32, not empty, and of a size that the kernels take."""
    return all(
        isinstance(a, cupy.ndarray) and a.dtype == np.float32 and 0 < a.size <= _MAX_SIZE
        for a in arrays
    )


def launch(
    files: Sequence[str],
    name: str,
    sizes: tuple[tuple[str, int], ...],
    grid: tuple[int, ...],
    *arguments: cupy.ndarray | np.void | int | float | None,
) -> None:
    """Launches a kernel.

    Args:
        files: names of files in kernels/, the last of them with the kernel.
        name: the kernel's.
        sizes: what it is compiled for, by the names that it has for them.
        grid: blocks.
        arguments: arrays, 32-bit integers and floats, structures; None is a null pointer.
    """
    as_c = [_as_c(argument) for argument in arguments]
    _compiled(tuple(files), name, sizes)(grid, (THREADS,), tuple(as_c))


def reduced(sums: cupy.ndarray, bias: cupy.ndarray | None = None) -> cupy.ndarray:
    """Returns the sums over the first axis of `(parts, ...)`.

    Args:
        bias: is added to each row, if there are several parts; a single one has it already.
    """
    if len(sums) == 1:
        return sums[0]
    out = cupy.empty(sums.shape[1:], np.float32)
    grid = (-(-out.size // 16),)
    launch(("reduce",), "reduce", (), grid, sums, bias, out, out.size, len(sums), out.shape[-1])
    return out


def _as_c(argument: cupy.ndarray | np.void | int | float | None) -> cupy.ndarray | np.generic:
    if argument is None:
        return np.intp(0)
    if isinstance(argument, int):
        return np.int32(argument)
    return np.float32(argument) if isinstance(argument, float) else argument


@functools.lru_cache(maxsize=512)
def _compiled(files: tuple[str, ...], name: str, sizes: tuple) -> cupy.RawKernel:
    source = "".join((_FOLDER / f"{file}.cu").read_text(encoding="utf-8") for file in files)
    options = ("-std=c++17", *(f"-D{key}={value}" for key, value in sizes))
    return cupy.RawKernel(source, name, options=options)
