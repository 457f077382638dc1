"""NPZ files with a checksum inside, opened without ever unpickling anything.

They are NPZ files as NumPy and Chainer read them. The comment that ends a ZIP archive holds the
SHA-256 of every byte before it, so no damage anywhere in the file goes unnoticed.
"""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from mnist_bn.errors import UserError
from mnist_bn.storage import files

# Arrays by the names that an archive has them under, before anything of them is unpacked.
Kinds = Mapping[str, tuple[tuple[int, ...], np.dtype]]

MAX_BYTES = 2**31
# The bounds keep a small bad file from taking the memory. The last two are of compressed archives:
# Chainer's are, but numbers that a network has learned hardly get smaller.
MAX_DIRECTORY_BYTES = 4 * 2**20
MAX_UNPACKED_BYTES = 64 * 2**20
MAX_UNPACKED_RATIO = 10

_MARK = b"sha256:"
_DIGITS = 64
_END_OF_ZIP = b"PK\x05\x06"
_END_OF_ZIP_BYTES = 22  # of an archive without a comment
_ZIP64_LOCATOR = b"PK\x06\x07"
_ZIP64_LOCATOR_BYTES = 20
# bzip2 and LZMA unpack without a bound; NumPy writes neither.
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_KINDS = "?biufcSU"  # of dtypes: numbers and text


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
    """Returns the archive; the same arrays in the same order give the same bytes."""
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


def read(
    path: Path,
    *,
    checksum_required: bool = True,
    max_bytes: int = MAX_BYTES,
    check: Callable[[Kinds], None] = lambda kinds: None,
) -> dict[str, np.ndarray]:
    """Returns the arrays by their names.

    Args:
        checksum_required: False takes also archives that have none, such as Chainer's.
        max_bytes: the size of the file, and of its arrays, beyond which it is not read.
        check: looks at the names, shapes and dtypes before anything is unpacked, and raises
            UserError if they are not as wanted.

    Raises:
        BadArchiveError: the file is damaged, or no such archive.
        UserError: it cannot be read.
    """
    content = files.read_bytes(path, max_bytes)
    try:
        return decode(content, checksum_required, max_bytes, check)
    except UserError:
        raise
    except Exception as error:
        # A damaged archive can raise almost anything; an empty message says nothing.
        reason = (str(error).splitlines() or [type(error).__name__])[0] or type(error).__name__
        raise BadArchiveError(f"{path}: damaged, or no such archive ({reason})") from None


def decode(
    content: bytes,
    checksum_required: bool = True,
    max_bytes: int = MAX_BYTES,
    check: Callable[[Kinds], None] = lambda kinds: None,
) -> dict[str, np.ndarray]:
    """Returns the arrays of an archive's bytes; raises almost anything if they are bad."""
    _check_end(content, checksum_required)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = archive.infolist()
        _check_members(members, len(content), max_bytes)
        names = {member.filename.removesuffix(".npy"): member for member in members}
        if len(names) != len(members):
            raise ValueError("two of its arrays have one name")
        kinds = {}
        for name, member in names.items():
            with archive.open(member) as file:
                shape, _, dtype = _read_header(file, member.file_size)
                kinds[name] = shape, dtype
        check(kinds)
        arrays = {}
        for name, member in names.items():
            with archive.open(member) as file:
                arrays[name] = _read_array(file, member.file_size)
    return arrays


def _check_end(content: bytes, checksum_required: bool) -> None:
    """Checks the checksum, and that the list of the archive's members is not a bomb by itself."""
    if not content:
        raise ValueError("it is empty")
    end = len(content) - _END_OF_ZIP_BYTES
    if content[-_DIGITS - len(_MARK) : -_DIGITS] == _MARK:
        if content[-_DIGITS:] != _digest(content):
            raise ValueError("its checksum does not fit")
        end -= len(_MARK) + _DIGITS
    elif checksum_required:
        raise ValueError("it has no checksum at its end")
    if end < 0 or content[end : end + 4] != _END_OF_ZIP:
        raise ValueError("it does not end as a ZIP archive does")
    # What needs the larger format has 65,536 arrays or more than MAX_BYTES.
    is_zip64 = content.startswith(_ZIP64_LOCATOR, max(end - _ZIP64_LOCATOR_BYTES, 0), end)
    if is_zip64 or int.from_bytes(content[end + 12 : end + 16], "little") > MAX_DIRECTORY_BYTES:
        raise ValueError("it has too many arrays")


def _check_members(members: list[zipfile.ZipInfo], size: int, max_bytes: int) -> None:
    """Checks what an archive of `size` bytes says of its members, before one is unpacked."""
    if any(member.compress_type not in _COMPRESSIONS for member in members):
        raise ValueError("it is compressed as no NPZ file is")
    unpacked = sum(member.file_size for member in members)
    limit = min(max_bytes, max(MAX_UNPACKED_BYTES, MAX_UNPACKED_RATIO * size))
    if unpacked > limit:
        raise ValueError(f"its {size:,} bytes would unpack to {unpacked:,}")


def _digest(content: bytes | bytearray) -> bytes:
    return hashlib.sha256(memoryview(content)[:-_DIGITS]).hexdigest().encode()


def _read_header(file: IO[bytes], size: int) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Reads the header of an NPY file of `size` bytes; it is not believed before it fits the size.

    Returns:
        The shape, whether it is in Fortran's order, and the dtype.
    """
    if npy.read_magic(file) == (1, 0):
        shape, is_fortran, dtype = npy.read_array_header_1_0(file)
    else:
        shape, is_fortran, dtype = npy.read_array_header_2_0(file)
    if dtype.hasobject:
        raise ValueError("it holds a Python object (pickle), which is never loaded")
    if dtype.kind not in _KINDS:
        raise ValueError(f"it holds {dtype}, which is neither numbers nor text")
    if min(shape, default=0) < 0:
        raise ValueError(f"an array has the shape {shape}")
    there, expected = size - file.tell(), math.prod(shape) * dtype.itemsize
    if there != expected:
        raise ValueError(
            "an array is cut off" if there < expected else "more than an array is there"
        )
    return shape, is_fortran, dtype


def _read_array(file: IO[bytes], size: int) -> np.ndarray:
    """Reads an NPY file of `size` bytes."""
    shape, is_fortran, dtype = _read_header(file, size)
    body = bytearray(size - file.tell())  # the array's own memory: nothing is there twice
    found = file.readinto(body)  # type: ignore[attr-defined]  # files that hold bytes have it
    if found != len(body) or file.read(1):  # the end is where its CRC-32 is checked
        raise ValueError("an array is cut off")
    return np.frombuffer(body, dtype).reshape(shape, order="F" if is_fortran else "C")
