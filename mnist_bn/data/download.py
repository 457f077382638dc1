"""Downloading a file over HTTP."""

from __future__ import annotations

import contextlib
import io
import sys

import pooch
import requests
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

from mnist_bn.errors import UserError

TIMEOUT_SECONDS = (5, 10)  # to connect, and between two pieces of an answer
MAX_BYTES = 256 * 2**20  # of an answer, unpacked if it comes compressed


def get(url: str) -> bytes:
    """Returns what `url` holds; shows a progress bar if stderr is a terminal.

    Raises:
        UserError: there is no answer, or one that is an error or has no end.
    """
    bar = _Bar(url.rpartition("/")[2]) if sys.stderr.isatty() else None
    http = pooch.HTTPDownloader(progressbar=bar or False, timeout=TIMEOUT_SECONDS)
    content = _Bounded()
    try:
        with bar or contextlib.nullcontext():
            http(url, content, None)
    except requests.RequestException as error:
        if error.response is not None:
            error.response.close()
        raise UserError(f"{url}: {_describe(error)}") from error
    except _TooLarge:
        raise UserError(f"{url}: more than {MAX_BYTES:,} bytes") from None
    return content.getvalue()


class _Bar:
    """A progress bar on stderr as pooch wants one, gone at the end.

    pooch has one of its own, of a library that would be needed for nothing else.
    """

    def __init__(self, name: str) -> None:
        columns = name, BarColumn(), DownloadColumn(), TransferSpeedColumn()
        console = Console(file=sys.stderr, highlight=False)
        self._progress = Progress(*columns, console=console, transient=True)
        self._task = self._progress.add_task(name, total=None)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    @property
    def total(self) -> float | None:
        """Bytes of the file; 0 is unknown."""
        return self._progress.tasks[0].total

    @total.setter
    def total(self, count: int) -> None:
        self._progress.update(self._task, total=count or None)
        self._progress.start()

    def update(self, count: int) -> None:
        """Goes on by so many bytes."""
        self._progress.advance(self._task, count)

    def reset(self) -> None:
        """Begins again."""
        self._progress.reset(self._task)

    def close(self) -> None:
        """Ends."""
        self._progress.stop()


class _TooLarge(Exception):
    pass


class _Bounded(io.BytesIO):
    def write(self, piece: bytes) -> int:  # type: ignore[override]  # pooch writes bytes only
        if self.tell() + len(piece) > MAX_BYTES:
            raise _TooLarge
        return super().write(piece)


def _describe(error: requests.RequestException) -> str:
    # The messages of requests fill several lines of a terminal.
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP status {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "the server's certificate is not trusted"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return (str(error).splitlines() or [type(error).__name__])[0]
