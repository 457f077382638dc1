"""Divergence is a result: when the training loss is lost, the log says where, and the run ends."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
from chainer.training import Trainer, extension
from chainer.training.triggers import IntervalTrigger

from mnist_bn.errors import UserError

LIMIT = 1e3
LOSS = "main/loss"
ITERATIONS_BETWEEN = 100  # two looks at a loss that is on a GPU


class Divergence(extension.Extension):
    """Records the first iteration whose loss is not finite or beyond ±LIMIT.

    The first iteration's loss is that of the network as initialised, which may be large without
    any step having diverged: it counts only if it is not finite.

    On a CPU every iteration is looked at, which costs nothing. Reading a number from a GPU would
    stop the queue of kernels each time, so there it is every ITERATIONS_BETWEEN-th iteration, the
    last of an epoch, and where the log reads it anyway: the iteration recorded is the first that
    was looked at.

    Args:
        ends_training: end the run at once; the entry of the log is then of the epoch so far.
        is_log_due: tells whether an entry of the log is due.

    Attributes:
        diverged_at: {"iteration", "value"} (the loss), None as long as all is well.
    """

    name = "Divergence"
    # Before LogReport, whose next entry says it.
    priority = extension.PRIORITY_EDITOR

    def __init__(
        self, ends_training: bool, is_log_due: Callable[[Trainer], bool] = lambda trainer: False
    ) -> None:
        self.ends_training = ends_training
        self.is_log_due = is_log_due
        self.diverged_at: dict | None = None
        self._epoch = 0
        self._is_logged = False

    def trigger(self, trainer: Trainer) -> bool:
        """Tells whether to look at the loss of this iteration."""
        updater = trainer.updater
        is_due = updater.is_new_epoch or updater.iteration % ITERATIONS_BETWEEN == 0
        is_due = is_due or updater.device.xp is np or self.is_log_due(trainer)
        return self.diverged_at is None and is_due

    def __call__(self, trainer: Trainer) -> None:
        loss = trainer.observation[LOSS]
        value = float(getattr(loss, "array", loss))
        updater = trainer.updater
        if math.isfinite(value) and (abs(value) <= LIMIT or updater.iteration == 1):
            return
        self.diverged_at = {"iteration": updater.iteration, "value": value}
        self._epoch = updater.epoch + (not updater.is_new_epoch)

    @property
    def has_ended_training(self) -> bool:
        """Tells whether the run is to end now."""
        return self.ends_training and self.diverged_at is not None

    def mark(self, entry: dict) -> None:
        """Writes it into an entry of the log, once; LogReport's `postprocess`.

        The entry of an epoch that was broken off has that epoch's number: it would have the last
        one's.
        """
        if self.diverged_at is None or self._is_logged:
            return
        entry["diverged_at"] = self.diverged_at
        entry["epoch"] = self._epoch
        self._is_logged = True

    def serialize(self, serializer) -> None:
        state = [self.diverged_at, self._epoch, self._is_logged]
        text = str(serializer("state", json.dumps(state)))
        try:
            diverged_at, epoch, is_logged = json.loads(text)
        except (ValueError, TypeError, RecursionError):
            diverged_at = epoch = is_logged = None
        if not is_divergence(diverged_at) or type(epoch) is not int or type(is_logged) is not bool:
            raise UserError("damaged: expected where the run diverged, or null")
        self.diverged_at, self._epoch, self._is_logged = diverged_at, epoch, is_logged


def is_divergence(value: object) -> bool:
    """Tells whether it is `Divergence.diverged_at`, or None."""
    if value is None:
        return True
    if not isinstance(value, dict) or set(value) != {"iteration", "value"}:
        return False
    return type(value["iteration"]) is int and type(value["value"]) in (int, float)


class IntervalOrDivergence(IntervalTrigger):
    """Fires every `period` epochs or iterations, and when the divergence ends the run."""

    def __init__(self, period: int, unit: str, divergence: Divergence) -> None:
        super().__init__(period, unit)
        self.divergence = divergence

    def __call__(self, trainer: Trainer) -> bool:
        return super().__call__(trainer) or self.divergence.has_ended_training
