"""Text from files and folder names, made safe to print, to draw and to lay out."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

MAX_WORDS = 200  # characters; a figure is as wide as its longest label


def printable(text: str | Path) -> str:
    """Text from a file or a folder's name, safe to print and to draw.

    Control characters, terminal escapes, marks that turn the direction of writing, and halves of a
    character become a replacement character.
    """
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text))


def joined(*words: str | None) -> str:
    """The words with commas between, without those that are empty."""
    return ", ".join(filter(None, words))


def mean_and_range(values: Sequence[float] | np.ndarray, format_: str) -> str:
    """Such as "0.35 (0.3 to 0.4)"; of a single number it alone, of none nothing."""
    if len(values) == 0:
        return ""
    mean, low, high = (format(f(values), format_) for f in (np.mean, min, max))
    return mean if len(values) == 1 else f"{mean} ({low} to {high})"


def bounded(text: str) -> str:
    """The text, cut if it is longer than any label may be; two that differ stay apart."""
    if len(text) <= MAX_WORDS:
        return text
    digest = hashlib.sha256(text.encode(errors="replace")).hexdigest()[:8]
    return f"{text[: MAX_WORDS - 10]}… {digest}"
