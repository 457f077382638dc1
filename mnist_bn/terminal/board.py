"""Where the runs of a sweep are: each process writes its own line in one file, and one reads all.

A line has a place of its own and always the same length, so that nobody waits for anybody, and a
process that is killed leaves a line that stays as it is.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from chainer.training import Trainer, extension

_LINE_BYTES = 96
SECONDS_BETWEEN = 0.5
SECONDS_OF_RATE = 5.0  # that a speed is measured over: an evaluation is part of it


class Position(NamedTuple):
    """How far a run is.

    Attributes:
        iteration, steps: done, and of the whole run.
        epochs: that are done, with a fraction.
        accuracy: in the last evaluation; NaN before the first.
        images_per_second: of late; NaN before it is known.
    """

    iteration: int
    steps: int
    epochs: float
    accuracy: float
    images_per_second: float

    @property
    def share(self) -> float:
        """Of the run that is done, from 0 to 1."""
        return min(1.0, self.iteration / max(1, self.steps))


@dataclass(frozen=True)
class Line:
    """The place of one run in a board's file."""

    path: Path
    index: int

    def write(self, position: Position) -> None:
        """Writes where the run is; a file that is gone costs nothing but the line."""
        text = " ".join(f"{number:.6g}" for number in position)
        text = f"{position.iteration} {position.steps} {text.split(' ', 2)[2]}"
        with contextlib.suppress(OSError), self.path.open("r+b", buffering=0) as file:
            file.seek(self.index * _LINE_BYTES)
            file.write(text.encode().ljust(_LINE_BYTES - 1)[: _LINE_BYTES - 1] + b"\n")


class Board:
    """The lines of several runs."""

    def __init__(self, path: Path, runs: int) -> None:
        self._path, self._runs = path, runs

    def line(self, run: int) -> Line:
        """Returns the place of a run."""
        return Line(self._path, run)

    def read(self) -> list[Position | None]:
        """Returns where each run is; None: not begun, or its line is just being written."""
        try:
            data = self._path.read_bytes()
        except OSError:
            data = b""
        lines = (data[i * _LINE_BYTES : (i + 1) * _LINE_BYTES] for i in range(self._runs))
        return [parsed(line) for line in lines]


def parsed(line: bytes) -> Position | None:
    """Returns the position that a line says, None if it says none."""
    try:
        iteration, steps, *rest = line.split()
        return Position(int(iteration), int(steps), *map(float, rest))
    except (TypeError, ValueError):
        return None


@contextlib.contextmanager
def create(runs: int) -> Iterator[Board]:
    """Makes a board, which is gone after the block."""
    with tempfile.TemporaryDirectory(prefix="mnist-bn-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "board"
        path.write_bytes(b"\n".rjust(_LINE_BYTES) * runs)
        os.chmod(path, 0o600)
        yield Board(path, runs)


class Watch(extension.Extension):
    """Writes where the run is, twice a second.

    Args:
        line: where to.
        steps: of the whole run.
        batchsize: images a step.
    """

    name = "Watch"

    def __init__(self, line: Line, steps: int, batchsize: int) -> None:
        self._line, self._steps, self._batchsize = line, steps, batchsize
        self._seen: deque[tuple[float, int]] = deque()  # times and iterations, the newest last

    def __call__(self, trainer: Trainer) -> None:
        """Looks at the clock each step."""
        now = time.monotonic()
        if self._seen and now - self._seen[-1][0] < SECONDS_BETWEEN:
            return
        updater, rate = trainer.updater, float("nan")
        while len(self._seen) > 1 and now - self._seen[0][0] > SECONDS_OF_RATE:
            self._seen.popleft()
        if self._seen:
            seconds, steps = now - self._seen[0][0], updater.iteration - self._seen[0][1]
            rate = self._batchsize * steps / seconds
        self._seen.append((now, updater.iteration))
        log = trainer.get_extension("LogReport").log
        accuracy = log[-1].get("validation/main/accuracy", float("nan")) if log else float("nan")
        self._line.write(
            Position(updater.iteration, self._steps, updater.epoch_detail, accuracy, rate)
        )
