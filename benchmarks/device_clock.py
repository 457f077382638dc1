"""A GPU's own clock: events in its stream of work, so that reading it holds nothing up."""

from __future__ import annotations

from collections.abc import Callable


class Moment:
    """A point in a GPU's work. The difference of two is seconds, and waits until both are past.

    Args:
        event: a CUDA event that is not recorded yet, CuPy's or PyTorch's.
        milliseconds: returns the milliseconds from one such event to another.
    """

    def __init__(self, event, milliseconds: Callable) -> None:
        self._event = event
        self._milliseconds = milliseconds
        event.record()

    def __sub__(self, earlier: Moment) -> float:
        self._event.synchronize()
        return self._milliseconds(earlier._event, self._event) / 1e3


def cupy_clock() -> Moment:
    """Returns now, in the work that CuPy gave to its current stream."""
    import cupy

    return Moment(cupy.cuda.Event(), cupy.cuda.get_elapsed_time)


def torch_clock() -> Moment:
    """Returns now, in the work that PyTorch gave to its current stream."""
    import torch

    event = torch.cuda.Event(enable_timing=True)
    return Moment(event, lambda first, last: first.elapsed_time(last))
