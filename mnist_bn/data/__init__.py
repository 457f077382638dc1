"""Datasets by name: MNIST, and scikit-learn's digits for where there is no network."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from mnist_bn.data import digits, mnist
from mnist_bn.data.dataset import Dataset, Split
from mnist_bn.errors import UsageError

__all__ = ["Dataset", "Split", "load"]


def load(name: str = "auto", data_dir: str | Path | None = None) -> Dataset:
    """Loads "mnist", "digits", or "auto": MNIST where it can be had, otherwise digits.

    Args:
        data_dir: folder of MNIST's IDX files; None is the environment's MNIST_BN_DATA, if set.

    Raises:
        UsageError: there is no dataset `name` or no folder `data_dir`.
        UserError: MNIST cannot be had, or its files in `data_dir` are bad (also for "auto").
    """
    if name == "digits":
        return digits.load()
    if name == "mnist":
        return mnist.load(_existing_folder(data_dir))
    if name == "auto":
        try:
            return mnist.load(_existing_folder(data_dir))
        except mnist.NotAvailableError as error:
            return dataclasses.replace(digits.load(), note=error.reason)
    raise UsageError(f"--dataset {name}: expected auto, mnist or digits")


def _existing_folder(data_dir: str | Path | None) -> Path | None:
    given_by = "--data-dir" if data_dir else "MNIST_BN_DATA"
    path = data_dir or os.environ.get("MNIST_BN_DATA")
    if not path:
        return None
    if not os.path.isdir(path):
        found = "a file" if os.path.exists(path) else "nothing"
        raise UsageError(f"{given_by} {path}: expected a folder of MNIST's files, found {found}")
    return Path(path)
