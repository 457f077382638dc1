"""Writing files so that a reader never sees half of one, whatever kills the writer."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import math
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from mnist_bn.errors import UserError

# What ends the name of a file that is being written; a killed writer leaves it behind.
UNFINISHED = ".unfinished"
MAX_JSON_BYTES = 64 * 2**20
READERS_HINDER = os.name == "nt"  # a file that is open cannot be replaced
SECONDS_FOR_READERS = 10.0
_SECONDS_BETWEEN_TRIES = 0.02
# Windows' C library changes the ends of lines in a file that was opened without it.
BINARY = getattr(os, "O_BINARY", 0)


class CannotWriteError(UserError):
    """A file cannot be written: the disk is full, or the place read-only or somebody else's."""

    def __init__(self, path: Path, error: OSError) -> None:
        self.reason = error.strerror or str(error)
        super().__init__(f"{path}: cannot be written ({self.reason})")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Opens a file for writing bytes that takes the place of `path` when it is complete.

    When the block has ended, the new content is on the disk: also after a loss of power there is
    either the old file or the new one.

    Raises:
        CannotWriteError: the system refuses; `path` is as it was.
    """
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(UNFINISHED, f".{path.name}-", path.parent)
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            # mkstemp makes the file private; a result folder is as open as the user's other files.
            os.chmod(temporary, 0o666 & ~_umask())
            os.fsync(file.fileno())
        rename(temporary, path)
        temporary = None
    except OSError as error:
        raise CannotWriteError(path, error) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def rename(source: str | Path, path: Path) -> None:
    """Gives a file, which is on the disk, the name of another in its folder, for good.

    Windows refuses it while anybody reads the other: then it is tried for some seconds.
    """
    deadline = time.monotonic() + SECONDS_FOR_READERS
    while True:
        try:
            os.replace(source, path)
            break
        except PermissionError:
            if not READERS_HINDER or time.monotonic() > deadline:
                raise
        time.sleep(_SECONDS_BETWEEN_TRIES)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Puts the folder's list of names on the disk; Windows does so by itself.

    Some network file systems know no such thing, and a folder may be writable but not readable:
    that is no reason to lose the run.
    """
    if os.name != "posix":
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EACCES):
            raise


def remove_unfinished(folder: Path) -> None:
    """Removes what writers that were killed left behind; nobody may be writing to the folder."""
    for path in folder.glob(f".*{UNFINISHED}"):
        with contextlib.suppress(OSError):  # it takes room, and does no harm
            path.unlink()


def remove(path: Path) -> None:
    """Removes a file, if it is there.

    Raises:
        CannotWriteError: the system refuses.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise CannotWriteError(path, error) from error


def make_folder(path: Path) -> None:
    """Makes the folder if there is none, and checks that files can be made in it.

    Raises:
        UserError: it cannot be made, or not be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        reason = error.strerror
        if isinstance(error, FileExistsError | NotADirectoryError):
            reason = "a file is where the folder would be"
        raise UserError(f"{path}: cannot be written ({reason}); choose another --out") from None


def write_json(path: Path, value: object) -> None:
    """Writes strict JSON: a number that is not finite becomes null."""
    with replacing(path) as file:
        file.write(to_json(value) + b"\n")


def to_json(value: object) -> bytes:
    """Returns strict JSON, in ASCII: a number that is not finite becomes null."""
    return json.dumps(_finite(value), indent=4, allow_nan=False).encode()


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """Returns what a regular file of at most `max_bytes` holds.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    try:
        # Not to wait for who may write to a pipe; what is open then is what was looked at.
        with open(path, "rb", opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UserError(f"{path}: expected a file")
            # What grows in the meantime is read as far as it was there.
            content = b"" if status.st_size > max_bytes else file.read(status.st_size)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if status.st_size > max_bytes:
        raise UserError(f"{path}: expected at most {max_bytes:,} bytes, found more")
    return content


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_json_object(path: Path) -> dict:
    """Returns the JSON object that a file holds.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    try:
        value = json.loads(read_bytes(path, MAX_JSON_BYTES))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object")
    return value


@functools.cache
def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file, read once a process.

    Raises:
        UserError: it cannot be read.
    """
    return hashlib.sha256(read_bytes(path, 2**31)).hexdigest()


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
