"""The training step on a GPU: one CUDA graph a step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import chainer
import cupy
import numpy as np
from chainer import reporter
from chainer.backends import cuda
from chainer.optimizers import (
    ada_delta,
    ada_grad,
    adam,
    corrected_momentum_sgd,
    momentum_sgd,
    nesterov_ag,
    rmsprop,
    rmsprop_graves,
    sgd,
    smorms3,
)
from chainer.training.updaters import StandardUpdater

from mnist_bn.config import RunConfig
from mnist_bn.data.iterators import DeviceIterator
from mnist_bn.errors import UsageError
from mnist_bn.gpu import masks
from mnist_bn.gpu.capture import Captured
from mnist_bn.gpu.sums import Sums
from mnist_bn.names.specs import NetworkSpec

# Their updates depend on hyperparameters and, of Adam, on alpha_t alone: not on the count of steps.
RULES = (
    ada_delta.AdaDeltaRule,
    ada_grad.AdaGradRule,
    adam.AdamRule,
    corrected_momentum_sgd.CorrectedMomentumSGDRule,
    momentum_sgd.MomentumSGDRule,
    nesterov_ag.NesterovAGRule,
    rmsprop.RMSpropRule,
    rmsprop_graves.RMSpropGravesRule,
    sgd.SGDRule,
    smorms3.SMORMS3Rule,
)


class GraphUpdater(StandardUpdater):
    """StandardUpdater whose step is captured once and replayed, with the same bits.

    What changes from step to step lies on the device: the batch's indexes, Adam's bias correction,
    and the clock of dropout's masks. One kernel sets them before the graph is launched.

    Args:
        iterator: the training batches.
        optimizer: it and its classifier, whose `loss` and `accuracy` are added up.
        converter: as StandardUpdater's.
        device: the GPU.
        is_captured: otherwise each step is done kernel by kernel.

    Attributes:
        sums: of loss and accuracy; see `Sums`.
    """

    def __init__(
        self,
        iterator: DeviceIterator,
        optimizer: chainer.GradientMethod,
        *,
        converter,
        device: chainer.backend.Device,
        is_captured: bool,
    ) -> None:
        super().__init__(iterator, optimizer, converter=converter, device=device)
        self.sums = Sums()
        self._masks = masks.current()
        self._indices = cupy.empty(iterator.batch_size, np.int64)
        self._alpha_t = cupy.zeros(1, np.float32)
        self._captured = Captured(self._step, self._undo_counts) if is_captured else None
        self._others: list[Captured] = []

    @property
    def is_captured(self) -> bool:
        """Whether a step is, or will be, a graph."""
        return self._captured is not None

    def forget_at_end(self, captured: Captured) -> None:
        """Has other captured work forgotten with the step's own, when training has ended."""
        self._others.append(captured)

    def finalize(self) -> None:
        """Finalizes the iterators, and lets all captured work go."""
        super().finalize()
        for captured in (self._captured, *self._others):
            if captured is not None:
                captured.forget()

    def update_core(self) -> None:
        """Does one step."""
        optimizer = self.get_optimizer("main")
        self._send_what_changes(optimizer)
        if self._captured is None:
            self._step()
        elif self._captured(key=_hyperparameters(optimizer)):
            self._follow(optimizer)
        else:
            self._remember(optimizer)

    def _send_what_changes(self, optimizer: chainer.GradientMethod) -> None:
        order, start = self.get_iterator("main").next_place()
        clock = self.iteration * masks.TICKS_PER_STEP
        cuda.elementwise(
            "raw int64 order, int64 start, uint64 now, float32 alpha",
            "int64 index, raw uint64 clock, raw float32 alpha_t",
            "index = order[start + i]; if (i == 0) { clock[0] = now; alpha_t[0] = alpha; }",
            "begin_step",
        )(order, start, clock, _next_alpha_t(optimizer), self._indices, self._masks.clock,
          self._alpha_t)  # fmt: skip

    def _step(self) -> None:
        self._masks.begin_step()
        optimizer = self.get_optimizer("main")
        self._counts = [one.t for one in _counting(optimizer)]
        batch = self.get_iterator("main").gather(self._indices)
        with masks.using(self._masks), _alpha_t_on_device(self._alpha_t[0]):
            optimizer.update(optimizer.target, *self.converter(batch, self.device))
        self.sums.add(optimizer.target)

    def _undo_counts(self) -> None:
        for one, count in zip(_counting(self.get_optimizer("main")), self._counts, strict=True):
            one.t = count

    def _remember(self, optimizer: chainer.GradientMethod) -> None:
        """Keeps what a step leaves behind in Python, to be put there again after a replay."""
        classifier = optimizer.target
        self._reported = {"loss": classifier.loss.array, "accuracy": classifier.accuracy.array}
        self._gradients = [(parameter, parameter.grad) for parameter in classifier.params()]
        rules = [parameter.update_rule for parameter in classifier.params()]
        self._rules = [rule for rule in rules if rule.enabled]

    def _follow(self, optimizer: chainer.GradientMethod) -> None:
        """Does what the step would have done in Python."""
        reporter.report(self._reported, optimizer.target)
        optimizer.t += 1
        for rule in self._rules:
            rule.t += 1
        for parameter, gradient in self._gradients:
            parameter._grad = gradient  # `grad` would check again what was checked
            parameter._grad_valid = True


def is_captured(config: RunConfig, optimizer: chainer.GradientMethod) -> bool:
    """Tells whether the run's step is to be a graph.

    Args:
        optimizer: with its network.

    Raises:
        UsageError: it is to be one, by `--cuda-graph on`, and cannot be.
    """
    if config.cuda_graph == "off":
        return False
    reason = _why_not(config, optimizer)
    if reason and config.cuda_graph == "on":
        raise UsageError(f"--cuda-graph on: {reason}")
    return reason is None


def _why_not(config: RunConfig, optimizer: chainer.GradientMethod) -> str | None:
    """Returns why a step is more than work for the GPU that is the same each time, if it is."""
    if NetworkSpec(config.model).path is not None:
        return f"{config.model} may do in Python, at each step, what a graph would leave out"
    if config.augment != "none":
        return f"--augment {config.augment} draws random numbers in the computer's memory"
    for rule in [parameter.update_rule for parameter in optimizer.target.params()]:
        if type(rule) not in RULES or getattr(rule.hyperparam, "adabound", False):
            return f"each step of {config.optimizer} may depend on how many there were before"
    return None


def _counting(optimizer: chainer.GradientMethod) -> list:
    """Returns what counts the steps, as `t`: the optimizer, and each parameter's rule."""
    return [optimizer, *(parameter.update_rule for parameter in optimizer.target.params())]


def _hyperparameters(optimizer: chainer.GradientMethod) -> tuple:
    return tuple(optimizer.hyperparam.get_dict().values())


def _next_alpha_t(optimizer: chainer.GradientMethod) -> float:
    """Returns Adam's step size, with its bias correction, at the next step; 0 of all others."""
    for parameter in optimizer.target.params():
        rule = parameter.update_rule
        if rule.enabled and isinstance(rule, adam.AdamRule):
            return adam._learning_rate(rule.hyperparam, rule.t + 1)
    return 0.0


@contextmanager
def _alpha_t_on_device(alpha_t: cupy.ndarray) -> Iterator[None]:
    """Has Adam's kernels read their step size when they run."""
    before = vars(adam.AdamRule)["alpha_t"]
    setattr(adam.AdamRule, "alpha_t", property(lambda rule: alpha_t))  # noqa: B010
    try:
        yield
    finally:
        setattr(adam.AdamRule, "alpha_t", before)  # noqa: B010
