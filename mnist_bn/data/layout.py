"""Finding a file in a folder of the user's, however it got there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mnist_bn.errors import UserError


def names(folder: Path) -> set[str]:
    """Returns the names of what is in a folder.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return set(os.listdir(folder))
    except OSError as error:
        raise UserError(f"{folder}: cannot be read: {error.strerror}") from error


def first_file(folder: Path, variants: Sequence[str]) -> Path | None:
    """Returns the first file under one of several names; None: there is none.

    A folder of such a name hides none: some programs unpack each file into a folder called as the
    file, where it is looked for too. What is neither, such as a broken link, comes last.
    """
    present = names(folder)
    paths = [folder / variant for variant in variants if variant in present]
    inside = [path / variant for path in paths for variant in variants]
    for path in (*paths, *inside):
        if os.path.isfile(path):
            return path
    return next((path for path in paths if not os.path.isdir(path)), None)
