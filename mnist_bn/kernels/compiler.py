"""Running a compiler: for a bounded time, and never longer than this process wants it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import BinaryIO

import psutil

from mnist_bn.trainer import signals

# Who wants a compiler's output wants its beginning: some write without end.
MAX_OUTPUT_BYTES = 2**16
MAX_REASON_LETTERS = 200
# Of a processor: what computes less than this is waiting for something, or for nothing.
LEAST_SHARE = 0.01
MOST_TIMES = 10  # the time it is given, at most, on a busy machine
_SECONDS_BETWEEN = 0.02  # two looks at whether it has ended


class CompilerError(Exception):
    """A compiler failed; the message is one line."""


class CompilerHangs(CompilerError):
    """A compiler took more than its time."""


class _Ended(BaseException):
    """A signal that would have ended this process came while a compiler was running."""


@contextlib.contextmanager
def ending_before_signals() -> Iterator[None]:
    """Within the block, signals that would end this process end the block first.

    A handler of somebody else's stays: Ctrl-C is an exception by itself.
    """
    ending = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    is_main = threading.current_thread() is threading.main_thread()
    taken = [s for s in ending if is_main and signal.getsignal(s) is signal.SIG_DFL]
    received = []

    def note(signum: int, _frame: object) -> None:
        received.append(signum)
        raise _Ended

    for signum in taken:
        signal.signal(signum, note)
    try:
        yield
    finally:
        for signum in taken:
            signal.signal(signum, signal.SIG_DFL)
        if received:
            os.kill(os.getpid(), received[0])


def run(command: list[str], seconds: float) -> bytes:
    """Runs a compiler and returns the beginning of what it printed.

    It and all that it started are ended if it hangs, if it fails, and if a signal asks the training
    run to stop; within `ending_before_signals` also if one ends this process.

    Args:
        seconds: how long it may compute, or be all but idle.

    Raises:
        CompilerError: it cannot be started, or it failed.
        CompilerHangs: it took longer.
        signals.Stopped: a signal asked the training run to stop.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
    except (OSError, ValueError) as error:  # no program, or no text that can be an argument
        raise CompilerError(one_line(str(error))) from None
    output, watch = bytearray(), _Watch(process.pid, seconds)
    reader = threading.Thread(target=_read, args=(process.stdout, output), daemon=True)
    has_ended_well = False
    try:
        reader.start()
        while process.poll() is None:
            _check_stop()
            watch.check()
            time.sleep(_SECONDS_BETWEEN)
        _check_stop()  # whoever asked for it may have ended the compiler as well
        reader.join(timeout=1)  # what it left running may hold the pipe open
        has_ended_well = process.returncode == 0
    finally:
        if not has_ended_well:
            _end(process)
    if not has_ended_well:
        raise CompilerError(_reason(bytes(output), process.returncode))
    return bytes(output)


def one_line(text: str) -> str:
    """Returns text of anybody's as one line that a terminal can show."""
    line = " ".join(text.split())
    line = "".join(letter if letter.isprintable() else "?" for letter in line)
    return line if len(line) <= MAX_REASON_LETTERS else f"{line[:MAX_REASON_LETTERS]}..."


def _check_stop() -> None:
    if signum := signals.requested():
        raise signals.Stopped(signum, "stopped before the training began")


class _Watch:
    """Tells a compiler that hangs from one that a busy machine gives little time to compute."""

    def __init__(self, pid: int, seconds: float) -> None:
        self._pid, self._seconds = pid, seconds
        self._began = time.monotonic()
        self._idle_since, self._computed = self._began, 0.0

    def check(self) -> None:
        """Raises CompilerHangs if it has computed, or been all but idle, for too long."""
        now = time.monotonic()
        if now - self._idle_since <= self._seconds:
            return
        computed = _seconds_computed(self._pid)
        took = now - self._began
        is_idle = computed - self._computed < LEAST_SHARE * (now - self._idle_since)
        if is_idle or computed > 0.9 * self._seconds or took > MOST_TIMES * self._seconds:
            raise CompilerHangs(f"not ready after {took:.0f} s")
        self._idle_since, self._computed = now, computed


def _seconds_computed(pid: int) -> float:
    """Returns the processors' time that a program and those that it started have taken."""
    total = 0.0
    with contextlib.suppress(psutil.Error):
        program = psutil.Process(pid)
        for one in (program, *program.children(recursive=True)):
            with contextlib.suppress(psutil.Error):  # it has just ended
                total += sum(one.cpu_times()[:4])  # its own, and of those that it waited for
    return total


def _read(file: BinaryIO, output: bytearray) -> None:
    """Reads to the end, so that the compiler never waits; keeps the beginning."""
    with contextlib.suppress(OSError, ValueError), file:
        while piece := os.read(file.fileno(), 2**16):
            output += piece[: MAX_OUTPUT_BYTES - len(output)]


def _end(process: subprocess.Popen) -> None:
    """Ends a compiler and the programs that it started."""
    with contextlib.suppress(OSError):  # it has just ended by itself
        if sys.platform != "win32":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()


def _reason(output: bytes, status: int) -> str:
    """Returns the compiler's first line on an error, else its first."""
    lines = [line for line in output.decode(errors="replace").splitlines() if line.strip()]
    if not lines:
        return f"ended by signal {-status}" if status < 0 else f"exit status {status}"
    return one_line(next((line for line in lines if "error" in line), lines[0]))
