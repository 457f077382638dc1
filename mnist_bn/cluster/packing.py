"""A result folder as bytes, and back: for machines that share no file system."""

from __future__ import annotations

import contextlib
import io
import shutil
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from mnist_bn.errors import UserError

MAX_BYTES = 512 * 2**20  # of a result folder
MAX_FILES = 10_000
_LOCK = ".lock"


class BadFolderError(UserError):
    """Bytes are no result folder, or one that must not be unpacked."""


def pack(folder: Path) -> bytes:
    """Returns the files in and under a folder, its lock left out.

    Raises:
        BadFolderError: they are too large.
    """
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and not p.is_symlink())
    paths = [path for path in paths if path.name != _LOCK]
    size = sum(path.stat().st_size for path in paths)
    if size > MAX_BYTES or len(paths) > MAX_FILES:
        raise BadFolderError(f"{folder}: {size / 1e6:,.0f} MB are too much to be sent")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in paths:
            archive.add(path, path.relative_to(folder).as_posix(), recursive=False)
    return buffer.getvalue()


def unpack(content: bytes, folder: Path) -> None:
    """Has the folder hold these files and no others but its lock; as it was, if they are bad.

    Raises:
        BadFolderError: one would lie outside of the folder, is no plain file, or is too large.
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unpacking-") as temporary:
        new = Path(temporary)
        _extract(content, new)
        for path in folder.iterdir():
            if path.name != _LOCK and not (new / path.name).is_file():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in new.iterdir():
            path.replace(folder / path.name)


def _extract(content: bytes, folder: Path) -> None:
    with _as_bad_folder(), tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
        size = 0
        for count, member in enumerate(archive):
            parts = PurePosixPath(member.name).parts
            if not member.isfile() or not parts or parts[0] == "/" or ".." in parts:
                raise BadFolderError(f"{member.name!r}: no plain file within a result folder")
            size += member.size
            if size > MAX_BYTES or count >= MAX_FILES:
                raise BadFolderError(f"more than {MAX_BYTES / 1e6:,.0f} MB or {MAX_FILES:,} files")
            archive.extract(member, folder, filter="data")


@contextlib.contextmanager
def _as_bad_folder():
    try:
        yield
    except tarfile.TarError as error:
        raise BadFolderError(f"no result folder came back: {error}") from None
