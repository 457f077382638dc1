"""A JSON list in a file, which grows: whole and strict at every moment, at the same cost an entry.

To write a list anew for each of its entries takes longer and longer. To add to the file in place is
no way: a kill, or a reader in the middle of it, would find half an entry. So there are two files of
the list, and only one of them has the list's name. What is new is added to the other one, which
then gets the name; the first keeps a name of its own and is the next to be added to.

A reader may have opened it while it still had the list's name, and find half an entry. So it rests
for a while first: entries that come meanwhile are in the file a moment later.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mnist_bn.storage import files

# A shorter list is written whole: it takes no longer, and needs no second file.
SHORT = 200
# To read a file takes a small part of this.
SECONDS_OF_REST = 2.0
_END = b"\n]\n"


class _State(NamedTuple):
    """Which file it is, and how much of the list it holds."""

    device: int
    inode: int
    size: int
    entries: int


class JsonListFile:
    """The file of a list to which entries are added.

    Args:
        path: the file. Until `close` there may be another beside it, whose name is one of those
            that `files.remove_unfinished` removes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # The second file takes one name or the other: the first gets the one that is free.
        self._spares = [
            path.with_name(f".{path.name}-{letter}{files.UNFINISHED}") for letter in "ab"
        ]
        self._live: _State | None = None
        self._spare: _State | None = None
        self._has_links = True
        self._shown = 0  # entries in the file
        self._next_time = 0.0

    def write(self, entries: Sequence[object]) -> None:
        """Writes the whole list.

        Raises:
            CannotWriteError: the system refuses; the file is as it was.
        """
        self._remove_spare()
        files.write_json(self._path, entries)
        self._live = self._look(self._path, len(entries))
        self._shown = len(entries)

    def extend(self, entries: Sequence[object]) -> None:
        """Brings the file up to date, or leaves that to a later call.

        Args:
            entries: the list as it was, but for new ones at its end.

        Raises:
            CannotWriteError: the system refuses; the file is as it was.
        """
        if len(entries) <= SHORT or self._live is None or not self._has_links:
            self.write(entries)
            return
        if self._spare is not None and time.monotonic() < self._next_time:
            return
        try:
            is_done = self._exchange(self._live, entries)
        except (OSError, NotImplementedError):
            is_done = False  # no room, or a file system or a Python without hard links
            self._has_links = False
        if not is_done:
            self.write(entries)

    def close(self, entries: Sequence[object]) -> None:
        """Brings the file up to date, and leaves nothing beside it.

        Raises:
            CannotWriteError: the system refuses; the file is as it was.
        """
        if self._shown < len(entries):
            self.write(entries)
        self._remove_spare()

    def _remove_spare(self) -> None:
        if self._spare is None:
            return
        self._spare = None
        for path in self._spares:
            with contextlib.suppress(OSError):
                path.unlink()

    def _exchange(self, live: _State, entries: Sequence[object]) -> bool:
        """Adds to the second file and gives it the name; False if a file is not as we left it."""
        if self._look(self._path, live.entries) != live:
            return False
        spare, free = self._spares
        if self._spare is None:
            files.write_json(spare, entries)
        elif not self._append(spare, self._spare, entries[self._spare.entries :]):
            return False
        with contextlib.suppress(FileNotFoundError):
            free.unlink()
        os.link(self._path, free, follow_symlinks=False)
        self._live = self._look(spare, len(entries))
        files.rename(spare, self._path)
        self._spare = self._look(free, live.entries)
        self._spares.reverse()
        self._shown = len(entries)
        self._next_time = time.monotonic() + SECONDS_OF_REST
        return self._spare == live

    def _append(self, path: Path, before: _State, entries: Sequence[object]) -> bool:
        """Adds to the second file, where nobody looks; False if it is not as we left it."""
        text = b"".join(b",\n" + _indented(entry) for entry in entries) + _END
        flags = os.O_WRONLY | files.BINARY
        flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        with open(os.open(path, flags), "wb", buffering=0) as file:
            if _state(os.fstat(file.fileno()), before.entries) != before:
                return False
            file.seek(before.size - len(_END))
            if file.write(text) != len(text):
                return False
            os.fsync(file.fileno())
        return True

    def _look(self, path: Path, entries: int) -> _State | None:
        try:
            return _state(os.lstat(path), entries)
        except OSError:
            return None


def _state(status: os.stat_result, entries: int) -> _State | None:
    """Returns None for what is no regular file."""
    if not stat.S_ISREG(status.st_mode):
        return None
    return _State(status.st_dev, status.st_ino, status.st_size, entries)


def _indented(entry: object) -> bytes:
    """Returns an entry as it stands in the list as `files.write_json` writes it."""
    lines = files.to_json(entry).decode().splitlines()
    return "\n".join(f"    {line}" for line in lines).encode()
