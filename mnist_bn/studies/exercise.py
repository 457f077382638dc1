"""The BN exercise: 784-40-20-10 with sigmoids, 1000 iterations of plain SGD, with BN and without.

Batches are drawn with replacement. The exercise never trains gamma and beta; the third network is
the same with both trained. The figure is accuracy against iterations, from 0 to 1.
"""

from __future__ import annotations

from mnist_bn import studies
from mnist_bn.config import RunConfig
from mnist_bn.plotting import comparison

_SETTINGS = {
    "model": ["ExerciseMLP", "ExerciseMLP_BN", "ExerciseMLP_BN(trained=True)"],
    "optimizer": ["SGD"],
    "lr": 0.01,
    "batchsize": 100,
    "sampling": "replacement",
    "iteration": 1000,
    "evaluate_every": 10,
}
PRESETS = {"quick": {**_SETTINGS, "seed": [0]}, "full": {**_SETTINGS, "seed": [0, 1, 2]}}


def configs(preset: str, given: dict) -> list[RunConfig]:
    """Returns the preset's runs: each network with each seed."""
    return studies.runs(PRESETS[preset], given)


draw = comparison.draw
