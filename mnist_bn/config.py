"""RunConfig: everything that says what a training run is, each setting declared once."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
from dataclasses import dataclass
from pathlib import Path

from mnist_bn.errors import UsageError, UserError
from mnist_bn.names.specs import NetworkSpec
from mnist_bn.settings import (
    ASCENDING,
    COUNT,
    FRACTION,
    HOW,
    IMAGES,
    PATH,
    PERIOD,
    RATE,
    SEED,
    THREADS,
    WHAT,
    WHERE,
    Setting,
    declare,
    names_in,
    one_of,
    settings_of,
)
from mnist_bn.storage import files

DATASETS = ("auto", "mnist", "digits", "cifar10")
CIFAR10 = ("cifar10", "cifar10-unverified")
# What an optimizer has by default: `training.prepare` puts it in the place of None.
RATES = ("lr", "momentum")

MAX_NAME_BYTES = 255  # of a folder, on the usual file systems


@dataclass(frozen=True)
class RunConfig:
    """One training run. Each field declares a setting, and its help stands below it: see `Setting`.

    They are in the order of the parts of a folder's name.

    Raises:
        UsageError: a value is out of its range.
        TypeError: a value is of another kind.
    """

    model: str = declare(
        "MnistCNN_BN_before", WHAT, prefix="", short="m", metavar="NAME", axis=True
    )
    """class name of a network, or path/to/file.py:ClassName for your own; with arguments as in
    'ReluMLP(slope=0.1)'"""
    optimizer: str = declare(
        "Adam", WHAT, prefix="", metavar="NAME", axis=True, names=names_in("mnist_bn.optimizers")
    )
    """{names}, or path/to/file.py:ClassName for your own; with arguments as in
    'Adam(beta1=0.5)'"""
    seed: int = declare(0, WHAT, SEED, prefix="s", axis=True)
    """seed of every random number of the run"""
    study: str | None = declare(None, WHAT, metavar="NAME", names=names_in("mnist_bn.studies"))
    """a study's runs: {names}"""
    dataset: str = declare("auto", IMAGES, one_of(*DATASETS, found=CIFAR10), prefix="")
    """the images; auto: mnist, or digits if there is no MNIST"""
    semantics: str = declare("today", HOW, one_of("today", "2016"), prefix="")
    """evaluation in test mode (today), or as on Chainer 1.12: train mode, BN eps 1e-5 (2016)"""
    lr: float | None = declare(None, HOW, RATE, prefix="lr", label="lr", unset="Chainer's")
    """learning rate"""
    momentum: float | None = declare(
        None, HOW, FRACTION, prefix="m", label="momentum", unset="Chainer's"
    )
    """momentum, of optimizers that have one"""
    batchsize: int = declare(100, HOW, COUNT, prefix="b", label="batch", short="b")
    """images a step, in training and in evaluation"""
    epoch: int = declare(20, HOW, COUNT, short="e", length=True)
    """epochs to train"""
    iteration: int | None = declare(None, HOW, COUNT, length=True, instead_of="epoch")
    """steps to train, not epochs"""
    evaluate_every: int | None = declare(None, HOW, COUNT, prefix="every", unset="an epoch")
    """steps between evaluations, each an entry of the log"""
    sampling: str = declare(
        "shuffle", HOW, one_of("shuffle", "replacement"), prefix="", label="sampling"
    )
    """shuffle: each image once an epoch; replacement: batches drawn from all"""
    augment: str = declare("none", IMAGES, one_of("none", "crop-flip"), prefix="", label="augment")
    """crop-flip: training images padded by 4, cropped to their size and flipped, at random"""
    weight_decay: float | None = declare(
        None, HOW, RATE, prefix="wd", label="weight decay", unset="none"
    )
    """add X times each parameter to its gradient, BN's and biases too (Chainer's WeightDecay)"""
    lr_drop: str | None = declare(
        None, HOW, ASCENDING, prefix="drop", label="lr / 10 after", metavar="N", several=True
    )
    """divide the learning rate by 10 after these epochs (steps with --iteration)"""
    train_images: int | None = declare(
        None,
        IMAGES,
        COUNT,
        prefix="train",
        label="training images",
        shared="first {} training images",
        unset="all",
    )
    """only the first N training images"""
    test_images: int | None = declare(
        None,
        IMAGES,
        COUNT,
        prefix="test",
        label="test images",
        shared="evaluated on the first {} images",
        unset="all",
    )
    """only the first N images to evaluate on"""
    holdout: int | None = declare(
        None,
        IMAGES,
        COUNT,
        prefix="holdout",
        label="holdout",
        shared="evaluated on {} training images held out",
    )
    """hold the last N training images out, and evaluate on them, not on the test images"""
    init: str | None = declare(
        None, HOW, PATH, prefix="init", label="init", metavar="FILE", file=True
    )
    """parameters to begin with, such as the model.npz of a result folder"""
    data_dir: str | None = declare(None, IMAGES, PATH, metavar="DIR")
    """folder of MNIST's IDX files, or of cifar-10-binary.tar.gz (or set MNIST_BN_DATA)"""
    unverified_data: bool = declare(False, IMAGES)
    """also take CIFAR-10's files that have no published checksum; results are labelled so"""
    on_divergence: str = declare("stop", HOW, one_of("stop", "continue", "fail"))
    """if the training loss is not finite or, after the first step, beyond 1000: stop ends the run
    as a result, continue records it and trains on, fail makes it a failed run"""
    device: str = declare("@numpy", WHERE, short="d", metavar="DEVICE")
    """Chainer's device specifier, such as @cupy:0"""
    accelerate: str = declare("auto", WHERE, one_of("auto", "on", "off"))
    """compiled CPU kernels: auto takes them if they can be had, on insists on them, off is stock
    Chainer"""
    threads: str = declare("auto", WHERE, THREADS, metavar="N")
    """threads of the compiled CPU kernels; auto: the cores, shared by the runs at once, at most 8;
    the numbers are the same"""
    cuda_graph: str = declare("auto", WHERE, one_of("auto", "on", "off"))
    """with --gpu, do a training step as one CUDA graph: auto if that can be, on insists, off
    launches each kernel; the numbers are the same"""
    out: str = declare("result", WHERE, PATH, short="o", metavar="DIR")
    """folder of the results"""
    observe: str | None = declare(
        None, WHERE, metavar="NAME", names=names_in("mnist_bn.observers", "observers"), several=True
    )
    """also measured, at every evaluation or of the network as initialised: {names}"""
    tensorboard: bool = declare(False, WHERE)
    """also write event files for TensorBoard into the result folder (needs tensorboardX)"""
    frequency: int = declare(-1, WHERE, PERIOD, short="f")
    """epochs between snapshots; -1: only the one at the end"""

    def __post_init__(self) -> None:
        for name, setting in SETTINGS.items():
            setting.verify(getattr(self, name))
        if self.unverified_data and self.dataset not in CIFAR10:
            raise UsageError("--unverified-data goes with --dataset cifar10")

    @property
    def model_label(self) -> str:
        """The network's class name and arguments, without the path of a user's own file."""
        return NetworkSpec(self.model).label

    @property
    def unit(self) -> str:
        """What the log counts in: "epoch", or "iteration"."""
        return "iteration" if self.iteration or self.evaluate_every else "epoch"

    @property
    def observed(self) -> list[str]:
        """The names in `observe`."""
        return self.observe.split(",") if self.observe else []

    @property
    def lr_drops(self) -> list[int]:
        """The numbers in `lr_drop`."""
        return [int(number) for number in self.lr_drop.split(",")] if self.lr_drop else []

    @property
    def name(self) -> str:
        """`<Model>-<Optimizer>-<what differs from the defaults>-s<seed>`, without the length.

        Raises:
            UsageError: it would be no name for a folder.
        """
        usual = {name: [setting.default] for name, setting in SETTINGS.items()}
        usual["dataset"] = ["mnist"]
        for name, rate in zip(RATES, _optimizer_defaults(self.optimizer), strict=True):
            usual[name].append(rate)
        parts = [self.model_label, NetworkSpec(self.optimizer).label]
        for name, setting in SETTINGS.items():
            value = getattr(self, name)
            if setting.prefix is None or setting.axis or value in usual[name]:
                continue
            if setting.file:
                value = getattr(self, setting.key)[:8]
            # Drops after so many epochs and after so many steps are two runs.
            unit = "steps" if name == "lr_drop" and self.iteration else ""
            parts.append(f"{setting.prefix}{value}{unit}")
        return _folder_name("-".join([*parts, f"s{self.seed}"]))

    @property
    def init_sha256(self) -> str | None:
        """The SHA-256 of the file `init`.

        Raises:
            UserError: it cannot be read.
        """
        return None if self.init is None else files.sha256(Path(self.init))

    @property
    def folder(self) -> Path:
        """The run's result folder."""
        return Path(self.out) / self.name

    def identity(self) -> dict:
        """Returns the settings that the run's numbers depend on."""
        return with_rates({key: getattr(self, key) for key in IDENTITY})

    def to_args(self) -> dict:
        """Returns all the settings as the JSON object that `args` holds."""
        return dataclasses.asdict(self)

    @classmethod
    def from_args(cls, args: dict) -> RunConfig:
        """Returns the config that `args` (of a result folder) describes; other keys are ignored.

        Raises:
            UsageError: a value is out of its range or of another type.
        """
        try:
            return cls(**{key: value for key, value in args.items() if key in SETTINGS})
        except TypeError as error:
            raise UsageError(f"args: a setting has the wrong type ({error})") from None


SETTINGS: dict[str, Setting] = settings_of(RunConfig)

# The settings that take several values on the command line: every combination is a run.
AXES = tuple(name for name, setting in SETTINGS.items() if setting.axis)
# How long a run is: a longer one goes on where a shorter one has ended, in the same folder.
LENGTHS = tuple(name for name, setting in SETTINGS.items() if setting.length)
# A run's numbers depend on these; the others say where it runs and where its files go.
IDENTITY = tuple(setting.key for setting in SETTINGS.values() if setting.numbers)


def with_rates(settings: dict) -> dict:
    """Returns the settings with the optimizer's learning rate and momentum in place of None."""
    try:
        rate, momentum = _optimizer_defaults(settings["optimizer"])
    except (KeyError, UserError):
        return settings  # of a file that is gone, say
    defaults = dict(zip(RATES, (rate, momentum), strict=True))
    return {key: defaults.get(key) if value is None else value for key, value in settings.items()}


@functools.lru_cache
def _optimizer_defaults(optimizer: str) -> tuple[float | None, float | None]:
    from mnist_bn import optimizers  # imports Chainer, which takes a second and drawing need not

    return optimizers.effective(optimizer)


def _folder_name(name: str) -> str:
    """Returns the name of a run's folder, shortened if it is longer than file systems allow.

    Raises:
        UsageError: something in it is neither a letter, a digit, nor one of `_ . , + -`.
    """
    wrong = [char for char in name if char not in ".,+-" and not f"a{char}".isidentifier()]
    if wrong or name.startswith((".", "-")):
        found = f"{wrong[0]!r} in it" if wrong else f"{name[0]!r} first"
        raise UsageError(
            f"the run's folder would be called {name!r}: expected letters, digits and _ . , + - of "
            f"the names and settings, found {found}"
        )
    if len(name.encode()) <= MAX_NAME_BYTES:
        return name
    seed = name.rpartition("-")[2]
    end = f"-{hashlib.sha256(name.encode()).hexdigest()[:8]}-{seed}"
    return name.encode()[: MAX_NAME_BYTES - len(end)].decode(errors="ignore") + end


def grid(settings: dict) -> list[RunConfig]:
    """Returns a config for every combination of the settings.

    Args:
        settings: fields of RunConfig; any of them may be a list of values.
    """
    # The last varies fastest.
    names = sorted(settings, key=lambda name: AXES.index(name) if name in AXES else -1)
    values = [settings[name] for name in names]
    axes = [dict.fromkeys(value) if isinstance(value, list) else [value] for value in values]
    points = itertools.product(*axes)
    return [RunConfig(**dict(zip(names, point, strict=True))) for point in points]
