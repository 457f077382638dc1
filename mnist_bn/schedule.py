"""When a run ends, and when it is evaluated: counted in epochs or in iterations.

Each is decided from where training is alone, so that a resumed run needs no state for it.
"""

from __future__ import annotations

from chainer.training import Trainer

from mnist_bn.config import RunConfig


def length(config: RunConfig) -> tuple[int, str]:
    """Returns how long the run is, and in what: "epoch" or "iteration"."""
    return (config.iteration, "iteration") if config.iteration else (config.epoch, "epoch")


def is_at_end(trainer: Trainer, config: RunConfig) -> bool:
    """Tells whether this step is the run's last."""
    updater = trainer.updater
    if config.iteration:
        return updater.iteration == config.iteration
    return updater.is_new_epoch and updater.epoch == config.epoch


def is_evaluation_due(trainer: Trainer, config: RunConfig) -> bool:
    """Tells whether to evaluate now: every `evaluate_every` steps or each epoch, and at the end."""
    if config.evaluate_every:
        due = trainer.updater.iteration % config.evaluate_every == 0
    else:
        due = trainer.updater.is_new_epoch
    return due or is_at_end(trainer, config)


def is_snapshot_due(trainer: Trainer, config: RunConfig) -> bool:
    """Tells whether to take a snapshot now: every `frequency` epochs, and at the end."""
    updater = trainer.updater
    every = config.frequency != -1 and updater.epoch % config.frequency == 0
    return (updater.is_new_epoch and every) or is_at_end(trainer, config)
