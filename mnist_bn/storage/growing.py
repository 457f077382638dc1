"""Arrays that grow along their first axis, at the same cost for every row."""

from __future__ import annotations

import numpy as np


class GrowingArray:
    """Rows of one shape and dtype, to which more are added.

    What `rows` has returned never changes, whatever is added afterwards: nobody need copy it.

    Args:
        rows: the first ones, `(T, ...)`.
    """

    def __init__(self, rows: np.ndarray) -> None:
        self._length = len(rows)
        self._memory = np.array(rows)

    def extend(self, rows: np.ndarray) -> None:
        """Adds rows `(t, ...)`.

        Raises:
            ValueError: they have another shape.
        """
        if rows.shape[1:] != self._memory.shape[1:]:
            raise ValueError(f"expected rows {self._memory.shape[1:]}, found {rows.shape[1:]}")
        length = self._length + len(rows)
        dtype = np.result_type(self._memory, rows)
        if length > len(self._memory) or dtype != self._memory.dtype:
            memory = np.empty((2 * length, *rows.shape[1:]), dtype)
            memory[: self._length] = self.rows()
            self._memory = memory
        self._memory[self._length : length] = rows
        self._length = length

    def rows(self) -> np.ndarray:
        """Returns all rows, `(T, ...)`, read-only."""
        rows = self._memory[: self._length]
        rows.flags.writeable = False
        return rows
