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


def written(declared: Mapping[str, Array], arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns arrays in the dtypes that are declared for them; see `what_is_wrong`."""
    return {key: array.astype(_of(declared, key)[1].dtype) for key, array in arrays.items()}


def what_is_wrong(declared: Mapping[str, Array], arrays: Mapping[str, np.ndarray]) -> str | None:
    """Returns why arrays `(T, ...)` are not those that are declared; None: they are."""
    lengths: dict[str, int] = {}
    found = set()
    parts: dict[str, dict[str, tuple[int, ...]]] = {}  # of each layer, by what stands before it
    for key, array in arrays.items():
        pattern, declaration = _of(declared, key)
        if declaration is None or not _fits(array, declaration, lengths):
            return f"{key} is {array.dtype}, of shape {array.shape}"
        found.add(pattern)
        if pattern.endswith("/*"):
            parts.setdefault(pattern, {})[key.removeprefix(pattern[:-1])] = array.shape
    if missing := declared.keys() - found:
        return f"no array {min(missing)} in it" if arrays else "nothing but times in it"
    if any(part != next(iter(parts.values())) for part in parts.values()):
        return "it has not the same of every layer"
    for key, array in arrays.items():
        values = _of(declared, key)[1].values
        if values and not _VALUES[values](array, lengths).all():
            return f"{key} is not {values}"
    return None


def _of(declared: Mapping[str, Array], key: str) -> tuple[str, Array | None]:
    """Returns the name that an array's is declared by, and the declaration; None: it is not."""
    return next((item for item in declared.items() if fnmatchcase(key, item[0])), (key, None))


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
