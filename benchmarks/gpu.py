"""Speed of training on a GPU: stock Chainer on CuPy, our Chainer, and PyTorch.

python benchmarks/gpu.py
python benchmarks/gpu.py --tf32 --batch 100 --json gpu-tf32.json
python benchmarks/gpu.py --roofline
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

# The project's folder: Python puts only benchmarks/ there.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import environment
from benchmarks.arguments import available_variants, make_parser, parse, refuse, run, write_json

if TYPE_CHECKING:
    from chainer.training import Trainer

    from benchmarks.steps import Run, Settings
    from benchmarks.torch_runs import TorchRun
    from mnist_bn.data import Dataset

DEVICE = "@cupy:0"
CHAINER_VARIANTS = ("stock", "ours-no-graph", "ours")
TORCH_VARIANTS = {
    "torch": {},
    "torch-channels-last": {"channels_last": True},
    "torch-compile": {"compiled": "reduce-overhead"},
    "torch-compile-channels-last": {"channels_last": True, "compiled": "reduce-overhead"},
    "torch-graph": {},
    "torch-graph-channels-last": {"channels_last": True},
}
VARIANTS = (*CHAINER_VARIANTS, *TORCH_VARIANTS)
WHAT = ("train", "eval", "epoch")
EPOCHS = 7
TEST_IMAGES = 10_000


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Returns the arguments."""
    batch = [100, 500, 2000]
    parser = make_parser(__doc__, ["MnistCNN_BN_before"], batch, 10, 50, WHAT)
    parser.add_argument(
        "--tf32", action="store_true", help="let every library round factors to TF32 (10 bits)"
    )
    parser.add_argument(
        "--roofline",
        action="store_true",
        help="instead: what a step computes and moves, the card's measured rates (with --tf32, of "
        "TF32 products), and from them an estimate of its time if all comes from main memory",
    )
    arguments = parse(parser, argv)
    if arguments.roofline:
        refuse(parser, argv, ("what", "variants", "repeats", "block"), "--roofline")
    elif set(arguments.what) == {"epoch"}:
        refuse(parser, argv, ("repeats", "block"), "--what epoch")
    return arguments


def main(arguments: argparse.Namespace) -> int:
    """Measures and prints what the arguments ask for, and returns the exit status."""
    return run("gpu.py", measure, arguments)


def measure(arguments: argparse.Namespace) -> None:
    """Measures, prints and writes what the arguments ask for.

    Raises:
        UserError: there is no GPU, an argument is wrong, or MNIST_BN_DATA is.
    """
    from mnist_bn import devices

    devices.resolve(DEVICE)
    about = {**environment.describe(), "gpu": describe_gpu()}
    tf32 = "TF32" if arguments.tf32 else "float32"
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    print(f"{about['gpu']['name']}, {tf32}, CuPy {about['gpu']['cupy']}, {versions}")
    results = measure_roofline(arguments) if arguments.roofline else measure_speed(arguments)
    write_json(arguments, about, results)


def describe_gpu() -> dict:
    """Returns what the GPU is and what drives it, for JSON."""
    import cupy
    from chainer.backends import cuda

    properties = cupy.cuda.runtime.getDeviceProperties(0)
    return {
        "name": properties["name"].decode(),
        "compute_capability": f"{properties['major']}.{properties['minor']}",
        "multiprocessors": properties["multiProcessorCount"],
        "memory_bytes": properties["totalGlobalMem"],
        "l2_bytes": properties["l2CacheSize"],
        "driver_cuda": cupy.cuda.runtime.driverGetVersion(),
        "runtime_cuda": cupy.cuda.runtime.runtimeGetVersion(),
        "cupy": cupy.__version__,
        "cudnn": cuda.cuda.cudnn.getVersion() if cuda.cudnn_enabled else None,
    }


def measure_roofline(arguments: argparse.Namespace) -> list[dict]:
    """Each network's step at each batch size, at the rates that the card is measured to have."""
    from benchmarks import roofline

    rates = roofline.measure_rates()
    print(f"matrix product {rates.flops / 1e12:.1f} TFLOP/s, copy {rates.bytes / 1e12:.2f} TB/s")
    results = [{"rates": dataclasses.asdict(rates)}]
    for model in arguments.model:
        for batchsize in arguments.batch:
            results.append(roofline.summarize(model, batchsize, rates))
            roofline.print_table(results[-1])
    return results


def measure_speed(arguments: argparse.Namespace) -> list[dict]:
    """Training steps, evaluation and whole epochs of each network and batch size."""
    from benchmarks import steps

    variants = available_variants(arguments.variants, VARIANTS, why_missing())
    of_steps = [what for what in arguments.what if what != "epoch"]
    settings = steps.Settings(variants, of_steps, arguments.repeats, arguments.block)
    results = []
    with tempfile.TemporaryDirectory() as out:
        for batchsize, model in itertools.product(arguments.batch, arguments.model):
            if of_steps:
                results += measure_steps(model, batchsize, settings, out)
            if "epoch" in arguments.what:
                results += measure_epochs(model, batchsize, variants, out)
    return [{"tf32": arguments.tf32, **result} for result in results]


def measure_steps(model: str, batchsize: int, settings: Settings, out: str) -> list[dict]:
    """Returns the times of a training step and of an evaluation batch."""
    from benchmarks import chainer_runs, steps

    dataset = chainer_runs.load_dataset(batchsize * settings.block)
    make = functools.partial(make_run, out=out)
    print(f"Images: {dataset.origin}")
    results = steps.measure(model, batchsize, dataset, settings, make)
    steps.print_table(results)
    return [{"data": dataset.origin, **result} for result in results]


def why_missing() -> dict[str, str]:
    """Returns the variants that cannot run here, with the reason in one line."""
    try:
        import torch
    except ImportError:
        return dict.fromkeys(TORCH_VARIANTS, "PyTorch is not installed here")
    if torch.cuda.is_available():
        return {}
    return dict.fromkeys(TORCH_VARIANTS, "this PyTorch finds no GPU")


def make_run(variant: str, model: str, batchsize: int, dataset: Dataset, out: str) -> Run:
    """Returns the run of one of VARIANTS; `out` is the folder for what the Trainers write."""
    import mnist_bn.gpu
    from benchmarks import chainer_runs, device_clock
    from mnist_bn import kernels

    if variant in CHAINER_VARIANTS:
        trainer = build_trainer(variant, model, batchsize, dataset, out, 10**6)
        switch = kernels.uninstall if variant == "stock" else mnist_bn.gpu.install
        return chainer_runs.ChainerRun(trainer, switch, device_clock.cupy_clock)
    return make_torch_run(variant, model, batchsize, dataset)


def make_torch_run(variant: str, model: str, batchsize: int, dataset: Dataset) -> TorchRun:
    """Returns the run of one of TORCH_VARIANTS."""
    from benchmarks import device_clock
    from benchmarks.torch_runs import TorchGraphRun, TorchRun

    run = TorchGraphRun if variant.startswith("torch-graph") else TorchRun
    clock, options = device_clock.torch_clock, TORCH_VARIANTS[variant]
    return run(model, dataset, batchsize, clock, **options, device="cuda")


def build_trainer(
    variant: str, model: str, batchsize: int, dataset: Dataset, out: str, epochs: int
) -> Trainer:
    """Returns the project's Trainer on the GPU; "stock" has Chainer's own iterators."""
    from benchmarks import chainer_runs
    from mnist_bn import kernels
    from mnist_bn.config import RunConfig

    folder = f"{out}/{variant}-{epochs}"
    config = RunConfig(
        model, batchsize=batchsize, dataset="mnist", epoch=epochs, device=DEVICE, out=folder,
        cuda_graph="auto" if variant == "ours" else "off",
    )  # fmt: skip
    trainer = chainer_runs.build_trainer(config, dataset)
    if variant == "stock":
        kernels.uninstall()
        chainer_runs.feed_as_stock(trainer, dataset, batchsize)
    return trainer


def measure_epochs(model: str, batchsize: int, variants: list[str], out: str) -> list[dict]:
    """Returns seconds an epoch, from its first batch until its evaluation is known."""
    from benchmarks import chainer_runs

    dataset = chainer_runs.load_dataset(TEST_IMAGES)
    results = []
    print(
        f"\n{model}, batch {batchsize}, on {dataset.origin}: an epoch with its evaluation, median"
    )
    for variant in variants:
        if variant in CHAINER_VARIANTS:
            trainer = build_trainer(variant, model, batchsize, dataset, out, EPOCHS)
            seconds = chainer_runs.epoch_seconds(trainer)
        else:
            run = make_torch_run(variant, model, batchsize, dataset)
            seconds = [run.epoch() for _ in range(EPOCHS)][2:]
            run.close()
        results.append(
            {"data": dataset.origin, "model": model, "batch": batchsize, "what": "epoch"}
            | {"variant": variant, "s": statistics.median(seconds), "all_s": seconds}
        )
        print(f"    {variant:26}{results[-1]['s']:18.3f} s")
    return results


def variables(tf32: bool) -> dict[str, str]:
    """Returns the environment for one thread, and for TF32 in all libraries or in none."""
    switches = dict.fromkeys(("NVIDIA_TF32_OVERRIDE", "CUPY_TF32"), str(int(tf32)))
    return environment.ONE_THREAD | switches


def configure_torch(tf32: bool) -> None:
    """Sets PyTorch's own switches: TF32 everywhere or nowhere, and cuDNN's fastest algorithms.

    By default it rounds for cuDNN but not for matrices, and takes the algorithms that cuDNN guesses
    to be fast; here cuDNN tries them out.
    """
    try:
        import torch
    except ImportError:
        return
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = True


if __name__ == "__main__":
    arguments = parse_arguments()
    environment.restart_with(variables(arguments.tf32))
    configure_torch(arguments.tf32)
    sys.exit(main(arguments))
