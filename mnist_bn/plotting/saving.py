"""Saving what studies and comparisons yield: figures, texts, and films, by the name of the file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from mnist_bn.plotting import comparison, tables
from mnist_bn.plotting.appearance import style
from mnist_bn.storage.files import make_folder, replacing

Drawn = Iterable[tuple[str, Figure | str | Mapping[str, bytes]]]


def save(drawn: Drawn, out: Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Writes each in the project's style, whole or not at all, and returns the files.

    Args:
        drawn: names of files without their format, each with a figure, with Markdown, or with the
            contents of files by their ending.

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
                paths += [_write(out / f"{name}.{end}", content) for end, content in one.items()]
    return paths


def _write(path: Path, content: bytes) -> Path:
    make_folder(path.parent)
    with replacing(path) as file:
        file.write(content)
    return path
