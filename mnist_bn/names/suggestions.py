"""The nearest right name to a wrong one, for the lines that refuse a name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def suggestion(name: str, names: Iterable[str]) -> str:
    """Returns "; did you mean 'SGD'?" with the nearest of `names`, or "" if none is near.

    Upper and lower case are the same here.
    """
    by_lower = {known.lower(): known for known in names}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return f"; did you mean {by_lower[near[0]]!r}?" if near else ""
