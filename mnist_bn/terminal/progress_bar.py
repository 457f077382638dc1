"""A line at the bottom of the terminal that says how far a run is."""

from __future__ import annotations

import math
import time

from chainer.training import Trainer, extension
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from mnist_bn.terminal import redrawn

SECONDS_BETWEEN = 0.5


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.speed
        return Text("" if speed is None else f"{speed:,.{speed < 10:d}f} steps/s")


class ProgressBar(extension.Extension):
    """Shows on a terminal how far the run is, how fast, and how long it takes yet.

    Args:
        length: of the whole run, in units.
        unit: "epoch" or "iteration".
    """

    name = "ProgressBar"

    def __init__(self, length: int, unit: str) -> None:
        self._length, self._unit = length, unit
        self._progress: Progress | None = None
        self._drawn = -math.inf

    def __call__(self, trainer: Trainer) -> None:
        """Moves the bar on by a step; it begins with the first, which of a resumed run is later."""
        updater = trainer.updater
        if self._progress is None:
            self._begin(updater.iteration, updater.epoch_detail)
        now = time.monotonic()
        if now - self._drawn < SECONDS_BETWEEN:
            return
        self._drawn = now
        assert self._progress is not None
        (task,) = self._progress.task_ids
        where = self._describe(updater.epoch, updater.is_new_epoch)
        self._progress.update(task, completed=updater.iteration, description=where)
        redrawn.draw()

    def _begin(self, iteration: int, epoch_detail: float) -> None:
        columns = (
            *(TextColumn("{task.description}"), BarColumn(16), MofNCompleteColumn(), _Speed()),
            *(TimeElapsedColumn(), TimeRemainingColumn()),
        )
        self._progress = Progress(*columns, auto_refresh=False)
        steps = self._steps(iteration, epoch_detail)
        self._progress.add_task("", total=steps, completed=iteration - 1)
        redrawn.begin(self._progress)

    def _describe(self, finished_epochs: int, is_new_epoch: bool) -> str:
        """Returns the epoch of the last step, such as "epoch 3/20"."""
        # After the last step of an epoch that is finished already, and the next is not begun.
        epoch = finished_epochs + (not is_new_epoch)
        return f"epoch {epoch}/{self._length}" if self._unit == "epoch" else f"epoch {epoch}"

    def _steps(self, iteration: int, epoch_detail: float) -> int:
        if self._unit == "iteration":
            return self._length
        # The last batch of an epoch may reach into the next one.
        return math.ceil(round(self._length * iteration / epoch_detail, 6))

    def finalize(self) -> None:
        """Takes the bar away when training ends, however it ends."""
        redrawn.end()
