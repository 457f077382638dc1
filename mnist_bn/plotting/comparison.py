"""Which figures a set of runs gets: a figure a network, a figure an optimizer, and an overview."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from mnist_bn.config import SETTINGS
from mnist_bn.errors import UserError
from mnist_bn.plotting import curves
from mnist_bn.plotting.appearance import (
    NETWORK_LOOKS,
    OPTIMIZER_LOOKS,
    Look,
    looks,
    told_apart,
)
from mnist_bn.plotting.canvas import BETWEEN, boxes_for_unknown_letters
from mnist_bn.plotting.curves import Line
from mnist_bn.plotting.groups import NETWORKS, OPTIMIZERS, SeedGroup, group_runs, in_order, rank
from mnist_bn.plotting.notation import by_number
from mnist_bn.plotting.results import Run
from mnist_bn.plotting.words import joined, printable
from mnist_bn.storage.files import replacing

MAX_LINES = 18  # in one figure; more are continued in the next
MAX_PANELS = 16
MAX_NETWORKS = 10  # in the overview
MAX_LABEL = 48  # characters

_DATASETS = {
    "mnist": "MNIST",
    "digits": "scikit-learn digits, 1,797 images, resized to 28×28",  # noqa: RUF001
    "cifar10": "CIFAR-10",
    "cifar10-unverified": "CIFAR-10 images that are not the official bytes (unverified)",
}
# The same in a title.
_SHORT_DATASETS = {
    "mnist": "MNIST",
    "digits": "scikit-learn digits",
    "cifar10": "CIFAR-10",
    "cifar10-unverified": "unverified CIFAR-10",
}
_SEMANTICS = {
    "today": "evaluated in test mode",
    "2016": "evaluated in train mode, as Chainer 1.12 did",
}
# What a file keeps of its making would make two equal figures differ.
_METADATA = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}


def figures(runs: Sequence[Run]) -> Iterator[tuple[str, Figure]]:
    """The figures that make sense for these runs, which share figures."""
    return of_curves(group_runs(runs))


def of_curves(every: Sequence[SeedGroup]) -> Iterator[tuple[str, Figure]]:
    """File name (without its format) and figure, one after the other.

    A network's and an optimizer's figure want two curves or more. Curves that none of these shows,
    such as a run on its own, are drawn in `runs`, with all the others if there are not too many.
    """
    networks = looks(in_order((_network(c) for c in every), NETWORKS), NETWORK_LOOKS)
    optimizers = looks(in_order((_optimizer(c) for c in every), OPTIMIZERS), OPTIMIZER_LOOKS)
    shown: set[SeedGroup] = set()
    for network, group in _by(every, "model").items():
        if len(group) > 1:
            shown.update(group)
            lines = _lines(group, ("optimizer",), lambda c: optimizers[_optimizer(c)])
            yield from _pages(f"network-{_file_name(network)}", _title(group), lines)
    for optimizer, group in _by(every, "optimizer").items():
        if len(group) > 1:
            shown.update(group)
            lines = _lines(group, ("model",), lambda c: networks[_network(c)])
            yield from _pages(f"optimizer-{_file_name(optimizer)}", _title(group), lines)
    yield from _overview(every, networks)
    rest = [curve for curve in every if curve not in shown]
    if rest:
        left = every if len(every) <= MAX_LINES // 2 else rest
        lines = _lines(left, ("model", "optimizer"), lambda c: networks[_network(c)])
        yield from _pages("runs", _title(left), lines)


def _title(group: Sequence[SeedGroup]) -> str:
    """What a figure compares and on what data, such as "4 networks under SGD, on MNIST"."""
    networks = _one_or_many([curve.model for curve in group], "network")
    optimizers = _one_or_many([curve.optimizer for curve in group], "optimizer")
    if networks and optimizers:
        title = f"{networks} under {optimizers}"
    elif len(group) == 1:
        title = _short(group[0].name)
    else:
        title = "Learning curves"
    combinations = Counter((curve.model, curve.optimizer) for curve in group)
    if len(group) > len(combinations) and title != "Learning curves":
        title += f", {len(group)} settings" if len(combinations) == 1 else ", at several settings"
    return f"{title}{on(group)}"


def on(group: Sequence[SeedGroup]) -> str:
    """The end of a title: ", on MNIST", or nothing if no dataset is recorded."""
    datasets = sorted(_kinds([run for curve in group for run in curve.runs], "dataset"))
    names = " and ".join(_SHORT_DATASETS.get(name, _short(name)) for name in datasets)
    return f", on {names}" if names else ""


def _one_or_many(names: Sequence[str | None], noun: str) -> str:
    """The name that all share, or how many there are; nothing if one is not recorded."""
    distinct = {name for name in names if name is not None}
    if None in names:
        return ""
    return f"{len(distinct)} {noun}s" if len(distinct) > 1 else _short(distinct.pop())


def _to_see(group: Sequence[SeedGroup]) -> str:
    if max(len(run.log) for curve in group for run in curve.runs) > 1:
        return "See how soon each curve rises, and where it ends."
    bars = any(len(curve.finished) > 1 for curve in group)
    return f"One evaluation each: a point a curve{', its seeds a bar' * bars}."


def _overview(
    every: Sequence[SeedGroup], networks: dict[str, Look]
) -> Iterator[tuple[str, Figure]]:
    """A panel for each optimizer and its settings, in it the networks; wants two of both."""
    models = in_order((curve.model for curve in every), NETWORKS)
    every_look = told_apart([networks[model] for model in models])
    styles = dict(zip(models, every_look, strict=True))
    panels: dict[str, list[Line]] = {}
    for curve in every:
        if curve.model and curve.optimizer:
            line = Line(curve, _short(curve.model), *styles[curve.model])
            panels.setdefault(joined(curve.optimizer, curve.variant), []).append(line)
    panels = dict(sorted(panels.items(), key=lambda item: _panel_order(item[1][0].curve)))
    if len(panels) < 2 or not 2 <= len(models) <= MAX_NETWORKS:
        return
    for page, number in _paged(list(panels.items()), MAX_PANELS):
        shown = [line.curve for _, lines in page for line in lines]
        title = f"Validation accuracy of {_title(shown)}"
        said = f"{subtitle(shown)}\nAll panels have the same axes. {_to_see(shown)}"
        yield f"overview{number}", curves.small_multiples(page, title, said)


def _pages(name: str, title: str, lines: Sequence[Line]) -> Iterator[tuple[str, Figure]]:
    for page, number in _paged(lines, MAX_LINES):
        shown = [line.curve for line in page]
        said = f"{subtitle(shown)}\n{_to_see(shown)} {training_note(shown[0].unit)}"
        if any(curve.survivors and curve.diverged for curve in shown):
            said += " A thin line is a seed that diverged."
        part = f" ({number.lstrip('-')})" if number else ""
        yield f"{name}{number}", curves.learning_curves(page, title + part, said)


def _paged(items: Sequence, size: int) -> list[tuple[Sequence, str]]:
    """Items in pages of like length, each with what its file name ends in: nothing for only one."""
    pages = math.ceil(len(items) / size)
    length = math.ceil(len(items) / pages) if pages else 0
    return [
        (items[i * length : (i + 1) * length], f"-{i + 1}" if pages > 1 else "")
        for i in range(pages)
    ]


def _lines(
    group: Sequence[SeedGroup], named_by: Sequence[str], look: Callable[[SeedGroup], Look]
) -> list[Line]:
    """The curves of one figure, named by what differs, each with a look of its own."""
    names = []
    for curve in group:
        fields = [getattr(curve, field) for field in named_by]
        names.append(curve.name if None in fields else joined(*fields, curve.variant))
    repeated = Counter(names)
    labels = [
        name if repeated[name] == 1 else joined(name, curve.name)
        for curve, name in zip(group, names, strict=True)
    ]
    shortened, lines = Counter(map(_short, labels)), []
    every_look = told_apart([look(curve) for curve in group])
    for curve, label, look_of_line in zip(group, labels, every_look, strict=True):
        # If what is left of two is the same, the names are given whole.
        shown = _short(label) if shortened[_short(label)] == 1 else label
        lines.append(Line(curve, shown, *look_of_line))
    return lines


def conditions(group: Sequence[SeedGroup]) -> str:
    """The data of these curves and how they were evaluated, in words."""
    runs = [run for curve in group for run in curve.runs]
    parts = [data(group), _known(runs, "semantics", _SEMANTICS)]
    for setting in SETTINGS.values():
        values = {str(run.args.get(setting.name)) for run in runs}
        if setting.shared and values != {"None"} and len(values) == 1:  # others are in the names
            parts.append(setting.shared.format(_short(printable(values.pop()))))
    return BETWEEN.join(parts)


def data(group: Sequence[SeedGroup]) -> str:
    """The data of these curves in words, such as "MNIST"."""
    return _known([run for curve in group for run in curve.runs], "dataset", _DATASETS)


def seeds(count: int) -> str:
    """So many seeds in words: "1 seed", "3 seeds"."""
    return f"{count} seed{'s' * (count > 1)}"


def training_note(unit: str) -> str:
    """Says of what a log's training numbers are means, and in which mode."""
    since = (
        "an epoch's minibatches" if unit == "epoch" else "the minibatches since the point before"
    )
    return f"A training point is a mean over {since}, in train mode (dropout on, if any)."


def left_out(count: int) -> list[str]:
    """The part of a subtitle that says how many runs are not in the figure; none if all are."""
    return [f"{count} run{'s' * (count > 1)} not finished, left out"] * (count > 0)


def subtitle(group: Sequence[SeedGroup]) -> str:
    """What the reader of a figure must know: the conditions, the seeds, what ✕ and ○ mean."""
    counts = {len(curve.finished or curve.runs) for curve in group}
    parts = [conditions(group)]
    if max(counts) > 1:
        many = "" if len(counts) == 1 else "up to "
        parts.append(f"mean and range of {many}{seeds(max(counts))}")
    elif all(run.seed is not None for curve in group for run in curve.runs):
        parts.append(seeds(1))
    if any(curve.diverged for curve in group):
        parts.append("✕ diverged")
    if any(curve.is_cut_short for curve in group):
        parts.append("○ not finished")
    return BETWEEN.join(parts)


def _known(runs: Sequence[Run], field: str, words: dict[str, str]) -> str:
    missing = sum(getattr(run, field) is None for run in runs)
    said = [words.get(kind, _short(kind)) for kind in sorted(_kinds(runs, field))]
    if not said:
        return f"{field} not recorded"
    unknown = f" (not recorded for {missing} of {len(runs)} runs)" if missing else ""
    return " and ".join(said) + unknown


def save(figure: Figure, paths: Sequence[Path]) -> None:
    """Write a figure in each file's format, whole or not at all.

    Raises:
        UserError: a file cannot be written.
    """
    for path in paths:
        extension = path.suffix[1:]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as file, boxes_for_unknown_letters():
                figure.savefig(file, format=extension, metadata=_METADATA[extension])
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror})") from None


def _panel_order(curve: SeedGroup) -> tuple:
    return rank(curve.optimizer, OPTIMIZERS), by_number(curve.variant)


def _network(curve: SeedGroup) -> str:
    return curve.model or curve.name


def _optimizer(curve: SeedGroup) -> str:
    return curve.optimizer or curve.name


def _by(every: Sequence[SeedGroup], field: str) -> dict[str, list[SeedGroup]]:
    """Curves by their network or optimizer, those that did not record it left out."""
    groups: dict[str, list[SeedGroup]] = defaultdict(list)
    for curve in every:
        if getattr(curve, field) is not None:
            groups[getattr(curve, field)].append(curve)
    return groups


def _kinds(runs: Sequence[Run], field: str) -> Counter:
    return Counter(getattr(run, field) for run in runs if getattr(run, field) is not None)


def _short(text: str) -> str:
    """The name, without its middle if it is long: a path begins, and a class ends, with more."""
    if len(text) <= MAX_LABEL:
        return text
    half = (MAX_LABEL - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def _file_name(name: str) -> str:
    """A name as part of a file name: no separators, and well below 255 bytes."""
    return re.sub(r"[^\w.-]+", "_", name).encode()[:120].decode(errors="ignore")
