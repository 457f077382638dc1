"""Observer: what a run measures besides loss and accuracy: a time series in an NPZ file, drawn."""

from __future__ import annotations

import contextlib
import json
import random
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import chainer
import numpy as np
from chainer.training import Trainer, extension

from mnist_bn import data, plotting
from mnist_bn.errors import UserError
from mnist_bn.observers.arrays import Array, Values, what_is_wrong, written
from mnist_bn.observers.measured import Head, Measured
from mnist_bn.storage import archives
from mnist_bn.storage.growing import GrowingArray


class Observer(extension.Extension):
    """An extension that measures arrays while training and writes `<name>.npz` at the end.

    The file holds the measured arrays with a leading axis of time, `(T, ...)`, and `epoch` and
    `iteration`, int64 `(T,)`. A measurement changes nothing of the run: random numbers go on as if
    none had been drawn, and the network stays as it was. What was measured is part of a snapshot.

    A class says what it measures (`measure`), which `arrays` that are, and how they are drawn:
    `panels` over time, or a `figure` of its own.

    Args:
        dataset: the run's images.
        device: where the network is.

    Attributes:
        arrays: the arrays that are measured, by name.
        title, to_see: of the figure; "{unit}" stands for what the run is counted in.
        at: the numbers of updates after which it measures, 0 being the network as initialised; None
            measures at every evaluation.
    """

    arrays: ClassVar[Mapping[str, Array]]
    title: str
    to_see: str
    at: tuple[int, ...] | None = None

    # After the update, before a snapshot is taken.
    priority = extension.PRIORITY_WRITER

    def __init__(self, dataset: data.Dataset, device: chainer.backend.Device) -> None:
        self.dataset = dataset
        self.device = device
        self._path: Path | None = None
        self._series: dict[str, GrowingArray] = {}

    @abstractmethod
    def measure(self, network: chainer.Chain) -> Values:
        """Returns the arrays of now, in the computer's memory: always the same names and shapes."""

    def check(self, network: chainer.Chain) -> None:
        """Checks that the network, as initialised, has what is measured, and leaves it so.

        Raises:
            UsageError: it does not.
        """

    @classmethod
    def panels(cls, group: Measured) -> list[plotting.panels.Panel]:
        """Returns the panels of `figure` for one network."""
        raise NotImplementedError

    @classmethod
    def x_axis(cls, group: Measured) -> dict:
        """Returns what `plotting.panels.stacked` takes for their x axis: time."""
        return {"x_label": group.unit.capitalize()}

    @classmethod
    def figure(cls, groups: Sequence[Measured], title: str, subtitle: str) -> plotting.Figure:
        """Returns the figure of one network, or of several side by side: a run each, or its seeds.

        Here it has the panels of each network, one below the other.
        """
        shown = [
            replace(panel, title=f"{group.label}: {panel.title}") if len(groups) > 1 else panel
            for group in groups
            for panel in cls.panels(group)
        ]
        return plotting.panels.stacked(shown, title, subtitle, **cls.x_axis(groups[0]))

    @classmethod
    def figures(cls, groups: Sequence[Measured], head: Head) -> plotting.Figures:
        """Yields each figure, or film, and the name of its file, without the format."""
        yield cls.name, cls.figure(groups, *head(cls.title, cls.to_see))

    def initialize(self, trainer: Trainer) -> None:
        """Learns where the file goes, and measures the network as initialised if it is due.

        Raises:
            UsageError: the network does not have what is measured; see `check`.
        """
        self.check(trainer.updater.get_optimizer("main").target.predictor)
        self._path = Path(trainer.out) / f"{self.name}.npz"
        is_new = trainer.updater.iteration == 0  # a resumed run has measured it before
        if is_new and self.at is not None and self.is_due(trainer):
            self(trainer)

    def is_due(self, trainer: Trainer) -> bool:
        """Tells whether an observer with `at` measures after this update."""
        return self.at is not None and trainer.updater.iteration in self.at

    def __call__(self, trainer: Trainer) -> None:
        """Measures.

        Raises:
            UserError: there is nothing to measure, or something else than before.
        """
        updater = trainer.updater
        now = {"epoch": updater.epoch, "iteration": updater.iteration}
        network = updater.get_optimizer("main").target.predictor
        # A network may draw random numbers in test mode too.
        with fixed_random_state(self.device):
            measured = self.measure(network)
        if not measured:
            raise UserError(
                f"--observe {self.name}: {type(network).__name__} has nothing that it measures"
            )
        rows = {key: np.array(array)[np.newaxis] for key, array in measured.items()}
        if wrong := what_is_wrong(self.arrays, rows):
            raise UserError(f"--observe {self.name}: measured other arrays than declared ({wrong})")
        times = {key: np.array([number], np.int64) for key, number in now.items()}
        self._add(times | written(self.arrays, rows))

    def _add(self, rows: dict[str, np.ndarray]) -> None:
        if not self._series:
            self._series = {key: GrowingArray(array) for key, array in rows.items()}
            return
        try:
            for key, array in rows.items():
                self._series[key].extend(array)
        except (KeyError, ValueError):
            raise UserError(
                f"--observe {self.name}: what is measured has other names or shapes than before"
            ) from None

    def finalize(self) -> None:
        """Writes the file, also if training stopped early; nothing if nothing was measured.

        Called at the end of training.
        """
        if self._series and self._path is not None:
            archives.write(self._path, self.series())

    def series(self) -> dict[str, np.ndarray]:
        """Returns what was measured so far, each array `(T, ...)`, read-only."""
        return {key: array.rows() for key, array in self._series.items()}

    def serialize(self, serializer: chainer.Serializer | chainer.Deserializer) -> None:
        """Saves or loads what was measured so far.

        Raises:
            UserError: the snapshot is of a run without this observer.
        """
        try:
            series = serialize_arrays(serializer["series"], self.series())
        except KeyError:
            raise UserError(
                f"--observe {self.name}: the snapshot is of a run without it, so the series would "
                "lack its beginning; go on without it, or train anew in another --out"
            ) from None
        if isinstance(serializer, chainer.Deserializer):
            self._series = {key: GrowingArray(array) for key, array in _checked(series).items()}


@contextlib.contextmanager
def fixed_random_state(device: chainer.backend.Device) -> Iterator[None]:
    """Seeds all random numbers that a network may draw; afterwards they go on as if never used.

    They are Python's, NumPy's and, on a GPU, CuPy's.
    """
    before = random.getstate(), np.random.get_state()
    random.seed(0)
    np.random.seed(0)
    with contextlib.ExitStack() as stack:
        stack.callback(random.setstate, before[0])
        stack.callback(np.random.set_state, before[1])
        if device.xp is not np:
            from mnist_bn.gpu import masks  # it needs CuPy

            cupy_random = device.xp.random
            stack.callback(cupy_random.set_random_state, cupy_random.get_random_state())
            cupy_random.set_random_state(cupy_random.RandomState(0))
            stack.enter_context(masks.using(masks.Masks(0)))
        yield


def serialize_arrays(
    serializer: chainer.Serializer | chainer.Deserializer, arrays: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Saves `arrays` and returns them, or loads and returns what was saved so."""
    if isinstance(serializer, chainer.Serializer):
        serializer("names", json.dumps(list(arrays)))
        for i, array in enumerate(arrays.values()):
            serializer(str(i), array)
        return arrays
    try:
        names = json.loads(str(serializer("names", "")))
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError("damaged: expected the names of what was measured")
    return {name: serializer(str(i), None) for i, name in enumerate(names)}


def _checked(series: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns what was measured so far, if it can be: as much of each, and numbers.

    Raises:
        UserError: it is not so.
    """
    clock = [series[name] for name in ("epoch", "iteration") if series.get(name) is not None]
    are_counts = all(array.ndim == 1 and array.dtype.kind == "i" for array in clock)
    if series and (
        len(clock) < 2
        or not are_counts
        or any(
            array.dtype.kind not in "biuf" or array.shape[:1] != clock[0].shape
            for array in series.values()
        )
    ):
        raise UserError("damaged: expected numbers, as many of each as were measured")
    return series
