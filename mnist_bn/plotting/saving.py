"""Saving what studies and comparisons yield: figures, texts, and films, by the name of the file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from mnist_bn.plotting import comparison, film, tables
from mnist_bn.plotting.appearance import style
from mnist_bn.plotting.film import Film

Drawn = Iterable[tuple[str, Figure | str | Film]]


def save(drawn: Drawn, out: Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Writes each in the project's style, whole or not at all, and returns the files.

    Args:
        drawn: names of files without their format, each with a figure, a film, or Markdown.

    Raises:
        UserError: `out` cannot be written.
    """
    paths: list[Path] = []
    taken: Counter[tuple[str, bool]] = Counter()
    with style():
        for name, one in drawn:
            key = name.casefold(), isinstance(one, str)
            taken[key] += 1
            # Two networks whose names are one file name.
            name = name if taken[key] == 1 else f"{name}-{taken[key]}"
            if isinstance(one, Figure):
                paths += comparison.save(one, out, name, formats)
            elif isinstance(one, str):
                paths.append(tables.write(one, out / f"{name}.md"))
            else:
                paths += film.save(one, out, name)
    return paths
