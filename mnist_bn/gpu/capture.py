"""A function's work on the GPU, recorded once as a CUDA graph and replayed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable

import cupy

# Calls before the one that is recorded: they compile kernels and fill the pool of memory.
WARM_UP = 2


class CannotCaptureError(Exception):
    """The function does what a graph cannot hold, such as to wait for a number of the GPU's."""


class Captured:
    """A function of no arguments that does the same work on the same arrays at every call.

    It runs on a stream of its own, which waits for the default stream and the other way round, and
    takes memory from a pool of its own: nothing else gets memory that a replay writes to.

    Args:
        function: makes its work known to the current stream, and does not wait for it.
    """

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
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

        Raises:
            CannotCaptureError: it was called, to be recorded, and no work was done.
        """
        with self._stream:
            if self._graph is not None and key == self._key:
                self._graph.launch()
                return True
            with cupy.cuda.using_allocator(self._pool.malloc):
                self._calls += 1
                if self._calls <= WARM_UP:
                    self._function()
                    return False
                self._graph, self._key = self._record(), key
            self._graph.launch()
        return False

    def _record(self) -> cupy.cuda.Graph:
        self._stream.begin_capture()
        try:
            self._function()
            return self._stream.end_capture()
        except Exception as error:
            if self._stream.is_capturing():
                with contextlib.suppress(Exception):  # the recording is lost with it
                    self._stream.end_capture()
            raise CannotCaptureError(str(error)) from error
