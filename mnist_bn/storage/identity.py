"""Which run it is: what its numbers depend on, and how two runs differ."""

from __future__ import annotations

import platform

import chainer
import numpy as np

from mnist_bn import devices, kernels, networks, optimizers
from mnist_bn.config import LENGTHS, RunConfig, with_rates
from mnist_bn.data import Dataset
from mnist_bn.names import user_files

# Settings that are compared by a checksum, and how to name them to a reader.
_SUMS = {
    "model_sha256": "another version of the network's file",
    "dataset_sha256": "other images",
    "init_sha256": "other parameters to begin with",
}
# The checksums of the user's own files by their names, of which the first imports the others.
_FILES = ("model_files", "optimizer_files")


def of(config: RunConfig, dataset: Dataset) -> dict:
    """Returns what the run's numbers depend on: settings, and checksums of the files they name."""
    model_files = networks.checksums(config.model)
    return {
        **config.identity(),
        "model_files": model_files,
        "model_sha256": user_files.combined(model_files),
        "optimizer_files": optimizers.checksums(config.optimizer),
        "dataset_sha256": dataset.sha256,
    }


def circumstances(device: chainer.backend.Device) -> dict:
    """Returns what rounding depends on: the kernels that are installed, device, versions."""
    cupy = chainer.backends.cuda.cupy if chainer.backends.cuda.available else None
    return {
        "acceleration": kernels.active(),
        "convolution": kernels.convolution_method(),
        "device_name": devices.describe(device),
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "chainer": chainer.__version__,
            "cupy": cupy.__version__ if cupy else None,
        },
    }


def difference(before: dict, now: dict) -> str | None:
    """Returns in words the first setting in which two runs differ, None if they are the same.

    How long they are is no such setting.

    Args:
        before, now: of both runs what their numbers depend on, as from `of`.
    """
    # A run that is older than a setting had its default.
    before = {**RunConfig().to_args(), **before}
    if before["optimizer"] == now.get("optimizer"):  # a file that is named there alone is not run
        before, now = with_rates(before), with_rates(now)
    for name, value in now.items():
        is_unknown = name in _FILES and before.get(name) is None
        if before.get(name) == value or name in LENGTHS or is_unknown:
            continue
        if name in _FILES and isinstance(before[name], dict):
            return _other_file(before[name], value or {})
        if name in _SUMS:
            return f"{_SUMS[name]} (another {name})"
        values = (before.get(name), value)
        was, wanted = ("the default" if value is None else value for value in values)
        return f"{name} {was}, not {wanted}"
    return None


def _other_file(before: dict[str, str], now: dict[str, str]) -> str:
    """Returns in words which of the user's files differs, rather one that is imported."""
    first, *imported = {**now, **before}
    for name in imported:
        if before.get(name) != now.get(name):
            return f"another version of {name}, which {first} imports"
    return f"another version of {first}"
