"""One process at a time in a result folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import filelock

from mnist_bn import files
from mnist_bn.errors import UserError

FILE = ".lock"

# One lock object a folder: within a process it may be taken again while it is held.
_locks: dict[Path, filelock.FileLock] = {}


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Holds the folder for this process; the file `.lock` in it means nothing by itself.

    The lock is the operating system's (flock, or Windows' own): it ends with the process, however
    that ends.

    Raises:
        UserError: another process holds the folder, or the file cannot be made.
    """
    path = folder.resolve() / FILE
    lock = _locks.setdefault(path, filelock.FileLock(path))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise UserError(
            f"{folder}: another process is training in this folder; "
            "wait until it has ended, or choose another --out"
        ) from None
    except OSError as error:
        raise files.CannotWriteError(folder / FILE, error) from None
    try:
        yield
    finally:
        lock.release()
