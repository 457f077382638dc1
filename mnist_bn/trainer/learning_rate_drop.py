"""The learning rate divided by 10 after given epochs or steps."""

from __future__ import annotations

from collections.abc import Sequence

import chainer
import numpy as np
from chainer.training import Trainer, extension

from mnist_bn.config import RunConfig
from mnist_bn.errors import UsageError
from mnist_bn.optimizers import holder, learning_rate
from mnist_bn.trainer import schedule


class LearningRateDrop(extension.Extension):
    """Divides the learning rate by 10 after each of some epochs or iterations.

    The rate follows from where training is alone: a resumed run needs no state for it.

    Args:
        optimizer: its learning rate is that before the first drop.
        drops: numbers of the epochs or iterations, ascending.
        unit: "epoch" or "iteration".

    Raises:
        UsageError: the optimizer has no learning rate.
    """

    name = "LearningRateDrop"
    # Among the first after an update: the rate is for the next one.
    priority = extension.PRIORITY_WRITER
    trigger = (1, "iteration")

    def __init__(self, optimizer: chainer.GradientMethod, drops: Sequence[int], unit: str) -> None:
        name = type(optimizer).__name__
        hyperparameter = learning_rate(type(optimizer))
        if hyperparameter is None:
            raise UsageError(f"--lr-drop: {name} has no learning rate; leave --lr-drop out for it")
        self._hyperparameter, self._holder = hyperparameter, holder(optimizer, hyperparameter)
        self._drops, self._unit = drops, unit
        self._rate = getattr(self._holder, self._hyperparameter)

    def initialize(self, trainer: Trainer) -> None:
        """Sets the rate of the first step, which of a resumed run may be a lower one."""
        self(trainer)

    def __call__(self, trainer: Trainer) -> None:
        """Sets the rate of the next step."""
        now = getattr(trainer.updater, self._unit)
        passed = sum(drop <= now for drop in self._drops)
        # NumPy's power knows no overflow; a float of Python keeps float32 arrays what they are.
        rate = float(self._rate / np.float64(10) ** passed)
        setattr(self._holder, self._hyperparameter, rate)


def create(config: RunConfig, optimizer: chainer.GradientMethod) -> LearningRateDrop:
    """Makes the extension that `config.lr_drop` asks for.

    Raises:
        UsageError: the optimizer has no learning rate.
    """
    _, unit = schedule.length(config)
    return LearningRateDrop(optimizer, config.lr_drops, unit)


def too_late(config: RunConfig) -> str | None:
    """Returns in one line which drops come when the run has ended, None for none."""
    length, unit = schedule.length(config)
    late = [str(drop) for drop in config.lr_drops if drop >= length]
    if not late:
        return None
    return f"--lr-drop {','.join(late)}: no effect, as the run ends after {unit} {length}"
