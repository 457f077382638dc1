"""Reading files that may be gzipped, and may hold anything."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar

from mnist_bn.errors import UserError


class Readable(Protocol):
    """An open file of bytes, which may be unzipped as it is read."""

    def read(self, size: int, /) -> bytes: ...


Content = TypeVar("Content")
# Makes of an open file, and its name for error messages, what it holds; raises UserError.
Parser = Callable[[Readable, str], Content]

_GZIP_MAGIC = b"\x1f\x8b"


def read(path: Path, what: str, max_bytes: int, parse: Parser[Content]) -> Content:
    """Returns what `parse` makes of a regular file, gzipped or not.

    Args:
        what: what the file should hold, for error messages, such as "labels".
        max_bytes: the size, as it lies on the disk, beyond which it is not read.

    Raises:
        UserError: the file cannot be read or is not such a file.
    """
    try:
        if not path.is_file() and path.exists():
            found = "a folder" if path.is_dir() else "a device or pipe"
            raise bad(str(path), f"a file of {what}", found)
        size = path.stat().st_size
        if size > max_bytes:
            raise bad(str(path), f"at most {max_bytes:,} bytes", f"{size:,}")
        with path.open("rb") as file:
            return decode(file, str(path), parse)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def decode(file: BinaryIO, source: str, parse: Parser[Content]) -> Content:
    """Returns what `parse` makes of a file, gzipped or not, that is open at its beginning.

    Args:
        source: the file's name, for error messages; one in .gz must hold gzip data.
    """
    beginning = file.read(len(_GZIP_MAGIC))
    file.seek(0)
    if beginning != _GZIP_MAGIC:
        if source.endswith(".gz"):
            found = "other data" if beginning else "an empty file"
            raise bad(source, "gzip data, as the name says", found)
        return parse(file, source)
    try:
        with gzip.GzipFile(fileobj=file) as plain:
            return parse(plain, source)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise bad(source, "intact gzip data", f"damage ({error})") from error


def bad(source: str, expected: str, found: str) -> UserError:
    """Returns the error of a file that holds something else than it should."""
    return UserError(f"{source}: expected {expected}, found {found}; get the file again")
