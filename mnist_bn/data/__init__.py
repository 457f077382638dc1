"""Datasets by name: MNIST, CIFAR-10, and scikit-learn's digits for where there is no network."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from mnist_bn.data import cifar10, digits, mnist
from mnist_bn.data.dataset import Dataset, Split
from mnist_bn.errors import UsageError
from mnist_bn.names.suggestions import suggestion

__all__ = ["Dataset", "Split", "load", "load_once"]

_kept: dict[tuple[str, str | None, bool], Dataset] = {}


def load(
    name: str = "auto", data_dir: str | Path | None = None, unverified: bool = False
) -> Dataset:
    """Loads "mnist", "cifar10", "digits", or "auto": MNIST where it can be had, otherwise digits.

    Args:
        data_dir: folder of the dataset's files; None is the environment's MNIST_BN_DATA, if set.
        unverified: of CIFAR-10, take files that no checksum is known of. "cifar10-unverified", the
            name that such a dataset has, is as good as "cifar10" here.

    Raises:
        UsageError: there is no dataset `name`, no folder `data_dir`, or nothing of CIFAR-10 in it.
        UserError: the dataset cannot be had, or its files in `data_dir` are bad (of MNIST also for
            "auto").
    """
    if name == "digits":
        return digits.load()
    if name in ("cifar10", "cifar10-unverified"):
        folder = _existing_folder(data_dir, "CIFAR-10")
        return cifar10.load(folder, is_asked=bool(data_dir), unverified=unverified)
    if name == "mnist":
        return mnist.load(_existing_folder(data_dir, "MNIST"))
    if name == "auto":
        try:
            return mnist.load(_existing_folder(data_dir, "MNIST"))
        except mnist.NotAvailableError as error:
            return dataclasses.replace(digits.load(), tried=error.tried)
    known = ("auto", "mnist", "digits", "cifar10")
    raise UsageError(
        f"--dataset {name}: expected auto, mnist, digits or cifar10{suggestion(name, known)}"
    )


def load_once(name: str = "auto", data_dir: str | None = None, unverified: bool = False) -> Dataset:
    """Returns what `load` does; a process reads it once, however many runs it trains.

    One dataset is kept, by what it was asked for with and by its own name.
    """
    key = name, data_dir, unverified
    if key not in _kept:
        dataset = load(*key)
        _kept.clear()
        _kept[dataset.name, data_dir, dataset.is_unverified] = _kept[key] = dataset
    return _kept[key]


def _existing_folder(data_dir: str | Path | None, dataset: str) -> Path | None:
    given_by = "--data-dir" if data_dir else "MNIST_BN_DATA"
    path = data_dir or os.environ.get("MNIST_BN_DATA")
    if not path:
        return None
    if not os.path.isdir(path):
        found = "a file" if os.path.exists(path) else "nothing"
        raise UsageError(
            f"{given_by} {path}: expected a folder of {dataset}'s files, found {found}"
        )
    return Path(path)
