"""IDX, the file format of MNIST, read from files that may hold anything.

A header of big-endian 32-bit numbers (magic number, count, and an image's height and width), then
one byte a pixel or label. The format: http://yann.lecun.com/exdb/mnist/
"""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from mnist_bn.errors import UserError

# No file of MNIST holds more; the bounds keep a bad file from taking the memory or the day.
MAX_COUNT = 60_000
MAX_FILE_BYTES = 64 * 2**20

_UNSIGNED_BYTES = 0x0800
_GZIP_MAGIC = b"\x1f\x8b"


class Kind(NamedTuple):
    """What an IDX file holds: a name for it, the shape of one item, the largest value."""

    name: str
    item_shape: tuple[int, ...]
    max_value: int


IMAGES = Kind("images", (28, 28), 255)
LABELS = Kind("labels", (), 9)


def read(path: Path, kind: Kind) -> np.ndarray:
    """Reads an IDX file, gzipped or not.

    Returns:
        uint8, (N, 28, 28) for IMAGES and (N,) for LABELS.

    Raises:
        UserError: the file cannot be read or is not such a file.
    """
    try:
        if not path.is_file() and path.exists():
            found = "a folder" if path.is_dir() else "a device or pipe"
            raise _bad(str(path), f"a file of {kind.name}", found)
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise _bad(str(path), f"at most {MAX_FILE_BYTES:,} bytes", f"{size:,}")
        with path.open("rb") as file:
            return decode(file, str(path), kind)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def decode(file: BinaryIO, source: str, kind: Kind) -> np.ndarray:
    """Reads an IDX file, gzipped or not, that is open at its beginning; see `read`.

    Args:
        source: the file's name, for error messages; one in .gz must hold gzip data.
    """
    beginning = file.read(len(_GZIP_MAGIC))
    file.seek(0)
    if beginning != _GZIP_MAGIC:
        if source.endswith(".gz"):
            found = "other data" if beginning else "an empty file"
            raise _bad(source, "gzip data, as the name says", found)
        return _decode_plain(file, source, kind)
    try:
        with gzip.GzipFile(fileobj=file) as plain:
            return _decode_plain(plain, source, kind)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise _bad(source, "intact gzip data", f"damage ({error})") from error


def sha256(array: np.ndarray) -> str:
    """Returns the SHA-256 of the uncompressed IDX file with `array`: uint8, as from `read`."""
    header = struct.pack(f">{1 + array.ndim}I", _UNSIGNED_BYTES | array.ndim, *array.shape)
    digest = hashlib.sha256(header)
    digest.update(array)
    return digest.hexdigest()


def _decode_plain(file: BinaryIO, source: str, kind: Kind) -> np.ndarray:
    dimensions = 1 + len(kind.item_shape)
    header = file.read(4 * (1 + dimensions))
    if len(header) < 4 * (1 + dimensions):
        expected = f"an IDX header of {4 * (1 + dimensions)} bytes"
        raise _bad(source, expected, f"{len(header)} bytes")
    found_magic, count, *item_shape = struct.unpack(f">{1 + dimensions}I", header)
    magic = _UNSIGNED_BYTES | dimensions
    if found_magic != magic:
        raise _bad(source, f"magic number {magic} ({kind.name})", f"{found_magic}")
    if tuple(item_shape) != kind.item_shape:
        expected, found = (
            "x".join(map(str, shape)) + " pixels" for shape in (kind.item_shape, item_shape)
        )
        raise _bad(source, f"{kind.name} of {expected}", found)
    if not 1 <= count <= MAX_COUNT:
        raise _bad(source, f"1 to {MAX_COUNT:,} {kind.name}", f"a header that says {count:,}")

    size = count * math.prod(kind.item_shape)
    # One byte more than there should be: it finds trailing bytes, and the end of gzip data, where
    # its checksum is.
    body = file.read(size + 1)
    if len(body) != size:
        found = "more" if len(body) > size else f"{len(body):,}"
        raise _bad(source, f"{count:,} {kind.name} in {size:,} bytes after the header", found)
    array = np.frombuffer(body, np.uint8).reshape(count, *kind.item_shape)
    if array.max() > kind.max_value:
        raise _bad(source, f"{kind.name} from 0 to {kind.max_value}", f"{array.max()}")
    return array


def _bad(source: str, expected: str, found: str) -> UserError:
    return UserError(f"{source}: expected {expected}, found {found}; get the file again")
