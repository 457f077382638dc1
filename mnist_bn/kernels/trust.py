"""Who else could have written a file: a library of kernels runs with all the user's rights."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from pathlib import Path

if sys.platform != "win32":
    import grp
    import pwd


def why_not(folder: Path) -> str | None:
    """Returns in one line who else can change what is in a folder, None for nobody but root.

    Raises:
        OSError: the folder is not there.
    """
    if sys.platform == "win32":  # the user's cache folder is the user's own
        return None
    path = folder.absolute()
    resolved = path.resolve(strict=True)
    for part in dict.fromkeys([path, *path.parents, resolved, *resolved.parents]):
        status = part.stat()
        if status.st_uid not in (0, os.geteuid()):
            return f"{part} belongs to another user"
        # In a folder such as /tmp, with the sticky bit, nobody can rename what is another's.
        if _others_can_write(status) and not status.st_mode & stat.S_ISVTX:
            return f"others can write to {part}"
        if part in (path, resolved) and _others_can_write(status):
            return f"others can write to {part}"
    return None


def read(path: Path, max_bytes: int) -> bytes:
    """Returns what a file holds that nobody else can write.

    Raises:
        OSError: it is no such file, or larger than `max_bytes`.
    """
    more = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | more)) as file:
        status = os.fstat(file.fileno())
        is_own = sys.platform == "win32" or (
            status.st_uid in (0, os.geteuid()) and not _others_can_write(status)
        )
        if not stat.S_ISREG(status.st_mode) or not is_own or status.st_size > max_bytes:
            raise OSError(f"{path}: not a file of ours")
        return file.read(status.st_size)


def _others_can_write(status: os.stat_result) -> bool:
    if status.st_mode & stat.S_IWOTH:
        return True
    return bool(status.st_mode & stat.S_IWGRP) and not _is_private(status.st_gid)


def _is_private(group: int) -> bool:
    """Tells whether a group is root's or the user's alone, as many systems give each user one."""
    if group == 0:
        return True
    if sys.platform != "win32":
        with contextlib.suppress(KeyError):
            user, entry = pwd.getpwuid(os.geteuid()), grp.getgrgid(group)
            is_named_so = entry.gr_gid == user.pw_gid and entry.gr_name == user.pw_name
            return is_named_so and set(entry.gr_mem) <= {user.pw_name}
    return False
