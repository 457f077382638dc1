"""The one way a run is made: RunConfig in, trained network and result folder out."""

from __future__ import annotations

import dataclasses
import os
import platform
import random
from pathlib import Path

import chainer
import chainer.links as L
import numpy as np
from chainer.optimizer_hooks import WeightDecay
from chainer.training import Trainer
from chainer.training.updaters import StandardUpdater
from threadpoolctl import threadpool_limits

from mnist_bn import (
    accelerate,
    data,
    devices,
    files,
    locks,
    optimizers,
    parameters,
    schedule,
    semantics,
    signals,
    snapshots,
    user_models,
)
from mnist_bn.config import RunConfig
from mnist_bn.data import augmentation, subsets
from mnist_bn.errors import UsageError, UserError
from mnist_bn.extensions import learning_rate_drop, observers
from mnist_bn.extensions.checkpoint import Checkpoint
from mnist_bn.extensions.divergence import Divergence, IntervalOrDivergence
from mnist_bn.extensions.dump_graph import DumpGraph
from mnist_bn.extensions.log_report import LogReport
from mnist_bn.extensions.plot_report import PlotReport
from mnist_bn.extensions.print_report import PrintReport
from mnist_bn.extensions.progress_bar import ProgressBar
from mnist_bn.iterators import ORDERS, make_iterator, send_batch

QUANTITIES = ("loss", "accuracy")


def train(
    config: RunConfig,
    *,
    resume: Path | None = None,
    autoload: bool = False,
    show_progress: bool = False,
) -> dict:
    """Trains as `config` says and writes the result folder `config.folder`.

    A signal (SIGINT, SIGTERM) ends the run with a snapshot; see `signals`.

    Args:
        resume: a snapshot to go on from.
        autoload: go on from the newest usable snapshot in the result folder, if there is one.
        show_progress: print the log and a progress bar.

    Returns:
        The last entry of the log: its keys are Chainer's, such as "validation/main/accuracy", and
        "diverged_at" for a run that diverged.

    Raises:
        UserError: something the user can mend, such as a wrong name, unreadable data, a full disk.
        signals.Stopped: a signal ended the run.
    """
    config = resolve(config)
    folder = config.folder
    files.make_folder(folder)
    with locks.hold(folder), signals.deferred():
        files.remove_unfinished(folder)
        trainer = build_trainer(config, show_progress=show_progress)
        _resume(trainer, config, resume, autoload)
        # A run that starts anew is not finished, whatever it has been: model.npz says that it is.
        files.remove(folder / "model.npz")
        files.remove(folder / "error.txt")
        # Of an earlier run here; what this one goes on with is in its snapshot.
        for name in observers.observers():
            files.remove(folder / f"{name}.npz")
        files.write_json(folder / "args", describe_run(config))
        # One thread: the bits then do not depend on the machine's cores or on how many runs share
        # them. A loss that overflows is a result, and the log has it: NumPy need not warn of it.
        with threadpool_limits(1), np.errstate(all="ignore"):
            trainer.run(show_loop_exception_msg=False)
        return _finish(trainer, config)


def _resume(trainer: Trainer, config: RunConfig, resume: Path | None, autoload: bool) -> None:
    """Brings the trainer to the snapshot that was asked for, if any."""
    run = trainer.get_extension("Checkpoint").run
    if resume is not None:
        snapshot = snapshots.read(resume)
        snapshots.check_same_run(snapshot, run)
    else:
        snapshot = snapshots.newest_usable(config.folder, run) if autoload else None
    if snapshot is None:
        return
    snapshots.load(snapshot, trainer)
    length, unit = schedule.length(config)
    updater = trainer.updater
    # Epochs are counted when they end, and their last batch may reach into the next.
    is_within = unit == "epoch" and not updater.is_new_epoch
    if getattr(updater, unit) + is_within > length:
        reached = f"{updater.epoch_detail:.2f}" if unit == "epoch" else updater.iteration
        raise UsageError(f"{snapshot.path} is of {unit} {reached}: --{unit} must not be below that")
    snapshots.note_other_circumstances(snapshot, run)
    trainer.get_extension("Checkpoint").resumed_from = snapshot
    # The run may have been killed before or after it wrote its log: the snapshot's is what counts.
    trainer.get_extension("LogReport").write(trainer)


def _finish(trainer: Trainer, config: RunConfig) -> dict:
    """Writes the last files of a run; returns the last entry of its log."""
    for quantity in QUANTITIES:
        trainer.get_extension(f"PlotReport {quantity}.png").draw(trainer)
    diverged_at = trainer.get_extension("Divergence").diverged_at
    if diverged_at is not None and config.on_divergence == "fail":
        raise UserError(
            f"{config.folder}: diverged at iteration {diverged_at['iteration']} (training loss "
            f"{diverged_at['value']:g}); try a lower --lr, or keep it with --on-divergence stop"
        )
    network = trainer.updater.get_optimizer("main").target.predictor
    parameters.save(config.folder / "model.npz", network)
    entry = trainer.get_extension("LogReport").log[-1]
    return entry if diverged_at is None else {**entry, "diverged_at": diverged_at}


def resolve(config: RunConfig) -> RunConfig:
    """Returns `config` with the name of the dataset that was found, in place of "auto", say.

    Raises:
        UsageError: a batch is larger than the training set, or the images cannot be augmented.
    """
    dataset = load_dataset(config)
    images = len(dataset.train.labels)
    if config.batchsize > images:
        raise UsageError(
            f"--batchsize {config.batchsize}: expected at most {images}, the training images of "
            f"{dataset.name}"
        )
    if config.augment != "none" and dataset.train.images.ndim != 4:
        raise UsageError(
            f"--augment {config.augment}: expected images with rows and columns, as of --dataset "
            f"cifar10; those of {dataset.name} come as rows of {dataset.train.images.shape[1]}"
        )
    # The flag changes nothing where the files are the official ones.
    unverified = _is_unverified(dataset)
    return dataclasses.replace(config, dataset=dataset.name, unverified_data=unverified)


def _is_unverified(dataset: data.Dataset) -> bool:
    return dataset.name == "cifar10-unverified"


def load_dataset(config: RunConfig) -> data.Dataset:
    """Returns the images of the run, read once a process.

    Raises:
        UsageError: there are fewer than the config asks for.
    """
    key = (config.dataset, config.data_dir, config.unverified_data)
    if key not in _loaded:
        dataset = data.load(*key)
        _loaded.clear()
        # Under its own name too: `resolve` puts that in place of the one asked for.
        its_own = (dataset.name, config.data_dir, _is_unverified(dataset))
        _loaded.update({key: dataset, its_own: dataset})
    return subsets.choose(
        _loaded[key],
        train_images=config.train_images,
        test_images=config.test_images,
        holdout=config.holdout,
    )


_loaded: dict[tuple[str, str | None, bool], data.Dataset] = {}


def build_trainer(
    config: RunConfig, *, dataset: data.Dataset | None = None, show_progress: bool = False
) -> Trainer:
    """Returns a Trainer that trains as `config` says and writes to `config.folder`.

    Args:
        dataset: images to train on in place of those that the config names.
        show_progress: print the log and a progress bar.

    Raises:
        UserError: something the user can mend, such as a wrong name or unreadable data.
    """
    if dataset is None:
        config, dataset = resolve(config), load_dataset(config)
    device = devices.resolve(config.device)
    accelerate.install(config.accelerate if device.xp is np else "off")
    optimizer = optimizers.create(config.optimizer, config.lr, config.momentum)
    seed_everything(config.seed, device)
    classifier = _make_classifier(config, dataset)
    device.use()
    classifier.to_device(device)
    optimizer.setup(classifier)
    if config.weight_decay is not None:
        optimizer.add_hook(WeightDecay(config.weight_decay))

    def is_due(trainer):
        return schedule.is_evaluation_due(trainer, config)

    order_sampler = ORDERS[config.sampling]()
    train_iter = make_iterator(dataset.train, config.batchsize, device, order_sampler=order_sampler)
    options = {"repeat": False, "shuffle": False}
    test_iter = make_iterator(dataset.test, config.batchsize, device, **options)
    converter = augmentation.CONVERTERS[config.augment]
    updater = StandardUpdater(train_iter, optimizer, converter=converter, device=device)
    divergence = Divergence(config.on_divergence != "continue", is_due)
    until = IntervalOrDivergence(*schedule.length(config), divergence)
    trainer = Trainer(updater, until, out=str(config.folder))

    evaluator = semantics.EVALUATORS[config.semantics](
        test_iter, classifier, converter=send_batch, device=device
    )
    trainer.extend(evaluator, trigger=is_due)
    if config.lr_drop is not None:
        trainer.extend(learning_rate_drop.create(config, optimizer))
    trainer.extend(DumpGraph("main/loss"))
    checkpoint = Checkpoint(
        snapshots.Run(identity(config, dataset), circumstances(config)),
        is_due=lambda trainer: schedule.is_snapshot_due(trainer, config),
    )
    checkpoint.extend(trainer, evaluator, is_due)
    trainer.extend(divergence)
    trainer.extend(
        LogReport(
            trigger=lambda trainer: is_due(trainer) or divergence.has_ended_training,
            postprocess=divergence.mark,
        )
    )
    for observer in observers.create(config.observed, dataset, device):
        trainer.extend(observer, trigger=is_due if observer.at is None else observer.is_due)
    for quantity in QUANTITIES:
        keys = [f"main/{quantity}", f"validation/main/{quantity}"]
        trainer.extend(PlotReport(keys, f"{quantity}.png", config.unit), trigger=is_due)
    if show_progress:
        trainer.extend(PrintReport(config.unit), trigger=is_due)
        trainer.extend(ProgressBar(*schedule.length(config)), trigger=lambda _: True)
    return trainer


def _make_classifier(config: RunConfig, dataset: data.Dataset) -> L.Classifier:
    """Returns the network and its loss, as training begins with them, in the computer's memory."""
    network = user_models.create(config.model)
    user_models.fit_input(network, dataset.train.images)
    classifier = L.Classifier(network)
    semantics.prepare(classifier, config.semantics)
    if config.init is not None:
        parameters.load(Path(config.init), network)
    return classifier


def seed_everything(seed: int, device: chainer.backend.Device) -> None:
    """Seeds Python, NumPy and, for a GPU, CuPy."""
    random.seed(seed)
    np.random.seed(seed)
    if device.xp is not np:
        with chainer.using_device(device):
            device.xp.random.seed(seed)


def describe_run(config: RunConfig) -> dict:
    """Returns the JSON object of `args`: the config, the versions, the device, the data's sums."""
    dataset = load_dataset(config)
    return {
        **config.to_args(),
        **identity(config, dataset),
        **circumstances(config),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }


def identity(config: RunConfig, dataset: data.Dataset) -> dict:
    """Returns what the run's numbers depend on: settings, and checksums of the files they name."""
    return {
        **config.identity(),
        "model_sha256": user_models.source_sha256(config.model),
        "dataset_sha256": dataset.sha256,
    }


def circumstances(config: RunConfig) -> dict:
    """Returns what rounding depends on: kernels, device, versions."""
    cupy = chainer.backends.cuda.cupy if chainer.backends.cuda.available else None
    return {
        "acceleration": accelerate.active(),
        "device_name": devices.describe(devices.resolve(config.device)),
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "chainer": chainer.__version__,
            "cupy": cupy.__version__ if cupy else None,
        },
    }
