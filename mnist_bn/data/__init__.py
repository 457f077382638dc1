"""Datasets by name: MNIST, CIFAR-10, and scikit-learn's digits for where there is no network.

A dataset is a module here of the name that stands in `config.DATASETS`, with a `TITLE` and a
`load(folder)`, which returns its Dataset; `folder` is the user's, or None.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
from pathlib import Path

from mnist_bn.config import CIFAR10, DATASETS
from mnist_bn.data import cifar10, digits, mnist
from mnist_bn.data.dataset import Dataset, Split
from mnist_bn.errors import UsageError
from mnist_bn.names.suggestions import suggestion

__all__ = ["Dataset", "Split", "load", "load_once"]

_kept: dict[tuple[str, str | None, bool], Dataset] = {}


def load(
    name: str = "auto", data_dir: str | Path | None = None, unverified: bool = False
) -> Dataset:
    """Loads a dataset by its name; "auto" is MNIST if it can be had, otherwise digits.

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
    if name in CIFAR10:
        folder = _existing_folder(data_dir, cifar10.TITLE)
        return cifar10.load(folder, is_asked=bool(data_dir), unverified=unverified)
    if name == "auto":
        try:
            return mnist.load(_existing_folder(data_dir, mnist.TITLE))
        except mnist.NotAvailableError as error:
            return dataclasses.replace(digits.load(), tried=error.tried)
    if name in DATASETS:
        module = importlib.import_module(f"{__name__}.{name}")
        return module.load(_existing_folder(data_dir, module.TITLE))
    expected = f"{', '.join(DATASETS[:-1])} or {DATASETS[-1]}"
    raise UsageError(f"--dataset {name}: expected {expected}{suggestion(name, DATASETS)}")


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
