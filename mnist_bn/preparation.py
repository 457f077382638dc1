"""What a run needs before it is trained, found once: its images, its device, which run it is."""

from __future__ import annotations

import dataclasses
import os
import platform
from dataclasses import dataclass
from pathlib import Path

import chainer
import numpy as np

from mnist_bn import data, devices, gpu, kernels, networks, optimizers, provenance
from mnist_bn.config import RunConfig
from mnist_bn.data import subsets
from mnist_bn.errors import UsageError
from mnist_bn.kernels import threads
from mnist_bn.names import user_files
from mnist_bn.names.specs import NetworkSpec
from mnist_bn.storage import identity
from mnist_bn.trainer import tensorboard


@dataclass(frozen=True, eq=False)
class PreparedRun:
    """A run that is ready to be trained, by this process and now: files of the user's may change.

    Attributes:
        config: with what is found only now in its place: the dataset for "auto", the names of
            classes and the device as they are written, learning rate and momentum for defaults.
        dataset: the images that it trains on and is measured on.
        device: on which it trains.
        identity: what its numbers depend on; see `identity.of`.
        circumstances: what rounding depends on; see `identity.circumstances`.
        provenance: who made it; see `provenance.of_process`.
    """

    config: RunConfig
    dataset: data.Dataset
    device: chainer.backend.Device
    identity: dict
    circumstances: dict
    provenance: dict

    @property
    def folder(self) -> Path:
        """The run's result folder."""
        return self.config.folder

    def install_kernels(self) -> None:
        """Switches the kernels on, or off, as the run wants them."""
        _install_kernels(self.config.accelerate, self.device)
        threads.set_count(int(self.config.threads))

    def to_args(self) -> dict:
        """Returns the JSON object of `args`, but for the run's ID."""
        return {
            **self.config.to_args(),
            **self.identity,
            **self.circumstances,
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            **self.provenance,
        }


def prepare(
    config: RunConfig, *, dataset: data.Dataset | None = None, origin: dict | None = None
) -> PreparedRun:
    """Finds what the run needs.

    Args:
        dataset: images in place of those that the config names.
        origin: the provenance in place of this process's, such as that of the sweep it works for.

    Raises:
        UsageError: a batch is larger than the training set, the images cannot be augmented, or
            there is no such class or device.
        UserError: something else that the user can mend, such as unreadable data.
    """
    dataset = load_dataset(config) if dataset is None else dataset
    _check_images(config, dataset)
    user_files.check_apart(NetworkSpec(config.model).path, NetworkSpec(config.optimizer).path)
    optimizer, lr, momentum = optimizers.resolve(config.optimizer, config.lr, config.momentum)
    config = dataclasses.replace(
        config,
        model=networks.canonical(config.model),
        optimizer=optimizer,
        lr=lr,
        momentum=momentum,
        dataset=dataset.name,
        unverified_data=dataset.is_unverified,
        device=devices.normalized(config.device),
        threads=str(threads.share(config.threads, runs=1)),
    )
    device = devices.resolve(config.device)
    if config.cuda_graph == "on" and device.xp is np:
        raise UsageError("--cuda-graph on: goes with --gpu")
    if config.tensorboard:
        tensorboard.check()
    _install_kernels(config.accelerate, device)
    return PreparedRun(
        config,
        dataset,
        device,
        identity.of(config, dataset),
        identity.circumstances(device),
        provenance.of_process() if origin is None else origin,
    )


def load_dataset(config: RunConfig) -> data.Dataset:
    """Returns the images of the run, read once a process.

    Raises:
        UsageError: there are fewer than the config asks for.
        UserError: they cannot be had.
    """
    return subsets.choose(
        data.load_once(config.dataset, config.data_dir, config.unverified_data),
        train_images=config.train_images,
        test_images=config.test_images,
        holdout=config.holdout,
    )


def _check_images(config: RunConfig, dataset: data.Dataset) -> None:
    count, *shape = dataset.train.shape
    if config.batchsize > count:
        raise UsageError(
            f"--batchsize {config.batchsize}: expected at most {count}, the training images "
            f"of {dataset.name}"
        )
    if config.augment != "none" and len(shape) != 3:
        raise UsageError(
            f"--augment {config.augment}: expected images with rows and columns, as of --dataset "
            f"cifar10; those of {dataset.name} come as rows of {shape[0]}"
        )


def _install_kernels(mode: str, device: chainer.backend.Device) -> None:
    kernels.install(mode if device.xp is np else "off")
    if device.xp is not np:
        gpu.install()
