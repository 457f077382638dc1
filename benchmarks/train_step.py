"""Speed of training on a CPU: stock Chainer, accelerated Chainer and PyTorch.

python benchmarks/train_step.py
python benchmarks/train_step.py --threads 2
python benchmarks/train_step.py --model MnistCNN_BN_before --batch 100 32 500 --json speed.json
python benchmarks/train_step.py --kernels
python benchmarks/train_step.py --convolutions 100 --clock cpu --repeats 5
"""

from __future__ import annotations

import argparse
import cProfile
import functools
import itertools
import pstats
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

# The project's folder: Python puts only benchmarks/ there.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import environment
from benchmarks.arguments import (
    MODELS,
    OF_OTHER_STUDIES,
    OPTIMIZERS,
    available_variants,
    make_parser,
    parse,
    refuse,
    run,
    write_json,
)

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
# What each measurement of another kind leaves aside.
WITHOUT_EFFECT = {
    "kernels": ("model", "optimizer", "what", "block", "threads"),
    "convolutions": ("model", "optimizer", "batch", "what", "variants", "block", "threads"),
    "profile": ("what", "clock", "json", "threads"),
    "epoch": ("optimizer", "batch", "what", "repeats", "block", "clock", "threads"),
    "sweep": ("optimizer", "batch", "what", "repeats", "block", "clock", "threads"),
}


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Returns the arguments."""
    parser = make_parser(
        __doc__, MODELS, batch=[100], repeats=20, block=10, others=OF_OTHER_STUDIES
    )
    parser.add_argument(
        "--optimizer", nargs="+", choices=OPTIMIZERS, default=["Adam"], help="(default Adam)"
    )
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="cpu: time on the CPU only, for a machine that others use too (default wall)",
    )
    parser.add_argument("--isa", choices=("avx2",), help="keep every variant to these instructions")
    parser.add_argument("--cpu", type=int, metavar="N", help="run on this CPU only")
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        metavar="N",
        help="of every variant but one-thread, in steps and evaluation (default 1)",
    )
    group = parser.add_argument_group("instead of training steps and evaluation")
    instead = group.add_mutually_exclusive_group()
    instead.add_argument("--kernels", action="store_true", help="time of each function")
    instead.add_argument(
        "--convolutions",
        type=int,
        metavar="N",
        help="where kernels are slower than stock: N random convolutions",
    )
    instead.add_argument("--profile", action="store_true", help="Python's profile of the steps")
    instead.add_argument("--epoch", action="store_true", help="an epoch of train_mnist.py")
    instead.add_argument("--sweep", action="store_true", help="runs an hour of a sweep")
    arguments = parse(parser, argv)
    if arguments.threads < 1:
        parser.error("--threads: expected 1 or more")
    if arguments.threads > 1 and arguments.clock == "cpu":
        parser.error("--threads: several share the work, not the CPU time; measure --clock wall")
    if arguments.convolutions is not None and arguments.convolutions < 1:
        parser.error("--convolutions: expected 1 or more")
    for measurement, without_effect in WITHOUT_EFFECT.items():
        if getattr(arguments, measurement):
            refuse(parser, argv, without_effect, f"--{measurement}")
    return arguments


def main(arguments: argparse.Namespace) -> int:
    """Measures and prints what the arguments ask for, and returns the exit status."""
    return run("train_step.py", measure, arguments)


def measure(arguments: argparse.Namespace) -> None:
    """Measures, prints and writes what the arguments ask for.

    Raises:
        UserError: an argument is wrong, or MNIST_BN_DATA is.
    """
    from benchmarks import steps

    arguments.variants = available_variants(arguments.variants, steps.VARIANTS, steps.why_missing())
    about = environment.describe()
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    threads = "one thread" if arguments.threads == 1 else f"{arguments.threads} threads"
    print(f"{about['machine']['cpu']}, {threads}, {arguments.clock} time, {versions}")
    results = _measure(arguments)
    write_json(arguments, about, results)


def _measure(arguments: argparse.Namespace) -> list[dict]:
    from mnist_bn.errors import UsageError

    if arguments.kernels:
        return measure_kernels(arguments)
    if arguments.convolutions:
        return measure_convolutions(arguments)
    if not (arguments.profile or arguments.epoch or arguments.sweep):
        return measure_steps(arguments)
    chainer_variants = [name for name in arguments.variants if name in ("stock", "accelerated")]
    if not chainer_variants:
        raise UsageError("--profile, --epoch and --sweep: expected stock or accelerated to measure")
    if arguments.profile:
        for of in itertools.product(arguments.model, arguments.batch, arguments.optimizer):
            profile(*of, arguments.repeats * arguments.block, chainer_variants[-1])
        return []
    return measure_whole_runs(arguments, chainer_variants)


def measure_steps(arguments: argparse.Namespace) -> list[dict]:
    """Training steps and evaluation of each network and batch size."""
    from benchmarks import chainer_runs, steps

    results = []
    settings = steps.Settings(
        arguments.variants, arguments.what, arguments.repeats, arguments.block
    )
    clock = CLOCKS[arguments.clock]
    with tempfile.TemporaryDirectory() as out:
        for batchsize, model in itertools.product(arguments.batch, arguments.model):
            dataset = chainer_runs.load_dataset(batchsize * arguments.block, model)
            for optimizer in arguments.optimizer:
                make_run = functools.partial(
                    steps.make_cpu_run,
                    **{"clock": clock, "out": out, "threads": arguments.threads},
                    optimizer=optimizer,
                )
                measured = steps.measure(model, batchsize, dataset, settings, make_run)
                print(f"\n{optimizer}, {dataset.origin}", end="")
                steps.print_table(measured)
                about = {"data": dataset.origin, "optimizer": optimizer}
                results += [{**about, **result} for result in measured]
    return results


def measure_kernels(arguments: argparse.Namespace) -> list[dict]:
    """Each function of the networks, and of others, at each batch size."""
    from benchmarks import kernels

    results = []
    how = arguments.variants, arguments.repeats, CLOCKS[arguments.clock]
    for batchsize in arguments.batch:
        ours = kernels.measure(kernels.operations(batchsize), *how) + kernels.measure_adam(*how)
        kernels.print_table(ours, batchsize, "the blog's networks")
        others = kernels.measure(kernels.further_operations(batchsize), *how)
        kernels.print_table(others, batchsize, "other people's networks")
        results += [{"batch": batchsize, **result} for result in (*ours, *others)]
    return results


def measure_convolutions(arguments: argparse.Namespace) -> list[dict]:
    """Random convolutions on accelerated and on stock Chainer."""
    from benchmarks import convolutions
    from mnist_bn.errors import UserError

    if "accelerated" not in arguments.variants:
        raise UserError("--convolutions: there are no kernels here to compare with stock Chainer")
    clock = CLOCKS[arguments.clock]
    measured = convolutions.measure(arguments.convolutions, arguments.repeats, clock)
    convolutions.print_table(measured)
    return measured


def measure_whole_runs(arguments: argparse.Namespace, variants: list[str]) -> list[dict]:
    """train_mnist.py in processes of its own: an epoch, or a sweep."""
    from benchmarks import whole_runs

    if arguments.epoch:
        results = whole_runs.measure_epochs(arguments.model, variants)
        whole_runs.print_epochs(results)
    else:
        results = [
            result
            for model in arguments.model
            for result in whole_runs.measure_sweep(model, variants)
        ]
        whole_runs.print_sweep(results)
    return results


def profile(model: str, batchsize: int, optimizer: str, steps: int, variant: str) -> None:
    """Prints where Python spends training steps of `variant`, the 30 largest first."""
    from chainer.training import get_trigger

    from benchmarks import chainer_runs
    from mnist_bn.config import RunConfig

    dataset = chainer_runs.load_dataset(batchsize, model)
    with tempfile.TemporaryDirectory() as out:
        config = RunConfig(
            model=model, batchsize=batchsize, optimizer=optimizer, dataset=dataset.name, out=out
        )
        trainer = chainer_runs.build_trainer(config, dataset)
        trainer.stop_trigger = get_trigger((steps, "iteration"))
        chainer_runs.switch(variant == "accelerated")
        profiler = cProfile.Profile()
        profiler.runcall(trainer.run)
    print(f"{model}, {optimizer}, batch {batchsize}, {variant}, {trainer.updater.iteration} steps")
    pstats.Stats(profiler).sort_stats("tottime").print_stats(30)


if __name__ == "__main__":
    arguments = parse_arguments()
    environment.restart_with(environment.ONE_THREAD | environment.RESTRICTIONS[arguments.isa])
    if arguments.cpu is not None:
        environment.pin_to(arguments.cpu)
    sys.exit(main(arguments))
