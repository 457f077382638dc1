"""Variance shift: what dropout before BN does to the variance that BN meets in the test.

Li, Chen, Hu & Yang, "Understanding the Disharmony between Dropout and Batch Normalization by
Variance Shift" (arXiv 1801.05134). Dropout with retain probability p divides what it keeps by p, so
that in training the variance is larger than in the test, by 1 / p if the mean is 0; BN keeps the
variance of training. Three networks with dropout in three places, over drop ratios, and the blog's
`MnistCNN_BN_linear_before`, which is case b at its last layer. The paper's networks are CIFAR's;
optimizer (Adam) and length are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from mnist_bn import observations
from mnist_bn.names.specs import NetworkSpec
from mnist_bn.observers.measured import Observed
from mnist_bn.observers.variance_shift import layer_ticks, shifts, test_mode
from mnist_bn.plotting import comparison, panels, tables
from mnist_bn.plotting.appearance import (
    BLACK,
    BLUE,
    DASHES,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
)
from mnist_bn.plotting.canvas import BETWEEN
from mnist_bn.plotting.claims import Claim, Numbers
from mnist_bn.plotting.groups import SeedGroup, complete, group_runs, settings_in_words
from mnist_bn.plotting.notation import by_number
from mnist_bn.plotting.results import VALIDATION_ACCURACY, Run
from mnist_bn.plotting.words import joined

RATIOS = (0.0, 0.1, 0.3, 0.5, 0.7)  # the paper's
CASE_A, CASE_B = "MnistCNN_dropout_BN", "MnistCNN_dropout_conv_BN"
REMEDY, BLOG = "MnistCNN_BN_dropout", "MnistCNN_BN_linear_before"
OBSERVED = ("variance-shift", "reestimated-bn")

_SETTINGS = {
    "model": [
        *(f"{name}(ratio={ratio:g})" for name in (CASE_A, CASE_B, REMEDY) for ratio in RATIOS),
        BLOG,
    ],
    "optimizer": ["Adam"],
    "observe": ",".join(OBSERVED),
}
PRESETS = {
    "quick": {**_SETTINGS, "seed": [0], "epoch": 1},
    "full": {**_SETTINGS, "seed": [0, 1, 2], "epoch": 5},
}

_TITLES = {
    CASE_A: f"a  {CASE_A}: dropout directly before BN",
    CASE_B: f"b  {CASE_B}: dropout before the layer that BN follows",
    REMEDY: f"Remedy  {REMEDY}: dropout after the last BN",
}
_LABELS = {
    CASE_A: f"{CASE_A}: a, dropout → BN",
    CASE_B: f"{CASE_B}: b, dropout → layer → BN",
    REMEDY: f"{REMEDY}: remedy, BN → dropout",
    BLOG: BLOG,
}
_SHIFT_TO_SEE = (
    "At 1 BN meets in the test the variance of training. See how the shift grows from layer to "
    "layer, and with the drop ratio. Dotted: theory, multiplied from layer to layer."
)
_ACCURACY_TO_SEE = (
    "See how much accuracy dropout costs before BN, and how much of it comes back (dashed)."
)
_COLOURS = {CASE_A: VERMILLION, CASE_B: BLUE, REMEDY: GREEN, BLOG: PURPLE}
_SPARE = (ORANGE, SKY, GREY)
_RATIO_COLOURS: dict[float | None, str] = dict(
    zip(RATIOS, (BLACK, BLUE, GREEN, ORANGE, VERMILLION), strict=True)
)
_USUAL_RATIO = 0.5  # of each of these networks, if its name says none


class _Measured(NamedTuple):
    """What was measured at the end of a network's runs; `layers` and `shift` in order of use."""

    curve: SeedGroup
    name: str  # the network's, without its drop ratio
    setting: str  # the optimizer and other settings, if the runs differ in them
    ratio: float | None  # None: the network's name says none
    accuracy: np.ndarray  # (seeds,)
    anew: np.ndarray  # with statistics re-estimated, (seeds,); empty if that was not observed
    layers: list[str]
    shift: np.ndarray  # averaged over channels, (seeds, layers)
    predicted: np.ndarray  # of case a by `theory` from each layer's own moments, (seeds, layers)


def theory(mean: np.ndarray, variance: np.ndarray, ratio: float) -> np.ndarray:
    """Returns the variance shift of dropout directly before BN, of any shape.

    Of a variance v around a mean c dropout with retain probability p makes (v + c²) / p - c²: it
    divides the second moment by p and keeps the mean. That is 1 / p times v if the mean is 0,
    and more elsewhere.

    Args:
        mean, variance: of what dropout receives.
        ratio: how many dropout drops, 1 - p.
    """
    return 1 + ratio / (1 - ratio) * (1 + mean**2 / variance)


def figures(runs: Sequence[Run]) -> Iterator[tuple[str, Figure | str]]:
    """Yields the shift against the BN layer, a panel a case, and accuracy against the drop ratio.

    Runs without measurements, that are not finished, or all of whose seeds diverged, are left out.
    """
    finished = complete(runs)
    every = measured(group_runs(finished))
    missing = comparison.left_out(len(runs) - len(finished))
    with_ratio = [one for one in every if one.ratio is not None]
    for name, figure_of, shown in (
        ("variance-shift", _shift_figure, every),
        ("variance-shift-accuracy", _accuracy_figure, with_ratio),
    ):
        if shown:
            parts = [comparison.subtitle([one.curve for one in shown]), *missing]
            yield name, figure_of(shown, BETWEEN.join(parts))
    yield "variance-shift", _table(every)


def measured(curves: Sequence[SeedGroup]) -> list[_Measured]:
    """Returns what was measured of those that were: by network, setting and drop ratio."""
    every = [one for curve in curves if (one := _measured(curve, curves)) is not None]
    return sorted(every, key=lambda one: (*_order(one.name, one.setting), one.ratio or 0))


def _measured(curve: SeedGroup, among: Sequence[SeedGroup]) -> _Measured | None:
    """Returns the last measurements of the finished runs; None: there are none."""
    accuracy, anew, shift, predicted, layers = [], [], [], [], None
    name = NetworkSpec(curve.model or curve.name).without("ratio")
    setting = settings_in_words(curve, among)
    ratio = _ratio(curve.model or "")
    for run in curve.finished:
        series = observations.read(run, "variance-shift")
        if series is None:
            continue
        by_layer = shifts(series)
        layers = layers or list(by_layer)
        if list(by_layer) != layers:  # another network under the same name
            continue
        accuracy.append(run.values(VALIDATION_ACCURACY)[-1])
        shift.append([array[-1].mean() for array in by_layer.values()])
        if name == CASE_A and ratio is not None:
            predicted.append([_predicted(series, layer, ratio) for layer in layers])
        again = observations.read(run, "reestimated-bn")
        if again is not None:
            anew.append(again["accuracy"][-1])
    if layers is None:
        return None
    arrays = (np.array(values, dtype=np.float64) for values in (shift, predicted))
    accuracies = np.array(accuracy), np.array(anew)
    return _Measured(curve, name, setting, ratio, *accuracies, layers, *arrays)


def _predicted(series: Observed, layer: str, ratio: float) -> float:
    """Returns by `theory` the shift of one layer, averaged over the channels that have any."""
    with np.errstate(all="ignore"):  # a channel without variance has none
        mean, variance = (series[f"{part}/{layer}"][-1] for part in ("real_mean", "real_var"))
        shift = theory(mean, variance, ratio)
    return float(shift[np.isfinite(shift)].mean()) if np.isfinite(shift).any() else np.nan


def _shift_figure(every: Sequence[_Measured], subtitle: str) -> Figure:
    """The panels of `_TITLES`, then one for each other network; the blog's is in that of case b."""
    layers = list(dict.fromkeys(layer for one in every for layer in one.layers))
    ticks = layer_ticks(layers)
    place = dict(zip(layers, ticks, strict=True))
    shown: dict[tuple[str, str], list[panels.Series]] = {}
    for one in every:
        x = np.array([place[layer] for layer in one.layers])
        is_blogs = one.name == BLOG
        colour = PURPLE if is_blogs else _RATIO_COLOURS.get(one.ratio, GREY)
        label = f"drop ratio {one.ratio:g}" if one.ratio is not None else one.name
        label = f"{BLOG}, {label}" if is_blogs else label
        lines = shown.setdefault((CASE_B if is_blogs else one.name, one.setting), [])
        if one.ratio and len(one.predicted):
            # A BN that divides by too much hands on too small a variance, so the shifts multiply.
            # Before the first layer nothing is dropped.
            theirs = np.cumprod([1, *one.predicted.mean(axis=0)[1:]])
            lines.append(panels.Series(x, theirs, "", colour, DASHES[2]))
        lines.append(
            panels.Series(
                *(x, one.shift.mean(axis=0), label, colour),
                *(DASHES[1] if is_blogs else "-", one.shift.min(axis=0), one.shift.max(axis=0)),
                marker="o",
            )
        )
    finite = [
        line.y[np.isfinite(line.y)].max(initial=1) for some in shown.values() for line in some
    ]
    limits = (0.85, 1.3 * max(finite))
    variance = f"variance{test_mode(_runs(every))}, mean over channels"
    return panels.stacked(
        [
            panels.Panel(joined(_TITLES.get(name, name), setting), lines, limits, log_y=True)
            for (name, setting), lines in sorted(shown.items(), key=lambda item: _order(*item[0]))
        ],
        f"Variance shift from one BN to the next{comparison.on([one.curve for one in every])}",
        f"max(real / moving, moving / real) {variance}{BETWEEN}{subtitle}\n{_SHIFT_TO_SEE}",
        "BN layer",
        x_ticks=ticks,
    )


def _accuracy_figure(every: Sequence[_Measured], subtitle: str) -> Figure:
    lines = []
    spare = iter(_SPARE * len(every))
    settings = list(dict.fromkeys(one.setting for one in every))
    for name, setting in dict.fromkeys((one.name, one.setting) for one in every):
        group = [one for one in every if (one.name, one.setting) == (name, setting)]
        is_first = setting == settings[0]
        colour = (_COLOURS.get(name) if is_first else None) or next(spare)
        x = np.array([one.ratio for one in group])
        label = joined(_LABELS.get(name, name), setting)
        for values, dashes, label_ in (
            ([one.anew for one in group if len(one.anew)], DASHES[1], ""),
            ([one.accuracy for one in group], "-", label),
        ):
            if len(values) == len(group):
                mean, low, high = (
                    np.array([f(v) for v in values]) for f in (np.mean, np.min, np.max)
                )
                lines.append(panels.Series(x, mean, label_, colour, dashes, low, high, marker="o"))
    ratios = sorted({one.ratio for one in every if one.ratio is not None})
    dashed = f"dashed{test_mode(_runs(every))}"
    title = f"Test accuracy ({dashed}: BN's statistics re-estimated, no dropout)"
    panel = panels.Panel(title, lines)
    return panels.stacked(
        [panel],
        f"Accuracy against the drop ratio{comparison.on([one.curve for one in every])}",
        f"{subtitle}\n{_ACCURACY_TO_SEE}",
        "Drop ratio",
        x_ticks={ratio: f"{ratio:g}" for ratio in ratios},
    )


def _table(every: Sequence[_Measured]) -> str:
    """Markdown: a row a network and drop ratio; accuracies, and the shift of each BN layer.

    Rows and columns change places if there are more layers than a table has room for.
    """
    layers = list(dict.fromkeys(layer for one in every for layer in one.layers))
    head = ["network", "drop ratio", "test accuracy", "statistics re-estimated", *layers]
    head.append(f"{layers[1] if len(layers) > 1 else 'BN'} by theory")
    rows = []
    for one in every:
        shift = dict(zip(one.layers, one.shift.mean(axis=0), strict=True))
        rows.append(
            [
                joined(one.name, one.setting),
                f"{one.ratio:g}" if one.ratio is not None else "",
                _spread(one.accuracy),
                _spread(one.anew),
                *(f"{shift[layer]:.3g}" if layer in shift else "" for layer in layers),
                f"{one.predicted[:, 1].mean():.3g}" if one.predicted.shape[1:] > (1,) else "",
            ]
        )
    title = (
        "At the end: test accuracy, the same with BN's statistics re-estimated from the\n"
        "training images without dropout, and the variance shift of each BN layer, averaged over\n"
        "channels and seeds; if dropout first stands directly before BN also by theory, from\n"
        "the mean and variance there."
    )
    lines = [head, *rows]
    if len(layers) > tables.MAX_NETWORKS:
        lines = [list(line) for line in zip(*lines, strict=True)]
    return f"{title}\n\n{tables.markdown(lines)}\n"


def _spread(values: np.ndarray) -> str:
    if not len(values):
        return ""
    mean = f"{values.mean():.4f}"
    return mean if len(values) == 1 else f"{mean} ± {values.std(ddof=1):.4f}"


def _ratio(model: str) -> float | None:
    """Returns the drop ratio that a network's name says, or the usual; None: it is not known."""
    ratio = NetworkSpec(model).number("ratio")
    if ratio is not None and 0 <= ratio < 1:
        return ratio
    return _USUAL_RATIO if model in _LABELS else None


def _runs(every: Sequence[_Measured]) -> list[Run]:
    return [run for one in every for run in one.curve.runs]


def _order(name: str, setting: str) -> tuple:
    """Sorting key of a network and its settings: the study's networks come first."""
    order = list(_LABELS)
    place = order.index(name) if name in order else len(order)
    return place, by_number(name), by_number(setting)


def _each(
    runs: Sequence[Run], name: str, number: Callable[[_Measured], np.ndarray], least: float = 0
) -> Numbers:
    """A number of each seed of a network, at every drop ratio above the least."""
    found = {ratio: one for ratio, one in _found(runs, name).items() if ratio > least}
    return {f"ratio {ratio:g}": np.ravel(number(one)).tolist() for ratio, one in found.items()}


def _found(runs: Sequence[Run], name: str) -> dict[float, _Measured]:
    """What was measured of a network by drop ratio; nothing if its runs have several settings."""
    every = [one for one in measured(group_runs(complete(runs))) if one.name == name]
    ratios = {one.ratio: one for one in every if one.ratio is not None}
    return ratios if len(ratios) == len(every) else {}


def _beside_b(
    runs: Sequence[Run], number: Callable[[_Measured, _Measured], np.ndarray], least: float = 0
) -> Numbers:
    """A number of each seed from case a and case b, at every drop ratio above the least."""
    b = _found(runs, CASE_B)

    def of_both(a: _Measured) -> np.ndarray:
        other = b.get(a.ratio or 0)
        if other is None or other.shift.shape != a.shift.shape or _seeds(a) != _seeds(other):
            return np.zeros(0)
        return number(a, other)

    return _each(runs, CASE_A, of_both, least)


def _seeds(one: _Measured) -> list[str | None]:
    return [run.seed for run in one.curve.finished]


def _cost(runs: Sequence[Run]) -> Numbers:
    """The remedy's accuracy less the mean of the same network's without dropout."""
    without = _found(runs, REMEDY).get(0.0)
    if without is None:
        return {}
    return _each(runs, REMEDY, lambda one: one.accuracy - without.accuracy.mean())


def _brought_back(one: _Measured) -> np.ndarray:
    """The accuracy that comes back with statistics re-estimated."""
    is_there = len(one.anew) == len(one.accuracy)
    return one.anew - one.accuracy if is_there else np.zeros(0)


CLAIMS = (
    Claim(
        *("dropout before BN shifts its variance", "shift of the second BN times p, case a"),
        lambda runs: _each(runs, CASE_A, lambda one: one.shift[:, 1:2] * (1 - (one.ratio or 0))),
        above=0.95,
    ),
    Claim(
        *("as theory has it", "shift of the second BN over theory's, case a"),
        lambda runs: _each(runs, CASE_A, lambda one: one.shift[:, 1:2] / one.predicted[:, 1:2]),
        above=0.95,
        below=1.05,
    ),
    Claim(
        *(
            "a layer between lessens the shift",
            "case a's less case b's, least of the dropped layers",
        ),
        lambda runs: _beside_b(runs, lambda a, b: (a.shift - b.shift)[:, 1:].min(axis=1)),
        above=0,
    ),
    Claim(
        *("the shift costs test accuracy", "what new statistics bring back, case a from 0.5 on"),
        lambda runs: _each(runs, CASE_A, _brought_back, least=0.4),
        above=0,
    ),
    Claim(
        *("less shift, less loss", "accuracy of case b less that of case a, from 0.5 on"),
        lambda runs: _beside_b(runs, lambda a, b: b.accuracy - a.accuracy, least=0.4),
        above=0,
    ),
    Claim(
        *("the blog's linear BN has the shift, too", "shift of its last BN less the one before"),
        lambda runs: _each(runs, BLOG, lambda one: one.shift[:, -1:] - one.shift[:, -2:-1]),
        above=0,
    ),
    Claim(
        *("dropout after the last BN has no shift", "largest shift"),
        lambda runs: _each(runs, REMEDY, lambda one: one.shift.max(axis=1)),
        below=1.1,
    ),
    Claim(
        *("and costs no accuracy", "accuracy less the mean without dropout"), _cost, above=-0.002
    ),
)
