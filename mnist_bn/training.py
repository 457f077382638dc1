"""The one way a run is made: a config is prepared, and then trained into its result folder."""

from __future__ import annotations

import random
from pathlib import Path

import chainer
import chainer.links as L
import numpy as np
from chainer.optimizer_hooks import WeightDecay
from chainer.training import Trainer
from chainer.training.extensions import Evaluator
from chainer.training.updaters import StandardUpdater
from threadpoolctl import threadpool_limits

from mnist_bn import networks, observers, optimizers, resuming
from mnist_bn.config import RunConfig
from mnist_bn.data import Dataset, augmentation
from mnist_bn.data.iterators import ORDERS, DeviceIterator, make_iterator, send_batch
from mnist_bn.errors import UserError
from mnist_bn.preparation import PreparedRun, load_dataset, prepare
from mnist_bn.storage import files, locks, parameters, result_folder, snapshots
from mnist_bn.terminal import board
from mnist_bn.terminal.print_report import PrintReport
from mnist_bn.terminal.progress_bar import ProgressBar
from mnist_bn.trainer import learning_rate_drop, schedule, semantics, signals, update_rules
from mnist_bn.trainer.checkpoint import Checkpoint
from mnist_bn.trainer.divergence import Divergence, IntervalOrDivergence
from mnist_bn.trainer.dump_graph import DumpGraph
from mnist_bn.trainer.log_report import LogReport
from mnist_bn.trainer.plot_report import PlotReport
from mnist_bn.trainer.tensorboard import TensorBoard

__all__ = ["PreparedRun", "build_trainer", "load_dataset", "prepare", "train"]

QUANTITIES = ("loss", "accuracy")


def train(
    run: PreparedRun,
    *,
    resume: Path | None = None,
    autoload: bool = False,
    show_progress: bool = False,
    line: board.Line | None = None,
) -> dict:
    """Trains a run and writes its result folder.

    A signal (SIGINT, SIGTERM) ends the run with a snapshot; see `signals`.

    Args:
        run: as `prepare(config)` returns it.
        resume: a snapshot to go on from. If it lies in another folder, or is of another run than
            this folder's, a run of its own begins with it.
        autoload: go on from the newest usable snapshot in the result folder, if there is one.
        show_progress: print the log and a progress bar.
        line: of a sweep's board, to say there how far the run is.

    Returns:
        The last entry of the log: its keys are Chainer's, such as "validation/main/accuracy", and
        "diverged_at" for a run that diverged.

    Raises:
        UserError: something the user can mend, such as a wrong snapshot, a full disk.
        signals.Stopped: a signal ended the run.
    """
    files.make_folder(run.folder)
    with locks.hold(run.folder), signals.deferred():
        files.remove_unfinished(run.folder)
        result_folder.finish_setting_aside(run.folder, observers.file_names())
        trainer = build_trainer(run, show_progress=show_progress)
        if line is not None:
            steps = schedule.last_iteration(run.config, len(run.dataset.train.labels))
            trainer.extend(board.Watch(line, steps, run.config.batchsize), trigger=lambda _: True)
        snapshot = resuming.find(run, resume, autoload)
        if snapshot is not None:
            resuming.load(snapshot, trainer, run)
        resuming.begin(trainer, run, snapshot)
        # One thread: the bits then do not depend on the machine's cores or on how many runs share
        # them. A loss that overflows is a result, and the log has it: NumPy need not warn of it.
        with threadpool_limits(1), np.errstate(all="ignore"):
            trainer.run(show_loop_exception_msg=False)
        return _finish(trainer, run.config)


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
    parameters.save(config.folder / result_folder.MODEL, network)
    entry = trainer.get_extension("LogReport").log[-1]
    return entry if diverged_at is None else {**entry, "diverged_at": diverged_at}


def build_trainer(run: PreparedRun, *, show_progress: bool = False) -> Trainer:
    """Returns a Trainer that trains the run and writes to its result folder.

    Args:
        show_progress: print the log and a progress bar.

    Raises:
        UserError: something the user can mend, such as parameters of another network.
    """
    config = run.config
    run.install_kernels()
    updater = _make_updater(run)
    optimizer = updater.get_optimizer("main")

    def is_due(trainer):
        return schedule.is_evaluation_due(trainer, config)

    divergence = Divergence(config.on_divergence != "continue", is_due)
    until = IntervalOrDivergence(*schedule.length(config), divergence)
    trainer = Trainer(updater, until, out=str(run.folder))
    evaluator = _make_evaluator(run, updater)
    trainer.extend(evaluator, trigger=is_due)
    if config.lr_drop is not None:
        trainer.extend(learning_rate_drop.create(config, optimizer))
    trainer.extend(DumpGraph("main/loss"))
    checkpoint = Checkpoint(
        snapshots.Run(run.identity, run.circumstances, snapshots.new_run_id()),
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
            sums=getattr(updater, "sums", None),
        )
    )
    for observer in observers.create(config.observed, run.dataset, run.device):
        trainer.extend(observer, trigger=is_due if observer.at is None else observer.is_due)
    for quantity in QUANTITIES:
        keys = [f"main/{quantity}", f"validation/main/{quantity}"]
        trainer.extend(PlotReport(keys, f"{quantity}.png", config.unit), trigger=is_due)
    if config.tensorboard:
        trainer.extend(
            TensorBoard(), trigger=lambda trainer: is_due(trainer) or divergence.has_ended_training
        )
    if show_progress:
        trainer.extend(PrintReport(config.unit), trigger=is_due)
        trainer.extend(ProgressBar(*schedule.length(config)), trigger=lambda _: True)
    return trainer


def _make_updater(run: PreparedRun) -> StandardUpdater:
    """Returns the training step: its batches, network and loss, and optimizer, on the device."""
    config, dataset, device = run.config, run.dataset, run.device
    optimizer = optimizers.create(config.optimizer, config.lr, config.momentum)
    seed_everything(config.seed, device)
    classifier = _make_classifier(config, dataset)
    device.use()
    classifier.to_device(device)
    update_rules.setup(optimizer, classifier)
    if config.weight_decay is not None:
        optimizer.add_hook(WeightDecay(config.weight_decay))
    order_sampler = ORDERS[config.sampling]()
    batches = make_iterator(dataset.train, config.batchsize, device, order_sampler=order_sampler)
    converter = augmentation.CONVERTERS[config.augment]
    options = {"converter": converter, "device": device}
    if device.xp is np:
        return StandardUpdater(batches, optimizer, **options)
    from mnist_bn.gpu import updater  # it needs CuPy

    assert isinstance(batches, DeviceIterator)
    return updater.GraphUpdater(
        batches, optimizer, **options, is_captured=updater.is_captured(config, optimizer)
    )


def _make_evaluator(run: PreparedRun, updater: StandardUpdater) -> Evaluator:
    """Returns the evaluation on the test images, in the run's semantics."""
    options = {"repeat": False, "shuffle": False}
    batches = make_iterator(run.dataset.test, run.config.batchsize, run.device, **options)
    make = semantics.EVALUATORS[run.config.semantics]
    classifier = updater.get_optimizer("main").target
    evaluator = make(batches, classifier, converter=send_batch, device=run.device)
    if run.device.xp is not np:
        from mnist_bn.gpu.evaluation import BatchEvaluation
        from mnist_bn.gpu.updater import GraphUpdater

        assert isinstance(updater, GraphUpdater)
        evaluator.eval_func = BatchEvaluation(classifier, updater)
    return evaluator


def _make_classifier(config: RunConfig, dataset: Dataset) -> L.Classifier:
    """Returns the network and its loss, as training begins with them, in the computer's memory."""
    network = networks.create(config.model)
    networks.fit_input(network, dataset.train)
    classifier = L.Classifier(network)
    semantics.prepare(classifier, config.semantics)
    if config.init is not None:
        parameters.load(Path(config.init), network)
    return classifier


def seed_everything(seed: int, device: chainer.backend.Device) -> None:
    """Seeds Python, NumPy and, for a GPU, CuPy and dropout's masks."""
    random.seed(seed)
    np.random.seed(seed)
    if device.xp is not np:
        from mnist_bn.gpu import masks

        masks.seed(seed)
        with chainer.using_device(device):
            device.xp.random.seed(seed)
