"""Dying ReLU: 784-256-10 under Adam, with BN and without, over batch sizes and LeakyReLU slopes.

Units are counted as dead by their weight updates (`dead-units`), and the updates filmed
(`weight-updates`). The study's scale of the initial weights and place of BN are not known: here it
is Chainer's scale, sqrt(1 / inputs), and BN stands before the ReLU.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.figure import Figure

from mnist_bn import observations
from mnist_bn.observers.dead_units import count, twice
from mnist_bn.plotting import claims, comparison, panels, tables
from mnist_bn.plotting.appearance import BLACK, BLUE, DASHES, GREEN, ORANGE, PURPLE, VERMILLION
from mnist_bn.plotting.claims import Claim, Numbers, final
from mnist_bn.plotting.film import Film
from mnist_bn.plotting.groups import SeedGroup, group_runs
from mnist_bn.plotting.results import TRAIN_ACCURACY, VALIDATION_ACCURACY, Run

BATCH_SIZE = 100


_SETTINGS = {
    "optimizer": ["Adam"],
    "batchsize": BATCH_SIZE,
    "observe": "dead-units,weight-updates",
}
_BOTH = ["ReluMLP", "ReluMLP_BN"]


def _runs(
    epochs: int, seeds: Sequence[int], sizes: Sequence[int], slopes: Sequence[float]
) -> list[dict]:
    """Both networks, the one with BN at other batch sizes, and both with slopes."""
    sloped = [f"{network}(slope={slope})" for slope in slopes for network in _BOTH]
    return [
        {**_SETTINGS, "epoch": epochs, "seed": list(seeds), **settings}
        for settings in (
            {"model": ["ReluMLP"]},
            {"model": ["ReluMLP_BN"], "batchsize": list(sizes)},
            {"model": sloped},
        )
    ]


PRESETS = {
    "quick": _runs(3, [0], (BATCH_SIZE, 500), (0.01,)),
    "full": _runs(60, [0, 1, 2], (10, 50, BATCH_SIZE, 200, 500), (0.001, 0.01, 0.18, 0.5)),
    # The pair alone, for as long as the study trained at most; in a folder of its own.
    "long": [{**_SETTINGS, "model": _BOTH, "epoch": 100, "seed": [0, 1, 2], "out": "long"}],
}

# Observers whose measurements the figures below show.
OBSERVED = ("dead-units", "weight-updates")

_COLOURS = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE)
_COUNTS = {
    "flat_update": "dW flat",
    "flat_gradient": "last gradient flat",
    "never_positive": "positive for no training image",
}


def figures(runs: Sequence[Run]) -> Iterator[tuple[str, Figure | str | Film]]:
    """Yields accuracy above and dead units below against the epoch, three times, and the film.

    BN against none, BN over the batch sizes, and both over the slopes; of each what was run.
    `dead-units.md` has the counts by every definition.
    """
    every = sorted(group_runs(runs), key=lambda curve: (curve.has_bn, _slope(curve), _size(curve)))
    curves = [curve for curve in every if counts(curve, "flat_update") is not None]
    for name, title, shown in _figures(curves):
        if shown:
            yield name, _two_panels(shown, title)
    filmed = {
        label: series
        for curve, label, *_ in _plain(curves)
        if curve.finished
        and (series := observations.read(curve.finished[0], "weight-updates")) is not None
    }
    if filmed:
        yield "dying-relu-film", Film(filmed, curves[0].unit)
    yield "dead-units", _table(every)


def counts(curve: SeedGroup, kind: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns epochs, `(T,)`, and how many hidden units are dead, `(seeds, T)`; None: not observed.

    Args:
        kind: by what definition: "flat_update" (the study's), "flat_gradient" or "never_positive".
    """
    found = []
    for run in curve.finished:
        series = observations.read(run, "dead-units")
        if series is None:
            return None
        # The hidden layer is the first; the other is the output.
        units = next((a for key, a in series.items() if key.startswith(f"{kind}/")), None)
        if units is None:
            return None
        found.append((observations.times(run, series), count(kind, units)))
    if not found:
        return None
    length = min(len(x) for x, _ in found)
    return found[0][0][:length], np.array([count[:length] for _, count in found])


def hidden_units(curve: SeedGroup) -> int:
    """Returns how many units the hidden layer has that `counts` counts."""
    series = observations.read(curve.finished[0], "dead-units") or {}
    return next(a.shape[1] for key, a in series.items() if key.startswith("flat_update/"))


def _figures(curves: Sequence[SeedGroup]) -> list[tuple[str, str, list[tuple]]]:
    """File name, title and what is shown: curve, label, colour and dashes.

    Labels are the networks' names, as `--model` takes them.
    """
    sizes = [
        (curve, f"{curve.model}, batch {_size(curve)}", colour, "-")
        for curve, colour in zip(
            (curve for curve in curves if curve.has_bn and _slope(curve) == 0),
            itertools.cycle(_COLOURS),
            strict=False,
        )
    ]
    slopes = sorted({_slope(curve) for curve in curves} - {0.0})
    by_slope = [
        (curve, _named(curve, curves), _COLOURS[i % len(_COLOURS)], dashes)
        for curve in curves
        for i, slope in enumerate(slopes)
        if _slope(curve) == slope
        for dashes in ["-" if curve.has_bn else DASHES[1]]
    ]
    return [
        ("dying-relu", "Dying ReLU: without BN and with it", _plain(curves)),
        ("dying-relu-batch-sizes", "Dying ReLU: with BN, over batch sizes", sizes),
        ("dying-relu-slopes", "Dying ReLU: LeakyReLU's slopes, without BN and with it", by_slope),
    ]


def _plain(curves: Sequence[SeedGroup]) -> list[tuple]:
    """Those with a plain ReLU, at BATCH_SIZE, or if another was given, at the least there is."""
    sizes = {_size(curve) for curve in curves if _slope(curve) == 0}
    usual = BATCH_SIZE if BATCH_SIZE in sizes else min(sizes, default=BATCH_SIZE)
    plain = [curve for curve in curves if _slope(curve) == 0 and _size(curve) == usual]
    return [(curve, _named(curve, plain), BLUE if curve.has_bn else BLACK, "-") for curve in plain]


def _two_panels(shown: Sequence[tuple], title: str):
    # Of one colour, dotted lines cannot be told apart.
    has_dotted = len({colour for _, _, colour, _ in shown}) == len(shown) <= 2
    accuracy, dead, top = [], [], 5.0
    for curve, label, colour, dashes in shown:
        counted = counts(curve, "flat_update")
        if counted is None:
            continue
        test = panels.of_curve(curve, VALIDATION_ACCURACY, label, colour, dashes)
        training = panels.of_curve(curve, TRAIN_ACCURACY, "", colour, DASHES[2])
        accuracy += [training, test] if has_dotted else [test]
        x, number = counted
        mean, top = number.mean(axis=0), max(top, number.max())
        dead.append(
            panels.Series(
                *(x, mean, f"{label}: {mean[-1]:.3g}", colour, dashes),
                *(number.min(axis=0), number.max(axis=0)),
                is_cut_short=curve.is_cut_short,
            )
        )
    curves = [curve for curve, *_ in shown]
    dotted = f" (on training minibatches: {panels.dotted(curves)})" * has_dotted
    unit = curves[0].unit
    said = (
        f"{comparison.subtitle(curves)}\nSee below how many units no longer learn, their weight "
        f"update (dW) flat {twice(unit)}; above, what that costs."
    )
    if has_dotted:
        said += f" {comparison.training_note(unit)}"
    if any(dashes != "-" for *_, dashes in shown):
        said += f" {'Dashed' if panels.dotted(curves) == 'dotted' else 'Hollow'}: without BN."
    units = sorted({hidden_units(curve) for curve in curves})
    return panels.stacked(
        [
            panels.Panel(f"Accuracy on test images{dotted}", accuracy),
            panels.Panel(
                f"Dead hidden units, of {' or '.join(map(str, units))}",
                dead,
                (-0.04 * top, 1.1 * top),
                integer=True,
            ),
        ],
        f"{title}{comparison.on(curves)}",
        said,
        unit.capitalize(),
    )


def _table(curves: Sequence[SeedGroup]) -> str:
    """Markdown: a row a network and batch size; accuracy and dead units at the last epoch."""
    signs = {**_COUNTS, "flat_update": f"dW flat {twice(curves[0].unit)}"}
    head = ["network", "batch", "training accuracy", "test accuracy", *signs.values()]
    rows = []
    for curve in curves:
        ends = [
            "diverged" if not curve.survivors else f"{mean[-1]:.4f}" if len(mean) else ""
            for mean in (curve.band(key).mean for key in (TRAIN_ACCURACY, VALIDATION_ACCURACY))
        ]
        found = [counts(curve, kind) for kind in _COUNTS]
        dead = ["" if one is None else f"{one[1][:, -1].mean():.3g}" for one in found]
        rows.append([curve.model or curve.name, str(_size(curve)), *ends, *dead])
    title = "At the end: accuracy, and how many of the hidden units are dead by what sign."
    return f"{title}\n\n{tables.markdown([head, *rows])}\n"


def _named(curve: SeedGroup, among: Sequence[SeedGroup]) -> str:
    """The network's name, and if others have it too, the settings that differ."""
    name = curve.model or curve.name
    is_alone = sum(other.model == curve.model for other in among) == 1
    return name if is_alone or not curve.variant else f"{name}, {curve.variant}"


def _size(curve: SeedGroup) -> int:
    size = curve.runs[0].args.get("batchsize")
    return size if isinstance(size, int) else BATCH_SIZE


def _slope(curve: SeedGroup) -> float:
    return curve.network.number("slope") or 0.0


EPOCHS = 20  # from which on the study looks at the ends of its curves


def _dead_with_bn(runs: Sequence[Run]) -> Numbers:
    found = {
        _case(curve): counts(curve, "flat_update")
        for curve in claims.curves(runs)
        if curve.has_bn and curve.finished
    }
    return {case: one[1][:, -1].tolist() for case, one in found.items() if one is not None}


def _case(curve: SeedGroup) -> str:
    return f"{curve.model}, batch {_size(curve)}"


def _late(runs: Sequence[Run], has_bn: bool) -> list[SeedGroup]:
    """Curves of EPOCHS epochs or more, with BN or without."""
    found = [curve for curve in claims.curves(runs) if curve.has_bn == has_bn and curve.finished]
    return [c for c in found if c.unit == "epoch" and c.finished[0].epochs[-1] >= EPOCHS]


def _ends(runs: Sequence[Run], key: str, has_bn: bool) -> Numbers:
    """The last accuracies of the networks with a plain ReLU."""
    plain = [curve for curve in _late(runs, has_bn) if not _slope(curve)]
    return {_case(curve): [final(run, key) for run in curve.finished] for curve in plain}


def _lost_by_small_batches(runs: Sequence[Run]) -> Numbers:
    """How much lower the accuracy is at batch size 10 than at the mean of the others, with BN."""
    plain = [curve for curve in _late(runs, True) if not _slope(curve)]
    small = [run for curve in plain if _size(curve) == 10 for run in curve.finished]
    others = [run for curve in plain if _size(curve) > 10 for run in curve.finished]
    keys = {"training": TRAIN_ACCURACY, "test": VALIDATION_ACCURACY} if others else {}
    return {
        name: [
            float(np.mean([final(run, key) for run in others])) - final(one, key) for one in small
        ]
        for name, key in keys.items()
    }


def _range_over_slopes(runs: Sequence[Run]) -> Numbers:
    """Of each seed that all slopes have, how far the test accuracies are apart at the end."""
    sloped = [curve for curve in _late(runs, True) if _slope(curve)]
    if len(sloped) < 2:
        return {}
    ends = [{run.seed: final(run, VALIDATION_ACCURACY) for run in c.finished} for c in sloped]
    shared = set.intersection(*(set(by_seed) for by_seed in ends))
    ranges = [float(np.ptp([one[seed] for one in ends])) for seed in sorted(shared, key=str)]
    return {"": ranges} if ranges else {}


CLAIMS = (
    Claim(
        *("no dead unit with BN", "hidden units whose dW is flat, at the end"),
        _dead_with_bn,
        below=1,
        is_robust=True,
    ),
    Claim(
        *("batch 10 is 1 to 1.5 points lower", "the others' mean accuracy less its own, with BN"),
        _lost_by_small_batches,
        above=0.01,
        below=0.015,
    ),
    Claim(
        *("test accuracy is about 98 %", "with BN and a plain ReLU, at the end"),
        lambda runs: _ends(runs, VALIDATION_ACCURACY, True),
        above=0.975,
        below=0.985,
    ),
    Claim(
        *("all slopes end alike with BN", "range of the test accuracies at the end"),
        _range_over_slopes,
        below=0.005,
    ),
    Claim(
        *("training ends at 100 % without BN", "training accuracy at the end"),
        lambda runs: _ends(runs, TRAIN_ACCURACY, False),
        above=0.995,
    ),
    Claim(
        *("with BN 1 or 2 of 100 are missed", "training accuracy at the end"),
        lambda runs: _ends(runs, TRAIN_ACCURACY, True),
        above=0.975,
        below=0.995,
    ),
)
