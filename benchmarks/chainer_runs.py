"""Stock Chainer and our own: the project's Trainer, its steps timed from inside."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from types import MethodType

import numpy as np
from chainer.dataset import concat_examples
from chainer.datasets import TupleDataset
from chainer.iterators import SerialIterator
from chainer.training import Trainer, extension
from chainer.training.updaters import StandardUpdater
from threadpoolctl import threadpool_limits

from mnist_bn import data, kernels, training
from mnist_bn.config import RunConfig
from mnist_bn.data import Dataset, Split

TRAIN_SIZE = 60_000


def load_dataset(test_size: int, model: str = "MnistCNN") -> Dataset:
    """Returns MNIST from MNIST_BN_DATA, if it is set, or random images of MNIST's shape.

    For a network of CIFAR-10's images they are random: the time is the same.

    Args:
        test_size: test images; MNIST's are repeated as needed.
        model: the network's name.

    Raises:
        UserError: MNIST_BN_DATA does not hold MNIST.
    """
    if model.startswith(("CS231n", "ResNetCIFAR")):
        parts = (_random_split(n, (3, 32, 32)) for n in (TRAIN_SIZE // 6, test_size))
        return Dataset("cifar10", *parts, {}, "random numbers")
    if not os.environ.get("MNIST_BN_DATA"):
        train, test = _random_split(TRAIN_SIZE), _random_split(test_size)
        return Dataset("mnist", train, test, {}, "random numbers")
    mnist = data.load("mnist")
    indices = np.arange(test_size) % len(mnist.test.labels)
    test = mnist.test.part(indices)
    return Dataset("mnist", mnist.train, test, {}, "MNIST")


def _random_split(n: int, shape: tuple[int, ...] = (784,)) -> Split:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, *shape), np.uint8)
    return Split.from_bytes(images, rng.integers(0, 10, n, np.uint8))


def build_trainer(config: RunConfig, dataset: Dataset) -> Trainer:
    """Returns the Trainer of `config` on `dataset` in place of the data it names."""
    return training.build_trainer(training.prepare(config, dataset=dataset))


def feed_as_stock(trainer: Trainer, dataset: Dataset, batchsize: int) -> None:
    """Feeds the Trainer with Chainer's own iterators and converter: batches come from the host."""
    updater, evaluator = trainer.updater, trainer.get_extension("validation")
    updater._iterators["main"] = SerialIterator(TupleDataset(*dataset.train), batchsize)
    evaluator._iterators["main"] = SerialIterator(
        TupleDataset(*dataset.test), batchsize, repeat=False, shuffle=False
    )
    updater.converter = evaluator.converter = concat_examples
    updater.update_core = MethodType(StandardUpdater.update_core, updater)
    evaluator.eval_func = None
    log_report = trainer.get_extension("LogReport")
    log_report._sums = None  # they are the updater's
    log_report._init_summary()


def epoch_seconds(trainer: Trainer) -> list[float]:
    """Runs the Trainer; returns each epoch's seconds, evaluation and all, from the third on.

    In the first the GPU's kernels are compiled, and after it the figures are drawn.
    """
    trainer.run(show_loop_exception_msg=False)
    elapsed = [entry["elapsed_time"] for entry in trainer.get_extension("LogReport").log]
    return np.diff(elapsed[1:]).tolist()


def switch(accelerated: bool, threads: int = 1) -> None:
    """Puts the kernels in, or stock Chainer back, on so many threads."""
    kernels.install("on" if accelerated else "off")
    kernels.threads.set_count(threads)
    threadpool_limits(1 if accelerated else threads)


class ChainerRun:
    """A Trainer that goes on for as many steps as asked, and then waits.

    `Trainer.run` cannot be left and entered again, so it runs in a thread of its own; one thread
    runs at a time.

    Args:
        trainer: a Trainer that has not run.
        switch: puts in the kernels that its steps run on.
        clock: returns seconds, or moments whose difference is seconds.
    """

    def __init__(self, trainer: Trainer, switch: Callable[[], object], clock: Callable) -> None:
        self._trainer = trainer
        self._switch = switch
        self._clock = clock
        self._requests: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[list[float] | BaseException] = queue.SimpleQueue()
        self._closed = False
        trainer.stop_trigger = lambda trainer: self._closed
        last = min(entry.priority for entry in trainer._extensions.values()) - 1
        self._steps = _Steps(self._requests, self._results, clock)
        trainer.extend(self._steps, name="benchmark", trigger=(1, "iteration"), priority=last)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def train(self, steps: int) -> float:
        """Trains one step that is not timed and `steps` that are: returns seconds a step."""
        self._switch()
        self._requests.put(steps + 1)
        if not self._thread.is_alive():
            self._thread.start()
        result = self._results.get()
        if isinstance(result, BaseException):
            raise result
        return sum(result[1:]) / steps

    def evaluate(self, steps: int) -> float:
        """Evaluates the network on its `steps` batches of test images: returns seconds a batch."""
        self._switch()
        evaluator = self._trainer.get_extension("validation")
        start = self._clock()
        evaluator(self._trainer)
        return (self._clock() - start) / steps

    def close(self) -> None:
        """Ends the Trainer's loop."""
        self._closed = True
        if self._thread.is_alive():
            self._requests.put(0)
            self._thread.join()

    def _run(self) -> None:
        try:
            self._trainer.run(show_loop_exception_msg=False)
        except BaseException as error:
            self._results.put(error)


class _Steps(extension.Extension):
    """Times the steps of a Trainer's loop, and holds the loop after as many as were asked for.

    A step that ends an epoch is not counted: what happens there (evaluation, figures, snapshots)
    is an epoch's, not a step's.
    """

    def __init__(self, requests: queue.SimpleQueue, results: queue.SimpleQueue, clock) -> None:
        self._requests = requests
        self._results = results
        self._clock = clock
        self._steps: list[tuple] = []
        self._wanted = 0
        self._start = 0.0

    def initialize(self, trainer: Trainer) -> None:
        self._wait()

    def __call__(self, trainer: Trainer) -> None:
        now = self._clock()
        if not trainer.updater.is_new_epoch:
            self._steps.append((self._start, now))
        if len(self._steps) >= self._wanted:
            # Only now: the difference of two moments of a GPU waits for it.
            self._results.put([after - before for before, after in self._steps])
            self._wait()
        self._start = self._clock()

    def _wait(self) -> None:
        self._wanted = self._requests.get()
        self._steps = []
        self._start = self._clock()
