"""The folder of downloaded files, and the one way that a file gets there: checked, then whole."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import platformdirs

from mnist_bn.errors import UserError
from mnist_bn.storage import files

Content = TypeVar("Content")


def folder(dataset: str) -> Path:
    """Returns the folder that downloaded files of `dataset` are kept in."""
    return (
        Path(os.environ.get("MNIST_BN_CACHE") or platformdirs.user_cache_dir("mnist-bn")) / dataset
    )


def fetch(
    path: Path, mirrors: Sequence[str], read: Callable[[bytes, str], Content]
) -> tuple[Content, str]:
    """Downloads the file named as `path` to `path` from the first mirror that has the right bytes.

    Args:
        mirrors: addresses that the file's name is appended to.
        read: makes of the bytes what they hold (and takes their address for its messages), or
            raises UserError if they are not what they should be.

    Returns:
        What `read` returned, and the mirror.

    Raises:
        UserError: no mirror has it, or it cannot be kept.
    """
    from mnist_bn.data import download  # its libraries are needed by who downloads, not by all

    _make_writable(path.parent)
    failures = []
    for mirror in mirrors:
        url = f"{mirror}{path.name}"
        try:
            downloaded = download.get(url)
            content = read(downloaded, url)
        except UserError as error:
            failures.append(str(error))
            continue
        try:
            # Checked first and then put in place whole: another run may be reading or writing it.
            with files.replacing(path) as file:
                file.write(downloaded)
        except files.CannotWriteError as error:
            raise _not_writable(path.parent, error.reason) from error
        return content, mirror
    raise UserError("; ".join(failures))


def _make_writable(folder: Path) -> None:
    # Before the download: whoever cannot keep the files should not wait for them.
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _not_writable(folder, error.strerror or str(error)) from error


def _not_writable(folder: Path, reason: str) -> UserError:
    return UserError(
        f"{folder}: cannot keep files there: {reason}; name another cache folder with"
        " MNIST_BN_CACHE"
    )
