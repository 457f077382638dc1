"""Our iterators against Chainer's SerialIterator: the same bits, epochs and snapshots."""

import io

import chainer
import numpy as np
import pytest
from chainer.dataset import concat_examples
from chainer.datasets import TupleDataset
from chainer.iterators import SerialIterator
from chainer.training.extensions import Evaluator
from chainer.training.updaters import StandardUpdater
from hypothesis import given
from hypothesis import strategies as st

from mnist_bn.data import Split
from mnist_bn.data.iterators import (
    ArrayIterator,
    DeviceIterator,
    SplitIterator,
    make_iterator,
    send_batch,
)

settings = st.fixed_dictionaries(
    {
        "batch_size": st.integers(1, 25),
        "repeat": st.booleans(),
        "shuffle": st.sampled_from([True, False, None]),
    }
)
sizes = st.integers(1, 20)
seeds = st.integers(0, 2**32 - 1)
steps = st.integers(0, 12)


def make_arrays(n):
    images = np.random.RandomState(n).randint(0, 256, (n, 784), np.uint8)
    return Split.from_bytes(images, np.arange(n))


def make_stock(n, batch_size, repeat, shuffle):
    return SerialIterator(TupleDataset(*make_arrays(n)), batch_size, repeat, shuffle)


def make_ours(n, batch_size, repeat, shuffle):
    return ArrayIterator(make_arrays(n), batch_size, repeat, shuffle)


def make_on_device(n, batch_size, repeat, shuffle):
    return DeviceIterator(
        make_arrays(n), batch_size, CountingDevice(), repeat=repeat, shuffle=shuffle
    )


def make_of_bytes(n, batch_size, repeat, shuffle):
    return SplitIterator(make_arrays(n), batch_size, repeat=repeat, shuffle=shuffle)


makers = [make_stock, make_ours, make_of_bytes, make_on_device]


class CountingDevice(chainer.backend.CpuDevice):
    """The CPU, as a device that keeps count of what is sent to it."""

    def __init__(self):
        super().__init__()
        self.sent = []

    def send_array(self, array):
        self.sent.append((array.dtype, array.shape))
        return array.copy()


def run(iterator, count):
    """Takes up to `count` batches; returns after each its arrays, bit for bit, and the epochs."""
    convert = send_batch if isinstance(iterator, ArrayIterator) else concat_examples
    seen = [epochs(iterator)]
    for _ in range(count):
        batch = next(iterator, None)
        if batch is None:
            seen.append(("stopped", epochs(iterator)))
            break
        arrays = convert(batch, chainer.get_device("@numpy"))
        assert isinstance(arrays, tuple)
        contents = [(array.dtype, array.shape, array.tobytes()) for array in arrays]
        seen.append((contents, epochs(iterator)))
    return seen


def epochs(iterator):
    return (
        iterator.epoch,
        iterator.epoch_detail,
        iterator.previous_epoch_detail,
        iterator.is_new_epoch,
        iterator.current_position,
        iterator.repeat,
        iterator.batch_size,
    )


def save(iterator):
    file = io.BytesIO()
    chainer.serializers.save_npz(file, iterator)
    file.seek(0)
    return file


@given(sizes, settings, seeds, steps, steps)
def test_same_batches_and_epochs_as_serial_iterator(n, arguments, seed, before, after):
    seen = []
    for make in makers:
        np.random.seed(seed)
        iterator = make(n, **arguments)
        first = run(iterator, before)
        iterator.reset()
        seen.append((first, run(iterator, after), np.random.random()))
        iterator.finalize()
    assert all(one == seen[0] for one in seen)


@pytest.mark.parametrize("restore", makers)
@pytest.mark.parametrize("make", makers)
@given(n=sizes, arguments=settings, seed=seeds, before=steps, after=steps)
def test_a_snapshot_of_either_restores_into_either(
    make, restore, n, arguments, seed, before, after
):
    np.random.seed(seed)
    uninterrupted = make_stock(n, **arguments)
    run(uninterrupted, before)
    expected = run(uninterrupted, after)

    np.random.seed(seed)
    interrupted = make(n, **arguments)
    run(interrupted, before)
    random_state = np.random.get_state()
    file = save(interrupted)

    resumed = restore(n, **arguments)
    chainer.serializers.load_npz(file, resumed)
    np.random.set_state(random_state)
    assert run(resumed, after) == expected


@given(sizes, settings, seeds, steps)
def test_the_snapshot_files_are_the_same(n, arguments, seed, before):
    contents = []
    for make in makers:
        np.random.seed(seed)
        iterator = make(n, **arguments)
        run(iterator, before)
        with np.load(save(iterator)) as npz:
            contents.append({key: npz[key].tolist() for key in npz})
    assert all(one == contents[0] for one in contents)


@pytest.mark.parametrize("make", [make_ours, make_of_bytes, make_on_device])
@pytest.mark.parametrize("shuffle", [True, False])
def test_writing_into_a_batch_leaves_the_dataset_alone(shuffle, make):
    iterator = make(6, 2, False, shuffle)
    for images, labels in iterator:
        images[...] = -1
        labels[...] = -1
    iterator.reset()
    seen = [(images, labels) for images, labels in iterator]
    labels = np.concatenate([labels for _, labels in seen])
    images = np.concatenate([images for images, _ in seen])
    expected = make_arrays(6)
    assert sorted(labels) == expected.labels.tolist()
    assert np.array_equal(images, expected.images[labels])


def test_within_an_epoch_nothing_is_sent_to_the_device():
    device = CountingDevice()
    iterator = DeviceIterator(make_arrays(12), 5, device)
    assert device.sent == [(np.uint8, (12, 784)), (np.int32, (12,))]
    sent = []
    for _ in range(7):
        device.sent.clear()
        next(iterator)
        sent.append([shape for _, shape in device.sent])
    # The third batch and the fifth reach over into the next epoch.
    order, batch, nothing = [(12,)], [(5,)], []
    assert sent == [order, nothing, batch, order, batch, order, nothing]


def test_images_that_are_no_bytes_live_on_the_device_as_they_are():
    device = CountingDevice()
    images = np.random.RandomState(0).rand(6, 784).astype(np.float32)
    split = Split(images, np.arange(6, dtype=np.int32))
    batch, labels = next(DeviceIterator(split, 6, device, repeat=False, shuffle=False))
    assert device.sent[0] == (np.float32, (6, 784))
    assert batch.tobytes() == images.tobytes()
    assert labels.tolist() == [0, 1, 2, 3, 4, 5]


def test_the_cpu_has_its_arrays_already():
    assert type(make_iterator(make_arrays(3), 2, chainer.get_device("@numpy"))) is SplitIterator
    not_the_cpu = CountingDevice()
    not_the_cpu.xp = chainer.Sequential  # any other than NumPy
    assert type(make_iterator(make_arrays(3), 2, not_the_cpu, repeat=False)) is DeviceIterator


def test_arrays_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="length"):
        ArrayIterator((np.zeros((3, 784)), np.zeros(4)), 2)


def test_the_converter_without_a_device_moves_nothing():
    batch = make_arrays(3)
    assert send_batch(batch, None) is batch


def test_training_and_evaluating_gives_serial_iterators_bits():
    outcomes = []
    converters = (concat_examples, send_batch, send_batch, send_batch)
    for make, converter in zip(makers, converters, strict=True):
        np.random.seed(0)
        classifier = chainer.links.Classifier(chainer.links.Linear(784, 20))
        optimizer = chainer.optimizers.SGD().setup(classifier)
        updater = StandardUpdater(
            make(20, 7, True, None), optimizer, converter=converter, device="@numpy"
        )
        while updater.epoch < 2:
            updater.update()
        result = Evaluator(
            make(20, 7, False, False), classifier, converter=converter, device="@numpy"
        )()
        weights = [parameter.array.tobytes() for parameter in classifier.params()]
        outcomes.append((updater.iteration, weights, {k: float(v) for k, v in result.items()}))
    assert all(one == outcomes[0] for one in outcomes)
