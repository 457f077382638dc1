"""NPZ files with a checksum inside, opened without ever unpickling anything.

They are NPZ files as NumPy and Chainer read them. The comment that ends a ZIP archive holds the
SHA-256 of every byte before it, so no damage anywhere in the file goes unnoticed.
"""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

from mnist_bn import files
from mnist_bn.errors import UserError

MAX_BYTES = 2**31

_MARK = b"sha256:"
_DIGITS = 64
_END_OF_ZIP = b"PK\x05\x06"
_END_OF_ZIP_BYTES = 22  # of an archive without a comment


class BadArchiveError(UserError):
    """A file is no archive of arrays, or a damaged one."""


def write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes the arrays by their names; whole, or not at all.

    Raises:
        CannotWriteError: the file cannot be written.
        ValueError: an array holds Python objects.
    """
    content = encode(arrays)
    with files.replacing(path) as file:
        file.write(content)


def encode(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Returns the archive; the same arrays give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            # ZipInfo's date is a fixed one.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                npy.write_array(member, np.asanyarray(array), allow_pickle=False)
        archive.comment = _MARK + b"0" * _DIGITS
    content = bytearray(buffer.getvalue())
    content[-_DIGITS:] = _digest(content)
    return bytes(content)


def read(path: Path, *, checksum_required: bool = True) -> dict[str, np.ndarray]:
    """Returns the arrays by their names.

    Args:
        checksum_required: False takes also archives that have none, such as Chainer's.

    Raises:
        BadArchiveError: the file is damaged, or no such archive.
        UserError: it cannot be read.
    """
    content = files.read_bytes(path, MAX_BYTES)
    try:
        return decode(content, checksum_required)
    except Exception as error:
        # A damaged archive can raise almost anything; an empty message says nothing.
        reason = (str(error).splitlines() or [type(error).__name__])[0] or type(error).__name__
        raise BadArchiveError(f"{path}: damaged, or no such archive ({reason})") from None


def decode(content: bytes, checksum_required: bool = True) -> dict[str, np.ndarray]:
    """Returns the arrays of an archive's bytes; raises almost anything if they are bad."""
    if not content:
        raise ValueError("it is empty")
    if content[-_DIGITS - len(_MARK) : -_DIGITS] == _MARK:
        if content[-_DIGITS:] != _digest(content):
            raise ValueError("its checksum does not fit")
    elif checksum_required or content[-_END_OF_ZIP_BYTES:][:4] != _END_OF_ZIP:
        raise ValueError("it has no checksum at its end")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = archive.infolist()
        if sum(member.file_size for member in members) > MAX_BYTES:
            raise ValueError("it is too large")
        arrays = {}
        for member in members:
            with archive.open(member) as file:
                arrays[member.filename.removesuffix(".npy")] = _read_array(file, member.file_size)
    return arrays


def _digest(content: bytes | bytearray) -> bytes:
    return hashlib.sha256(memoryview(content)[:-_DIGITS]).hexdigest().encode()


def _read_array(file: BinaryIO, size: int) -> np.ndarray:
    """Reads a NPY file of `size` bytes; its header is not believed before it fits the size."""
    if npy.read_magic(file) == (1, 0):
        shape, is_fortran, dtype = npy.read_array_header_1_0(file)
    else:
        shape, is_fortran, dtype = npy.read_array_header_2_0(file)
    if dtype.hasobject:
        raise ValueError("it holds a Python object (pickle), which is never loaded")
    if math.prod(shape) * dtype.itemsize > size:
        raise ValueError("an array is cut off")
    body = file.read()
    array = np.frombuffer(body, dtype).reshape(shape, order="F" if is_fortran else "C")
    return array.copy(order="K")
