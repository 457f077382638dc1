"""CS231n's assignment 2, BatchNormalization: BN in deep ReLU networks on 1000 CIFAR-10 images.

Two experiments of its notebook. The depth run: five hidden layers of 100 units, without BN and with
it. The weight-scale sweep: seven hidden layers of 50, over twenty standard deviations of the
initial weights. Both for 10 epochs of Adam, batches of 50 drawn with replacement (as the
assignment's Solver does), validated on the last 1000 training images. The assignment takes the mean
image of 49,000 images; here it is of the 1000.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from mnist_bn import observations, studies
from mnist_bn.config import RunConfig
from mnist_bn.names.specs import NetworkSpec
from mnist_bn.plotting import comparison, panels, tables
from mnist_bn.plotting.appearance import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILLION
from mnist_bn.plotting.canvas import BETWEEN
from mnist_bn.plotting.claims import Claim, Numbers, final, leads
from mnist_bn.plotting.curves import fate
from mnist_bn.plotting.groups import SeedGroup, complete, group_runs, in_words
from mnist_bn.plotting.notation import by_number
from mnist_bn.plotting.results import TRAIN_LOSS, VALIDATION_ACCURACY, Run
from mnist_bn.plotting.words import joined, mean_and_range
from mnist_bn.trainer.divergence import LIMIT

# As the assignment's logspace(-4, 0, 20), to four digits.
SCALES = tuple(float(f"{scale:.4g}") for scale in np.logspace(-4, 0, 20))
LAST = 100  # iterations of which the final loss is the mean
LOSS_SHOWN = 3.5  # where the notebook's axis of it ends, too
# Training and validation accuracy that the assignment's notebook printed after the last epoch.
PUBLISHED = {"CS231nMLP": (0.391, 0.248), "CS231nMLP_BN": (0.687, 0.327)}

OBSERVED = ("training-accuracy",)


class _Look(NamedTuple):
    """What a figure calls a line, its colour and its marker."""

    label: str
    colour: str
    marker: str


_LOOKS = {
    "CS231nMLP": (BLACK, "o"),
    "CS231nMLP_BN": (BLUE, "s"),
}
_SPARE = (VERMILLION, GREEN, ORANGE, PURPLE, SKY)

_SETTINGS = {
    "optimizer": ["Adam"],
    "dataset": "cifar10",
    "holdout": 1000,
    "train_images": 1000,
    "batchsize": 50,
    "sampling": "replacement",
    "epoch": 10,
    "observe": "training-accuracy",
    # A loss beyond 1000 is where the largest scales begin: the assignment trains on, too.
    "on_divergence": "continue",
}
_DEPTH = {**_SETTINGS, "model": list(PUBLISHED), "evaluate_every": 1}


def _sweep(scales: Sequence[float], seeds: Sequence[int]) -> dict:
    network = "{}(hidden=50, layers=8, weight_scale={:g})"
    swept = [network.format(name, scale) for scale in scales for name in PUBLISHED]
    return {**_SETTINGS, "model": swept, "seed": list(seeds), "evaluate_every": 20}


# The depth run, then the sweep.
PRESETS = {
    "quick": [{**_DEPTH, "seed": [0]}, _sweep(SCALES[::3], [0])],
    "full": [{**_DEPTH, "seed": [0, 1, 2]}, _sweep(SCALES, [0, 1, 2])],
}


def configs(preset: str, given: dict) -> list[RunConfig]:
    """Returns the preset's runs; networks that are given are trained as the depth run."""
    depth, sweep = PRESETS[preset]
    return studies.runs([depth] if "model" in given else [depth, sweep], given)


def figures(runs: Sequence[Run]) -> Iterator[tuple[str, Figure | str]]:
    """Yields the notebook's plots of both experiments, of what was run, and tables of numbers.

    A run whose network names a `weight_scale` is of the sweep, any other of the depth run. Those of
    the sweep that are not finished are left out.
    """
    depth = group_runs([run for run in runs if weight_scale(run) is None])
    sweep = [run for run in runs if weight_scale(run) is not None]
    texts = []
    if depth:
        yield "cs231n-depth", _depth_figure(depth)
        texts.append(_depth_table(depth))
    if sweep:
        yield "cs231n-weight-scale", _sweep_figure(sweep)
        texts.append(_sweep_table(sweep))
    yield "cs231n", "\n".join(texts)


def weight_scale(run: Run) -> float | None:
    """Returns the initial weights' standard deviation that the network's name says, if any."""
    return NetworkSpec(run.model or "").number("weight_scale")


def training_accuracy(run: Run) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns times, `(T,)`, and accuracy on the training images in test mode; None: not there."""
    series = observations.read(run, OBSERVED[0])
    if series is None or "accuracy" not in series:
        return None
    return observations.times(run, series), series["accuracy"]


def best_validation(run: Run) -> float:
    """Returns the highest validation accuracy of all evaluations, NaN if there is none."""
    return _highest(run.values(VALIDATION_ACCURACY))


def best_training(run: Run) -> float:
    """Returns the highest training accuracy of all evaluations, NaN if there is none."""
    measured = training_accuracy(run)
    return np.nan if measured is None else _highest(measured[1])


def final_loss(run: Run) -> float:
    """Returns the mean training loss of the last LAST iterations, NaN if it is lost.

    Lost is a loss that is not finite, and a mean beyond the LIMIT of divergence. An entry of the
    log counts if all of its iterations are among the last LAST; NaN if there is no such entry.
    """
    lengths = np.diff(run.epochs, prepend=0)
    counted = run.epochs - lengths >= run.epochs[-1] - LAST
    if run.unit != "iteration" or not counted.any():
        return np.nan
    loss = np.average(run.values(TRAIN_LOSS)[counted], weights=lengths[counted])
    return loss if abs(loss) <= LIMIT else np.nan


def _highest(values: np.ndarray) -> float:
    return np.nan if np.isnan(values).all() else float(np.nanmax(values))


def _depth_figure(curves: Sequence[SeedGroup]) -> Figure:
    """Training loss of each step, and accuracy on the training and the validation images."""
    looks = [(look.label, look.colour) for look in _looks([_key(curve) for curve in curves])]
    losses, validation = (
        [panels.of_curve(curve, key, *look) for curve, look in zip(curves, looks, strict=True)]
        for key in (TRAIN_LOSS, VALIDATION_ACCURACY)
    )
    training = [
        series
        for curve, look in zip(curves, looks, strict=True)
        if (series := _training_series(curve, *look)) is not None
    ]
    shown = [
        panels.Panel("Training loss", losses, lost_is_high=True),
        panels.Panel("Accuracy on the training images, in test mode", training, _from_0(training)),
        panels.Panel("Accuracy on the validation images", validation, _from_0(validation)),
    ]
    title = f"CS231n: deep networks on few images{comparison.on(curves)}"
    said = (
        f"{comparison.subtitle(curves)}\nSee whether BN fits the training images sooner, and "
        "whether the images held out gain by it. The loss is of minibatches, in train mode."
    )
    return panels.stacked(shown, title, said, _x_label(curves[0].runs[0]))


def _from_0(lines: Sequence[panels.Series]) -> tuple[float, float]:
    """Limits of an axis from 0 to a little above the highest of the lines and their bands."""
    tops = [part for line in lines for part in (line.y, line.high) if part is not None]
    top = _highest(np.concatenate([*tops, np.zeros(1)]))
    return 0, 1.1 * top or 1


def _x_label(run: Run) -> str:
    iteration, epoch = (run.log[-1].get(unit) for unit in ("iteration", "epoch"))
    if run.unit == "iteration" and iteration is not None and isinstance(epoch, int) and epoch > 0:
        return f"Iteration ({iteration / epoch:g} an epoch)"
    return run.unit.capitalize()


def _training_series(curve: SeedGroup, label: str, colour: str) -> panels.Series | None:
    """The mean and range of `training_accuracy` over the seeds that went as far as any."""
    found = map(training_accuracy, curve.finished or curve.runs)
    measured = [one for one in found if one is not None]
    measured = [one for one in measured if np.array_equal(one[0], measured[0][0])]
    if not measured:
        return None
    values = np.stack([accuracy for _, accuracy in measured])
    low, high = values.min(axis=0), values.max(axis=0)
    return panels.Series(
        *(measured[0][0], values.mean(axis=0), label + fate(curve), colour),
        low=low,
        high=high,
        is_cut_short=curve.is_cut_short,
    )


def _sweep_figure(runs: Sequence[Run]) -> Figure:
    """The best accuracies and the final loss against the initial weights' standard deviation."""
    validation, training, loss = (
        _sweep_lines(runs, measure) for measure in (best_validation, best_training, final_loss)
    )
    end = f"Training loss, mean of the last {LAST} iterations"
    lost = f"above {LIMIT:g}, or not measured"
    shown = [
        _sweep_panel("Best validation accuracy", validation, _from_0(validation)),
        _sweep_panel("Best training accuracy, in test mode", training, _from_0(training)),
        panels.Panel(end, loss, (0, LOSS_SHOWN), lost=lost, lost_is_high=True),
    ]
    curves = group_runs(runs)
    seeds = len({run.seed for run in runs})
    over = comparison.seeds(seeds)
    parts = [comparison.conditions(curves), f"mean and range of {over}" if seeds > 1 else over]
    parts += comparison.left_out(len(runs) - len(complete(runs)))
    said = f"{BETWEEN.join(parts)}\nSee over how wide a range of scales each network trains."
    title = f"CS231n: the scale of the initial weights{comparison.on(curves)}"
    return panels.stacked(
        shown, title, said, "Standard deviation of the initial weights", log_x=True
    )


def _sweep_panel(title: str, lines: Sequence[panels.Series], limits: tuple[float, float]):
    return panels.Panel(title, lines, limits, lost="not measured")


def _sweep_lines(runs: Sequence[Run], measure: Callable[[Run], float]) -> list[panels.Series]:
    """A line for each network, mean and range over seeds; a cross and a gap if one has no value."""
    lines = []
    for look, scales in _by_scale(runs):
        x = np.array(list(scales))
        values = [[measure(run) for run in seeds] for seeds in scales.values()]
        y, low, high = (
            np.array([over_seeds(one) for one in values])
            for over_seeds in (np.mean, np.min, np.max)
        )
        crosses = x[np.isnan(y)].tolist()
        lines.append(
            panels.Series(
                *(x, y, look.label, look.colour),
                **{"low": low, "high": high, "marker": look.marker, "crosses": crosses},
            )
        )
    return lines


def _by_scale(runs: Sequence[Run]) -> list[tuple[_Look, dict[float, Sequence[Run]]]]:
    """Of each network and its settings, the runs of all seeds by the weight scale, ascending."""
    groups: dict[tuple[str, str, str], dict[float, Sequence[Run]]] = {}
    for curve in group_runs(complete(runs)):
        network, optimizer, variant = _key(curve)
        key = NetworkSpec(network).without("weight_scale"), optimizer, variant
        if (scale := weight_scale(curve.runs[0])) is not None:
            groups.setdefault(key, {})[scale] = curve.runs
    keys = sorted(groups, key=lambda key: tuple(map(by_number, key)))
    return [
        (look, dict(sorted(groups[key].items())))
        for look, key in zip(_looks(keys), keys, strict=True)
    ]


def _depth_table(curves: Sequence[SeedGroup]) -> str:
    """Markdown: a row a network; its last accuracies, and those that the notebook printed."""
    rows = [
        ["network", "seeds", "training accuracy", "validation accuracy", "the notebook's, 1 seed"]
    ]
    for curve in curves:
        published = PUBLISHED.get(curve.model or "") if curve.optimizer == "Adam" else None
        finished = curve.finished or curve.runs
        training = [one[1][-1] for run in finished if (one := training_accuracy(run)) is not None]
        validation = [run.values(VALIDATION_ACCURACY)[-1] for run in finished]
        rows.append(
            [
                in_words(curve, curves),
                str(len(finished)),
                *(
                    mean_and_range(values, ".3f") if np.isfinite(values).all() else ""
                    for values in (training, validation)
                ),
                ""
                if published is None
                else "training {:.3f}, validation {:.3f}".format(*published),
            ]
        )
    return f"Accuracy after the last step; mean (least to greatest).\n\n{tables.markdown(rows)}\n"


def _sweep_table(runs: Sequence[Run]) -> str:
    """Markdown: a row a weight scale; best accuracies and final loss of each network."""
    looks, groups = zip(*_by_scale(runs), strict=True)
    measures = {
        "best validation": best_validation,
        "best training": best_training,
        "final loss": final_loss,
    }
    rows = [
        ["weight scale", *(f"{measure}, {look.label}" for look in looks for measure in measures)]
    ]
    for scale in sorted({scale for scales in groups for scale in scales}):
        cells = [
            np.mean([measure(run) for run in scales[scale]]) if scale in scales else np.nan
            for scales in groups
            for measure in measures.values()
        ]
        rows.append([f"{scale:g}", *("" if np.isnan(cell) else f"{cell:.3f}" for cell in cells)])
    return tables.markdown(rows) + "\n"


def _key(curve: SeedGroup) -> tuple[str, str, str]:
    """Returns network, optimizer and the other settings that differ: what a line stands for."""
    return curve.model or curve.name, curve.optimizer or "", curve.variant


def _looks(keys: Sequence[tuple[str, str, str]]) -> list[_Look]:
    """Returns what a figure calls the lines of these networks, and how they look."""
    names = {network: _LOOKS.get(NetworkSpec(network).class_name) for network, _, _ in keys}
    several = len({optimizer for _, optimizer, _ in keys}) > 1
    spare = cycle(_SPARE)
    looks: list[_Look] = []
    for network, optimizer, variant in keys:
        usual = names[network]
        label = joined(network, optimizer if several else None, variant)
        if usual is None or usual[0] in {look.colour for look in looks}:
            usual = next(spare), "^"
        looks.append(_Look(label, *usual))
    return looks


TRAINS = 0.21  # best validation accuracy: twice that of guessing


def _leads(runs: Sequence[Run], value: Callable[[Run], float]) -> Numbers:
    """How far BN is ahead in the depth run."""
    depth = [run for run in runs if weight_scale(run) is None]
    return leads(depth, ["CS231nMLP_BN"], "CS231nMLP", value)


def _last_training(run: Run) -> float:
    measured = training_accuracy(run)
    return np.nan if measured is None else float(measured[1][-1])


def _swept(
    runs: Sequence[Run],
    number: Callable[[list[Run], list[Run]], float],
    low: float = 0,
    high: float = np.inf,
) -> Numbers:
    """A number of each seed from its runs between two scales, those without BN and with it."""
    seeds: dict[str | None, dict[str, list[Run]]] = {}
    for run in complete([run for run in runs if weight_scale(run) is not None]):
        if low <= (weight_scale(run) or 0) <= high:
            network = NetworkSpec(run.model or "").class_name
            seeds.setdefault(run.seed, {}).setdefault(network, []).append(run)
    every = [[swept.get(network, []) for network in PUBLISHED] for swept in seeds.values()]
    return {"": [number(*both) for both in every if all(both)]}


def _scales_that_train(runs: list[Run]) -> int:
    return sum(best_validation(run) > TRAINS for run in runs)


def _best(runs: list[Run]) -> float:
    return max(map(best_validation, runs))


def _least_loss(runs: list[Run]) -> float:
    """The least final loss; one that is lost is infinite."""
    return min(loss if np.isfinite(loss) else np.inf for loss in map(final_loss, runs))


CLAIMS = (
    Claim(
        *("training accuracy is higher with BN", "lead after the last epoch"),
        lambda runs: _leads(runs, _last_training),
        above=0,
    ),
    Claim(
        *("validation accuracy is higher with BN", "lead after the last epoch"),
        lambda runs: _leads(runs, final),
        above=0,
    ),
    Claim(
        *("so is the best of all epochs", "lead of the best validation accuracy"),
        lambda runs: _leads(runs, best_validation),
        above=0,
    ),
    Claim(
        *("BN trains at more weight scales", f"more scales with a best validation above {TRAINS}"),
        lambda runs: _swept(runs, lambda a, b: _scales_that_train(b) - _scales_that_train(a)),
        above=0,
    ),
    Claim(
        *("BN's best is better", "lead of the best validation accuracy over all scales"),
        lambda runs: _swept(runs, lambda a, b: _best(b) - _best(a)),
        above=0,
    ),
    Claim(
        *("without BN large scales fail", "least final loss at scales from 0.2 on, without BN"),
        lambda runs: _swept(runs, lambda a, _: _least_loss(a), low=0.2),
        above=LOSS_SHOWN,
    ),
    Claim(
        *("nor does it learn at small ones", "best validation at scales to 0.0011, without BN"),
        lambda runs: _swept(runs, lambda a, _: _best(a), high=0.0011),
        below=0.15,
    ),
)
