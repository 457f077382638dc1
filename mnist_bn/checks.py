"""Checks of what was asked for, before anything is trained or written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mnist_bn import devices, networks, observers, optimizers
from mnist_bn.config import RunConfig
from mnist_bn.errors import UsageError
from mnist_bn.preparation import PreparedRun
from mnist_bn.storage import files
from mnist_bn.trainer import learning_rate_drop


def check_names(configs: Sequence[RunConfig]) -> None:
    """Checks that there is all that the runs name, but for the images.

    Raises:
        UsageError: a network, an optimizer with its settings, an observer, or a device is wrong.
    """
    for model in dict.fromkeys(config.model for config in configs):  # the first that is wrong
        networks.create(model)
    for config in configs:
        settings = config.optimizer, config.lr, config.momentum
        optimizers.check(*settings)
        if config.lr_drop is not None:
            optimizer = optimizers.create(*settings)
            learning_rate_drop.create(config, optimizer)
    observers.check(configs[0].observed)
    devices.resolve(configs[0].device)


def check_files(configs: Sequence[RunConfig], resume: Path | None) -> None:
    """Checks that there are the files to begin with.

    Raises:
        UsageError: one is not there, or a snapshot is to be that of several runs.
    """
    if resume is not None and len(configs) > 1:
        raise UsageError(
            f"--resume goes with one run, and these are {len(configs)}; see --autoload"
        )
    if resume is not None and os.path.isdir(resume):
        raise UsageError(
            f"--resume {resume}: expected a file, its snapshot_iter_N, found a folder; "
            "--autoload finds the newest by itself"
        )
    for flag, path in (("--resume", resume), ("--init", configs[0].init)):
        if path is not None and not os.path.isfile(path):
            raise UsageError(f"{flag} {path}: there is no such file")


def check_cluster(address: str, jobs: int, resume: Path | None) -> None:
    """Checks that Dask is there, and no flag that means nothing beside --cluster.

    Raises:
        UsageError: it is not, or one is.
    """
    from mnist_bn.cluster import client  # which other commands need not wait for

    if jobs != 1:
        raise UsageError(f"--jobs {jobs}: leave it out; a cluster has as many as it has workers")
    if resume is not None:
        raise UsageError("--resume goes without --cluster; see --autoload")
    client.check(address)


def check_networks(runs: Sequence[PreparedRun]) -> None:
    """Checks that the networks take the images of their runs, and have what is observed of them.

    Raises:
        UsageError: one does not.
    """
    for run in {(run.config.model, run.dataset.name): run for run in runs}.values():
        networks.check(run.config.model, run.dataset, run.device)
        if run.config.observed:
            network = networks.create(run.config.model)
            networks.fit_input(network, run.dataset.train)
            network.to_device(run.device)
        for observer in observers.create(run.config.observed, run.dataset, run.device):
            observer.check(network)


def check_folders(runs: Sequence[PreparedRun]) -> None:
    """Checks that the result folders are apart and can be written.

    Raises:
        UserError: two runs would share a folder, or one cannot be made.
    """
    classes_by_folder: dict[str, tuple[str, str]] = {}
    for config in (run.config for run in runs):
        classes = config.model, config.optimizer
        # Some file systems take names that differ in case for the same.
        others = classes_by_folder.setdefault(str(config.folder).casefold(), classes)
        for name, other in zip(classes, others, strict=True):
            if name != other:
                raise UsageError(
                    f"{other} and {name} would share the folder {config.folder}: "
                    "rename one of the classes, or train them with different --out"
                )
    files.make_folder(Path(runs[0].config.out))
