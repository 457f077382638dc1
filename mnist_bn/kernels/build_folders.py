"""Folders to compile in, and clearing those away that killed processes have left."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

if sys.platform != "win32":
    import fcntl

# No compiler is given so long. For file systems that lock no folders.
STALE_SECONDS = 3600
_TRIES = 10


@contextlib.contextmanager
def make(parent: Path, prefix: str) -> Iterator[Path]:
    """Makes a folder of this process's own, which is removed at the end.

    Raises:
        OSError: it cannot be made.
    """
    for _ in range(_TRIES):
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
        try:
            handle = _lock(folder)
        except OSError:
            continue  # another process has just found it, not locked yet, and removes it
        if folder.is_dir():
            break
        _unlock(handle)
    else:
        raise OSError(f"{parent}: folders made there disappear")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _unlock(handle)


def remove_stale(parent: Path, prefix: str) -> None:
    """Removes the user's folders of such names that no process compiles in any more."""
    for folder in parent.glob(f"{prefix}*"):
        try:
            status = folder.lstat()
            is_own = sys.platform == "win32" or status.st_uid == os.geteuid()
            if not stat.S_ISDIR(status.st_mode) or not is_own:
                continue
            handle = _lock(folder)
        except OSError:  # gone in the meantime, or in use
            continue
        if handle is not None or time.time() - status.st_mtime > STALE_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
        _unlock(handle)


def _lock(folder: Path) -> int | None:
    """Returns a handle that locks the folder while it is open; None if it cannot be locked.

    Raises:
        OSError: another process holds the lock, or there is no such folder.
    """
    if sys.platform == "win32":
        return None
    handle = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        if sys.platform != "win32":  # it is not, but mypy looks into `try`
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise
    except OSError:  # a network's file system
        os.close(handle)
        return None
    return handle


def _unlock(handle: int | None) -> None:
    if handle is not None:
        os.close(handle)
