"""Ctrl-C (SIGINT), SIGTERM, and SIGHUP (the terminal is gone): a run ends with a snapshot.

The first of them is only noted, and the run asks `requested()` after each iteration. The second
ends the process at once. A sweep passes the first on to the processes of its runs, which note it
just so, and the second ends them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

import psutil

_HANGUP = getattr(signal, "SIGHUP", None)  # Windows has none
SIGNALS = (signal.SIGINT, signal.SIGTERM) + ((_HANGUP,) if _HANGUP else ())

_requested: int | None = None
_is_deferred = False
_parent: int | None = None  # in a process of a sweep: the sweep's


class Stopped(KeyboardInterrupt):
    """A run was ended by a signal, and its state is saved.

    Attributes:
        signum: the signal's number.
    """

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.signum = signum


def requested() -> int | None:
    """Returns the signal that asks to stop, None while there is none.

    In a process of a sweep, the death of the sweep asks to stop as SIGTERM does.
    """
    if is_orphan():
        return signal.SIGTERM
    return _requested


def is_orphan() -> bool:
    """Tells whether this is a process of a sweep that is dead."""
    return _parent is not None and os.getppid() != _parent


def exit_status(signum: int) -> int:
    """Returns the exit status that a shell shows for a command ended by the signal."""
    return 128 + signum


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Within the block, signals are noted for `requested()` in place of ending the process.

    Outside of the main thread, or within another such block, it changes nothing. A signal that
    the process was started to ignore (nohup) stays ignored.
    """
    global _requested, _is_deferred
    if _is_deferred or threading.current_thread() is not threading.main_thread():
        yield
        return
    _requested, _is_deferred = None, True
    handlers = {signum: signal.getsignal(signum) for signum in SIGNALS}
    taken = [signum for signum, handler in handlers.items() if handler is not signal.SIG_IGN]
    for signum in taken:
        signal.signal(signum, _note)
    try:
        yield
    finally:
        _is_deferred = False
        for signum in taken:
            signal.signal(signum, handlers[signum] or signal.SIG_DFL)


def _note(signum: int, _frame: object) -> None:
    """Handles a signal: notes the first and passes it on, ends everything at the second."""
    global _requested
    if signum == _HANGUP == _requested:
        return  # the shell and the system both send it: that is nobody in a hurry
    children = _children()
    if _requested is not None:
        for child in children:
            with contextlib.suppress(psutil.Error):
                child.kill()
        os._exit(exit_status(signum))
    _requested = signum
    for child in children:
        with contextlib.suppress(psutil.Error):
            child.terminate()


def _children() -> list[psutil.Process]:
    try:
        return psutil.Process().children()
    except psutil.Error:  # not permitted to look: the run itself can still stop well
        return []


@contextlib.contextmanager
def blocked() -> Iterator[None]:
    """Within the block no signal is delivered; processes started in it have them blocked.

    They do not die of a signal before they can handle it: see `handle_in_worker`.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def handle_in_worker(parent: int) -> None:
    """In a process of the sweep `parent`: takes signals from the sweep alone, which sends SIGTERM.

    A terminal's Ctrl-C and its end reach every process: here they must not count as a second one.
    """
    global _parent, _is_deferred
    if _parent is not None:
        return
    _parent, _is_deferred = parent, True
    # One handler each, set once: to ignore a signal drops one that waits.
    for signum in SIGNALS:
        handler = _note_in_worker if signum == signal.SIGTERM else signal.SIG_IGN
        signal.signal(signum, handler)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _note_in_worker(signum: int, _frame: object) -> None:
    global _requested
    _requested = signum
