"""Batches straight out of arrays, for datasets that fit in memory."""

from __future__ import annotations

from collections.abc import Sequence

import chainer
from chainer.datasets import TupleDataset
from chainer.iterators import SerialIterator
from chainer.iterators._statemachine import iterator_statemachine


class ArrayIterator(SerialIterator):
    """SerialIterator over arrays, whose batch is a tuple of arrays instead of a list of examples.

    One gather an array replaces Python code for each example. The order, the epochs and the
    snapshots are SerialIterator's: with the same seed the batches are the same bits, and a snapshot
    of one loads into the other. Goes with `send_batch` as the converter.

    Args:
        arrays: one array for each part of an example, such as images `(N, 784)` and labels `(N,)`.
        batch_size: examples a batch.
        repeat: go on with the next epoch for ever; otherwise stop after the first.
        shuffle: new order each epoch, from NumPy's global random state; None is True.

    Raises:
        ValueError: the arrays differ in length.
    """

    def __init__(
        self,
        arrays: Sequence[chainer.types.NdArray],
        batch_size: int,
        repeat: bool = True,
        shuffle: bool | None = None,
    ) -> None:
        self._arrays = tuple(arrays)
        super().__init__(TupleDataset(*arrays), batch_size, repeat=repeat, shuffle=shuffle)

    def __next__(self) -> tuple[chainer.types.NdArray, ...]:
        """Returns the next batch: a copy, one array for each of `arrays`."""
        self._previous_epoch_detail = self.epoch_detail
        self._state, indices = iterator_statemachine(
            self._state, self.batch_size, self.repeat, self.order_sampler, len(self.dataset)
        )
        if indices is None:
            raise StopIteration
        return tuple(array[indices] for array in self._arrays)

    next = __next__


@chainer.dataset.converter()
def send_batch(
    batch: tuple[chainer.types.NdArray, ...], device: chainer.backend.Device | None
) -> tuple[chainer.types.NdArray, ...]:
    """Sends a batch of ArrayIterator to `device`; None leaves it where it is."""
    return batch if device is None else device.send(batch)
