"""An evaluation batch on a GPU: one CUDA graph a batch."""

from __future__ import annotations

import chainer
import cupy
from chainer import reporter

from mnist_bn.gpu import masks
from mnist_bn.gpu.capture import Captured
from mnist_bn.gpu.updater import GraphUpdater


class BatchEvaluation:
    """An Evaluator's `eval_func`: the classifier, captured for batches of the first one's shape.

    Args:
        classifier: whose `loss` and `accuracy` are reported.
        updater: says how many steps there were, and whether they are captured.
    """

    def __init__(self, classifier: chainer.links.Classifier, updater: GraphUpdater) -> None:
        self._classifier = classifier
        self._updater = updater
        self._masks = masks.current()
        self._iteration = -1
        self._batch = 0
        self._inputs: tuple[cupy.ndarray, ...] = ()
        self._captured = Captured(self._evaluate)
        updater.forget_at_end(self._captured)

    def __call__(self, *inputs: cupy.ndarray) -> None:
        """Evaluates a batch, images `(N, ...)` and labels `(N,)`, and reports it."""
        self._set_clock()
        if self._updater.is_captured and not self._inputs:
            self._inputs = tuple(x.copy() for x in inputs)
        if [x.shape for x in inputs] != [own.shape for own in self._inputs]:
            with masks.using(self._masks):
                self._classifier(*inputs)
            return
        for x, own in zip(inputs, self._inputs, strict=True):
            own[...] = x
        if self._captured(key=chainer.config.train):
            reporter.report(self._reported, self._classifier)

    def _set_clock(self) -> None:
        """Begins a step of dropout's masks, which evaluation in train mode draws too."""
        iteration = self._updater.iteration
        self._batch = self._batch + 1 if iteration == self._iteration else 1
        self._iteration = iteration
        # Those of the last step end where the next begins.
        step = max(iteration - 1, 0)
        self._masks.clock.fill(step * masks.TICKS_PER_STEP + self._batch)
        self._masks.begin_step()

    def _evaluate(self) -> None:
        classifier = self._classifier
        with masks.using(self._masks):
            classifier(*self._inputs)
        self._reported = {"loss": classifier.loss.array, "accuracy": classifier.accuracy.array}
