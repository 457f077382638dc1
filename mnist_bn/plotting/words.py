"""Text from files and folder names, made safe to print, to draw and to lay out."""

import hashlib
from pathlib import Path

MAX_WORDS = 200  # characters; a figure is as wide as its longest label


def printable(text: str | Path) -> str:
    """Text from a file or a folder's name, safe to print and to draw.

    Control characters, terminal escapes, marks that turn the direction of writing, and halves of a
    character become a replacement character.
    """
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text))


def bounded(text: str) -> str:
    """The text, cut where it is longer than any label may be; two that differ stay apart."""
    if len(text) <= MAX_WORDS:
        return text
    digest = hashlib.sha256(text.encode(errors="replace")).hexdigest()[:8]
    return f"{text[: MAX_WORDS - 10]}… {digest}"
