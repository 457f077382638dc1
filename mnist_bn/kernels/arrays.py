"""Arrays as the kernels see them: NHWC memory under NCHW shapes."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Sequence

import numpy as np

_C_TYPES: dict[str, type[ctypes._SimpleCData]] = {
    "p": ctypes.c_void_p,
    "i": ctypes.c_int,
    "l": ctypes.c_int64,
    "f": ctypes.c_float,
    "d": ctypes.c_double,
}
_FLOAT32 = np.dtype(np.float32)
# To NumPy's hints, an array is a buffer from Python 3.12 on only.
_as_c: Callable[..., ctypes.c_char] = ctypes.c_char.from_buffer
_address = ctypes.addressof


def function(library: ctypes.CDLL, name: str, arguments: str, result: type | None = None):
    """Returns a kernel with its argument types set.

    Args:
        arguments: one letter each: p(ointer), i(nt), l (64-bit int), f(loat), d(ouble).
        result: the ctypes type of what it returns.
    """
    kernel = library[name]  # a fresh object each time, unlike library.name
    kernel.argtypes = [_C_TYPES[letter] for letter in arguments]
    kernel.restype = result
    return kernel


def keep_freed_memory() -> None:
    """Makes the C library keep memory that arrays gave back, up to 256 MB, for the next arrays.

    It would return arrays of more than 128 kB to the system, and every page of every such array
    would then cost a page fault when it is written for the first time: a third of a training step
    and more. Only glibc is told; elsewhere nothing changes.
    """
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # as in its malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(mmap_threshold, 32 << 20)  # the most that glibc accepts
    mallopt(trim_threshold, 256 << 20)
    mallopt(top_pad, 16 << 20)


def checked(kernel):
    """Makes a kernel that returns 1 if memory is short raise MemoryError."""
    kernel.errcheck = _raise_if_short
    return kernel


def _raise_if_short(result: int, kernel, arguments) -> None:
    if result:
        raise MemoryError(f"no memory for {kernel.__name__}")


def pointer(array: np.ndarray) -> int:
    """Returns the address of a contiguous array's first element."""
    try:
        return _address(_as_c(array))  # a quarter of the time of array.ctypes.data
    except (TypeError, ValueError):  # read-only, or of size zero
        return array.ctypes.data


def pointers(*arrays: np.ndarray | None) -> list[int | None]:
    """Returns the addresses of contiguous arrays' first elements, None for None."""
    try:
        return [None if a is None else _address(_as_c(a)) for a in arrays]
    except (TypeError, ValueError):
        return [None if a is None else pointer(a) for a in arrays]


def nhwc(x: np.ndarray) -> np.ndarray:
    """Returns `(N, C, H, W)` as C-contiguous `(N, H, W, C)`: a view of NHWC memory, else a copy."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


def as_float32_nhwc(x: np.ndarray) -> np.ndarray:
    """Returns `(N, C, H, W)` of any dtype as C-contiguous float32 `(N, H, W, C)`."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1), np.float32)


def is_nhwc(x: np.ndarray) -> bool:
    """Returns whether an `(N, C, H, W)` array lies as NHWC in memory."""
    return x.transpose(0, 2, 3, 1).flags.c_contiguous


def nchw(x: np.ndarray) -> np.ndarray:
    """Returns the `(N, C, H, W)` view of an `(N, H, W, C)` array."""
    return x.transpose(0, 3, 1, 2)


def empty_nchw(n: int, c: int, h: int, w: int) -> np.ndarray:
    """Returns an uninitialized float32 `(N, C, H, W)` array in NHWC memory."""
    return np.empty((n, h, w, c), np.float32).transpose(0, 3, 1, 2)


def is_float32(arrays: Sequence[object]) -> bool:
    """Returns whether all are aligned float32 NumPy arrays of native byte order."""
    return all([type(a) is np.ndarray and a.dtype == _FLOAT32 and a.flags.aligned for a in arrays])


def are_writable(arrays: Iterable[np.ndarray]) -> bool:
    """Returns whether a kernel may write to all of them: a mapped file, for one, may forbid it."""
    return all(a.flags.writeable for a in arrays)
