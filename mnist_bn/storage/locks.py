"""One process at a time in a result folder."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import filelock

from mnist_bn.errors import UserError
from mnist_bn.storage import files

if sys.platform != "win32":
    import fcntl

FILE = ".lock"

# One lock object a folder: within a process it may be taken again while it is held.
_locks: dict[Path, filelock.FileLock] = {}


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Holds the folder for this process; the file `.lock` in it means nothing by itself.

    The locks are the operating system's (flock, or Windows' own): they end with the process,
    however that ends. One is on `.lock`, and one on the folder itself, which lets nobody in who
    has removed `.lock`.

    Raises:
        UserError: another process holds the folder, or the file cannot be made.
    """
    path = folder.resolve() / FILE
    lock = _locks.setdefault(path, filelock.FileLock(path))
    is_held = lock.is_locked
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise _taken(folder) from None
    except OSError as error:
        raise files.CannotWriteError(folder / FILE, error) from None
    try:
        with contextlib.nullcontext() if is_held else _hold_itself(folder):
            yield
    finally:
        lock.release()


@contextlib.contextmanager
def _hold_itself(folder: Path) -> Iterator[None]:
    """Locks the folder, if its file system can: NFS locks files only."""
    if sys.platform == "win32":  # nobody can remove a file that a process has open
        yield
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # writable but not readable, say
        yield
        return
    try:
        try:
            if sys.platform != "win32":  # it is not, but mypy looks into `try`
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _taken(folder) from None
        except OSError:
            pass
        yield
    finally:
        os.close(handle)


def _taken(folder: Path) -> UserError:
    return UserError(
        f"{folder}: another process is training in this folder; "
        "wait until it has ended, or choose another --out"
    )
