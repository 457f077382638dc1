"""A progress bar of one line over the steps of a run."""

from __future__ import annotations

import math

from chainer.training import Trainer, extension
from tqdm import tqdm


class ProgressBar(extension.Extension):
    """Shows on a terminal how far the run is, how fast, and how long it takes yet.

    Args:
        length: of the whole run, in units.
        unit: "epoch" or "iteration".
    """

    name = "ProgressBar"

    def __init__(self, length: int, unit: str) -> None:
        self._length, self._unit = length, unit
        self._bar: tqdm | None = None

    def __call__(self, trainer: Trainer) -> None:
        """Moves the bar on by a step; it begins with the first, which of a resumed run is later."""
        updater = trainer.updater
        where = self._describe(updater.epoch, updater.is_new_epoch)
        if self._bar is None:
            self._bar = tqdm(
                desc=where,
                total=self._steps(updater.iteration, updater.epoch_detail),
                initial=updater.iteration - 1,
                unit="step",
                leave=False,
                dynamic_ncols=True,
                disable=None,  # if it is no terminal
            )
        self._bar.set_description(where, refresh=False)
        self._bar.update()

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
        if self._bar is not None:
            self._bar.close()
