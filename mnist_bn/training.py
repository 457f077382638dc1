"""The one way a run is made: RunConfig in, trained network and result folder out."""

from __future__ import annotations

import dataclasses
import os
import platform
import random
import sys
from pathlib import Path

import chainer
import chainer.links as L
import numpy as np
from chainer.optimizer_hooks import WeightDecay
from chainer.training import Trainer
from chainer.training.updaters import StandardUpdater
from threadpoolctl import threadpool_limits

from mnist_bn import data, devices, kernels, networks, observers, optimizers
from mnist_bn.config import LENGTHS, RunConfig
from mnist_bn.data import augmentation, subsets
from mnist_bn.data.iterators import ORDERS, make_iterator, send_batch
from mnist_bn.errors import UsageError, UserError
from mnist_bn.names import specs, user_files
from mnist_bn.storage import files, locks, parameters, result_folder, snapshots
from mnist_bn.terminal import wording
from mnist_bn.terminal.print_report import PrintReport
from mnist_bn.terminal.progress_bar import ProgressBar
from mnist_bn.trainer import learning_rate_drop, schedule, semantics, signals, update_rules
from mnist_bn.trainer.checkpoint import Checkpoint
from mnist_bn.trainer.divergence import Divergence, IntervalOrDivergence
from mnist_bn.trainer.dump_graph import DumpGraph
from mnist_bn.trainer.log_report import LogReport
from mnist_bn.trainer.plot_report import PlotReport

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
        resume: a snapshot to go on from. If it lies in another folder, or is of another run than
            this folder's, a run of its own begins with it.
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
        result_folder.finish_setting_aside(folder, observers.file_names())
        trainer = build_trainer(config, show_progress=show_progress)
        snapshot = _find_snapshot(trainer, config, resume, autoload)
        if snapshot is not None:
            _load(snapshot, trainer, config)
        _begin(trainer, config, snapshot)
        # One thread: the bits then do not depend on the machine's cores or on how many runs share
        # them. A loss that overflows is a result, and the log has it: NumPy need not warn of it.
        with threadpool_limits(1), np.errstate(all="ignore"):
            trainer.run(show_loop_exception_msg=False)
        return _finish(trainer, config)


def _find_snapshot(
    trainer: Trainer, config: RunConfig, resume: Path | None, autoload: bool
) -> snapshots.Snapshot | None:
    """Returns the snapshot that was asked for, read and of this run; None: none, or none there."""
    run = trainer.get_extension("Checkpoint").run
    if resume is not None:
        snapshot = snapshots.read(resume)
        snapshots.check_same_run(snapshot, run)
        return snapshot
    if not autoload or not snapshots.found(config.folder):
        return None
    has_args = os.path.lexists(config.folder / "args")
    args = result_folder.read_args(config.folder) if has_args else None
    return snapshots.newest_usable(config.folder, run, args)


def _load(snapshot: snapshots.Snapshot, trainer: Trainer, config: RunConfig) -> None:
    """Brings the trainer to the snapshot."""
    snapshots.load(snapshot, trainer)
    length, unit = schedule.length(config)
    updater = trainer.updater
    # Epochs are counted when they end, and their last batch may reach into the next.
    is_within = unit == "epoch" and not updater.is_new_epoch
    if getattr(updater, unit) + is_within > length:
        reached = f"{updater.epoch_detail:.2f}" if unit == "epoch" else updater.iteration
        raise UsageError(f"{snapshot.path} is of {unit} {reached}: --{unit} must not be below that")
    diverged_at = trainer.get_extension("Divergence").diverged_at
    has_trained_on = diverged_at is not None and diverged_at["iteration"] < updater.iteration
    if has_trained_on and config.on_divergence != "continue":
        raise UsageError(
            f"{snapshot.path} is of a run that diverged at iteration {diverged_at['iteration']} "
            "and trained on: resume with --on-divergence continue"
        )
    checkpoint = trainer.get_extension("Checkpoint")
    snapshots.note_other_circumstances(snapshot, checkpoint.run)
    _note_evaluation_for_the_end(snapshot, trainer, config)
    checkpoint.resumed_from = snapshot


def _note_evaluation_for_the_end(
    snapshot: snapshots.Snapshot, trainer: Trainer, config: RunConfig
) -> None:
    """Says on stderr if an evaluation at the end of a shorter run stays in the log.

    So of a snapshot by an earlier version; those of today are taken before it.
    """
    before = {unit: snapshot.header["identity"].get(unit) for unit in LENGTHS}
    is_longer = not schedule.is_at_end(trainer, config)
    shorter = dataclasses.replace(config, **before)
    is_evaluated = snapshot.header["observation"] is None
    if is_longer and is_evaluated and schedule.is_evaluation_for_the_end(trainer, shorter):
        wording.say(
            f"note: {snapshot.path} was taken after an evaluation that a longer run does not make: "
            "its entry stays in the log",
            file=sys.stderr,
        )


def _begin(trainer: Trainer, config: RunConfig, snapshot: snapshots.Snapshot | None) -> None:
    """Writes the first files of a run, or those that say how it goes on."""
    folder = config.folder
    checkpoint = trainer.get_extension("Checkpoint")
    goes_on = snapshot is not None and _is_of_run_in(folder, snapshot)
    if goes_on:
        checkpoint.run = checkpoint.run._replace(run_id=snapshot.header.get("run_id"))
        # It is not finished any more, which model.npz says first. What it had measured, its
        # snapshot has too.
        for name in ("model.npz", "error.txt", *(f"{name}.npz" for name in config.observed)):
            files.remove(folder / name)
    else:
        begins = "training anew" if snapshot is None else f"going on from {snapshot.path}"
        result_folder.make_room(folder, begins, observers.file_names())
    run_id = checkpoint.run.run_id
    files.write_json(folder / "args", {**describe_run(config), "run_id": run_id})
    if snapshot is None:
        return
    if not goes_on:
        snapshots.save(snapshots.path_of(trainer), snapshots.with_run_id(snapshot, run_id))
    # The run may have been killed before or after it wrote its log: the snapshot's is what counts.
    trainer.get_extension("LogReport").write(trainer)


def _is_of_run_in(folder: Path, snapshot: snapshots.Snapshot) -> bool:
    """Tells whether the snapshot lies in the folder and is of the run that the folder is of."""
    if snapshot.path.resolve().parent != folder.resolve():
        return False
    if not os.path.lexists(folder / "args"):
        return True
    return result_folder.read_args(folder).get("run_id") == snapshot.header.get("run_id")


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
    """Returns `config` with what is found only now: the dataset in place of "auto", the names of
    classes as they are written, the learning rate and the momentum where they are defaults.

    Raises:
        UsageError: a batch is larger than the training set, the images cannot be augmented, or
            there is no such class.
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
    user_files.check_apart(*map(specs.path_of, (config.model, config.optimizer)))
    optimizer, lr, momentum = optimizers.resolve(config.optimizer, config.lr, config.momentum)
    return dataclasses.replace(
        config,
        model=networks.canonical(config.model),
        optimizer=optimizer,
        lr=lr,
        momentum=momentum,
        dataset=dataset.name,
        unverified_data=unverified,
    )


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
    kernels.install(config.accelerate if device.xp is np else "off")
    optimizer = optimizers.create(config.optimizer, config.lr, config.momentum)
    seed_everything(config.seed, device)
    classifier = _make_classifier(config, dataset)
    device.use()
    classifier.to_device(device)
    update_rules.setup(optimizer, classifier)
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
        snapshots.Run(identity(config, dataset), circumstances(config), snapshots.new_run_id()),
        is_due=lambda trainer: schedule.is_snapshot_due(trainer, config),
        is_for_the_end=lambda trainer: schedule.is_evaluation_for_the_end(trainer, config),
        has_gradients=bool(config.observed),
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
    network = networks.create(config.model)
    networks.fit_input(network, dataset.train.images)
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
    model_files = networks.checksums(config.model)
    return {
        **config.identity(),
        "model_files": model_files,
        "model_sha256": user_files.combined(model_files),
        "optimizer_files": optimizers.checksums(config.optimizer),
        "dataset_sha256": dataset.sha256,
    }


def circumstances(config: RunConfig) -> dict:
    """Returns what rounding depends on: kernels, device, versions."""
    cupy = chainer.backends.cuda.cupy if chainer.backends.cuda.available else None
    return {
        "acceleration": kernels.active(),
        "device_name": devices.describe(devices.resolve(config.device)),
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "chainer": chainer.__version__,
            "cupy": cupy.__version__ if cupy else None,
        },
    }
