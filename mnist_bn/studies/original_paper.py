"""The original paper's MNIST experiment: three layers of 100 sigmoids on binary images.

Ioffe & Szegedy 2015, section 4.1 and figure 1: test accuracy against steps (a), and the 15th, 50th
and 85th percentile of the input to a typical sigmoid, of the last hidden layer, without BN (b) and
with it (c). The paper gives neither learning rate nor initial scale nor threshold: `--lr` is one's
own choice, the others are arguments of the network, `--model "SigmoidMLP(std=0.1, threshold=0.5)"`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from mnist_bn import observations
from mnist_bn.observers.activation_percentiles import percentile_panel
from mnist_bn.observers.measured import Observed
from mnist_bn.plotting import comparison, panels, tables
from mnist_bn.plotting.appearance import BLACK, BLUE
from mnist_bn.plotting.canvas import BETWEEN
from mnist_bn.plotting.claims import Claim, Numbers, by_seed, curves, final, leads
from mnist_bn.plotting.groups import SeedGroup, group_runs, in_words
from mnist_bn.plotting.results import VALIDATION_ACCURACY, Run

LAYER = "sigmoid3"  # the last hidden one
UNIT = 0  # the "typical" one
TO_SEE = (
    "The paper's claim: with BN the accuracy rises sooner and ends higher (a), and what a sigmoid "
    "receives is steadier while the network trains. See how far the median (50th percentile) and "
    "the spread (15th to 85th, dashed) move, without BN and with it."
)
FLOOR = 0.7  # where the axis of accuracy begins
OBSERVED = ("activation-percentiles",)

NETWORKS = ["SigmoidMLP", "SigmoidMLP_BN"]
_SETTINGS = {
    "model": NETWORKS,
    "optimizer": ["SGD"],
    "lr": 0.1,
    "batchsize": 60,
    "observe": "activation-percentiles",
}
PRESETS = {
    "quick": {**_SETTINGS, "seed": [0], "iteration": 5000, "evaluate_every": 100},
    "full": {**_SETTINGS, "seed": [0, 1, 2], "iteration": 50000, "evaluate_every": 500},
}


def figures(runs: Sequence[Run]) -> Iterator[tuple[str, Figure | str]]:
    """Yields the paper's figure 1 a, b and c, and a table of what can be said of it in numbers.

    Networks all of whose seeds diverged are left out, and the figure says so; if there is no other
    it is not drawn.
    """
    every = [curve for curve in group_runs(runs) if curve.model]
    curves = [curve for curve in every if curve.survivors]
    if not curves:
        return
    lost = [_look(curve)[0] for curve in every if not curve.survivors]
    accuracy = [panels.of_curve(curve, VALIDATION_ACCURACY, *_look(curve)) for curve in curves]
    # Below FLOOR training has hardly begun, and the curves could not be told apart above it.
    best = max((series.y.max(initial=0) for series in accuracy), default=0)
    limits = (FLOOR, 1.0) if best > FLOOR else None
    shown = [panels.Panel("a  Test accuracy", accuracy, limits)]
    percentiles = [
        (curve, observations.times(run, series), series[LAYER][:, :, UNIT])
        for curve in curves
        for run, series in _measured(curve)
        if run is curve.finished[0]
    ]
    everything = np.concatenate([values.ravel() for *_, values in percentiles] or [np.zeros(1)])
    finite = np.isfinite(everything)
    everything = everything[finite] if finite.any() else np.zeros(1)
    margin = 0.05 * np.ptp(everything) or 1.0
    limits = (np.min(everything) - margin, np.max(everything) + margin)
    for letter, (curve, x, values) in zip("bcdefghij", percentiles, strict=False):
        name, colour = _look(curve)
        title = f"{letter}  Percentiles of the input to one sigmoid, {name}"
        shown.append(percentile_panel(title, x, values[np.newaxis], colour, limits))
    parts = [comparison.subtitle(curves), *[f"{', '.join(lost)}: diverged, not drawn"] * bool(lost)]
    title = f"The original paper's figure 1{comparison.on(curves)}"
    said = f"{BETWEEN.join(parts)}\n{TO_SEE}"
    yield "original-paper", panels.stacked(shown, title, said, "Step")
    yield "original-paper", _table(curves)


def steps_to(curve: SeedGroup, accuracy: float) -> int | None:
    """Returns the step at which the mean test accuracy first reaches `accuracy`, None if never."""
    band = curve.band(VALIDATION_ACCURACY)
    reached = band.epochs[band.mean >= accuracy]
    return int(reached[0]) if len(reached) else None


def wandering(percentiles: np.ndarray) -> np.ndarray:
    """Returns how far a unit's percentiles wander between two measurements, in its own spreads.

    The absolute change of each percentile from one measurement to the next, averaged over both,
    divided by the mean distance from the 15th to the 85th: 0 if nothing moves.

    Args:
        percentiles: `(T, 3, units)`.

    Returns:
        One number a unit, `(units,)`.
    """
    moved = np.abs(np.diff(percentiles, axis=0)).mean(axis=(0, 1))
    return moved / (percentiles[:, 2] - percentiles[:, 0]).mean(axis=0)


def drift(percentiles: np.ndarray) -> np.ndarray:
    """Returns how far each unit's median ranges over the run, in its own mean spread, `(units,)`.

    Args:
        percentiles: `(T, 3, units)`.
    """
    return np.ptp(percentiles[:, 1], axis=0) / (percentiles[:, 2] - percentiles[:, 0]).mean(axis=0)


def growth(percentiles: np.ndarray) -> np.ndarray:
    """Returns the largest spread, 15th to 85th, of each unit over its smallest, `(units,)`.

    Args:
        percentiles: `(T, 3, units)`.
    """
    spread = percentiles[:, 2] - percentiles[:, 0]
    return spread.max(axis=0) / spread.min(axis=0)


def _table(curves: Sequence[SeedGroup]) -> str:
    """Markdown: a row a network; accuracy, steps, and how steady the last hidden layer's input is.

    The numbers of its units are averaged over units and seeds.
    """
    plain = [curve for curve in curves if not curve.has_bn]
    bar = _final(plain[0]) if plain else None
    head = ["network", "final test accuracy", "steps to the accuracy without BN"]
    rows = []
    for curve in curves:
        last = _final(curve)
        steps = None if bar is None else steps_to(curve, bar)
        # Between two measurements.
        measured = [one[LAYER] for _, one in _measured(curve) if len(one[LAYER]) > 1]
        steadiness = [
            f"{np.mean([measure(one) for one in measured]):.3f}" if measured else ""
            for measure in (wandering, drift, growth)
        ]
        final = "" if last is None else f"{last:.4f}"
        rows.append([_look(curve)[0], final, "never" if steps is None else str(steps), *steadiness])
    head += ["change between measurements, in spreads", "range of the median, in spreads"]
    head += ["largest spread over smallest"]
    return tables.markdown([head, *rows]) + "\n"


def _final(curve: SeedGroup) -> float | None:
    """Returns the last mean test accuracy, None if the log has none."""
    mean = curve.band(VALIDATION_ACCURACY).mean
    return mean[-1] if len(mean) else None


def _look(curve: SeedGroup) -> tuple[str, str]:
    return in_words(curve), BLUE if curve.has_bn else BLACK


def _measured(curve: SeedGroup) -> list[tuple[Run, Observed]]:
    """The finished runs whose percentiles of LAYER were measured, and these."""
    found = [(run, observations.read(run, OBSERVED[0])) for run in curve.finished]
    return [(run, series) for run, series in found if series is not None and LAYER in series]


def _over_none(runs: Sequence[Run], value: Callable[[Run, Run], float]) -> list[float]:
    """A number of each seed from its run without BN and its run with it."""
    plain, with_bn = ([by_seed(curve) for curve in curves(runs, [network])] for network in NETWORKS)
    if not (len(plain) == len(with_bn) == 1):
        return []
    return [value(plain[0][seed], run) for seed, run in with_bn[0].items() if seed in plain[0]]


def _share_of_steps(plain: Run, with_bn: Run) -> float:
    """In what share of the plain network's steps the other reaches its final accuracy."""
    bar = final(plain)
    ours, theirs = (run.epochs[run.values(VALIDATION_ACCURACY) >= bar] for run in (with_bn, plain))
    return math.inf if not len(ours) else float(ours[0] / theirs[0]) if len(theirs) else math.nan


def _steadiness(runs: Sequence[Run]) -> Numbers:
    """How unsteady a sigmoid's input is with BN, over how unsteady without."""
    cases = {"range of the median": drift, "growth of the spread": growth, "jitter": wandering}

    def ratio(measure: Callable, plain: Run, with_bn: Run) -> float:
        read = [observations.read(run, OBSERVED[0]) or {} for run in (plain, with_bn)]
        series = [one for one in read if LAYER in one and len(one[LAYER]) > 1]
        if len(series) < 2:
            return math.nan
        theirs, ours = (measure(one[LAYER]).mean() for one in series)
        return float(ours / theirs) if theirs else math.nan

    return {case: _over_none(runs, partial(ratio, one)) for case, one in cases.items()}


CLAIMS = (
    Claim(
        *("BN trains faster", "steps to the final accuracy without BN, with BN over without"),
        lambda runs: {"": _over_none(runs, _share_of_steps)},
        below=1,
    ),
    Claim(
        *("BN ends higher", "final test accuracy beyond that without BN"),
        lambda runs: leads(runs, NETWORKS[1:], NETWORKS[0]),
        above=0,
    ),
    Claim(*("a sigmoid's input is steadier with BN", "with BN over without"), _steadiness, below=1),
)
