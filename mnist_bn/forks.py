"""Work that forked copies of this process do beside it, one for each of its cores but one."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from joblib import cpu_count

# Apple's libraries may abort in a forked copy, and Windows has none.
_CAN_FORK = sys.platform not in ("darwin", "win32")


class Forks:
    """Copies of this process at work; see `side_by_side`."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._working: dict[int, Callable[[], object]] = {}  # by process ID

    def do(self, work: Callable[[], object]) -> None:
        """Does the work in a copy, or in this process while as many copies work as may.

        The work leaves files and nothing else: a copy's memory ends with it. What a copy fails at
        is done again here, so that its error and its warnings are this process's.
        """
        self._collect(wait=False)
        if sys.platform == "win32" or len(self._working) >= self._at_once:
            work()
            return
        with warnings.catch_warnings():
            # Python 3.12 warns of threads: NumPy's, which wait, are the only ones here.
            warnings.simplefilter("ignore", DeprecationWarning)
            process = os.fork()
        if process:
            self._working[process] = work
            return
        status = 1
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                work()
            status = 0
        finally:
            os._exit(status)

    def finish(self) -> None:
        """Waits for all copies."""
        while self._working:
            self._collect(wait=True)

    def _collect(self, wait: bool) -> None:
        if sys.platform == "win32":
            return
        for process in list(self._working):
            ended, status = os.waitpid(process, 0 if wait else os.WNOHANG)
            if ended:
                work = self._working.pop(process)
                if status != 0:
                    work()


@contextmanager
def side_by_side() -> Iterator[Forks]:
    """Yields what does work in forked copies; when the block ends, all is done.

    Raises:
        Exception: what the work raises, maybe later than it was given.
    """
    forks = Forks(cpu_count() - 1 if _CAN_FORK else 0)
    try:
        yield forks
    finally:
        forks.finish()
