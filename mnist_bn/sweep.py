"""Many runs, several at once: finished ones are skipped, a failing one does not stop the others."""

from __future__ import annotations

import math
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError
from tqdm import tqdm

from mnist_bn import files, locks, result_folder, schedule, signals, training
from mnist_bn.config import RunConfig, difference
from mnist_bn.errors import UserError


@dataclass(frozen=True)
class Outcome:
    """How a run ended: its last log entry, or the one line that says why it failed or was left.

    Attributes:
        left: why it was left as it is, such as stopped by a signal.
    """

    config: RunConfig
    entry: dict | None = None
    error: str | None = None
    left: str | None = None


def is_finished(config: RunConfig) -> bool:
    """Tells whether the run's result folder holds its final parameters, or those of a longer one.

    Raises:
        UserError: the folder holds another run's results, which must not be overwritten.
    """
    # Not Path.exists, which raises for a folder that may not be entered.
    if not os.path.exists(config.folder / "model.npz"):
        return False
    args = result_folder.read_args(config.folder)
    if other := difference(args, training.identity(config, training.load_dataset(config))):
        raise UserError(
            f"{config.folder} holds a finished run with {other}: "
            "choose another --out, or remove that folder to train anew"
        )
    was_broken_off = _was_broken_off(config.folder, args)
    # One that ended because it diverged would have ended so at any greater length.
    if not was_broken_off and _steps_beyond(config, args) < 0:
        return False
    # Not the files: a run that diverged before its first evaluation has measured nothing.
    observed = args.get("observe") or ""
    for name in config.observed:
        if name not in observed.split(","):
            raise UserError(
                f"{config.folder} holds a finished run without --observe {name}: "
                "choose another --out, or remove that folder to train anew"
            )
    return config.on_divergence != "continue" or not was_broken_off


def longer_than_asked(configs: Sequence[RunConfig]) -> str | None:
    """Returns in one line which of the finished runs are longer than asked for, None for none."""
    lines = []
    for config in configs:
        args = result_folder.read_args(config.folder)
        if _steps_beyond(config, args) > 0 and not _was_broken_off(config.folder, args):
            there, asked = map(schedule.describe_length, (_config_of(config.folder, args), config))
            lines.append(f"{config.folder} holds a finished run of {there}, more than the {asked} ")
    if not lines:
        return None
    others = f", and {len(lines) - 1} more such" if len(lines) > 1 else ""
    return f"{lines[0]}asked for{others}: skipped (a shorter one goes into another --out)"


def _steps_beyond(config: RunConfig, args: dict) -> int:
    """Returns how many steps the run that `args` describes is longer than that of `config`."""
    images = len(training.load_dataset(config).train.labels)
    there = _config_of(config.folder, args)
    return schedule.last_iteration(there, images) - schedule.last_iteration(config, images)


def _config_of(folder: Path, args: dict) -> RunConfig:
    try:
        return RunConfig.from_args(args)
    except UserError as error:
        raise UserError(
            f"{folder / 'args'}: not the settings of a run ({error}); choose another --out, or "
            "remove the folder to train anew"
        ) from None


def _was_broken_off(folder: Path, args: dict) -> bool:
    """Tells whether the finished run ended early because it diverged."""
    log = result_folder.read_log(folder)
    has_diverged = any(isinstance(entry, dict) and "diverged_at" in entry for entry in log)
    return args.get("on_divergence") == "stop" and has_diverged


def run_all(configs: Sequence[RunConfig], jobs: int = 1, autoload: bool = False) -> list[Outcome]:
    """Trains all `configs` in `jobs` processes, with a bar over the whole.

    A signal (SIGINT, SIGTERM) is passed on to the processes; see `signals`.

    Returns:
        One Outcome a run, in the order in which they ended. After a signal, the runs that had not
        begun may be missing.
    """
    outcomes = []
    with signals.deferred(), tqdm(total=len(configs), unit="run", disable=None) as bar:
        for outcome in _outcomes(configs, min(jobs, len(configs)), autoload):
            outcomes.append(outcome)
            bar.update()
            tqdm.write(describe(outcome), file=sys.stdout)
    if signals.requested():
        # All is saved, and to end of themselves takes the idle processes seconds.
        get_reusable_executor(reuse=True).shutdown(kill_workers=True)
    return outcomes


def _outcomes(configs: Sequence[RunConfig], jobs: int, autoload: bool) -> Iterator[Outcome]:
    """Yields each run's Outcome as it ends; a run that kills its process fails alone."""
    left = list(configs)
    before = {config: result_folder.run_id(config.folder) for config in configs}
    try:
        for outcome in _parallel(configs, jobs, autoload):
            left.remove(outcome.config)
            yield outcome
    except TerminatedWorkerError:
        # It takes down every run under way, and does not say whose fault it was: one by one now.
        for config in left:
            if signals.requested():
                return
            is_ours = result_folder.run_id(config.folder) != before[config]
            try:
                yield from _parallel([config], 2, autoload or is_ours)
            except TerminatedWorkerError:
                yield Outcome(config, error="failed: its process was killed (out of memory?)")


def _parallel(configs: Sequence[RunConfig], jobs: int, autoload: bool) -> Iterator[Outcome]:
    # max_nbytes: the configs are small, and no temporary folder is to be left behind.
    parallel = Parallel(n_jobs=jobs, return_as="generator_unordered", max_nbytes=None)
    task = delayed(_run)
    left = (config for config in configs if not signals.requested())
    with signals.blocked():  # until the processes that start here can handle one
        return parallel(task(config, autoload, os.getpid()) for config in left)


def describe(outcome: Outcome) -> str:
    """Returns one line on how the run ended."""
    if outcome.error is not None:
        return f"{outcome.config.name}: {outcome.error}"
    if outcome.left is not None:
        return f"{outcome.config.name}: {outcome.left}"
    entry = outcome.entry
    unit = outcome.config.unit
    parts = [f"{unit} {entry[unit]}"]
    if diverged_at := entry.get("diverged_at"):
        where, value = diverged_at["iteration"], diverged_at["value"]
        parts.append(f"diverged at iteration {where} (training loss {value:g})")
    elif not math.isfinite(entry["main/loss"]):
        parts.append(f"diverged (training loss {entry['main/loss']})")
    if "validation/main/accuracy" in entry:
        parts.append(f"validation accuracy {entry['validation/main/accuracy']:.4f}")
    parts.append(f"{entry['elapsed_time']:.0f} s")
    return f"{outcome.config.name}: {', '.join(parts)}"


def run_one(config: RunConfig, train: Callable[[], dict]) -> Outcome:
    """Runs `train` and turns what it raises into the Outcome's one line.

    A run that another process has finished in the meantime is left as it is. The traceback of an
    error that is no UserError goes to `error.txt` in the result folder.
    """
    try:
        files.make_folder(config.folder)
        with locks.hold(config.folder):
            if is_finished(config):
                return Outcome(config, left="finished already, by another process: left as it is")
            return Outcome(config, entry=train())
    except signals.Stopped as stopped:
        return Outcome(config, left=str(stopped))
    except UserError as error:
        return Outcome(config, error=f"failed: {error}")
    except BrokenPipeError:
        raise  # whoever read our output is gone: that is no fault of the run
    except (Exception, SystemExit) as error:
        report = config.folder / "error.txt"
        reason = (str(error).splitlines() or [""])[0]
        line = f"failed: {type(error).__name__}: {reason}"
        try:
            with files.replacing(report) as file:
                file.write(traceback.format_exc().encode(errors="backslashreplace"))
        except files.CannotWriteError:
            return Outcome(config, error=line)
        return Outcome(config, error=f"{line} (traceback in {report})")


def _run(config: RunConfig, autoload: bool, sweep: int) -> Outcome:
    """Trains in a process of the sweep (by its process ID), or in the sweep's own."""
    if os.getpid() != sweep:
        signals.handle_in_worker(sweep)
    if signals.requested():
        return Outcome(config, left="not begun")
    outcome = run_one(config, lambda: training.train(config, autoload=autoload))
    if signals.is_orphan():
        os._exit(1)  # nobody is there to hear of the outcome
    return outcome
