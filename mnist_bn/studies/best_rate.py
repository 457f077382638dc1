"""BN before or after the ReLU, each at the best learning rate of each optimizer.

The blog compares the two at Chainer's default rates and finds *before* slightly better; the
benchmark that it cites (ducha-aiki/caffenet-benchmark, on ImageNet) finds *after* better. A default
rate may suit one of them by accident. So the preset `rates` trains both for an epoch at six rates,
and `full` trains each for five epochs at the rate that was best there. AdaDelta has no rate.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.figure import Figure

from mnist_bn import optimizers
from mnist_bn.plotting import comparison, panels
from mnist_bn.plotting.appearance import NETWORK_LOOKS, OPTIMIZER_LOOKS
from mnist_bn.plotting.canvas import BETWEEN
from mnist_bn.plotting.claims import Claim, Interval, Numbers, final
from mnist_bn.plotting.groups import group_runs, in_order
from mnist_bn.plotting.notation import decimal
from mnist_bn.plotting.results import VALIDATION_ACCURACY, Run

NETWORKS = ("MnistCNN_BN_before", "MnistCNN_BN_after")
OPTIMIZERS = tuple(name for name in optimizers.OF_2016 if name != "AdaDelta")
FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # of Chainer's default rate
EPOCHS = 5
_X = "Learning rate, as a multiple of Chainer's default"

# The rates with the highest accuracy after one epoch, seed 0, by the runs of `rates` in evidence/.
BEST = {  # before, after
    "SGD": (0.3, 0.3),
    "MomentumSGD": (0.01, 0.03),
    "NesterovAG": (0.03, 0.01),
    "AdaGrad": (0.01, 0.01),
    "RMSprop": (0.001, 0.001),
    "RMSpropGraves": (0.0003, 0.0003),
    "SMORMS3": (0.01, 0.01),
    "Adam": (0.003, 0.001),
}


def _default_rate(optimizer: str) -> float:
    rate, _ = optimizers.effective(optimizer)
    assert rate is not None
    return rate


def rates(optimizer: str) -> list[float]:
    """Returns the learning rates that are tried with an optimizer."""
    return [float(f"{factor * _default_rate(optimizer):.6g}") for factor in FACTORS]


def _runs(names: Sequence[str], seeds: Sequence[int], epochs: int, is_best: bool) -> list[dict]:
    return [
        {
            "model": [network],
            "optimizer": [name],
            "lr": BEST[name][i] if is_best else rates(name),
            "seed": list(seeds),
            "epoch": epochs,
        }
        for name in names
        for i, network in enumerate(NETWORKS)
        if not is_best or name in BEST
    ]


PRESETS = {
    "quick": _runs(["SGD"], [0], 1, is_best=False),
    "rates": _runs(OPTIMIZERS, [0], 1, is_best=False),
    "full": _runs(OPTIMIZERS, [0, 1, 2], EPOCHS, is_best=True),
}


def figures(runs: Sequence[Run]) -> Iterator[tuple[str, Figure | str]]:
    """Yields the accuracy after one epoch against the rate, a panel an optimizer, and a table."""
    runs = [run for run in runs if run.model in NETWORKS and not run.is_cut_short]
    names = in_order((run.optimizer for run in runs), tuple(OPTIMIZER_LOOKS))
    shown = []
    for name in names:
        lines = []
        for network in NETWORKS:
            tried = after_an_epoch(runs, name, network)
            if tried:
                colour, marker = NETWORK_LOOKS[network]
                rate, accuracy = np.array(sorted(tried.items())).T
                default = _default_rate(name)
                lost = [rate / default for rate in _lost(runs, name, network, tried)]
                x = rate / default
                lines.append(
                    panels.Series(x, accuracy, network, colour, marker=marker, crosses=lost)
                )
        if lines:
            shown.append(panels.Panel(name, lines, _limits(lines)))
    if shown:
        curves = group_runs(runs)
        said = (
            f"{comparison.conditions(curves)}{BETWEEN}seed 0\n"
            "See at which multiple of Chainer's default rate each network learns most in an epoch."
        )
        title = f"Accuracy after one epoch against the learning rate{comparison.on(curves)}"
        yield "best-rate", panels.stacked(shown, title, said, _X, log_x=True)
    if table := _table(runs):
        yield "best-rate", table


def _lost(
    runs: Sequence[Run], optimizer: str, network: str, tried: dict[float, float]
) -> list[float]:
    """The rates at which seed 0 diverged within its first epoch."""
    return sorted(
        float(run.args["lr"])
        for run in runs
        if (run.optimizer, run.model, run.seed) == (optimizer, network, "0")
        and run.diverged_at is not None
        and run.args.get("lr") not in tried
    )


def _limits(lines: Sequence[panels.Series]) -> tuple[float, float] | None:
    """Those in which good rates can be told apart; None if there are none."""
    return (0.85, 1.0) if max(line.y.max() for line in lines) > 0.9 else None


def after_an_epoch(runs: Sequence[Run], optimizer: str, network: str) -> dict[float, float]:
    """Returns the accuracy of seed 0 after its first epoch by the learning rate."""
    found = {}
    for run in runs:
        if (run.optimizer, run.model, run.seed) == (optimizer, network, "0"):
            first = run.values(VALIDATION_ACCURACY)[run.epochs == 1]
            if len(first) and np.isfinite(first[0]) and run.args.get("lr") is not None:
                found[float(run.args["lr"])] = float(first[0])
    return found


def best(runs: Sequence[Run], optimizer: str, network: str) -> float | None:
    """Returns the rate with the highest accuracy after an epoch; None: none was tried."""
    tried = after_an_epoch(runs, optimizer, network)
    return max(tried, key=lambda rate: tried[rate], default=None)


def at_the_best(runs: Sequence[Run], optimizer: str, network: str) -> dict[str | None, float]:
    """Returns the final accuracy after EPOCHS at the best rate, by seed."""
    rate = dict(zip(NETWORKS, BEST.get(optimizer, ()), strict=False)).get(network)
    return {
        run.seed: final(run)
        for run in runs
        if (run.optimizer, run.model, run.args.get("lr")) == (optimizer, network, rate)
        and len(run.epochs)
        and run.epochs[-1] == EPOCHS
    }


def _leads(runs: Sequence[Run]) -> Numbers:
    """What *before* is ahead of *after*, each at its best rate, seed by seed."""
    leads = {}
    for name in OPTIMIZERS:
        before, after = (at_the_best(runs, name, network) for network in NETWORKS)
        if shared := sorted(before.keys() & after.keys(), key=str):
            leads[name] = [before[seed] - after[seed] for seed in shared]
    return leads


def _table(runs: Sequence[Run]) -> str:
    """Markdown: the best rates, and the accuracy at them."""
    rows = []
    for name, i in itertools.product(OPTIMIZERS, range(len(NETWORKS))):
        values = list(at_the_best(runs, name, NETWORKS[i]).values())
        if values:
            rate = decimal(BEST[name][i])
            mean, low, high = Interval.of(values)
            accuracy = f"{mean:.4f} ({low:.4f} to {high:.4f})"
            rows.append(f"| {name} | {NETWORKS[i]} | {rate} | {accuracy} |\n")
    head = "| optimizer | network | best rate | final accuracy (95 % interval) |\n"
    return f"{head}| --- | --- | --- | --- |\n{''.join(rows)}" if rows else ""


CLAIMS = (
    Claim(
        *("before beats after at the best rates", "final accuracy before less after"),
        _leads,
        above=0,
    ),
    Claim(
        *("the two differ by less than 0.002", "final accuracy before less after"),
        _leads,
        above=-0.002,
        below=0.002,
    ),
)
