"""When a run ends, and when it is evaluated: counted in epochs or in iterations.

Each is decided from where training is alone, so that a resumed run needs no state for it.
"""

from __future__ import annotations

from chainer.training import Trainer

from mnist_bn.config import RunConfig


def length(config: RunConfig) -> tuple[int, str]:
    """Returns how long the run is, and in what: "epoch" or "iteration"."""
    return (config.iteration, "iteration") if config.iteration else (config.epoch, "epoch")


def last_iteration(config: RunConfig, images: int) -> int:
    """Returns the number of the run's last step, with so many training images."""
    # An epoch ends with the step that takes its last image, and the next begins within that step.
    return config.iteration or -(-config.epoch * images // config.batchsize)


def describe_length(config: RunConfig) -> str:
    """Returns how long the run is in words, such as "8 epochs"."""
    number, unit = length(config)
    return f"{number} {unit}{'s' * (number != 1)}"


def is_at_end(trainer: Trainer, config: RunConfig) -> bool:
    """Tells whether this step is the run's last."""
    updater = trainer.updater
    if config.iteration:
        return updater.iteration == config.iteration
    return updater.is_new_epoch and updater.epoch == config.epoch


def is_evaluation_due(trainer: Trainer, config: RunConfig) -> bool:
    """Tells whether to evaluate now: every `evaluate_every` steps or each epoch, and at the end."""
    return _is_evaluation_regular(trainer, config) or is_at_end(trainer, config)


def is_evaluation_for_the_end(trainer: Trainer, config: RunConfig) -> bool:
    """Tells whether an evaluation now is due only because the run ends, as no longer one's is."""
    return is_at_end(trainer, config) and not _is_evaluation_regular(trainer, config)


def _is_evaluation_regular(trainer: Trainer, config: RunConfig) -> bool:
    if config.evaluate_every:
        return trainer.updater.iteration % config.evaluate_every == 0
    return trainer.updater.is_new_epoch


def is_snapshot_due(trainer: Trainer, config: RunConfig) -> bool:
    """Tells whether to take a snapshot now: every `frequency` epochs, and at the end."""
    updater = trainer.updater
    every = config.frequency != -1 and updater.epoch % config.frequency == 0
    return (updater.is_new_epoch and every) or is_at_end(trainer, config)
