"""Standard output and standard error that may be full, or have lost their reader or terminal.

Results are what a command is for: it goes on without the lines that nobody gets.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys

# Name of a stream that was lost -> why.
_lost: dict[str, OSError] = {}


class _Forgiving(io.FileIO):
    """The bytes of a standard stream; once they cannot be written, they lead to nowhere."""

    def __init__(self, stream: str, number: int) -> None:
        super().__init__(number, "w", closefd=False)
        self._stream = stream

    def write(self, data) -> int:
        try:
            # None: somebody left a terminal or pipe in non-blocking mode, and it is full for now.
            while (written := super().write(data)) is None:
                select.select([], [self], [])
            return written
        except OSError as error:
            self._lead_to_nowhere(error)
            return memoryview(data).nbytes

    def _lead_to_nowhere(self, error: OSError) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        _lost[self._stream] = error
        if self._stream == "stdout" and has_failed():
            print(
                f"{os.path.basename(sys.argv[0])}: note: standard output cannot be written "
                f"({error.strerror}); going on without it",
                file=sys.stderr,
            )


def guard() -> None:
    """Has this process go on if a standard stream cannot be written; it must be open.

    A character that the stream's encoding lacks becomes a question mark, and each line is written
    when it is complete, also to a pipe. A console of Windows has a way of its own, which stays.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        raw = getattr(stream.buffer, "raw", None)
        if isinstance(raw, _Forgiving):
            continue
        if raw is not None and not isinstance(raw, io.FileIO):
            stream.reconfigure(errors="replace", line_buffering=True)
            continue
        stream.flush()
        replacement = io.TextIOWrapper(
            io.BufferedWriter(_Forgiving(name, stream.fileno())),
            encoding=stream.encoding,
            errors="replace",
            line_buffering=True,
            write_through=stream.write_through,
        )
        setattr(sys, name, replacement)


def is_lost() -> bool:
    """Tells whether what is printed on standard output reaches nobody any more."""
    return "stdout" in _lost


def has_failed() -> bool:
    """Tells whether standard output was lost for another reason than a reader that had enough."""
    return is_lost() and _lost["stdout"].errno != errno.EPIPE
