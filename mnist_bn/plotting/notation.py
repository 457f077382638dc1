"""How a figure writes numbers: in decimals, and all of one axis in one notation.

And how names with numbers in them are sorted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import Formatter

DIGITS = 6  # that are kept, or more if numbers of one axis would look alike
LONGEST = 8  # characters of a decimal on an axis; if one is longer, all are powers of ten
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?!\w)|\d+", re.ASCII)
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def decimal(value: float) -> str:
    """Returns a number in decimals, as 0.00001 (not 1e-05); as 1e-09 or 1e+09 if it is long."""
    value = float(f"{value:.{DIGITS}g}")
    if value != 0 and not 1e-7 <= abs(value) < 1e7:
        return f"{value:.{DIGITS}g}"
    return np.format_float_positional(value + 0.0, trim="-")


def in_one_notation(values: Sequence[float], is_aligned: bool = False) -> list[str]:
    """Returns numbers as text, all in decimals or, if one is too long for that, in powers of ten.

    Args:
        is_aligned: give all as many decimal places as the one that has most.
    """
    for digits in range(DIGITS, 17):  # until no two of them look alike
        rounded = [float(f"{value:.{digits}g}") + 0.0 for value in values]
        if len(set(rounded)) == len(set(values)):
            break
    texts = [np.format_float_positional(value, trim="-") for value in rounded]
    if max(map(len, texts), default=0) > LONGEST + digits - DIGITS:
        texts = [_power_of_ten(value) for value in rounded]
    elif is_aligned:
        places = max(len(text.partition(".")[2]) for text in texts)
        texts = [f"{value:.{places}f}" for value in rounded]
    return [text.replace("-", "\N{MINUS SIGN}") for text in texts]


def _power_of_ten(value: float) -> str:
    """Returns 2e5 as 2×10⁵."""  # noqa: RUF002
    if not np.isfinite(value) or value == 0:
        return f"{value:g}"
    mantissa, exponent = np.format_float_scientific(value, trim="-").split("e")
    power = f"10{str(int(exponent)).translate(_SUPERSCRIPTS)}"
    if mantissa in ("1", "-1"):
        return power if mantissa == "1" else f"-{power}"
    return f"{mantissa}×{power}"  # noqa: RUF001


def by_number(text: str) -> tuple:
    """Sorting key: text in which numbers come in the order of their size, as 16 before 128."""
    key, end = [], 0
    for number in _NUMBER.finditer(text):
        key += [(1, 0.0, text[end : number.start()]), (0, float(number[0]), "")]
        end = number.end()
    return (*key, (1, 0.0, text[end:])), text


class OneNotation(Formatter):
    """Ticks of an axis in one notation; the axis needs no offset or exponent at its end."""

    def __init__(self, is_aligned: bool = False) -> None:
        self.is_aligned = is_aligned

    def __call__(self, value: float, position: int | None = None) -> str:
        return in_one_notation([value])[0]

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        return in_one_notation(values, self.is_aligned)
