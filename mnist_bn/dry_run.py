"""What a command would train, and about how long that takes and how much it writes.

A few steps of each network are timed on this machine. Nothing is written into a result folder.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from mnist_bn import training
from mnist_bn.config import RunConfig
from mnist_bn.kernels import threads
from mnist_bn.names.specs import NetworkSpec
from mnist_bn.preparation import PreparedRun
from mnist_bn.storage import result_folder, snapshots
from mnist_bn.terminal import wording
from mnist_bn.trainer import schedule

# Seconds of steps that are timed for each network, after some that are not.
TIMED_SECONDS = 0.4
_FIRST_STEPS = 3
# Of `args`, `log`, `cg.dot` and the pictures; observers' files come to it.
_OTHER_BYTES = 200_000
_SNAPSHOTS_KEPT = 2


class Cost(NamedTuple):
    """What a network costs here.

    Attributes:
        step, evaluation: seconds of a training step, and of one pass over the test images.
        parameters, states: bytes of the network, and of the optimizer's state.
    """

    step: float
    evaluation: float
    parameters: int
    states: int

    def seconds(self, run: PreparedRun) -> float:
        """Returns how long the run takes from its beginning."""
        config = run.config
        images = len(run.dataset.train.labels)
        steps = schedule.last_iteration(config, images)
        if config.evaluate_every:
            evaluations = math.ceil(steps / config.evaluate_every)
        elif config.iteration:
            evaluations = math.ceil(steps * config.batchsize / images)
        else:
            evaluations = config.epoch
        return steps * self.step + evaluations * self.evaluation

    @property
    def disk(self) -> int:
        """Bytes of a result folder."""
        snapshots = _SNAPSHOTS_KEPT * (self.parameters + self.states)
        return snapshots + self.parameters + _OTHER_BYTES


def report(runs: Sequence[PreparedRun], finished: int, jobs: int, autoload: bool) -> list[str]:
    """Returns lines that list the runs, and say what they take.

    Args:
        runs: those that are to be trained.
        finished: how many others are finished.
        jobs: at once.
    """
    lines = [f"{run.folder}: {schedule.describe_length(run.config)}{_state(run, autoload)}"
             for run in runs]  # fmt: skip
    done = f"; {finished} more {'is' if finished == 1 else 'are'} finished" if finished else ""
    lines.append(f"{wording.count(len(runs), 'run')} to train{done}")
    if not runs:
        return lines
    jobs = min(jobs, len(runs))
    costs: dict[tuple, Cost] = {}
    for run in runs:
        if _kind(run.config) not in costs:
            costs[_kind(run.config)] = measure(run, threads.share(run.config.threads, jobs))
    seconds = [costs[_kind(run.config)].seconds(run) for run in runs]
    # The last one may run alone.
    together = max(sum(seconds) / jobs, max(seconds))
    disk = sum(costs[_kind(run.config)].disk for run in runs)
    at_once = f", {jobs} at once" if jobs > 1 else ""
    observing = " without its observers" if any(run.config.observe for run in runs) else ""
    lines.append(
        f"about {_duration(together)}{at_once}{observing}, and {disk / 1e6:,.0f} MB in "
        f"{runs[0].config.out}"
    )
    lines.append(f"timed just now, with one run at a time: {_steps(costs)}")
    return lines


def _steps(costs: Mapping[tuple, Cost]) -> str:
    """Milliseconds a step of each network, from the least to the greatest of those of one class."""
    by_class: dict[tuple[str, int], list[float]] = {}
    for (model, batchsize, _), cost in costs.items():
        key = NetworkSpec(model).class_name, batchsize
        by_class.setdefault(key, []).append(1e3 * cost.step)
    said = []
    for (name, batchsize), ms in by_class.items():
        least, greatest = f"{min(ms):.3g}", f"{max(ms):.3g}"
        to = f" to {greatest}" if greatest != least else ""
        of = f" ({len(ms)} networks)" if len(ms) > 1 else ""
        said.append(f"{name}{of} {least}{to} ms a step of {batchsize}")
    return ", ".join(said)


def _kind(config: RunConfig) -> tuple[str, int, str]:
    """What the cost of a step is mostly of."""
    return config.model, config.batchsize, config.dataset


def _state(run: PreparedRun, autoload: bool) -> str:
    if result_folder.run_id(run.folder) is None:
        return ""
    goes_on = autoload and snapshots.found(run.folder)
    return ", goes on" if goes_on else ", begins anew"


def measure(run: PreparedRun, thread_count: int) -> Cost:
    """Times some steps and an evaluation of a run; what they write is gone afterwards."""
    with (
        tempfile.TemporaryDirectory(prefix="mnist-bn-", ignore_cleanup_errors=True) as folder,
        threadpool_limits(1),
        np.errstate(all="ignore"),
    ):
        config = dataclasses.replace(
            run.config, out=folder, observe=None, threads=str(thread_count)
        )
        trainer = training.build_trainer(dataclasses.replace(run, config=config))
        updater, device = trainer.updater, run.device
        for _ in range(_FIRST_STEPS):
            updater.update()
        _wait_for(device)
        start, steps = time.perf_counter(), 0
        while (seconds := time.perf_counter() - start) < TIMED_SECONDS or not steps:
            updater.update()
            _wait_for(device)
            steps += 1
        step = seconds / steps
        start = time.perf_counter()
        trainer.get_extension("validation")(trainer)
        evaluation = time.perf_counter() - start
        optimizer = updater.get_optimizer("main")
        parameters = list(optimizer.target.params())
        states = sum(
            array.nbytes
            for parameter in parameters
            for array in (parameter.update_rule.state or {}).values()
            if hasattr(array, "nbytes")
        )
        return Cost(step, evaluation, sum(p.array.nbytes for p in parameters), states)


def _wait_for(device) -> None:
    if device.xp is not np:
        device.xp.cuda.get_current_stream().synchronize()


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{math.ceil(seconds)} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min"
