"""The state of Python's and NumPy's random number generators, as a snapshot holds it."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping

import numpy as np

from mnist_bn.storage.snapshot_check import Impossible, check_range

GENERATORS = ("python", "numpy")
_WORDS = 624  # of the Mersenne Twister, which both are


def capture() -> tuple[dict, dict[str, np.ndarray]]:
    """Returns the state: JSON for the header, and the generators' words, uint32, by their names.

    Python's are 625, the last of them a position; NumPy's are 624.
    """
    version, words, python_gauss = random.getstate()
    state = np.random.get_state(legacy=False)
    said = {
        "python": [version, python_gauss],
        "numpy": {
            "bit_generator": state["bit_generator"],
            "pos": int(state["state"]["pos"]),
            "has_gauss": int(state["has_gauss"]),
            "gauss": float(state["gauss"]),
        },
    }
    return said, {"python": np.array(words, np.uint32), "numpy": state["state"]["key"].copy()}


def restore(said: dict, words: Mapping[str, np.ndarray]) -> None:
    """Puts back the state that `capture` returned.

    Raises:
        Impossible: it is no state of the generators; NumPy would read beyond the end of it.
    """
    version, python_gauss = said["python"]
    numpy_said = dict(said["numpy"])
    _check(words, numpy_said)
    random.setstate((version, tuple(words["python"].tolist()), python_gauss))
    inner = {"key": words["numpy"], "pos": numpy_said.pop("pos")}
    np.random.set_state({**numpy_said, "state": inner})


def _check(words: Mapping[str, np.ndarray], numpy_said: dict) -> None:
    for name, array, shape in (
        ("Python's random state", words["python"], (_WORDS + 1,)),
        ("NumPy's random state", words["numpy"], (_WORDS,)),
    ):
        if array.dtype != np.uint32 or array.shape != shape:
            raise Impossible(name, f"uint32 {shape}", f"{array.dtype} {array.shape}")
    check_range("Python's random position", int(words["python"][-1]), 0, _WORDS)
    for name, bounds in (("pos", (0, _WORDS)), ("has_gauss", (0, 1))):
        if type(numpy_said[name]) is not int:
            raise Impossible(f"NumPy's random {name}", "a whole number", numpy_said[name])
        check_range(f"NumPy's random {name}", numpy_said[name], *bounds)
    gauss = numpy_said["gauss"]
    if type(gauss) not in (int, float) or not math.isfinite(gauss):
        raise Impossible("NumPy's random gauss", "a number", gauss)
