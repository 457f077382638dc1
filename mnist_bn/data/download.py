"""Downloading a file over HTTP."""

from __future__ import annotations

import io
import sys

import pooch
import requests

from mnist_bn.errors import UserError

TIMEOUT_SECONDS = (5, 10)  # to connect, and between two pieces of an answer
MAX_BYTES = 256 * 2**20  # of an answer, unpacked if it comes compressed


def get(url: str) -> bytes:
    """Returns what `url` holds; shows a progress bar if stderr is a terminal.

    Raises:
        UserError: there is no answer, or one that is an error or has no end.
    """
    http = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=TIMEOUT_SECONDS)
    content = _Bounded()
    try:
        http(url, content, None)
    except requests.RequestException as error:
        if error.response is not None:
            error.response.close()
        raise UserError(f"{url}: {_describe(error)}") from error
    except _TooLarge:
        raise UserError(f"{url}: more than {MAX_BYTES:,} bytes") from None
    return content.getvalue()


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
