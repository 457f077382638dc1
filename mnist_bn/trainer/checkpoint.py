"""Snapshots while training: when they are due, and when a signal stops the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import chainer
import numpy as np
from chainer.training import Trainer, extension

from mnist_bn.storage import snapshots
from mnist_bn.trainer import signals


class Checkpoint(extension.Extension):
    """Takes a snapshot if `is_due` says so, and before a run ends by a signal.

    Add it with `Checkpoint.extend`. It comes last of the extensions of an iteration, so that the
    snapshot holds all that they did. An evaluation can take minutes: when a signal comes during
    one, the snapshot is of the state before it, and the resumed run begins with the evaluation.

    Just so where a run is evaluated only because it ends: a longer one goes on from its snapshot as
    if there had been no such evaluation.

    Args:
        run: what the snapshots say of the run.
        is_due: tells after an iteration whether a snapshot is due.
        is_for_the_end: tells whether an evaluation is due only because the run ends.
        has_gradients: keep the gradients too, for those that measure them at an evaluation.
    """

    name = "Checkpoint"
    priority = -1000
    _BEFORE_ALL = 10_000

    def __init__(
        self,
        run: snapshots.Run,
        is_due: Callable[[Trainer], bool],
        is_for_the_end: Callable[[Trainer], bool],
        has_gradients: bool,
    ) -> None:
        self.run = run
        self.is_due = is_due
        self.is_for_the_end = is_for_the_end
        self.has_gradients = has_gradients
        self.resumed_from: snapshots.Snapshot | None = None
        self._before_evaluation: dict[str, np.ndarray] | None = None

    def extend(
        self,
        trainer: Trainer,
        evaluator: chainer.training.extensions.Evaluator,
        is_evaluation_due: Callable[[Trainer], bool],
    ) -> None:
        """Adds itself to the trainer, and looks out for signals in the evaluator's batches."""

        def hold(trainer: Trainer) -> None:
            self._before_evaluation = snapshots.capture(
                trainer, self.run, is_evaluated=False, has_gradients=self.has_gradients
            )

        evaluate_batch = evaluator.eval_func or evaluator.get_target("main")

        def eval_func(*arrays):
            signal = signals.requested()
            if signal and self._before_evaluation is not None:
                _stop(trainer, self._before_evaluation, signal)
            return evaluate_batch(*arrays)

        evaluator.eval_func = eval_func
        trainer.extend(hold, trigger=is_evaluation_due, priority=self._BEFORE_ALL)
        trainer.extend(self, trigger=lambda _: True)

    def initialize(self, trainer: Trainer) -> None:
        if self.resumed_from is not None:
            snapshots.finish_iteration(self.resumed_from, trainer)

    def __call__(self, trainer: Trainer) -> None:
        before, self._before_evaluation = self._before_evaluation, None
        signal = signals.requested()
        if not signal and not self.is_due(trainer):
            return
        arrays = before
        if arrays is None or not self.is_for_the_end(trainer):
            arrays = snapshots.capture(trainer, self.run)
        if signal:
            _stop(trainer, arrays, signal)
        snapshots.save(snapshots.path_of(trainer), arrays)


def _stop(trainer: Trainer, arrays: dict[str, np.ndarray], signal: int) -> NoReturn:
    path = snapshots.path_of(trainer)
    snapshots.save(path, arrays)
    updater = trainer.updater
    raise signals.Stopped(
        signal,
        f"stopped at iteration {updater.iteration}, epoch {updater.epoch_detail:.2f}; "
        f"saved in {path}",
    )
