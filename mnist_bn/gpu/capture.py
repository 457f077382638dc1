"""A function's work on the GPU, recorded once as a CUDA graph and replayed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Hashable

import cupy

from mnist_bn.terminal import wording

# Calls before the one that is recorded: they compile kernels and fill the pool of memory.
WARM_UP = 2


class Captured:
    """A function of no arguments that does the same work on the same arrays at every call.

    It runs on a stream of its own, which waits for the default stream and the other way round, and
    takes memory from a pool of its own: nothing else gets memory that a replay writes to.

    A function that does what a graph cannot hold, such as to wait for a number of the GPU's, is
    called each time, and a line says so.

    Args:
        function: makes its work known to the current stream, and does not wait for it.
        undo: takes back what a call of the function has changed in Python, if its work is lost.
    """

    def __init__(
        self, function: Callable[[], object], undo: Callable[[], object] = lambda: None
    ) -> None:
        self._function = function
        self._undo = undo
        self._can_record = True
        self._stream = cupy.cuda.Stream()
        self._pool = cupy.cuda.MemoryPool()
        self._calls = 0
        self._key: Hashable = None
        self._graph: cupy.cuda.Graph | None = None

    def __call__(self, key: Hashable = None) -> bool:
        """Does the work.

        Args:
            key: what the recorded work depends on and is not on the device; if it is another than
                before, the work is recorded anew.

        Returns:
            Whether the work was replayed: then `function` was not called.
        """
        with self._stream:
            if self._graph is not None and key == self._key:
                self._graph.launch()
                return True
            with cupy.cuda.using_allocator(self._pool.malloc):
                self._calls += 1
                self._graph = None
                if self._calls > WARM_UP and self._can_record:
                    self._graph, self._key = self._record(), key
                if self._graph is None:
                    self._function()
                else:
                    self._graph.launch()
        return False

    def forget(self) -> None:
        """Lets the recorded work go: CUDA may not be there any more when Python itself ends."""
        self._graph = None

    def _record(self) -> cupy.cuda.Graph | None:
        """Returns the graph; None if the function cannot be recorded: no work is done then."""
        self._stream.begin_capture()
        try:
            self._function()
            return self._stream.end_capture()
        except Exception as error:
            if self._stream.is_capturing():
                with contextlib.suppress(Exception):  # the recording is lost with it
                    self._stream.end_capture()
            wording.say(f"note: without a CUDA graph, kernel by kernel: {error}", file=sys.stderr)
            self._can_record = False
            self._undo()
            return None
