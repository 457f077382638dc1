"""The blog's experiment: BN before or after the ReLU in a MNIST CNN, under many optimizers.

"Batch Normalization", hirotaka_hachiya's Hatena blog, August 2016. Its figures compare the learning
curves of several optimizers, one figure a network. Which optimizers it used, and for how many
epochs, is not known: the full preset takes all nine that Chainer had.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mnist_bn import optimizers
from mnist_bn.plotting import comparison
from mnist_bn.plotting.claims import Claim, Numbers, leads
from mnist_bn.plotting.results import VALIDATION_ACCURACY, Run

NETWORKS = ["MnistCNN", "MnistCNN_BN_before", "MnistCNN_BN_after", "MnistCNN_BN_linear_before"]

_ALL = {"model": NETWORKS, "optimizer": list(optimizers.OF_2016)}
PRESETS = {
    "quick": {"model": NETWORKS, "optimizer": ["SGD", "Adam"], "seed": [0], "epoch": 5},
    "short": {**_ALL, "seed": [0], "epoch": 3},
    "full": {**_ALL, "seed": [0, 1, 2], "epoch": 20},
}

figures = comparison.figures


def _gains(runs: Sequence[Run]) -> Numbers:
    """What each place of BN adds to the final accuracy."""
    return leads(runs, NETWORKS[1:], NETWORKS[0])


def _lead_of_sgd(runs: Sequence[Run]) -> Numbers:
    """What BN adds under SGD, beyond the most that it adds under another optimizer."""
    by_optimizer = {
        optimizer: np.mean(list(gains.values()), axis=0)
        for optimizer in {run.optimizer for run in runs}
        if (gains := _gains([run for run in runs if run.optimizer == optimizer]))
        if len({len(seeds) for seeds in gains.values()}) == 1
    }
    sgd = by_optimizer.pop("SGD", None)
    if sgd is None:
        return {}
    others = [gain for gain in by_optimizer.values() if len(gain) == len(sgd)]
    return {"": (sgd - np.max(others, axis=0)).tolist()} if others else {}


def _change(run: Run) -> float:
    """The mean absolute change of accuracy from epoch to epoch after the third; NaN: no such."""
    late = run.values(VALIDATION_ACCURACY)[run.epochs >= 3]
    return float(np.abs(np.diff(late)).mean()) if len(late) > 1 else math.nan


def _epochs_to(run: Run) -> float:
    """The first epoch with an accuracy of `_SOON`; NaN if there is none."""
    return float(min(run.epochs[run.values(VALIDATION_ACCURACY) >= _SOON], default=math.nan))


_SOON = 0.97
_GAIN = "final accuracy beyond that without BN"
_CHANGE = "mean change of accuracy from epoch to epoch after the third"
CLAIMS = (
    Claim(
        *("any BN beats none under SGD", f"{_GAIN}, in test mode"),
        lambda runs: _gains([r for r in runs if (r.optimizer, r.semantics) == ("SGD", "today")]),
        above=0,
        is_robust=True,
    ),
    Claim("BN improves accuracy overall", _GAIN, _gains, above=0),
    Claim("SGD gains most", "its gain less the largest other", _lead_of_sgd, above=0),
    Claim(
        *("before is slightly better than after", "final accuracy before less after"),
        lambda runs: leads(runs, NETWORKS[1:2], NETWORKS[2]),
        above=0,
    ),
    Claim(
        *("linear BN, too, looks more stable", f"{_CHANGE}, linear_before less before"),
        lambda runs: leads(runs, NETWORKS[3:], NETWORKS[1], _change),
        below=0,
    ),
    Claim(
        *("BN learns faster", f"epochs to an accuracy of {_SOON}, less those without BN"),
        lambda runs: leads(runs, NETWORKS[1:], NETWORKS[0], _epochs_to),
        below=0,
    ),
)
