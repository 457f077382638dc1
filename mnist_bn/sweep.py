"""Many runs, several at once: finished ones are skipped, a failing one does not stop the others."""

from __future__ import annotations

import json
import math
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from joblib import Parallel, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError
from tqdm import tqdm

from mnist_bn import training, user_models
from mnist_bn.config import RunConfig
from mnist_bn.errors import UserError


@dataclass(frozen=True)
class Outcome:
    """How a run ended: its last log entry, or the one line that says why it failed."""

    config: RunConfig
    entry: dict | None = None
    error: str | None = None


def is_finished(config: RunConfig) -> bool:
    """Tells whether the run's result folder holds its final parameters.

    Raises:
        UserError: the folder holds another run's results, which must not be overwritten.
    """
    if not (config.folder / "model.npz").exists():
        return False
    args = _read_args(config.folder / "args")
    expected = {**config.identity(), "model_sha256": user_models.source_sha256(config.model)}
    for setting, value in expected.items():
        if args.get(setting) != value:
            other = f"with {setting} {args.get(setting)}, not {value}"
            if setting == "model_sha256":
                other = "of another version of the network's file"
            raise UserError(
                f"{config.folder} holds a finished run {other}: "
                "choose another --out, or remove that folder to train anew"
            )
    return True


def _read_args(path: Path) -> dict:
    try:
        args = json.loads(path.read_bytes())
    except (OSError, ValueError):
        args = None
    if not isinstance(args, dict):
        raise UserError(
            f"{path}: expected the settings (a JSON object) of the finished run in this folder; "
            "choose another --out, or remove the folder to train anew"
        )
    return args


def run_all(configs: Sequence[RunConfig], jobs: int = 1, autoload: bool = False) -> list[Outcome]:
    """Trains all `configs` in `jobs` processes, with a bar over the whole.

    Returns:
        One Outcome a run, in the order in which they ended.
    """
    outcomes = []
    with tqdm(total=len(configs), unit="run", disable=None) as bar:
        for outcome in _outcomes(configs, min(jobs, len(configs)), autoload):
            outcomes.append(outcome)
            bar.update()
            tqdm.write(describe(outcome), file=sys.stdout)
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
            try:
                yield from _parallel([config], 2, autoload)
            except TerminatedWorkerError:
                yield Outcome(config, error="failed: its process was killed (out of memory?)")


def _parallel(configs: Sequence[RunConfig], jobs: int, autoload: bool) -> Iterator[Outcome]:
    # max_nbytes: the configs are small, and no temporary folder is to be left behind.
    parallel = Parallel(n_jobs=jobs, return_as="generator_unordered", max_nbytes=None)
    return parallel(delayed(_run)(config, autoload) for config in configs)


def describe(outcome: Outcome) -> str:
    """Returns one line on how the run ended."""
    if outcome.error is not None:
        return f"{outcome.config.name}: {outcome.error}"
    entry = outcome.entry
    accuracy = f"validation accuracy {entry['validation/main/accuracy']:.4f}"
    if not math.isfinite(entry["main/loss"]):
        accuracy = f"diverged (training loss {entry['main/loss']}), {accuracy}"
    seconds = f"{entry['elapsed_time']:.0f} s"
    return f"{outcome.config.name}: epoch {entry['epoch']}, {accuracy}, {seconds}"


def run_one(config: RunConfig, train: Callable[[], dict]) -> Outcome:
    """Runs `train` and turns what it raises into the Outcome's one line.

    The traceback of an error that is no UserError goes to `error.txt` in the result folder.
    """
    try:
        return Outcome(config, entry=train())
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


def _run(config: RunConfig, autoload: bool) -> Outcome:
    return run_one(config, lambda: training.train(config, autoload=autoload))
