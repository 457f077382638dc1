"""Trains networks on MNIST or CIFAR-10 and writes a result folder for each run.

python train_mnist.py --model MnistCNN_BN_before --optimizer SGD
python train_mnist.py --model MnistCNN MnistCNN_BN_before --seed 0 1 --jobs 2
python train_mnist.py --study blog --preset quick
"""

from __future__ import annotations

try:
    import door  # first: from here on Ctrl-C costs no traceback
except KeyboardInterrupt:
    raise SystemExit(130) from None
except ImportError as error:  # as with `python -P`, which leaves this folder out
    raise SystemExit(f"train_mnist.py: {error}; its folder must be on PYTHONPATH") from None

with door.importing(__name__):
    import argparse
    import os
    import shlex
    import signal
    import sys
    from collections.abc import Sequence
    from pathlib import Path

    import models
    from mnist_bn import (
        data,
        devices,
        kernels,
        networks,
        observers,
        optimizers,
        studies,
        sweep,
        training,
    )
    from mnist_bn.config import RunConfig, grid
    from mnist_bn.errors import UsageError
    from mnist_bn.names.suggestions import suggestion
    from mnist_bn.settings import WHAT, WHERE
    from mnist_bn.storage import files
    from mnist_bn.terminal import command_line, flags, streams, wording
    from mnist_bn.terminal.command_line import Parser
    from mnist_bn.trainer import learning_rate_drop, signals


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Returns the arguments; a setting of the run that was not given is absent."""
    parser = Parser(
        usage="%(prog)s [--model NAME ...] [--optimizer NAME ...] [other flags]",
        description=__doc__,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    groups = flags.add(parser)
    parser.set_defaults(study=None)
    what, where = groups[WHAT], groups[WHERE]
    what.add_argument(
        "--preset",
        metavar="NAME",
        default=None,
        help="of the study: quick (default), full, or another that it has",
    )
    what.add_argument(
        "--list-models", action="store_true", default=False, help="print the networks' names"
    )
    where.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="runs at once, one thread each (default 1)"
    )
    where.add_argument(
        "-r", "--resume", type=Path, default=None, metavar="PATH", help="snapshot to go on from"
    )
    where.add_argument(
        "--autoload",
        action="store_true",
        default=False,
        help="go on from the newest usable snapshot in the result folder",
    )
    return parser.parse_args(argv)


def make_configs(arguments: argparse.Namespace) -> list[RunConfig]:
    """Returns the runs that the arguments ask for, checked as far as can be before training.

    Raises:
        UsageError: a name or value is wrong.
    """
    given = flags.given(arguments)
    if given.pop("study") is not None:
        configs = _configs_of_study(arguments, given)
    elif arguments.preset is not None:
        raise UsageError(f"--preset {arguments.preset} goes with --study")
    else:
        configs = grid(given)
    if given.get("dataset") == "digits" and "data_dir" in given:
        raise UsageError(
            "--data-dir is for MNIST's or CIFAR-10's files: leave it out for --dataset digits"
        )
    for model in {config.model for config in configs}:
        networks.create(model)
    for config in configs:
        settings = config.optimizer, config.lr, config.momentum
        optimizers.check(*settings)
        if config.lr_drop is not None:
            optimizer = optimizers.create(*settings)
            learning_rate_drop.create(config, optimizer)
    observers.check(configs[0].observed)
    devices.resolve(configs[0].device)
    if arguments.jobs < 1:
        raise UsageError(f"--jobs {arguments.jobs}: expected 1 or more")
    if arguments.resume is not None and len(configs) > 1:
        raise UsageError(
            f"--resume goes with one run, and these are {len(configs)}; see --autoload"
        )
    if arguments.resume is not None and os.path.isdir(arguments.resume):
        raise UsageError(
            f"--resume {arguments.resume}: expected a file, its snapshot_iter_N, found a folder; "
            "--autoload finds the newest by itself"
        )
    if arguments.resume is not None and not os.path.isfile(arguments.resume):
        raise UsageError(f"--resume {arguments.resume}: there is no such file")
    if (start := configs[0].init) is not None and not os.path.isfile(start):
        raise UsageError(f"--init {start}: there is no such file")
    return configs


def _configs_of_study(arguments: argparse.Namespace, given: dict) -> list[RunConfig]:
    study = studies.get(arguments.study)
    preset = arguments.preset or "quick"
    if preset not in study.PRESETS:
        raise UsageError(
            f"--preset {preset}: {arguments.study} has {', '.join(study.PRESETS)}"
            f"{suggestion(preset, study.PRESETS)}"
        )
    out = str(Path(given.pop("out", RunConfig.out)) / arguments.study)
    return studies.configs(study, preset, {**given, "study": arguments.study, "out": out})


def check_folders(configs: Sequence[RunConfig]) -> None:
    """Checks that the result folders are apart and can be written.

    Raises:
        UserError: two runs would share a folder, or one cannot be made.
    """
    classes_by_folder = {}
    for config in configs:
        classes = config.model, config.optimizer
        # Some file systems take names that differ in case for the same.
        others = classes_by_folder.setdefault(str(config.folder).casefold(), classes)
        for name, other in zip(classes, others, strict=True):
            if name != other:
                raise UsageError(
                    f"{other} and {name} would share the folder {config.folder}: "
                    "rename one of the classes, or train them with different --out"
                )
    files.make_folder(Path(configs[0].out))


def main(argv: Sequence[str] | None = None) -> int:
    """Carries out the command line and returns the exit status."""
    arguments = parse_arguments(argv)
    if arguments.list_models:
        return list_models()
    configs = make_configs(arguments)
    print_conditions(configs)
    # Without those that were named twice: SGD and sgd.
    configs = list(dict.fromkeys(training.resolve(config) for config in configs))
    check_folders(configs)
    if hasattr(study := arguments.study and studies.get(arguments.study), "measure"):
        study.measure(Path(configs[0].out))
    waiting = [config for config in configs if not sweep.is_finished(config)]
    if line := sweep.longer_than_asked([config for config in configs if config not in waiting]):
        wording.say(f"note: {line}", file=sys.stderr)
    if finished := len(configs) - len(waiting):
        if arguments.resume is not None:
            raise UsageError(f"--resume: {configs[0].folder} is finished; more epochs are -e N")
        wording.say(describe_finished(finished, len(configs)))
    outcomes = run(waiting, arguments)
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    if failed:
        of = wording.count(len(waiting), "run")
        print(f"train_mnist.py: {len(failed)} of {of} failed:", file=sys.stderr)
        for outcome in failed:
            wording.say(f"  {sweep.describe(outcome)}", file=sys.stderr)
    if signum := signals.requested():
        left = [config for config in waiting if not sweep.is_finished(config)]
        wording.say(*describe_stop(signum, outcomes, left), file=sys.stderr)
        return 1 if failed else signals.exit_status(signum)
    if len(failed) < len(configs):
        folder = configs[0].folder if len(configs) == 1 else configs[0].out
        to_draw = wording.command("plot_results.py", folder)
        wording.say(f"Results in {folder}. To draw them:", to_draw)
    return 1 if failed else 0


def list_models() -> int:
    """Prints the networks' names, each with its first sentence; returns the exit status."""
    for name, network in models.networks().items():
        line = f"{name:26}{(network.__doc__ or '').partition(chr(10))[0]}"
        print(wording.fitted(line, sys.stdout, indent=" " * 26))
    return 1 if streams.has_failed() else 0


def print_conditions(configs: Sequence[RunConfig]) -> None:
    """Prints which images and kernels the runs get, after a check that the networks take them.

    Raises:
        UsageError: a network does not.
    """
    for line in dict.fromkeys(
        line for config in configs for line in describe(training.load_dataset(config))
    ):
        wording.say(line)
    for config in {(config.model, config.dataset): config for config in configs}.values():
        dataset, device = training.load_dataset(config), devices.resolve(config.device)
        networks.check(config.model, dataset, device)
    wording.say(describe_kernels(configs[0]))
    for line in dict.fromkeys(filter(None, map(learning_rate_drop.too_late, configs))):
        wording.say(f"note: {line}", file=sys.stderr)
    if streams.is_lost() and not streams.has_failed():  # that was said
        wording.say("note: nobody reads the output; training goes on without it", file=sys.stderr)


def describe_finished(finished: int, runs: int) -> str:
    """Returns one line on the runs that are not trained again."""
    if runs == 1:
        return "The run is finished already: skipped"
    are = "is" if finished == 1 else "are"
    return f"{finished} of {runs} runs {are} finished already: skipped"


def describe_stop(
    signum: int, outcomes: Sequence[sweep.Outcome], left: Sequence[RunConfig]
) -> tuple[str, str]:
    """Returns a line on what a signal has ended, and the command that goes on with it."""
    line = f"train_mnist.py: {signal.Signals(signum).name}: "
    if not left:
        return line + "the last run was just finished", ""
    if len(left) == len(outcomes) == 1:
        line += sweep.describe(outcomes[0])
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


def describe(dataset: data.Dataset) -> list[str]:
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


def describe_kernels(config: RunConfig) -> str:
    """Returns one line on the kernels that the runs use on a CPU, and why no faster ones.

    Compiles the kernels if need be, before several processes would want them at once.
    """
    device = devices.describe(devices.resolve(config.device))
    if device != devices.CPU:
        return f"Device: {device}"
    active = kernels.install(config.accelerate)
    if active != kernels.STOCK:
        return f"Kernels: compiled for {active}"
    reason = kernels.why_not() if config.accelerate == "auto" else None
    return f"Kernels: stock Chainer ({reason})" if reason else "Kernels: stock Chainer"


def run(configs: Sequence[RunConfig], arguments: argparse.Namespace) -> list[sweep.Outcome]:
    """Trains a single run with its log on the terminal, several as a sweep."""
    if len(configs) != 1:
        return sweep.run_all(configs, arguments.jobs, arguments.autoload) if configs else []
    outcome = sweep.run_one(
        configs[0],
        lambda: training.train(
            configs[0],
            resume=arguments.resume,
            autoload=arguments.autoload,
            show_progress=True,
        ),
    )
    has_diverged = outcome.entry is not None and "diverged_at" in outcome.entry
    if has_diverged or (outcome.left is not None and not signals.requested()):
        print(sweep.describe(outcome))
    return [outcome]


if __name__ == "__main__":
    command_line.run(
        main,
        program="train_mnist.py",
        if_interrupted="finished runs are kept, and --autoload goes on from the newest snapshot "
        "of the others",
    )
