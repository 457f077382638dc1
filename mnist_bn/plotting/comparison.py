"""Which figures a set of runs gets: a figure a network, a figure an optimizer, and an overview."""

import math
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from mnist_bn.errors import UserError
from mnist_bn.files import replacing
from mnist_bn.plotting import curves
from mnist_bn.plotting.appearance import (
    DASHES,
    NETWORK_LOOKS,
    OPTIMIZER_LOOKS,
    Look,
    looks,
    style,
)
from mnist_bn.plotting.curves import Line
from mnist_bn.plotting.groups import NETWORKS, OPTIMIZERS, Curve, group_runs, in_order, rank
from mnist_bn.plotting.results import Run, printable

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
_SEMANTICS = {
    "today": "evaluated in test mode",
    "2016": "evaluated in train mode, as Chainer 1.12 did",
}
# Of settings that all the runs share, and that the reader must know.
_PARTS = {
    "train_images": "first {} training images",
    "holdout": "evaluated on {} training images held out",
    "test_images": "evaluated on the first {} images",
}
# What a file keeps of its making would make two equal figures differ.
_METADATA = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}


def draw(runs: Sequence[Run], out: Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Draw the figures that make sense for these runs, which share figures; returns their files.

    Raises UserError when `out` cannot be written.
    """
    paths, taken = [], Counter()
    with style():
        for name, figure in figures(group_runs(runs)):
            taken[name.casefold()] += 1
            again = taken[name.casefold()]  # two networks whose names are one file name
            paths += save(figure, out, name if again == 1 else f"{name}-{again}", formats)
    return paths


def figures(every: Sequence[Curve]) -> Iterator[tuple[str, Figure]]:
    """File name (without its format) and figure, one after the other.

    A network's and an optimizer's figure want two curves or more. Curves that none of these shows,
    such as a run on its own, are drawn in `runs`, with all the others if there are not too many.
    """
    networks = looks(in_order((_network(c) for c in every), NETWORKS), NETWORK_LOOKS)
    optimizers = looks(in_order((_optimizer(c) for c in every), OPTIMIZERS), OPTIMIZER_LOOKS)
    shown: set[Curve] = set()
    for network, group in _by(every, "model").items():
        if len(group) > 1:
            shown.update(group)
            lines = _lines(group, ("optimizer",), lambda c: optimizers[_optimizer(c)])
            yield from _pages(f"network-{_file_name(network)}", network, lines)
    for optimizer, group in _by(every, "optimizer").items():
        if len(group) > 1:
            shown.update(group)
            lines = _lines(group, ("model",), lambda c: networks[_network(c)])
            yield from _pages(f"optimizer-{_file_name(optimizer)}", optimizer, lines)
    yield from _overview(every, networks)
    rest = [curve for curve in every if curve not in shown]
    if rest:
        group = every if len(every) <= MAX_LINES // 2 else rest
        lines = _lines(group, ("model", "optimizer"), lambda c: networks[_network(c)])
        yield from _pages("runs", lines[0].label if len(lines) == 1 else "Learning curves", lines)


def _overview(every: Sequence[Curve], networks: dict[str, Look]) -> Iterator[tuple[str, Figure]]:
    """A panel for each optimizer and its settings, in it the networks; wants two of both."""
    panels: dict[str, list[Line]] = {}
    for curve in every:
        if curve.model and curve.optimizer:
            line = Line(curve, _short(curve.model), *networks[curve.model])
            panels.setdefault(_joined(curve.optimizer, curve.variant), []).append(line)
    panels = dict(sorted(panels.items(), key=lambda item: _panel_order(item[1][0].curve)))
    models = {curve.model for curve in every} - {None}
    if len(panels) < 2 or not 2 <= len(models) <= MAX_NETWORKS:
        return
    for page, number in _paged(list(panels.items()), MAX_PANELS):
        shown = [line.curve for _, lines in page for line in lines]
        figure = curves.small_multiples(
            page, "Validation accuracy, all optimizers", subtitle(shown)
        )
        yield f"overview{number}", figure


def _pages(name: str, title: str, lines: Sequence[Line]) -> Iterator[tuple[str, Figure]]:
    for page, number in _paged(lines, MAX_LINES):
        described = subtitle([line.curve for line in page])
        yield f"{name}{number}", curves.learning_curves(page, _short(title), described)


def _paged(items: Sequence, size: int) -> list[tuple[Sequence, str]]:
    """Items in pages of like length, each with what its file name ends in: nothing for only one."""
    pages = math.ceil(len(items) / size)
    length = math.ceil(len(items) / pages) if pages else 0
    return [
        (items[i * length : (i + 1) * length], f"-{i + 1}" if pages > 1 else "")
        for i in range(pages)
    ]


def _lines(
    group: Sequence[Curve], named_by: Sequence[str], look: Callable[[Curve], Look]
) -> list[Line]:
    """The curves of one figure, named by what differs; a look used again gets other dashes."""
    names = []
    for curve in group:
        fields = [getattr(curve, field) for field in named_by]
        names.append(curve.name if None in fields else _joined(*fields, curve.variant))
    repeated = Counter(names)
    labels = [
        name if repeated[name] == 1 else _joined(name, curve.name)
        for curve, name in zip(group, names, strict=True)
    ]
    shortened, used, lines = Counter(map(_short, labels)), Counter(), []
    for curve, label in zip(group, labels, strict=True):
        dashes = DASHES[used[look(curve)] % len(DASHES)]
        used[look(curve)] += 1
        # Where their ends alone are the same, the names are given whole.
        shown = _short(label) if shortened[_short(label)] == 1 else label
        lines.append(Line(curve, shown, *look(curve), dashes))
    return lines


def conditions(group: Sequence[Curve]) -> str:
    """The data of these curves and how they were evaluated, in words."""
    runs = [run for curve in group for run in curve.runs]
    parts = [data(group), _known(runs, "semantics", _SEMANTICS)]
    for setting, words in _PARTS.items():
        counts = {str(run.args.get(setting)) for run in runs}
        if counts != {"None"} and len(counts) == 1:  # others are in the curves' names
            parts.append(words.format(_short(printable(counts.pop()))))
    return "  ·  ".join(parts)


def data(group: Sequence[Curve]) -> str:
    """The data of these curves in words, such as "MNIST"."""
    return _known([run for curve in group for run in curve.runs], "dataset", _DATASETS)


def seeds(count: int) -> str:
    """So many seeds in words: "1 seed", "3 seeds"."""
    return f"{count} seed{'s' * (count > 1)}"


def subtitle(group: Sequence[Curve]) -> str:
    """What the reader of a figure must know: the conditions, the seeds and what a ✕ means."""
    counts = {len(curve.finished) for curve in group if curve.survivors} or {1}
    parts = [conditions(group)]
    if max(counts) > 1:
        many = "" if len(counts) == 1 else "up to "
        parts.append(f"mean and range of {many}{seeds(max(counts))}")
    elif all(run.seed is not None for curve in group for run in curve.runs):
        parts.append(seeds(1))
    if any(curve.diverged for curve in group):
        parts.append("✕ diverged")
    return "  ·  ".join(parts)


def _known(runs: Sequence[Run], field: str, words: dict[str, str]) -> str:
    missing = sum(getattr(run, field) is None for run in runs)
    said = [words.get(kind, _short(kind)) for kind in sorted(_kinds(runs, field))]
    if not said:
        return f"{field} not recorded"
    unknown = f" (not recorded for {missing} of {len(runs)} runs)" if missing else ""
    return " and ".join(said) + unknown


def save(figure: Figure, out: Path, name: str, formats: Sequence[str]) -> list[Path]:
    """Write a figure in each format, whole or not at all; raises UserError when it cannot be."""
    paths = []
    for extension in dict.fromkeys(formats):
        path = out / f"{name}.{extension}"
        try:
            out.mkdir(parents=True, exist_ok=True)
            with replacing(path) as file, warnings.catch_warnings():
                # A letter that the font lacks is drawn as a box; that is no reason to say so here.
                warnings.filterwarnings("ignore", "Glyph .* missing from")
                figure.savefig(file, format=extension, metadata=_METADATA[extension])
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror})") from None
        paths.append(path)
    return paths


def _panel_order(curve: Curve) -> tuple:
    return rank(curve.optimizer, OPTIMIZERS), curve.variant


def _network(curve: Curve) -> str:
    return curve.model or curve.name


def _optimizer(curve: Curve) -> str:
    return curve.optimizer or curve.name


def _by(every: Sequence[Curve], field: str) -> dict[str, list[Curve]]:
    """Curves by their network or optimizer, those that did not record it left out."""
    groups: dict[str, list[Curve]] = defaultdict(list)
    for curve in every:
        if getattr(curve, field) is not None:
            groups[getattr(curve, field)].append(curve)
    return groups


def _kinds(runs: Sequence[Run], field: str) -> Counter:
    return Counter(getattr(run, field) for run in runs if getattr(run, field) is not None)


def _joined(*words: str) -> str:
    return ", ".join(word for word in words if word)


def _short(text: str) -> str:
    return text if len(text) <= MAX_LABEL else f"…{text[1 - MAX_LABEL :]}"


def _file_name(name: str) -> str:
    """A name as part of a file name: no separators, and well below 255 bytes."""
    return re.sub(r"[^\w.-]+", "_", name).encode()[:120].decode(errors="ignore")
