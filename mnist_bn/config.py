"""RunConfig: everything that says what a training run is."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import math
import re
from dataclasses import dataclass
from pathlib import Path

from mnist_bn.errors import UsageError, UserError
from mnist_bn.names.specs import NetworkSpec
from mnist_bn.storage import files

SEMANTICS = ("today", "2016")
DATASETS = ("auto", "mnist", "digits", "cifar10")
CIFAR10 = ("cifar10", "cifar10-unverified")
ACCELERATE = ("auto", "on", "off")
ON_DIVERGENCE = ("stop", "continue", "fail")
SAMPLING = ("shuffle", "replacement")
AUGMENT = ("none", "crop-flip")

# The settings that take several values on the command line: every combination is a run.
AXES = ("model", "optimizer", "seed")

# What a run's numbers depend on; the other fields say where it runs and where its files go.
IDENTITY = (
    "model",
    "optimizer",
    "lr",
    "momentum",
    "seed",
    "dataset",
    "batchsize",
    "epoch",
    "semantics",
    "iteration",
    "evaluate_every",
    "sampling",
    "augment",
    "weight_decay",
    "lr_drop",
    "train_images",
    "test_images",
    "holdout",
)

# How long a run is: a longer one goes on where a shorter one has ended, in the same folder.
LENGTHS = ("epoch", "iteration")

# What stands before a setting that differs from the default, in the name of a run's folder.
_PREFIXES = {
    "lr": "lr",
    "momentum": "m",
    "batchsize": "b",
    "evaluate_every": "every",
    "sampling": "",
    "augment": "",
    "weight_decay": "wd",
    "lr_drop": "drop",
    "train_images": "train",
    "test_images": "test",
    "holdout": "holdout",
}

# What a run's numbers depend on by a checksum, which says nothing to a reader.
_SUMS = {
    "model_sha256": "another version of the network's file",
    "dataset_sha256": "other images",
    "init_sha256": "other parameters to begin with",
}
# The checksums of the user's own files by their names, of which the first imports the others.
_FILES = ("model_files", "optimizer_files")

MAX_NAME_BYTES = 255  # of a folder, on the usual file systems


@dataclass(frozen=True)
class RunConfig:
    """One training run.

    Attributes:
        model: a class name of `models`, or `path/to/file.py:ClassName`; either may end in arguments
            of the class, as in `ReluMLP(slope=0.1)`.
        optimizer: a class name of Chainer's optimizers, or `path/to/file.py:ClassName`; either may
            end in arguments, as in `Adam(beta1=0.5)`.
        lr: learning rate; None is the optimizer's default, which `training.resolve` puts here.
        momentum: the same, of optimizers that have one.
        seed: seed of every random number of the run.
        dataset: "mnist", "digits" or "cifar10"; until the data are found it may be "auto", and then
            "cifar10-unverified".
        data_dir: folder of the dataset's files, or None.
        batchsize: images a step, in training and in evaluation.
        epoch: passes over the training images.
        iteration: steps to train, in place of `epoch`; None counts epochs.
        evaluate_every: steps between two evaluations, each an entry of the log; None is one an
            epoch.
        sampling: "shuffle" (each image once an epoch) or "replacement" (every image of every batch
            drawn from all).
        unverified_data: take files of CIFAR-10 that no checksum is known of.
        train_images: the first so many training images are trained on; None is all.
        test_images: the first so many test images are evaluated on; None is all.
        holdout: the last so many training images are held out of training and evaluated on, in
            place of the test images; None is none.
        augment: "none", or "crop-flip": training images padded by 4, cropped to their size and
            flipped, at random.
        weight_decay: rate of Chainer's WeightDecay, which adds so much of each parameter to its
            gradient; None is none.
        lr_drop: the epochs (where `iteration` is set: the steps) after which the learning rate is
            divided by 10, ascending, with commas between; None is none.
        observe: names of what is measured besides, with commas between; None is nothing.
        frequency: epochs between two snapshots; -1 takes one at the end.
        device: Chainer's device specifier, such as "@numpy" or "@cupy:0".
        semantics: "today" (Chainer 7) or "2016" (Chainer 1.12 as the blog used it).
        accelerate: "auto" takes the compiled CPU kernels where they can be had, "on" insists on
            them, "off" is stock Chainer.
        on_divergence: what a lost training loss does to the run: "stop" ends it, as a result like
            any other; "continue" only records it; "fail" ends it as a failure.
        init: NPZ file of parameters to begin with, as `model.npz` of a result folder, or None.
        out: the folder that holds the result folders.
        study: the study the run belongs to, or None.

    Raises:
        UsageError: a value is out of its range.
    """

    model: str = "MnistCNN_BN_before"
    optimizer: str = "Adam"
    lr: float | None = None
    momentum: float | None = None
    seed: int = 0
    dataset: str = "auto"
    data_dir: str | None = None
    batchsize: int = 100
    epoch: int = 20
    frequency: int = -1
    device: str = "@numpy"
    semantics: str = "today"
    accelerate: str = "auto"
    on_divergence: str = "stop"
    init: str | None = None
    out: str = "result"
    study: str | None = None
    iteration: int | None = None
    evaluate_every: int | None = None
    sampling: str = "shuffle"
    observe: str | None = None
    unverified_data: bool = False
    train_images: int | None = None
    test_images: int | None = None
    holdout: int | None = None
    augment: str = "none"
    weight_decay: float | None = None
    lr_drop: str | None = None

    def __post_init__(self) -> None:
        _check(self.batchsize >= 1, "--batchsize", self.batchsize, "1 or more")
        _check(self.epoch >= 1, "--epoch", self.epoch, "1 or more")
        _check(
            self.frequency == -1 or self.frequency >= 1, "--frequency", self.frequency, "-1 or >= 1"
        )
        _check(0 <= self.seed < 2**32, "--seed", self.seed, "0 to 4294967295")
        if self.lr is not None:
            _check(math.isfinite(self.lr) and self.lr > 0, "--lr", self.lr, "a number above 0")
        if self.momentum is not None:
            _check(0 <= self.momentum < 1, "--momentum", self.momentum, "0 <= momentum < 1")
        _check(self.semantics in SEMANTICS, "--semantics", self.semantics, " or ".join(SEMANTICS))
        _check(
            self.accelerate in ACCELERATE, "--accelerate", self.accelerate, " or ".join(ACCELERATE)
        )
        _check(
            self.on_divergence in ON_DIVERGENCE,
            "--on-divergence",
            self.on_divergence,
            " or ".join(ON_DIVERGENCE),
        )
        for flag, count in (
            ("--iteration", self.iteration),
            ("--evaluate-every", self.evaluate_every),
            ("--train-images", self.train_images),
            ("--test-images", self.test_images),
            ("--holdout", self.holdout),
        ):
            _check(count is None or count >= 1, flag, count, "1 or more")
        _check(self.sampling in SAMPLING, "--sampling", self.sampling, " or ".join(SAMPLING))
        _check(self.augment in AUGMENT, "--augment", self.augment, " or ".join(AUGMENT))
        if self.weight_decay is not None:
            holds = math.isfinite(self.weight_decay) and self.weight_decay > 0
            _check(holds, "--weight-decay", self.weight_decay, "a number above 0")
        _check(
            self.lr_drop is None or _is_ascending(self.lr_drop),
            "--lr-drop",
            self.lr_drop,
            "ascending numbers above 0 with commas between, as in 82,123",
        )
        datasets = {*DATASETS, *CIFAR10}
        _check(self.dataset in datasets, "--dataset", self.dataset, " or ".join(DATASETS))
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
        default = RunConfig(dataset="mnist")
        rate, momentum = _optimizer_defaults(self.optimizer)
        defaults = {**dataclasses.asdict(default), "lr": rate, "momentum": momentum}
        parts = [self.model_label, NetworkSpec(self.optimizer).label]
        if self.dataset != default.dataset:
            parts.append(self.dataset)
        if self.semantics != default.semantics:
            parts.append(self.semantics)
        for field, prefix in _PREFIXES.items():
            value = getattr(self, field)
            if value not in (getattr(default, field), defaults[field]):
                # Drops after so many epochs and after so many steps are two runs.
                unit = "steps" if field == "lr_drop" and self.iteration else ""
                parts.append(f"{prefix}{value}{unit}")
        if self.init is not None:
            parts.append(f"init{self.init_sha256[:8]}")
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
        settings = {field: getattr(self, field) for field in IDENTITY}
        return {**_with_defaults(settings), "init_sha256": self.init_sha256}

    def to_args(self) -> dict:
        """Returns all the settings as the JSON object that `args` holds."""
        return dataclasses.asdict(self)

    @classmethod
    def from_args(cls, args: dict) -> RunConfig:
        """Returns the config that `args` (of a result folder) describes; other keys are ignored.

        Raises:
            UsageError: a value is out of its range or of another type.
        """
        fields = {field.name for field in dataclasses.fields(cls)}
        try:
            return cls(**{key: value for key, value in args.items() if key in fields})
        except TypeError as error:
            raise UsageError(f"args: a setting has the wrong type ({error})") from None


def difference(before: dict, now: dict) -> str | None:
    """Returns in words the first setting in which two runs differ, None if they are the same.

    How long they are is no such setting.

    Args:
        before, now: of both runs what their numbers depend on (`training.identity`).
    """
    # A run of before there was a setting had its default.
    before = {**RunConfig().to_args(), **before}
    if before["optimizer"] == now.get("optimizer"):  # a file that is named there alone is not run
        before, now = _with_defaults(before), _with_defaults(now)
    for setting, value in now.items():
        is_unknown = setting in _FILES and before.get(setting) is None
        if before.get(setting) == value or setting in LENGTHS or is_unknown:
            continue
        if setting in _FILES and isinstance(before[setting], dict):
            return _other_file(before[setting], value or {})
        if setting in _SUMS:
            return f"{_SUMS[setting]} (another {setting})"
        values = (before.get(setting), value)
        was, wanted = ("the default" if value is None else value for value in values)
        return f"{setting} {was}, not {wanted}"
    return None


def _other_file(before: dict[str, str], now: dict[str, str]) -> str:
    """Returns in words which of the user's files differs, rather one that is imported."""
    first, *imported = {**now, **before}
    for name in imported:
        if before.get(name) != now.get(name):
            return f"another version of {name}, which {first} imports"
    return f"another version of {first}"


def _with_defaults(settings: dict) -> dict:
    """Returns the settings with the optimizer's learning rate and momentum where they are None."""
    try:
        rate, momentum = _optimizer_defaults(settings["optimizer"])
    except (KeyError, UserError):
        return settings  # of a file that is gone, say
    defaults = {"lr": rate, "momentum": momentum}
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


def _is_ascending(text: str) -> bool:
    if not re.fullmatch(r"[1-9][0-9]{0,17}(,[1-9][0-9]{0,17})*", text):
        return False
    numbers = [int(number) for number in text.split(",")]
    return all(a < b for a, b in itertools.pairwise(numbers))


def _check(holds: bool, flag: str, value: object, expected: str) -> None:
    if not holds:
        raise UsageError(f"{flag} {value}: expected {expected}")


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
