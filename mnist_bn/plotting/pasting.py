"""Pasting made tables into a Markdown file, between two lines that say which belongs there.

<!-- begin exercise/claims.md -->
<!-- end exercise/claims.md -->
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mnist_bn.errors import UserError
from mnist_bn.plotting import tables

_MAX_BYTES = 16 * 2**20
_PLACE = re.compile(
    r"^<!-- begin (?P<name>\S+) -->\n.*?^<!-- end (?P=name) -->$", re.MULTILINE | re.DOTALL
)


def texts(made: Mapping[str, Sequence[Path]]) -> dict[str, str]:
    """Returns the tables among files by "part/file", as the lines around their places have it.

    Args:
        made: files by the name of the part of the runs that they are of.
    """
    return {
        f"{part}/{path.name}": path.read_text(encoding="utf-8")
        for part, paths in made.items()
        for path in paths
        if path.suffix == ".md"
    }


def paste(texts: Mapping[str, str], path: Path) -> list[str]:
    """Puts each text in its place in a Markdown file, and returns the names of those that have one.

    Args:
        texts: by the name in the lines around its place.

    Raises:
        UserError: the file cannot be read or written, or has a place for none of them.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UserError(
                f"{path}: expected a Markdown file, found {path.stat().st_size:,} bytes"
            )
        before = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: expected a Markdown file, which is UTF-8") from None
    pasted: list[str] = []

    def replaced(place: re.Match) -> str:
        name = place["name"]
        if name not in texts:
            return place[0]
        pasted.append(name)
        return f"<!-- begin {name} -->\n\n{texts[name].strip()}\n\n<!-- end {name} -->"

    after = _PLACE.sub(replaced, before)
    if not pasted:
        name = next(iter(texts), "NAME")
        raise UserError(
            f"{path}: it has no place for {' or '.join(texts)}: expected the line "
            f"`<!-- begin {name} -->` and below it `<!-- end {name} -->`"
        )
    if after != before:
        tables.write(after, path)
    return pasted
