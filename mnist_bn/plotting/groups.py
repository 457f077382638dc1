"""Which runs are one curve: those that differ only in their seed."""

import functools
import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from mnist_bn.config import RATES, SETTINGS
from mnist_bn.names.specs import NetworkSpec
from mnist_bn.plotting.appearance import NETWORK_LOOKS, OPTIMIZER_LOOKS
from mnist_bn.plotting.notation import by_number, decimal
from mnist_bn.plotting.recorded import resolved
from mnist_bn.plotting.results import Run
from mnist_bn.plotting.words import bounded, joined, printable

NETWORKS, OPTIMIZERS = tuple(NETWORK_LOOKS), tuple(OPTIMIZER_LOOKS)

_SOURCE = "model_sha256"  # of a user's own network: edited, it is another network
_OPTIMIZER = "optimizer_sha256"  # and of a user's own optimizer
_IMAGES = "images_sha256"  # of images that are not verified: others are another dataset

# How a figure calls what makes another curve.
_WORDS = {setting.key: setting.label for setting in SETTINGS.values() if setting.label}
_WORDS |= {_SOURCE: "source", _OPTIMIZER: "optimizer's source", _IMAGES: "images"}
# What `args` holds besides settings, and Chainer's own flags.
_CIRCUMSTANCES = {"run_id", "command", "revision", "changed", "host", "machine", "device_name"}
_CIRCUMSTANCES |= {"acceleration", "convolution", "dataset_sha256", "gpu", "resume", "autoload"}
# These do not make another curve: they name a run, or say where and how long it ran.
_NEUTRAL = (SETTINGS.keys() | _CIRCUMSTANCES) - _WORDS.keys()
# A run that is older than a setting had its default. All of ours recorded their batch, and that of
# other programs is not known.
_BEFORE = {
    name: setting.default
    for name, setting in SETTINGS.items()
    if name in _WORDS.keys() - {"batchsize"}
}


class Band(NamedTuple):
    """Mean, minimum and maximum over seeds, each (E,) float64, at the epochs (E,) int64.

    Here and in SeedGroup and Run, epochs are iterations if a run's log counts in those.
    """

    epochs: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True, eq=False)
class SeedGroup:
    """Runs that differ only in their seed. `variant` names the other settings that vary."""

    runs: tuple[Run, ...]
    model: str | None
    optimizer: str | None
    variant: str
    name: str  # the folder's: for runs whose network or optimizer is not recorded

    @property
    def network(self) -> NetworkSpec:
        """The network's name, taken apart: of no class if it is not recorded."""
        return NetworkSpec(self.model or "")

    @property
    def has_bn(self) -> bool:
        """Whether the network is one with BN, by its name."""
        return "_BN" in self.network.text

    @property
    def unit(self) -> str:
        """What its logs count in: "epoch" or "iteration"."""
        return self.runs[0].unit

    @property
    def settings(self) -> dict[str, str]:
        """The settings that make it another curve, as text."""
        return _settings(self.runs[0])

    @property
    def diverged(self) -> tuple[Run, ...]:
        return tuple(run for run in self.runs if run.diverged_at is not None)

    @cached_property
    def survivors(self) -> tuple[Run, ...]:
        return tuple(run for run in self.runs if run.diverged_at is None)

    @cached_property
    def finished(self) -> tuple[Run, ...]:
        """The survivors that went as far as any of them."""
        last = max((run.epochs[-1] for run in self.survivors), default=0)
        return tuple(run for run in self.survivors if run.epochs[-1] == last)

    @cached_property
    def unfinished(self) -> tuple[Run, ...]:
        last = self.finished[0].epochs[-1] if self.finished else 0
        return tuple(run for run in self.survivors if run.epochs[-1] < last)

    @property
    def is_cut_short(self) -> bool:
        """Whether the runs that went farthest failed, or stopped before the end of their training.

        Also if they are still going on.
        """
        return any(run.is_cut_short for run in self.finished)

    def values(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Epochs (E,) that all finished seeds have, and their values (seeds, E).

        The other seeds are left out, as the mean would jump or stop where one ends. If all have
        diverged they are what there is.
        """
        series = [(run.epochs, run.values(key)) for run in self.finished or self.runs]
        found = [np.isfinite(values) for _, values in series]
        return aligned(
            [(x[there], values[there]) for (x, values), there in zip(series, found, strict=True)]
        )

    def band(self, key: str) -> Band:
        """Mean and range over seeds of one series of the log."""
        if key not in self._bands:  # a figure asks for each dozens of times
            epochs, values = self.values(key)
            low, high = values.min(axis=0), values.max(axis=0)
            self._bands[key] = Band(epochs, values.mean(axis=0), low, high)
        return self._bands[key]

    @cached_property
    def _bands(self) -> dict[str, Band]:
        return {}


def aligned(series: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the times that all seeds have, `(T,)`, and their values `(seeds, T, ...)`.

    Args:
        series: of each seed its times, `(t,)`, and its values then, `(t, ...)`. One seed's stay as
            they are.
    """
    if len(series) == 1:
        times, values = series[0]
        return times, values[np.newaxis]
    indexed = [np.unique(times, return_index=True) for times, _ in series]
    common = functools.reduce(np.intersect1d, (times for times, _ in indexed))
    rows = [
        values[index[np.isin(times, common)]]
        for (times, index), (_, values) in zip(indexed, series, strict=True)
    ]
    return common, np.stack(rows)


def complete(runs: Sequence[Run]) -> list[Run]:
    """Returns the runs that went as far as any of them, and those that diverged."""
    last = max((run.epochs[-1] for run in runs), default=0)
    return [run for run in runs if run.epochs[-1] == last or run.diverged_at is not None]


def group_runs(
    runs: Sequence[Run], note: Callable[[str], None] = lambda line: None
) -> list[SeedGroup]:
    """Curves of the runs, networks and optimizers in their usual order, then others by name.

    A run that did not record its network, optimizer and seed is a curve of its own. Of two runs
    with the same settings and seed the one that went further is kept, with a note: they are not two
    seeds. Unfinished seeds beside finished ones get a note as well.
    """
    grouped: dict[tuple, dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        key: tuple = (run.model or "", run.optimizer or "", *sorted(_settings(run).items()))
        if None in (run.model, run.optimizer, run.seed):
            key = (*key, run.folder)
        grouped[key][run.seed or ""].append(run)
    members = [
        tuple(_furthest(twins, note) for twins in seeds.values()) for seeds in grouped.values()
    ]
    varying = _varying([group[0] for group in members])
    models = _short_names(_recorded(group[0].model for group in members))
    optimizers = _short_names(_recorded(group[0].optimizer for group in members))
    names = Counter(group[0].name for group in members)
    curves = [
        SeedGroup(
            runs=group,
            model=models.get(first.model or ""),
            optimizer=optimizers.get(first.optimizer or ""),
            variant=_variant(first, varying[first.optimizer]),
            name=first.name if names[first.name] == 1 else bounded(printable(first.folder)),
        )
        for group in members
        for first in group[:1]
    ]
    for curve in curves:
        if curve.unfinished:
            folders = ", ".join(printable(run.folder) for run in curve.unfinished)
            note(f"{folders}: fewer epochs than the other seeds; left out of their mean")
    return sorted(
        curves,
        key=lambda c: (
            rank(c.model, NETWORKS),
            rank(c.optimizer, OPTIMIZERS),
            by_number(c.variant),
        ),
    )


def in_words(curve: SeedGroup, among: Sequence[SeedGroup] = ()) -> str:
    """The network, with what tells the curve from the others: optimizer and settings."""
    return joined(curve.model or curve.name, settings_in_words(curve, among))


def settings_in_words(curve: SeedGroup, among: Sequence[SeedGroup] = ()) -> str:
    """The optimizer, if the others have another, and the settings that differ."""
    several = len({other.optimizer for other in among}) > 1
    return joined(curve.optimizer if several else None, curve.variant)


def _furthest(twins: Sequence[Run], note: Callable[[str], None]) -> Run:
    """The run of the same settings and seed that went furthest, with a note of each other."""
    kept = max(twins, key=_reached)
    for run in twins:
        if run is not kept:
            note(
                f"{printable(run.folder)}: same settings and seed as"
                f" {printable(kept.folder)}, which is drawn instead"
            )
    return kept


def _reached(run: Run) -> tuple[int, int]:
    return int(run.epochs[-1]), len(run.log)


def in_order(names: Iterable[str | None], usual: Sequence[str]) -> list[str]:
    """Distinct names, first those of the usual order, then the others by name; None left out."""
    return sorted(_recorded(names), key=lambda name: rank(name, usual))


def _recorded(names: Iterable[str | None]) -> set[str]:
    return {name for name in names if name is not None}


def rank(name: str | None, usual: Sequence[str]) -> tuple:
    """Sorting key: the usual names in their order, then others by name, None last."""
    place = usual.index(name) if name in usual else len(usual)
    return name is None, place, by_number(name or "")


def _short_names(names: Iterable[str]) -> dict[str, str]:
    """`path/to/net.py:MyNet` is MyNet, unless two files have one."""
    short = {name: NetworkSpec(name).call or name for name in names}
    taken = Counter(short.values())
    return {name: one if taken[one] == 1 else name for name, one in short.items()}


def _settings(run: Run) -> dict[str, str]:
    """The settings that make a run another curve, as text; null, the default, is left out."""
    settings = {
        key: _text(value)
        for key, value in {**_BEFORE, **run.args}.items()
        if key not in _NEUTRAL and isinstance(value, str | int | float)
    }
    if "lr_drop" in settings:
        unit = "iteration" if run.args.get("iteration") else "epoch"
        settings["lr_drop"] = f"{unit} {settings['lr_drop']}"
    if run.args.get("unverified_data"):
        # One name of a dataset, and whatever images there were.
        settings[_IMAGES] = _digest(run.args.get("dataset_sha256"))
    if sums := run.args.get("optimizer_files"):
        settings[_OPTIMIZER] = _digest(sums)
    return settings


def _digest(sums: Any) -> str:
    """One checksum of the checksums of several files."""
    return hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()


def _text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, float) and math.isfinite(value):
        return decimal(value)
    return printable(value if isinstance(value, str) else repr(value))


def _varying(runs: Sequence[Run]) -> dict[str | None, set[str]]:
    """Of each optimizer the names of the settings to tell its curves by.

    Those that are not the same in all runs that recorded their network. Optimizers have different
    learning rates and momenta by default: that makes them not vary. If one does, an optimizer
    says its own if that is not its default, or if it has several.
    """
    settings = [(run, _settings(run)) for run in runs if run.model]
    varying = _differing([_not_by_default(run) for run, _ in settings])
    for field, source in (("model", _SOURCE), ("optimizer", _OPTIMIZER)):
        sources = {(getattr(run, field), one.get(source)) for run, one in settings}
        if len(sources) == len({name for name, _ in sources}):  # one source for each
            varying.discard(source)
    of_each: dict[str | None, set[str]] = {}
    for optimizer in {run.optimizer for run in runs}:
        its = (_not_by_default(run) for run, _ in settings if run.optimizer == optimizer)
        own = {key for one in its for key in one}
        of_each[optimizer] = {name for name in varying if name in own or name not in RATES}
    return of_each


def _differing(settings: Sequence[dict[str, str]]) -> set[str]:
    """Names of the settings that are not the same in all."""
    names = {name for one in settings for name in one}
    return {name for name in names if len({one.get(name) for one in settings}) > 1}


def _not_by_default(run: Run) -> dict[str, str]:
    """The settings, without a learning rate and a momentum that are the optimizer's defaults."""
    settings = _settings(run)
    given = [run.args.get(key) for key in RATES]
    if given != [None, None] and run.optimizer:
        for key, value, default in zip(RATES, given, resolved(run.optimizer)[1:], strict=True):
            if value == default:
                settings.pop(key, None)
    return settings


def _variant(run: Run, varying: set[str]) -> str:
    settings = _settings(run)
    for name in settings:
        if name.endswith("_sha256"):
            settings[name] = settings[name][:8]
    words = (
        f"{_WORDS.get(name, printable(name))} {settings[name]}"
        for name in sorted(varying & set(settings))
    )
    return bounded(", ".join(words))
