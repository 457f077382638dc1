"""Ctrl-C (SIGINT), SIGTERM, and SIGHUP (the terminal is gone): a run ends with a snapshot.

The first of them is only noted, and the run asks `requested()` after each iteration. The second
ends the process at once. A sweep passes the first on to the processes of its runs, which note it
just so, and the second ends them.

On Windows, Ctrl-C and Ctrl-Break (SIGBREAK) reach the processes of a sweep without it: a process
cannot send another a signal that it might handle.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import psutil

IS_WINDOWS = os.name == "nt"
_HANGUP = getattr(signal, "SIGHUP", None)  # Windows has none
_BREAK = getattr(signal, "SIGBREAK", None)  # only Windows has it
SIGNALS = (signal.SIGINT, signal.SIGTERM, *filter(None, (_HANGUP, _BREAK)))

_requested: int | None = None
_is_deferred = False
_parent: psutil.Process | None = None  # in a process of a sweep: the sweep's


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
    if _parent is None:
        return False
    if IS_WINDOWS:  # getppid() stays the same when the parent is dead
        return not _parent.is_running()
    return os.getppid() != _parent.pid


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
    for child in [] if IS_WINDOWS else children:
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
    if sys.platform == "win32":
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
    On Windows they are how a process of a sweep gets to know.
    """
    global _parent, _is_deferred
    if _parent is not None:
        return
    try:
        _parent = psutil.Process(parent)
    except psutil.NoSuchProcess:
        os._exit(1)  # nobody is there to train for
    _is_deferred = True
    noted = (signal.SIGINT, _BREAK) if IS_WINDOWS else (signal.SIGTERM,)
    # One handler each, set once: to ignore a signal drops one that waits.
    for signum in SIGNALS:
        signal.signal(signum, _note_in_worker if signum in noted else signal.SIG_IGN)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _note_in_worker(signum: int, _frame: object) -> None:
    global _requested
    _requested = signum


def of_its_own() -> dict[str, Any]:
    """Returns options of `subprocess.Popen` for a process that a terminal's signals do not reach.

    `ask_to_stop` does.
    """
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def ask_to_stop(process: subprocess.Popen) -> None:
    """Asks a process that was started with `of_its_own` to stop with a snapshot."""
    if sys.platform == "win32":
        process.send_signal(signal.CTRL_BREAK_EVENT)
    else:
        process.send_signal(signal.SIGTERM)
