"""Whole runs of train_mnist.py, as a person starts it: an epoch's time, and a sweep's pace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.environment import ROOT
from mnist_bn.errors import UserError

ACCELERATE = {"stock": "off", "accelerated": "auto"}
# Epochs of the two lengths of run from which a longer one is worked out, and of that one.
SHORT, LONGER, FULL = 1, 3, 20
SWEEP_SEEDS = ("0", "1")


def dataset() -> str:
    """Returns the name of the dataset that whole runs train on."""
    return "mnist" if os.environ.get("MNIST_BN_DATA") else "digits"


def measure_epochs(model_names: list[str], variants: list[str]) -> list[dict]:
    """Measures `train_mnist.py --epoch 3`: returns a dict for each network and variant.

    "epoch_s" is the last epoch's time with its evaluation, "start_s" what the process takes
    besides its epochs.
    """
    results = []
    for model in model_names:
        for variant in variants:
            with tempfile.TemporaryDirectory() as out:
                seconds = _train(variant, out, model, LONGER)
                (log,) = Path(out).glob("*/log")
                elapsed = [entry["elapsed_time"] for entry in json.loads(log.read_bytes())]
            epoch = elapsed[-1] - elapsed[-2]
            results.append(
                {"model": model, "variant": variant, "epoch_s": epoch}
                | {"start_s": seconds - elapsed[-1]}
            )
    return results


def measure_sweep(model: str, variants: list[str]) -> list[dict]:
    """Measures sweeps of two runs: returns a dict for each variant and --jobs 1 and 2.

    "runs_per_hour" is for runs of 20 epochs, worked out from runs of 1 and 3: time = a + b epochs.
    """
    results = []
    for variant in variants:
        for jobs in (1, 2):
            seconds = {}
            for epochs in (SHORT, LONGER):
                with tempfile.TemporaryDirectory() as out:
                    options = ["--seed", *SWEEP_SEEDS, "--jobs", str(jobs)]
                    seconds[epochs] = _train(variant, out, model, epochs, *options)
            per_epoch = (seconds[LONGER] - seconds[SHORT]) / (LONGER - SHORT)
            full = seconds[SHORT] + (FULL - SHORT) * per_epoch
            pace = 3600 * len(SWEEP_SEEDS) / full
            results.append(
                {"model": model, "variant": variant, "jobs": jobs, "runs_per_hour": pace}
                | {"measured_s": seconds}
            )
    return results


def _train(variant: str, out: str, model: str, epochs: int, *options: str) -> float:
    """Returns the seconds from start to end of train_mnist.py's process.

    Raises:
        UserError: it failed.
    """
    command = [sys.executable, "train_mnist.py", "--model", model, "--epoch", str(epochs)]
    command += ["--dataset", dataset(), "--out", out, *options]
    environment = {**os.environ, "MNIST_BN_ACCELERATE": ACCELERATE[variant]}
    start = time.perf_counter()
    process = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    if process.returncode != 0:
        raise UserError(f"train_mnist.py failed (exit status {process.returncode}), see above")
    return time.perf_counter() - start


def print_epochs(results: list[dict]) -> None:
    """Prints an epoch's time, one network and variant a line."""
    print(f"\ntrain_mnist.py on {dataset()}: an epoch with its evaluation, and what is outside")
    for result in results:
        label = f"{result['model']}, {result['variant']}"
        print(f"  {label:42}{result['epoch_s']:8.2f} s{result['start_s']:8.2f} s")


def print_sweep(results: list[dict]) -> None:
    """Prints the pace of sweeps, one variant and number of jobs a line."""
    print(
        f"\ntrain_mnist.py on {dataset()}: runs of {FULL} epochs an hour, worked out from sweeps "
        f"of {len(SWEEP_SEEDS)} runs of {SHORT} and of {LONGER} epochs"
    )
    for result in results:
        label = f"{result['model']}, {result['variant']}, --jobs {result['jobs']}"
        print(f"  {label:48}{result['runs_per_hour']:8.1f}")
