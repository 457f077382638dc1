"""Many runs, several at once: finished ones are skipped, a failing one does not stop the others."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError
from tqdm import tqdm

from mnist_bn import training
from mnist_bn.config import RunConfig, difference
from mnist_bn.errors import UserError
from mnist_bn.names.specs import NetworkSpec
from mnist_bn.storage import files, locks, result_folder
from mnist_bn.terminal import streams, wording
from mnist_bn.trainer import schedule, signals

TICK_SECONDS = 1
_OF_OPTIMIZERS = ("lr", "momentum")  # each has a default of its own
_NOT_BEGUN = "not begun"
_FINISHED_ELSEWHERE = "finished already, by another process: left as it is"


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

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do for the run: it is finished, or failed."""
        return self.left is None or self.left == _FINISHED_ELSEWHERE


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
    """Trains all `configs` in `jobs` processes, with a bar over the whole and a line for each run.

    A signal (SIGINT, SIGTERM, SIGHUP) is passed on to the processes; see `signals`.

    Returns:
        One Outcome a run, in the order in which they ended. After a signal, the runs that had not
        begun may be missing.
    """
    jobs = min(jobs, len(configs))
    outcomes, names = [], labels(configs)
    at_once = f", {jobs} at once" if jobs > 1 else ""
    print(f"{wording.count(len(configs), 'run')}{at_once}; a line for each that ends")
    with signals.deferred(), _ticking_bar(len(configs)) as bar:
        for outcome in _outcomes(configs, jobs, autoload):
            outcomes.append(outcome)
            if outcome.is_over:
                bar.update()
            if outcome.left != _NOT_BEGUN:
                line = f"{names[outcome.config]}: {_how_it_ended(outcome)}"
                tqdm.write(wording.fitted(line, sys.stdout), file=sys.stdout)
    if signals.requested():
        # All is saved, and to end of themselves takes the idle processes seconds.
        get_reusable_executor(reuse=True).shutdown(kill_workers=True)
    return outcomes


@contextlib.contextmanager
def _ticking_bar(total: int) -> Iterator[tqdm]:
    """A bar on a terminal whose clock goes on while no run ends, so that it does not look dead."""
    with tqdm(total=total, unit="run", disable=None, dynamic_ncols=True) as bar:
        is_over = threading.Event()

        def tick() -> None:
            while not is_over.wait(TICK_SECONDS):
                bar.refresh()

        ticking = threading.Thread(target=tick, daemon=True)
        with signals.blocked():  # they are for the main thread
            ticking.start()
        try:
            yield bar
        finally:
            is_over.set()
            ticking.join()


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


def labels(configs: Sequence[RunConfig]) -> dict[RunConfig, str]:
    """Returns of each run of a sweep only what differs within the sweep, such as "SGD seed 1"."""
    fields = [field.name for field in dataclasses.fields(RunConfig) if field.name != "model"]
    # The seed last, as in the names of folders.
    fields.sort(key=lambda field: field == "seed")
    varying = [field for field in fields if _differs(field, configs)]
    networks = _networks(configs)

    def label(config: RunConfig) -> str:
        words = [networks[config.model]] if len(networks) > 1 else []
        for field in varying:
            value = getattr(config, field)
            if value is None and field in _OF_OPTIMIZERS and "optimizer" in varying:
                continue  # this optimizer has none
            value = "default" if value is None else value
            words.append(value if field == "optimizer" else f"{field.replace('_', '-')} {value}")
        return " ".join(words) or config.name

    return {config: label(config) for config in configs}


def _differs(field: str, configs: Sequence[RunConfig]) -> bool:
    """Tells whether the setting differs within a sweep, by more than the optimizers' defaults."""
    by_optimizer = {}
    for config in configs:
        optimizer = config.optimizer if field in _OF_OPTIMIZERS else None
        by_optimizer.setdefault(optimizer, set()).add(getattr(config, field))
    return any(len(values) > 1 for values in by_optimizer.values())


def _networks(configs: Sequence[RunConfig]) -> dict[str, str]:
    """Returns the networks' class names by what was typed, with the arguments that differ."""
    specs = {config.model: NetworkSpec(config.model) for config in configs}
    shared = set.intersection(*(set(spec.written) for spec in specs.values()))
    names = {}
    for model, spec in specs.items():
        own = ", ".join(word for word in spec.written if word not in shared)
        names[model] = f"{spec.class_name}({own})" if own else spec.class_name
    return names


def describe(outcome: Outcome) -> str:
    """Returns one line on how the run ended, beginning with the run's name."""
    if outcome.entry is None:
        return f"{outcome.config.name}: {outcome.error or outcome.left}"
    unit = outcome.config.unit
    return f"{outcome.config.name}: {unit} {outcome.entry[unit]}, {_how_it_ended(outcome)}"


def _how_it_ended(outcome: Outcome) -> str:
    if outcome.entry is None:
        return outcome.error or outcome.left
    entry, parts = outcome.entry, []
    if diverged_at := entry.get("diverged_at"):
        where, value = diverged_at["iteration"], diverged_at["value"]
        parts.append(f"diverged at iteration {where} (training loss {value:g})")
    elif not math.isfinite(entry["main/loss"]):
        parts.append(f"diverged (training loss {entry['main/loss']})")
    if "validation/main/accuracy" in entry:
        parts.append(f"validation accuracy {entry['validation/main/accuracy']:.4f}")
    parts.append(f"{entry['elapsed_time']:.0f} s")
    return ", ".join(parts)


def run_one(config: RunConfig, train: Callable[[], dict]) -> Outcome:
    """Runs `train` and turns what it raises into the Outcome's one line.

    A run that another process has finished in the meantime is left as it is. The traceback of an
    error that is no UserError goes to `error.txt` in the result folder.
    """
    try:
        files.make_folder(config.folder)
        with locks.hold(config.folder):
            if is_finished(config):
                return Outcome(config, left=_FINISHED_ELSEWHERE)
            return Outcome(config, entry=train())
    except signals.Stopped as stopped:
        return Outcome(config, left=str(stopped))
    except UserError as error:
        return Outcome(config, error=f"failed: {error}")
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
        streams.guard()
    if signals.requested():
        return Outcome(config, left=_NOT_BEGUN)
    outcome = run_one(config, lambda: training.train(config, autoload=autoload))
    if signals.is_orphan():
        os._exit(1)  # nobody is there to hear of the outcome
    return outcome
