"""Many runs, several at once: finished ones are skipped, a failing one does not stop the others."""

from __future__ import annotations

import json
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

from mnist_bn import files, locks, signals, training
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
    """Tells whether the run's result folder holds its final parameters.

    Raises:
        UserError: the folder holds another run's results, which must not be overwritten.
    """
    # Not Path.exists, which raises for a folder that may not be entered.
    if not os.path.exists(config.folder / "model.npz"):
        return False
    args = _read_args(config.folder / "args")
    if other := difference(args, training.identity(config, training.load_dataset(config))):
        raise UserError(
            f"{config.folder} holds a finished run with {other}: "
            "choose another --out, or remove that folder to train anew"
        )
    # Not the files: a run that diverged before its first evaluation has measured nothing.
    observed = args.get("observe") or ""
    for name in config.observed:
        if name not in observed.split(","):
            raise UserError(
                f"{config.folder} holds a finished run without --observe {name}: "
                "choose another --out, or remove that folder to train anew"
            )
    return config.on_divergence != "continue" or not _was_broken_off(config.folder, args)


def _read_args(path: Path) -> dict:
    try:
        return files.read_json_object(path)
    except UserError:
        raise UserError(
            f"{path}: expected the settings (a JSON object) of the finished run in this folder; "
            "choose another --out, or remove the folder to train anew"
        ) from None


def _was_broken_off(folder: Path, args: dict) -> bool:
    """Tells whether the finished run ended early because it diverged."""
    try:
        log = json.loads(files.read_bytes(folder / "log", files.MAX_JSON_BYTES))
    except (UserError, ValueError, RecursionError):
        return False
    return args.get("on_divergence") == "stop" and '"diverged_at"' in json.dumps(log)


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
    try:
        for outcome in _parallel(configs, jobs, autoload):
            left.remove(outcome.config)
            yield outcome
    except TerminatedWorkerError:
        # It takes down every run under way, and does not say whose fault it was: one by one now.
        for config in left:
            if signals.requested():
                return
            try:
                yield from _parallel([config], 2, autoload)
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
            report.write_text(traceback.format_exc(), encoding="utf-8", errors="backslashreplace")
        except OSError:
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
