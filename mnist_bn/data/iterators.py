"""Batches straight out of arrays, for datasets that fit in memory: the computer's, or a GPU's."""

from __future__ import annotations

from collections.abc import Sequence

import chainer
import numpy as np
from chainer.backends import cuda
from chainer.datasets import TupleDataset
from chainer.iterators import SerialIterator, ShuffleOrderSampler
from chainer.iterators._statemachine import iterator_statemachine
from chainer.iterators.order_samplers import OrderSampler

from mnist_bn.data.dataset import SCALE, Split, scaled
from mnist_bn.devices import NdArray


class ReplacementOrderSampler(OrderSampler):
    """Draws every place of an epoch's order from all images: batches "with replacement"."""

    def __call__(self, current_order: np.ndarray, current_position: int) -> np.ndarray:
        return np.random.randint(len(current_order), size=len(current_order))


ORDERS = {"shuffle": ShuffleOrderSampler, "replacement": ReplacementOrderSampler}


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
        order_sampler: in place of `shuffle`, makes each epoch's order (one of ORDERS).

    Raises:
        ValueError: the arrays differ in length.
    """

    def __init__(
        self,
        arrays: Sequence[NdArray],
        batch_size: int,
        repeat: bool = True,
        shuffle: bool | None = None,
        order_sampler: OrderSampler | None = None,
    ) -> None:
        self._arrays = tuple(arrays)
        super().__init__(
            TupleDataset(*arrays),
            batch_size,
            repeat=repeat,
            shuffle=shuffle,
            order_sampler=order_sampler,
        )

    def __next__(self) -> tuple[NdArray, ...]:
        """Returns the next batch: a copy, one array for each of `arrays`."""
        return self.gather(self._next_indices())

    def gather(self, indices: NdArray) -> tuple[NdArray, ...]:
        """Returns the batch of these examples, `(N,)`."""
        return tuple(array[indices] for array in self._arrays)

    def next(self) -> tuple[NdArray, ...]:
        """Returns the next batch."""
        return self.__next__()

    def _next_indices(self) -> NdArray:
        """Goes on by a batch, and returns which examples it is of."""
        self._previous_epoch_detail = self.epoch_detail
        self._state, indices = iterator_statemachine(
            self._state, self.batch_size, self.repeat, self.order_sampler, len(self.dataset)
        )
        if indices is None:
            raise StopIteration
        return indices


class SplitIterator(ArrayIterator):
    """ArrayIterator over images that are kept as bytes: each batch of them is scaled.

    Args:
        split: images and labels.
        batch_size: examples a batch.
        options: as ArrayIterator's.
    """

    def __init__(self, split: Split, batch_size: int, **options) -> None:
        super().__init__((split.pixels, split.labels), batch_size, **options)

    def gather(self, indices: NdArray) -> tuple[NdArray, NdArray]:
        """Returns the batch of these examples: images, float32 (N, ...), labels."""
        pixels, labels = super().gather(indices)
        return scaled(pixels), labels


class DeviceIterator(SplitIterator):
    """SplitIterator over images that live on a device: batches are gathered there.

    The order of an epoch is sent once, and the batch that reaches into the next epoch; within an
    epoch nothing is, and the host waits for nothing. Batches and snapshots are ArrayIterator's, bit
    for bit, on any device.

    Args:
        split: images and labels.
        batch_size: examples a batch.
        device: where the batches are wanted.
        options: as ArrayIterator's.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        device: chainer.backend.Device,
        **options,
    ) -> None:
        self._device = device
        self._sent: np.ndarray | None = None
        self._unshuffled = np.arange(len(split.labels))
        super().__init__(Split(*device.send((split.pixels, split.labels))), batch_size, **options)

    def serialize(self, serializer: chainer.AbstractSerializer) -> None:
        """Saves or loads the place in the epoch and its order, as SerialIterator does."""
        super().serialize(serializer)
        # Chainer loads the order into the array of the old one, which looks the same as before.
        self._sent = None

    def next_place(self) -> tuple[NdArray, int]:
        """Goes on by a batch; returns an order on the device, and where in it the batch begins."""
        order = self._unshuffled if self._state.order is None else self._state.order
        start = self.current_position
        indices = super()._next_indices()
        if start + len(indices) > len(order):  # on into the next epoch
            return self._device.send(indices), 0
        if order is not self._sent:
            self._order, self._sent = self._device.send(order), order
        return self._order, start

    def gather(self, indices: NdArray) -> tuple[NdArray, NdArray]:
        """Returns the batch of these examples, by one kernel: images, float32 (N, ...), labels."""
        pixels, labels = self._arrays
        xp = self._device.xp
        if pixels.dtype != np.uint8 or xp is np:
            return super().gather(indices)
        images = xp.empty((len(indices), *pixels.shape[1:]), np.float32)
        own_labels = xp.empty(len(indices), labels.dtype)
        cuda.elementwise(
            "raw uint8 pixels, raw L labels, raw int64 indices, int64 size, float32 scale",
            "float32 image, raw L label",
            "const long long n = i / size, from = indices[n], place = i % size;"
            "image = pixels[from * size + place] * scale;"
            "if (place == 0) label[n] = labels[from];",
            "gather_batch",
        )(pixels, labels, indices, pixels[0].size, SCALE, images, own_labels)
        return images, own_labels

    def _next_indices(self) -> NdArray:
        order, start = self.next_place()
        return order[start : start + self.batch_size]


def make_iterator(
    split: Split, batch_size: int, device: chainer.backend.Device, **options
) -> SplitIterator:
    """Returns the iterator whose batches reach `device` fastest; `options` are ArrayIterator's."""
    if device.xp is np:
        return SplitIterator(split, batch_size, **options)
    return DeviceIterator(split, batch_size, device, **options)


@chainer.dataset.converter()
def send_batch(
    batch: tuple[NdArray, ...], device: chainer.backend.Device | None
) -> tuple[NdArray, ...]:
    """Sends a batch of ArrayIterator to `device`; None leaves it where it is."""
    return batch if device is None else device.send(batch)
