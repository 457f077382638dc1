"""The BN exercise: 784-40-20-10 with sigmoids, 1000 iterations of plain SGD, with BN and without.

Batches are drawn with replacement. The exercise never trains gamma and beta; the third network is
the same with both trained. The figure is accuracy against iterations, from 0 to 1.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import partial

from matplotlib.figure import Figure

from mnist_bn.plotting import comparison, panels
from mnist_bn.plotting.appearance import BLACK, BLUE, DASHES, GREEN, ORANGE, PURPLE, SKY, VERMILLION
from mnist_bn.plotting.claims import Claim, at, each, leads
from mnist_bn.plotting.groups import group_runs, in_words
from mnist_bn.plotting.results import TRAIN_ACCURACY, VALIDATION_ACCURACY, Run

NETWORKS = ["ExerciseMLP", "ExerciseMLP_BN", "ExerciseMLP_BN(trained=True)"]
_SETTINGS = {
    "model": NETWORKS,
    "optimizer": ["SGD"],
    "lr": 0.01,
    "batchsize": 100,
    "sampling": "replacement",
    "iteration": 1000,
    "evaluate_every": 10,
}
PRESETS = {"quick": {**_SETTINGS, "seed": [0]}, "full": {**_SETTINGS, "seed": [0, 1, 2]}}

_COLOURS = dict(zip(NETWORKS, (BLACK, BLUE, VERMILLION), strict=True))
_SPARE = (GREEN, ORANGE, PURPLE, SKY)


def figures(runs: Sequence[Run]) -> Iterator[tuple[str, Figure]]:
    """Yields accuracy on test images and on the minibatches against iterations, from 0 to 1."""
    curves = group_runs(runs)
    lines, spare, taken = [], itertools.cycle(_SPARE), set()
    for curve in curves:
        model = curve.model or ""
        is_free = model in _COLOURS and model not in taken
        colour = _COLOURS[model] if is_free else next(spare)
        taken.add(model)
        test = panels.of_curve(curve, VALIDATION_ACCURACY, in_words(curve, curves), colour)
        training = panels.of_curve(curve, TRAIN_ACCURACY, "", colour, DASHES[2])
        lines += [training, test]
    title = f"Accuracy on test images (on the minibatches: {panels.dotted(curves)})"
    panel = panels.Panel(title, lines, (0, 1))
    unit = curves[0].unit
    said = f"{comparison.subtitle(curves)}\nSee how soon each leaves 0.1, the accuracy of guessing."
    if any(curve.network.argument("trained") is True for curve in curves):
        said += " With trained=True, gamma and beta are trained, too."
    said += f" {comparison.training_note(unit)}"
    title = f"BN exercise: 784-40-20-10{comparison.on(curves)}"
    yield "exercise", panels.stacked([panel], title, said, unit.capitalize())


_AT_THE_END = partial(at, step=1000)
_ACCURACY = "test accuracy after 1000 steps"
CLAIMS = (
    Claim(
        *("with BN above 0.75", _ACCURACY),
        lambda runs: each(runs, _AT_THE_END, NETWORKS[1:]),
        above=0.75,
        is_robust=True,
    ),
    Claim(
        *("without BN it hardly learns: below 0.30", _ACCURACY),
        lambda runs: each(runs, _AT_THE_END, NETWORKS[:1]),
        below=0.3,
        is_robust=True,
    ),
    Claim(
        *("gamma and beta do not make the difference", f"{_ACCURACY}: what training them adds"),
        lambda runs: leads(runs, NETWORKS[2:], NETWORKS[1], _AT_THE_END),
        above=-0.02,
        below=0.02,
    ),
)
