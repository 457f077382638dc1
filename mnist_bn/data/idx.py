"""IDX, the file format of MNIST, read from files that may hold anything.

A header of big-endian 32-bit numbers (magic number, count, and an image's height and width), then
one byte a pixel or label. The format: http://yann.lecun.com/exdb/mnist/
"""

from __future__ import annotations

import hashlib
import math
import struct
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from mnist_bn.data import reading
from mnist_bn.data.reading import Readable, bad
from mnist_bn.terminal import wording

# No file of MNIST holds more; the bounds keep a bad file from taking the memory or the day.
MAX_COUNT = 60_000
MAX_FILE_BYTES = 64 * 2**20

_UNSIGNED_BYTES = 0x0800


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
    return reading.read(path, kind.name, MAX_FILE_BYTES, partial(_decode_plain, kind=kind))


def decode(file: BinaryIO, source: str, kind: Kind) -> np.ndarray:
    """Reads an IDX file, gzipped or not, that is open at its beginning; see `read`.

    Args:
        source: the file's name, for error messages; one in .gz must hold gzip data.
    """
    return reading.decode(file, source, partial(_decode_plain, kind=kind))


def sha256(array: np.ndarray) -> str:
    """Returns the SHA-256 of the uncompressed IDX file with `array`: uint8, as from `read`."""
    header = struct.pack(f">{1 + array.ndim}I", _UNSIGNED_BYTES | array.ndim, *array.shape)
    digest = hashlib.sha256(header)
    digest.update(array.data)
    return digest.hexdigest()


def _decode_plain(file: Readable, source: str, kind: Kind) -> np.ndarray:
    dimensions = 1 + len(kind.item_shape)
    header = file.read(4 * (1 + dimensions))
    if len(header) < 4 * (1 + dimensions):
        expected = f"an IDX header of {4 * (1 + dimensions)} bytes"
        raise bad(source, expected, wording.count(len(header), "byte"))
    found_magic, count, *item_shape = struct.unpack(f">{1 + dimensions}I", header)
    magic = _UNSIGNED_BYTES | dimensions
    if found_magic != magic:
        raise bad(source, f"magic number {magic} ({kind.name})", f"{found_magic}")
    if tuple(item_shape) != kind.item_shape:
        expected, found = (
            "x".join(map(str, shape)) + " pixels" for shape in (kind.item_shape, item_shape)
        )
        raise bad(source, f"{kind.name} of {expected}", found)
    if not 1 <= count <= MAX_COUNT:
        raise bad(source, f"1 to {MAX_COUNT:,} {kind.name}", f"a header that says {count:,}")

    size = count * math.prod(kind.item_shape)
    # One byte more than there should be: it finds trailing bytes, and the end of gzip data, where
    # its checksum is.
    body = file.read(size + 1)
    if len(body) != size:
        found = "more" if len(body) > size else f"{len(body):,}"
        raise bad(source, f"{count:,} {kind.name} in {size:,} bytes after the header", found)
    array = np.frombuffer(body, np.uint8).reshape(count, *kind.item_shape)
    if array.max() > kind.max_value:
        raise bad(source, f"{kind.name} from 0 to {kind.max_value}", f"{array.max()}")
    return array
