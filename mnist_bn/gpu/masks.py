"""Dropout's masks on a GPU by Philox, a random number generator that is a function of a counter.

Of CuPy's generator a snapshot cannot keep the state, and a CUDA graph would replay the same numbers
each time. Here the numbers are a function of the seed, of the step, and of which call in the step
they are for: the same on every card, after every resume, and in a graph.

Philox4x32-10: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from chainer.backends import cuda
from chainer.functions.noise.dropout import Dropout

from mnist_bn.kernels.seam import Replacements

if TYPE_CHECKING:
    import cupy

# Evaluation batches have clocks of their own between those of two training steps.
TICKS_PER_STEP = 1 << 24

PHILOX = """
__device__ void philox(unsigned int* c, unsigned int k0, unsigned int k1) {
  for (int round = 0; round < 10; round++) {
    const unsigned long long a = 0xD2511F53ull * c[0], b = 0xCD9E8D57ull * c[2];
    const unsigned int c1 = c[1], c3 = c[3];
    c[0] = (unsigned int)(b >> 32) ^ c1 ^ k0;
    c[1] = (unsigned int)b;
    c[2] = (unsigned int)(a >> 32) ^ c3 ^ k1;
    c[3] = (unsigned int)a;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}
"""
# An element takes one word of four; the upper 24 bits of it make a float32 in [0, 1).
_DRAW = """
unsigned int c[4] = {(unsigned int)(i >> 2), call,
                     (unsigned int)clock[0], (unsigned int)(clock[0] >> 32)};
philox(c, (unsigned int)key, (unsigned int)(key >> 32));
const float uniform = (c[i & 3] >> 8) * 5.9604644775390625e-8f;
mask = uniform >= ratio ? scale : T(0);
y = x * mask;
"""


class Masks:
    """The counter of one device's masks.

    Attributes:
        clock: uint64 `(1,)` on the device: the step, which kernels read when they run.
    """

    def __init__(self, seed: int) -> None:
        self._key = np.uint64(seed)
        self._call = 0
        self._clock: cupy.ndarray | None = None

    @property
    def clock(self) -> cupy.ndarray:
        """The device's array, made when it is first needed."""
        if self._clock is None:
            self._clock = cuda.cupy.zeros(1, np.uint64)
        return self._clock

    def begin_step(self) -> None:
        """Counts the calls from 0 again; whoever begins a step also sets `clock` to another."""
        self._call = 0

    def next_call(self) -> tuple[np.uint64, int]:
        """Returns the key, and the number of a call of dropout within its step."""
        call, self._call = self._call, self._call + 1
        return self._key, call


_current = Masks(0)


def current() -> Masks:
    """Returns the masks that `F.dropout` draws now."""
    return _current


def seed(value: int) -> Masks:
    """Makes the masks those of a run with this seed, from its first step on."""
    global _current
    _current = Masks(value)
    return _current


@contextlib.contextmanager
def using(masks: Masks) -> Iterator[None]:
    """Draws these masks within `with`; afterwards those of before go on as if never interrupted."""
    global _current
    outer, _current = _current, masks
    try:
        yield
    finally:
        _current = outer


def replacements() -> Replacements:
    """Returns what has `F.dropout` draw its masks here, on a GPU."""
    return {(Dropout, "forward_gpu"): _forward_gpu}


def _forward_gpu(_):
    """The wrap of `Dropout.forward_gpu`."""

    def forward_gpu(self, inputs):
        (x,) = inputs
        if self.mask is not None:
            return (x * self.mask,)
        key, call = _current.next_call()
        scale = x.dtype.type(1 / (1 - self.dropout_ratio))
        draw = cuda.elementwise(
            "T x, raw uint64 clock, uint64 key, uint32 call, float32 ratio, T scale",
            "T mask, T y",
            _DRAW,
            "philox_dropout",
            preamble=PHILOX,
        )
        self.mask, y = draw(x, _current.clock, key, call, self.dropout_ratio, scale)
        return (y,)

    return forward_gpu
