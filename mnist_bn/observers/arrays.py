"""The arrays of an observer's file: declared by the observer, checked at writing and at reading."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

import numpy as np

_VALUES = {
    "from 0 to 1": lambda values, lengths: (values >= 0) & (values <= 1),
    "above 0": lambda values, lengths: np.isfinite(values) & (values > 0),
    "a layer": lambda values, lengths: (values >= 1) & (values <= lengths.get("layers", np.inf)),
}


class Array(NamedTuple):
    """An array of an observer's file; in a name such as "mean/*" the star is any layer.

    Attributes:
        dtype: as it is written; a file that is read may have another of the same kind.
        shape: after the axis of time. None is any length, a word one that is the same for all
            arrays of the file.
        values: which the array may hold, one of _VALUES; "" any.
    """

    dtype: str
    shape: tuple[int | str | None, ...] = ()
    values: str = ""


ACCURACY = Array("float64", (), "from 0 to 1")

# What is measured now, by name: arrays, and single numbers.
Values = Mapping[str, np.ndarray | np.number]


def written(declared: Mapping[str, Array], arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns arrays in the dtypes that are declared for them; see `what_is_wrong`."""
    return {key: array.astype(_of(declared, key).dtype) for key, array in arrays.items()}


def what_is_wrong(declared: Mapping[str, Array], arrays: Mapping[str, np.ndarray]) -> str | None:
    """Returns why arrays `(T, ...)` are not those that are declared; None: they are."""
    lengths: dict[str, int] = {}
    found = set()
    parts: dict[str, dict[str, tuple[int, ...]]] = {}  # of each layer, by what stands before it
    for key, array in arrays.items():
        pattern = _pattern(declared, key)
        if pattern is None or not _fits(array, declared[pattern], lengths):
            return f"{key} is {array.dtype}, of shape {array.shape}"
        found.add(pattern)
        if pattern.endswith("/*"):
            parts.setdefault(pattern, {})[key.removeprefix(pattern[:-1])] = array.shape
    if missing := declared.keys() - found:
        return f"no array {min(missing)} in it" if arrays else "nothing but times in it"
    if any(part != next(iter(parts.values())) for part in parts.values()):
        return "it has not the same of every layer"
    for key, array in arrays.items():
        values = _of(declared, key).values
        if values and not _VALUES[values](array, lengths).all():
            return f"{key} is not {values}"
    return None


def _pattern(declared: Mapping[str, Array], key: str) -> str | None:
    """Returns the name that an array is declared by; None: it is not declared."""
    return next((pattern for pattern in declared if fnmatchcase(key, pattern)), None)


def _of(declared: Mapping[str, Array], key: str) -> Array:
    """Returns the declaration of an array that has one."""
    return next(array for pattern, array in declared.items() if fnmatchcase(key, pattern))


def _fits(array: np.ndarray, declaration: Array, lengths: dict[str, int]) -> bool:
    """Tells whether a series is as declared; `lengths` are those that words have so far."""
    if array.dtype.kind != np.dtype(declaration.dtype).kind:
        return False
    if array.ndim != len(declaration.shape) + 1:
        return False
    for n, wanted in zip(array.shape[1:], declaration.shape, strict=True):
        expected = lengths.setdefault(wanted, n) if isinstance(wanted, str) else wanted or n
        if not n or n != expected:
            return False
    return True
