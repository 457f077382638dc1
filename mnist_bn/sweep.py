"""One run or many, several at once: a failing one does not stop the others."""

from __future__ import annotations

import dataclasses
import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError

from mnist_bn import provenance, training
from mnist_bn.config import RunConfig
from mnist_bn.errors import UserError
from mnist_bn.finished import is_finished
from mnist_bn.kernels import threads
from mnist_bn.names.specs import NetworkSpec
from mnist_bn.outcome import FINISHED_ELSEWHERE, NOT_BEGUN, Outcome
from mnist_bn.storage import files, locks, result_folder
from mnist_bn.terminal import board, live, streams, wording
from mnist_bn.trainer import signals
from mnist_bn.training import PreparedRun

_OF_OPTIMIZERS = ("lr", "momentum")  # each has a default of its own

Lines = Mapping[RunConfig, board.Line]


def train(
    runs: Sequence[PreparedRun],
    jobs: int,
    autoload: bool,
    resume: Path | None = None,
    cluster: str | None = None,
) -> list[Outcome]:
    """Trains a single run with its log on the terminal, several as a sweep.

    Args:
        cluster: address of a Dask scheduler, on whose workers all are trained; see `cluster`.
    """
    if cluster is not None and runs:
        from mnist_bn.cluster import client

        with client.session(cluster, [run.config for run in runs]) as outcomes:
            return run_all([run.config for run in runs], autoload=autoload, elsewhere=outcomes)
    if len(runs) != 1:
        return run_all([run.config for run in runs], jobs, autoload) if runs else []
    (run,) = runs
    outcome = run_one(
        run, lambda: training.train(run, resume=resume, autoload=autoload, show_progress=True)
    )
    has_diverged = outcome.entry is not None and "diverged_at" in outcome.entry
    if has_diverged or (outcome.left is not None and not signals.requested()):
        print(outcome.describe())
    return [outcome]


def run_all(
    configs: Sequence[RunConfig],
    jobs: int = 1,
    autoload: bool = False,
    elsewhere: Callable[[bool, Lines], Iterator[Outcome]] | None = None,
) -> list[Outcome]:
    """Trains all `configs` in `jobs` processes, with a line for each run that ends.

    A signal (SIGINT, SIGTERM, SIGHUP) is passed on to the processes; see `signals`.

    Args:
        elsewhere: what trains them on other machines, in place of processes here.

    Returns:
        One Outcome a run, in the order in which they ended. After a signal, the runs that had not
        begun may be missing.
    """
    jobs = min(jobs, len(configs))
    outcomes, names = [], labels(configs)
    at_once = f", {jobs} at once" if jobs > 1 else ""
    at_once = ", on the cluster" if elsewhere is not None else at_once
    print(f"{wording.count(len(configs), 'run')}{at_once}; a line for each that ends")
    places = {config: place for place, config in enumerate(configs)}
    in_order = [names[config] for config in configs]
    with (
        board.create(len(configs)) as positions,
        signals.deferred(),
        live.shown(configs, in_order, positions) as display,
    ):
        lines = {config: positions.line(place) for config, place in places.items()}
        made = (
            _outcomes(configs, jobs, autoload, lines)
            if elsewhere is None
            else elsewhere(autoload, lines)
        )
        for outcome in made:
            outcomes.append(outcome)
            if outcome.left != NOT_BEGUN:
                line = f"{names[outcome.config]}: {outcome}"
                display.end(places[outcome.config], line, outcome.is_over)
    if jobs > 1:
        # All is saved, and idle processes take a while to end by themselves.
        get_reusable_executor(reuse=True).shutdown(kill_workers=True)
    return outcomes


def _outcomes(
    configs: Sequence[RunConfig], jobs: int, autoload: bool, lines: Lines
) -> Iterator[Outcome]:
    """Yields each run's Outcome as it ends; a run that kills its process fails alone."""
    left = list(configs)
    before = {config: result_folder.run_id(config.folder) for config in configs}
    try:
        for outcome in _parallel(configs, jobs, autoload, lines):
            left.remove(outcome.config)
            yield outcome
    except TerminatedWorkerError:
        # It takes down every run under way, and does not say whose fault it was: one by one now.
        for config in left:
            if signals.requested():
                return
            is_ours = result_folder.run_id(config.folder) != before[config]
            try:
                yield from _parallel([config], 2, autoload or is_ours, lines)
            except TerminatedWorkerError:
                yield Outcome(config, error="failed: its process was killed (out of memory?)")


def _parallel(
    configs: Sequence[RunConfig], jobs: int, autoload: bool, lines: Lines
) -> Iterator[Outcome]:
    # max_nbytes: the configs are small, and no temporary folder is to be left behind.
    parallel = Parallel(n_jobs=jobs, return_as="generator_unordered", max_nbytes=None)
    task, origin = delayed(run_in_worker), provenance.of_process()
    left = (config for config in configs if not signals.requested())
    with signals.blocked():  # until the processes that start here can handle one
        return parallel(
            task(config, autoload, os.getpid(), origin, jobs, lines[config]) for config in left
        )


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
    by_optimizer: dict[str | None, set[object]] = {}
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


def run_one(run: PreparedRun, train: Callable[[], dict]) -> Outcome:
    """Runs `train` and turns what it raises into the Outcome's one line.

    A run that another process has finished in the meantime is left as it is. The traceback of an
    error that is no UserError goes to `error.txt` in the result folder.
    """
    return _outcome_of(run.config, lambda: _train_unless_finished(run, train))


def _train_unless_finished(run: PreparedRun, train: Callable[[], dict]) -> dict | None:
    files.make_folder(run.folder)
    with locks.hold(run.folder):
        return None if is_finished(run) else train()


def _outcome_of(config: RunConfig, train: Callable[[], dict | None]) -> Outcome:
    """Returns how `train` ends; it returns the log's last entry, None for a run left as it is."""
    try:
        entry = train()
        return Outcome(config, entry, left=FINISHED_ELSEWHERE if entry is None else None)
    except signals.Stopped as stopped:
        return Outcome(config, left=str(stopped))
    except UserError as error:
        return Outcome(config, error=f"failed: {error}", status=error.status)
    except (Exception, SystemExit) as error:
        return Outcome(config, error=_reported(error, config.folder / result_folder.ERROR))


def _reported(error: BaseException, report: Path) -> str:
    """Writes the traceback of an error to a file; returns one line that says where."""
    reason = (str(error).splitlines() or [""])[0]
    line = f"failed: {type(error).__name__}: {reason}"
    try:
        with files.replacing(report) as file:
            file.write(traceback.format_exc().encode(errors="backslashreplace"))
    except files.CannotWriteError:
        return line
    return f"{line} (traceback in {report})"


def run_in_worker(
    config: RunConfig, autoload: bool, sweep: int, origin: dict, jobs: int, line: board.Line
) -> Outcome:
    """Trains in a process of the sweep (by its process ID), or in the sweep's own; `jobs` at once.

    The run is prepared here and now: data does not travel, and a user's file may have changed.
    """
    if os.getpid() != sweep:
        signals.handle_in_worker(sweep)
        streams.guard()
    if signals.requested():
        return Outcome(config, left=NOT_BEGUN)

    def train() -> dict | None:
        count = threads.share(config.threads, jobs)
        run = training.prepare(dataclasses.replace(config, threads=str(count)), origin=origin)
        return _train_unless_finished(
            run, lambda: training.train(run, autoload=autoload, line=line)
        )

    outcome = _outcome_of(config, train)
    if signals.is_orphan():
        os._exit(1)  # nobody is there to hear of the outcome
    return outcome
