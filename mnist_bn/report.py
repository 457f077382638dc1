"""The lines that `train_mnist.py` prints."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Sequence

import models
from mnist_bn import devices, kernels
from mnist_bn.config import RunConfig
from mnist_bn.data import Dataset
from mnist_bn.outcome import Outcome
from mnist_bn.preparation import PreparedRun, load_dataset
from mnist_bn.terminal import streams, wording
from mnist_bn.trainer import learning_rate_drop

PROGRAM = "train_mnist.py"


def list_models() -> int:
    """Prints the networks' names, each with its first sentence; returns the exit status."""
    for name, network in models.networks().items():
        line = f"{name:26}{(network.__doc__ or '').partition(chr(10))[0]}"
        print(wording.fitted(line, sys.stdout, indent=" " * 26))
    return 1 if streams.has_failed() else 0


def print_images(configs: Sequence[RunConfig]) -> None:
    """Prints which images the runs get.

    Raises:
        UserError: they cannot be had.
    """
    lines = (line for config in configs for line in describe_dataset(load_dataset(config)))
    for line in dict.fromkeys(lines):
        wording.say(line)


def print_conditions(runs: Sequence[PreparedRun]) -> None:
    """Prints which kernels the runs get, and notes on what of them has no effect."""
    wording.say(describe_kernels(runs[0]))
    for line in dict.fromkeys(learning_rate_drop.too_late(run.config) for run in runs):
        if line is not None:
            wording.say(f"note: {line}", file=sys.stderr)
    if streams.is_lost() and not streams.has_failed():  # that was said
        wording.say("note: nobody reads the output; training goes on without it", file=sys.stderr)


def describe_dataset(dataset: Dataset) -> list[str]:
    """Returns lines on the images that the runs get, and where they come from."""
    sizes = f"{len(dataset.train.labels):,} training and {len(dataset.test.labels):,} test images"
    line = f"Dataset {dataset.name}: {sizes}, from {dataset.origin}"
    if dataset.note:
        line += f" ({dataset.note})"
    if not dataset.tried:
        return [line]
    missing = (
        "MNIST not found: training on scikit-learn's digits instead; give its folder with "
        "--data-dir"
    )
    return [missing, *(f"- {place}" for place in dataset.tried), line]


def describe_kernels(run: PreparedRun) -> str:
    """Returns one line on the kernels that the run uses on a CPU, and why no faster ones."""
    device, active = (run.circumstances[key] for key in ("device_name", "acceleration"))
    if device != devices.CPU:
        return f"Device: {device}"
    if active != kernels.STOCK:
        return f"Kernels: compiled for {active}"
    reason = kernels.why_not() if run.config.accelerate == "auto" else None
    return f"Kernels: stock Chainer ({reason})" if reason else "Kernels: stock Chainer"


def describe_finished(finished: int, runs: int) -> str:
    """Returns one line on the runs that are not trained again."""
    if runs == 1:
        return "The run is finished already: skipped"
    are = "is" if finished == 1 else "are"
    return f"{finished} of {runs} runs {are} finished already: skipped"


def print_failed(outcomes: Sequence[Outcome], runs: int) -> None:
    """Prints on stderr which of the runs have failed, and why."""
    failed = f"{len(outcomes)} of {wording.count(runs, 'run')} failed:"
    print(f"{wording.named(PROGRAM)}: {failed}", file=sys.stderr)
    for outcome in outcomes:
        wording.say(f"  {outcome.describe()}", file=sys.stderr)


def print_stop(signum: int, outcomes: Sequence[Outcome], configs: Sequence[RunConfig]) -> None:
    """Prints on stderr that a signal has ended the runs, and how they are gone on with."""
    done = {outcome.config for outcome in outcomes if outcome.is_success}
    left = [config for config in configs if config not in done]
    wording.say(*describe_stop(signum, outcomes, left), file=sys.stderr)


def describe_stop(
    signum: int, outcomes: Sequence[Outcome], left: Sequence[RunConfig]
) -> tuple[str, str]:
    """Returns a line on what a signal has ended, and the command that goes on with it.

    Args:
        left: the runs that are not finished.
    """
    line = f"{wording.named(PROGRAM)}: {signal.Signals(signum).name}: "
    if not left:
        return line + "the last run was just finished", ""
    if len(left) == len(outcomes) == 1:
        line += outcomes[0].describe()
    else:
        are = "is" if len(left) == 1 else "are"
        line += f"{wording.count(len(left), 'run')} {are} not finished"
    return f"{line}; go on with:", resume_command(sys.orig_argv)


def resume_command(typed: Sequence[str]) -> str:
    """Returns the command line that was typed, made to go on from the newest snapshot."""
    words, kept = iter(typed), []
    for word in words:
        if word in ("-r", "--resume"):
            next(words, None)
        elif not word.startswith(("--resume=", "-r")) and word != "--autoload":
            kept.append(word)
    return shlex.join([*kept, "--autoload"])


def print_results(runs: Sequence[PreparedRun]) -> None:
    """Prints where the results are, and the command that draws them."""
    folder = runs[0].folder if len(runs) == 1 else runs[0].config.out
    to_draw = wording.command("plot_results.py", folder)
    wording.say(f"Results in {folder}. To draw them:", to_draw)
