"""Training steps and evaluation batches of all variants, in turns, with their spread."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from benchmarks import chainer_runs
from mnist_bn import kernels
from mnist_bn.config import RunConfig
from mnist_bn.data import Dataset
from mnist_bn.errors import UsageError

REFERENCE = "torch"
TORCH_VARIANTS = {
    "torch": {},
    "torch-channels-last": {"channels_last": True},
    "torch-compile": {"compiled": "default"},
    "torch-compile-channels-last": {"channels_last": True, "compiled": "default"},
}
# The named networks on stock Chainer and on ours, also on one thread; the blog's own text on ours
CHAINER_VARIANTS = ("stock", "accelerated", "one-thread", "verbatim")
JAX = "jax"
VARIANTS = (*CHAINER_VARIANTS, *TORCH_VARIANTS, JAX)
BLOG = Path(__file__).parent / "blog.py"


@dataclass(frozen=True)
class Settings:
    """How a measurement is made.

    Attributes:
        variants: names out of VARIANTS.
        what: "train", "eval" or both.
        repeats: rounds, in each of which every variant has its turn.
        block: steps a turn.
    """

    variants: list[str]
    what: list[str]
    repeats: int
    block: int


class Run(Protocol):
    """Training and evaluation of a network, for as many steps as asked."""

    def train(self, steps: int) -> float:
        """Trains one step that is not timed and `steps` that are: returns seconds a step."""

    def evaluate(self, steps: int) -> float:
        """Evaluates the network on `steps` batches of test images: returns seconds a batch."""

    def close(self) -> None:
        """Gives back what it holds."""


# Makes the run of a variant, of a network (class name), at a batch size, on a dataset.
MakeRun = Callable[[str, str, int, Dataset], Run]


def why_missing() -> dict[str, str]:
    """Returns the variants that cannot run here, with the reason in one line."""
    reasons = {}
    if (reason := kernels.why_not()) is not None:
        reasons |= dict.fromkeys(CHAINER_VARIANTS[1:], reason)
    if importlib.util.find_spec("torch") is None:
        reasons |= dict.fromkeys(TORCH_VARIANTS, "PyTorch is not installed here")
    if any(importlib.util.find_spec(name) is None for name in ("jax", "flax", "optax")):
        reasons[JAX] = "JAX, Flax and Optax are not installed here"
    return reasons


def measure(
    model: str, batchsize: int, dataset: Dataset, settings: Settings, make_run: MakeRun
) -> list[dict]:
    """Measures one network at one batch size: returns a dict for each variant, for JSON."""
    runs = {variant: make_run(variant, model, batchsize, dataset) for variant in settings.variants}
    try:
        times = _in_turns(runs, settings)
    finally:
        for run in runs.values():
            run.close()
    results = []
    for what in settings.what:
        results += [
            {"model": model, "batch": batchsize, "what": what, **summary}
            for summary in summarize(times[what])
        ]
    return results


def make_cpu_run(
    variant: str,
    model: str,
    batchsize: int,
    dataset: Dataset,
    clock: Callable[[], float],
    out: str,
    threads: int,
    optimizer: str = "Adam",
) -> Run:
    """Returns the run of one of VARIANTS.

    Args:
        clock: returns seconds.
        out: folder for what the Trainers write.
        threads: of all variants but "one-thread"; stock Chainer's are those of BLAS.
        optimizer: "Adam" or "SGD".
    """
    if variant in TORCH_VARIANTS:
        from benchmarks.torch_runs import TorchRun

        options = TORCH_VARIANTS[variant]
        options = {**options, "threads": threads, "optimizer": optimizer}
        return TorchRun(model, dataset, batchsize, clock, **options)
    if variant == JAX:
        from benchmarks import jax_runs

        if model not in jax_runs.NETWORKS or threads > 1:
            raise UsageError(
                f"--variants {JAX}: it has the blog's four networks, on one thread; "
                "leave it out, or --model and --threads"
            )
        return jax_runs.JaxRun(model, dataset, batchsize, clock, optimizer)
    if variant == "verbatim":
        model = f"{BLOG}:{model}"
    config = RunConfig(model=model, batchsize=batchsize, dataset=dataset.name, epoch=10**6)
    config = replace(config, optimizer=optimizer, out=f"{out}/{variant}")
    trainer = chainer_runs.build_trainer(config, dataset)
    own = 1 if variant == "one-thread" else threads
    return chainer_runs.ChainerRun(
        trainer, functools.partial(chainer_runs.switch, variant != "stock", own), clock
    )


def _in_turns(runs: dict[str, Run], settings: Settings) -> dict[str, dict[str, list[float]]]:
    """Returns what -> variant -> seconds a step, a number a round; a first round warms up."""
    times = {what: {variant: [] for variant in runs} for what in settings.what}
    for _ in range(1 + settings.repeats):
        for what in settings.what:
            for variant, run in runs.items():
                measure_block = run.train if what == "train" else run.evaluate
                times[what][variant].append(measure_block(settings.block))
    return {what: {v: seconds[1:] for v, seconds in t.items()} for what, t in times.items()}


def summarize(times: dict[str, list[float]]) -> list[dict]:
    """Returns median, percentiles and speed relative to PyTorch and stock of each variant.

    A ratio is taken within each round, so that what slows the machine for a while slows both of
    its sides; it is above 1 if the variant is faster.

    Args:
        times: variant -> seconds a step, a number a round.
    """
    summaries = []
    for variant, seconds in times.items():
        summary = {"variant": variant, "ms": _spread(1e3 * np.array(seconds))}
        for key, other in (("times_torch", REFERENCE), ("times_stock", "stock")):
            if other in times:
                summary[key] = _spread(np.array(times[other]) / np.array(seconds))
        summaries.append(summary)
    return summaries


def _spread(values: np.ndarray) -> dict[str, float]:
    p10, median, p90 = np.percentile(values, [10, 50, 90])
    return {"median": float(median), "p10": float(p10), "p90": float(p90)}


def print_table(results: list[dict]) -> None:
    """Prints the results of one network and batch size."""
    first = results[0]
    print(f"\n{first['model']}, batch {first['batch']} (median, 10th to 90th percentile)")
    for what in dict.fromkeys(result["what"] for result in results):
        print(f"  {what:28}{'ms':>22}{'images/s':>10}{'x torch':>22}{'x stock':>22}")
        for result in results:
            if result["what"] == what:
                rate = 1e3 * result["batch"] / result["ms"]["median"]
                ratios = [_format(result.get(key)) for key in ("times_torch", "times_stock")]
                print(
                    f"    {result['variant']:26}{_format(result['ms']):>22}{rate:10.0f}"
                    f"{ratios[0]:>22}{ratios[1]:>22}"
                )


def _format(spread: dict[str, float] | None) -> str:
    if spread is None:
        return "-"
    return f"{spread['median']:.2f} ({spread['p10']:.2f}-{spread['p90']:.2f})"
