"""The largest learning rate that still trains, with BN and without: the four CNNs under plain SGD.

What the blog leaves open, and on MNIST the claim of "Understanding Batch Normalization" (Bjorck et
al. 2018): BN trains at learning rates at which the network without it diverges. Half an epoch of
MNIST shows that: what diverges does so within the first steps.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from matplotlib.figure import Figure

from mnist_bn.plotting import comparison, panels
from mnist_bn.plotting.appearance import DASHES, NETWORK_LOOKS, OPTIMIZER_LOOKS, looks
from mnist_bn.plotting.canvas import BETWEEN
from mnist_bn.plotting.claims import Claim, Numbers
from mnist_bn.plotting.groups import group_runs, in_order
from mnist_bn.plotting.notation import decimal
from mnist_bn.plotting.results import TRAIN_LOSS, VALIDATION_ACCURACY, VALIDATION_LOSS, Run
from mnist_bn.studies.blog import NETWORKS
from mnist_bn.trainer.divergence import LIMIT

TRAINS = 0.9  # validation accuracy: well above the 0.1 of guessing, far below what any reaches

_SETTINGS = {"optimizer": ["SGD"], "seed": [0], "iteration": 300}
PRESETS = {
    "quick": {**_SETTINGS, "model": NETWORKS[:2], "lr": [1e-3, 1e-2, 0.1, 1.0, 10.0]},
    "full": {
        **_SETTINGS,
        "model": NETWORKS,
        "seed": [0, 1, 2],
        "lr": [1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0],
    },
}


def figures(runs: Sequence[Run]) -> Iterator[tuple[str, Figure]]:
    """Yields accuracy against the learning rate, with a cross where a seed diverged.

    Runs that are not finished are left out.
    """
    every = [run for run in runs if _has_rate(run)]
    runs = [run for run in every if not run.is_cut_short]
    if not runs:
        return
    models = in_order((run.model for run in runs), tuple(NETWORK_LOOKS))
    look = looks(models, NETWORK_LOOKS)
    optimizers = in_order((run.optimizer for run in runs), tuple(OPTIMIZER_LOOKS))
    lines = []
    for name, (optimizer, dashes) in itertools.product(
        models, zip(optimizers, itertools.cycle(DASHES), strict=False)
    ):
        alike = [run for run in runs if (run.model, run.optimizer) == (name, optimizer)]
        if alike:
            title = name if len(optimizers) == 1 else f"{name}, {optimizer}"
            lines.append(_line(alike, title, *look[name], dashes))
    seeds = len({run.seed for run in runs})
    panel = panels.Panel(
        "Validation accuracy at the end",
        lines,
        (0, 1.02),
        lost="diverged" if seeds == 1 else "a seed diverged (if not all: mean of the others)",
    )
    # Seeds, data and evaluation in the usual words; what diverged has its own strip here.
    curves = group_runs(runs)
    length = max(run.epochs[-1] for run in runs)
    parts = [comparison.conditions(curves)]
    parts += [f"{', '.join(optimizers)}, {length} {runs[0].unit}s, {comparison.seeds(seeds)}"]
    parts += comparison.left_out(len(every) - len(runs))
    said = f"{BETWEEN.join(parts)}\nSee up to which rate each network ends above {TRAINS}."
    title = f"Which learning rates train{comparison.on(curves)}"
    yield "learning-rate", panels.stacked([panel], title, said, "Learning rate", log_x=True)


def has_diverged(run: Run) -> bool:
    """Tells whether the run diverged, or a loss of its log is absent, or above LIMIT."""
    losses = (entry.get(key) for entry in run.log for key in (TRAIN_LOSS, VALIDATION_LOSS))
    is_lost = not all(isinstance(loss, int | float) and abs(loss) <= LIMIT for loss in losses)
    return is_lost or run.diverged_at is not None


def final_accuracy(run: Run) -> float:
    """Returns the last validation accuracy, NaN if the run has diverged."""
    return float("nan") if has_diverged(run) else float(run.values(VALIDATION_ACCURACY)[-1])


def largest_that_trains(runs: Sequence[Run]) -> float | None:
    """Returns the largest learning rate at which every seed ends above TRAINS, None if none."""
    fit = [
        lr
        for lr, seeds in _by_rate(runs).items()
        if all(final_accuracy(run) > TRAINS for run in seeds)
    ]
    return max(fit, default=None)


def _by_rate(runs: Sequence[Run]) -> dict[float, list[Run]]:
    rates = sorted({run.args["lr"] for run in runs})
    return {lr: [run for run in runs if run.args["lr"] == lr] for lr in rates}


def _has_rate(run: Run) -> bool:
    lr = run.args.get("lr")
    return isinstance(lr, int | float) and 0 < lr < math.inf


def _line(
    runs: Sequence[Run], title: str, colour: str, marker: str, dashes: str | tuple
) -> panels.Series:
    rates = _by_rate(runs)
    accuracies = {lr: [final_accuracy(run) for run in seeds] for lr, seeds in rates.items()}
    alive = {lr: values for lr, values in accuracies.items() if not np.isnan(values).all()}
    means = np.array([np.nanmean(values) for values in alive.values()])
    best = largest_that_trains(runs)
    fate = f"never above {TRAINS}" if best is None else f"trains up to {decimal(best)}"
    return panels.Series(
        np.array(list(alive)),
        means,
        f"{title}, {fate}",
        colour,
        dashes,
        marker=marker,
        crosses=[lr for lr, values in accuracies.items() if np.isnan(values).any()],
    )


def _sweeps(runs: Sequence[Run]) -> dict[str, dict[str, list[Run]]]:
    """Of each network under SGD, and each seed, the finished runs: at all rates that were tried."""
    sweeps: dict[str, dict[str, list[Run]]] = {network: {} for network in NETWORKS}
    for run in runs:
        is_of_it = run.optimizer == "SGD" and run.model in sweeps and _has_rate(run)
        if is_of_it and not run.is_cut_short:
            sweeps[str(run.model)].setdefault(str(run.seed), []).append(run)
    return sweeps


def _with_bn(runs: Sequence[Run], number: Callable[[list[Run], list[Run]], float]) -> Numbers:
    """Of each network with BN a number from its runs and those of the plain one, by seed."""
    plain, *others = _sweeps(runs).items()
    return {
        network: [number(seeds[seed], plain[1][seed]) for seed in seeds if seed in plain[1]]
        for network, seeds in others
    }


def _ratio(runs: list[Run], plain: list[Run]) -> float:
    """The largest rate that trains over the plain network's."""
    ours, theirs = largest_that_trains(runs), largest_that_trains(plain)
    return ours / theirs if ours and theirs else math.nan


def _least_lead(runs: list[Run], plain: list[Run]) -> float:
    """Its least lead at a rate at which the plain one trains."""
    theirs = {run.args["lr"]: final_accuracy(run) for run in plain}
    largest = largest_that_trains(plain) or 0
    both = [run for run in runs if run.args["lr"] in theirs and run.args["lr"] <= largest]
    return min((final_accuracy(run) - theirs[run.args["lr"]] for run in both), default=math.nan)


CLAIMS = (
    Claim(
        *(
            "BN trains at higher rates",
            "largest rate that trains, over that without BN",
        ),
        lambda runs: _with_bn(runs, _ratio),
        above=1,
    ),
    Claim(
        *("with BN it does not diverge", "how many of the rates diverge"),
        lambda runs: _with_bn(runs, lambda ours, _: sum(map(has_diverged, ours))),
        below=1,
    ),
    Claim(
        *("BN trains faster at equal rates", "least lead of the final accuracy"),
        lambda runs: _with_bn(runs, _least_lead),
        above=0,
    ),
)
