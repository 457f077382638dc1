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
    import sys
    from collections.abc import Sequence
    from pathlib import Path

    from mnist_bn.terminal import command_line, flags, wording

ENDING = {
    "program": "train_mnist.py",
    "if_interrupted": "finished runs are kept, and --autoload goes on from the newest snapshot "
    "of the others",
}


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Returns the arguments; a setting of the run that was not given is absent."""
    parser = command_line.Parser(
        usage="%(prog)s [--model NAME ...] [--optimizer NAME ...] [other flags]",
        description=wording.named(__doc__),
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    flags.add_further(flags.add(parser))
    parser.set_defaults(study=None)
    return parser.parse_args(argv)


if __name__ == "__main__":
    command_line.check(parse_arguments, **ENDING)  # before what takes half a second to import

with door.importing(__name__):
    from mnist_bn import checks, dry_run, finished, report, studies, sweep, training
    from mnist_bn.config import RunConfig, grid
    from mnist_bn.errors import UsageError
    from mnist_bn.trainer import signals
    from mnist_bn.training import PreparedRun


def make_configs(arguments: argparse.Namespace) -> list[RunConfig]:
    """Returns the runs that the arguments ask for, checked as far as can be before training.

    Raises:
        UsageError: a name or value is wrong.
    """
    given = flags.given(arguments)
    if given.pop("study") is not None:
        configs = studies.asked_for(arguments.study, arguments.preset, given)
    elif arguments.preset is not None:
        raise UsageError(f"--preset {arguments.preset} goes with --study")
    else:
        configs = grid(given)
    if given.get("dataset") == "digits" and "data_dir" in given:
        raise UsageError(
            "--data-dir is for MNIST's or CIFAR-10's files: leave it out for --dataset digits"
        )
    checks.check_names(configs)
    if arguments.jobs < 1:
        raise UsageError(f"--jobs {arguments.jobs}: expected 1 or more")
    if arguments.cluster is not None:
        checks.check_cluster(arguments.cluster, arguments.jobs, arguments.resume)
    checks.check_files(configs, arguments.resume)
    return configs


def prepare(configs: Sequence[RunConfig], is_dry: bool = False) -> list[PreparedRun]:
    """Prepares the runs, without those that were named twice (SGD and sgd), and checks them.

    Args:
        is_dry: nothing will be written, and it does not matter whether it can be.

    Raises:
        UserError: one cannot be trained.
    """
    report.print_images(configs)
    runs = list({run.config: run for run in map(training.prepare, configs)}.values())
    checks.check_networks(runs)
    report.print_conditions(runs)
    if not is_dry:
        checks.check_folders(runs)
    return runs


def without_finished(runs: Sequence[PreparedRun], resume: Path | None) -> list[PreparedRun]:
    """Returns the runs that are to be trained; a line says how many are finished.

    Raises:
        UserError: the one to resume is, or a folder holds another run.
    """
    waiting = [run for run in runs if not finished.is_finished(run)]
    done = [run for run in runs if run not in waiting]
    if line := finished.longer_than_asked(done):
        wording.say(f"note: {line}", file=sys.stderr)
    if done and resume is not None:
        raise UsageError(f"--resume: {runs[0].folder} is finished; more epochs are -e N")
    if done:
        wording.say(report.describe_finished(len(done), len(runs)))
    return waiting


def print_dry_run(runs: Sequence[PreparedRun], arguments: argparse.Namespace) -> int:
    """Prints what would be trained, and returns the exit status."""
    waiting = without_finished(runs, arguments.resume)
    finished = len(runs) - len(waiting)
    for line in dry_run.report(waiting, finished, arguments.jobs, arguments.autoload):
        wording.say(line)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Carries out the command line and returns the exit status."""
    arguments = parse_arguments(argv)
    if arguments.list_models:
        return report.list_models()
    runs = prepare(make_configs(arguments), arguments.dry_run)
    if arguments.dry_run:
        return print_dry_run(runs, arguments)
    if hasattr(study := arguments.study and studies.get(arguments.study), "measure"):
        study.measure(Path(runs[0].config.out))
    waiting = without_finished(runs, arguments.resume)
    outcomes = sweep.train(
        waiting, arguments.jobs, arguments.autoload, arguments.resume, arguments.cluster
    )
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    # A failed run says more than one that was refused as it was asked for.
    status = min((outcome.status for outcome in failed), default=0)
    if failed:
        report.print_failed(failed, len(waiting))
    if signum := signals.requested():
        report.print_stop(signum, outcomes, [run.config for run in waiting])
        return status or signals.exit_status(signum)
    if len(failed) < len(runs):
        report.print_results(runs)
    return status


if __name__ == "__main__":
    command_line.run(main, **ENDING)
