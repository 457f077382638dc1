"""How many threads the kernels of a process take: their numbers do not depend on it.

Work is cut into parts by its shape alone, and partial sums are added in the order of the parts; see
parallel.h.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from joblib import cpu_count

from mnist_bn.kernels.arrays import function

# A batch is cut into so many parts at most; see MOST_SLICES in parallel.h.
MOST_USEFUL = 8

_set: Callable[[int], int] | None = None


def use(library: ctypes.CDLL) -> None:
    """Sets the kernels."""
    global _set
    _set = function(library, "set_threads", "i", ctypes.c_int)


def set_count(count: int) -> None:
    """Sets how many threads the kernels take from now on."""
    if _set is not None:
        _set(count)


def share(wanted: str, runs: int) -> int:
    """Returns how many threads a run has beside others: of all no more than there are cores.

    Args:
        wanted: a number, or "auto".
        runs: how many there are at once. A single one gets the number that it wants.
    """
    most = max(1, cpu_count() // runs)
    if wanted == "auto":
        return min(most, MOST_USEFUL)
    return int(wanted) if runs == 1 else min(int(wanted), most)
