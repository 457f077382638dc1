"""Mean and variance of a stream of batches, in float64 and without keeping any of them."""

from __future__ import annotations

from mnist_bn.devices import NdArray


class Moments:
    """Mean and variance of all numbers of each channel that were added so far.

    Two passes over each batch, and batches merged pairwise (Chan, Golub & LeVeque 1979), so that
    nothing cancels if the mean is far from 0. Arrays stay where they are, on CPU or GPU.

    Attributes:
        count: how many numbers a channel were added.
        mean: float64 `(channels,)`.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean: NdArray | float = 0.0
        self._squares: NdArray | float = 0.0  # summed, of distances from the mean

    def add(self, x: NdArray, axis: tuple[int, ...]) -> None:
        """Adds a batch.

        Args:
            x: floating point, of any shape.
            axis: what is averaged over; what is left are the channels.
        """
        mean = x.mean(axis=axis, dtype="d", keepdims=True)
        squares = ((x - mean) ** 2).sum(axis=axis)
        mean = mean.reshape(squares.shape)
        here = x.size // mean.size
        distance = mean - self.mean
        total = self.count + here
        self.mean = self.mean + distance * (here / total)
        self._squares = self._squares + squares + distance**2 * (self.count * here / total)
        self.count = total

    @property
    def variance(self) -> NdArray:
        """The unbiased variance, with n - 1 below, float64 `(channels,)`; NaN of one number."""
        return self._squares / (self.count - 1 or float("nan"))
