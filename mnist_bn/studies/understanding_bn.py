"""Understanding Batch Normalization (Bjorck et al. 2018, arXiv 1806.02375): ResNet-110 on CIFAR-10.

Why BN allows the learning rates that it allows: what gradients, activations and losses are like at
initialisation and in the first steps, with BN and without. The preset `quick` measures that, on a
CPU. `full` trains the paper's four settings, for a GPU; `cpu` trains ResNet-20 for a few epochs at
the same four, on 10,000 images. Each preset has a folder of its own.

Set-up: momentum 0.9, weight decay 5e-4, batches of 128, crops and flips, 165 epochs, and the
learning rate divided by 10 at 50% and 75% of them, as He et al. 2016 have it. The paper trains
longer at the lower learning rates; here all settings are equally long.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mnist_bn import observations
from mnist_bn.errors import UserError
from mnist_bn.observers import activation_moments, gradient_noise, observers, output_gradients
from mnist_bn.observers.measured import Measured
from mnist_bn.observers.minibatch import WHEN
from mnist_bn.plotting import claims, comparison, heat_maps, panels, tables
from mnist_bn.plotting.appearance import BLACK, BLUE, DASHES, GREEN, GREY, ORANGE, SKY, VERMILLION
from mnist_bn.plotting.canvas import BETWEEN
from mnist_bn.plotting.claims import Claim, Numbers, final
from mnist_bn.plotting.film import Film
from mnist_bn.plotting.groups import SeedGroup, group_runs
from mnist_bn.plotting.notation import decimal
from mnist_bn.plotting.results import TRAIN_ACCURACY, TRAIN_LOSS, VALIDATION_ACCURACY, Run
from mnist_bn.plotting.words import mean_and_range
from mnist_bn.storage import archives
from mnist_bn.studies import _random_matrices
from mnist_bn.trainer.divergence import LIMIT

OBSERVED = (
    "activation-moments",
    "channel-gradients",
    "diverging-step",
    "gradient-histogram",
    "gradient-noise",
    "kernel-gradients",
    "output-gradients",
    "relative-loss",
)

# With BN or without, and the learning rate: bn-orig-lr, bn-med-lr, bn-small-lr and unnorm.
SETTINGS = ((True, 0.1), (True, 0.003), (True, 0.0001), (False, 0.0001))
# Learning rates that are tried for a few steps without BN; at 0.0001 some seeds diverge.
OTHERS = (0.00003, 0.001, 0.01, 0.1)

_COMMON = {
    "dataset": "cifar10",
    "optimizer": ["MomentumSGD"],
    "seed": [0, 1, 2],
    "batchsize": 128,
    "weight_decay": 5e-4,
    "augment": "crop-flip",
}
_STEPS = {"iteration": 7, "evaluate_every": 1, "test_images": 128}
_TRAINED = {"epoch": 165, "lr_drop": "82,123", "frequency": 5}
_SHORT = {"epoch": 16, "lr_drop": "8,12", "train_images": 10_000, "test_images": 2_000}


def _network(bn: bool, depth: int = 110) -> str:
    return f"ResNetCIFAR(depth={depth}, bn={bn})"


def _runs(preset: str, settings: dict, depth: int = 110) -> list[dict]:
    return [
        {**_COMMON, **settings, "out": preset, "model": [_network(bn, depth)], "lr": lr}
        for bn, lr in SETTINGS
    ]


# Each in a folder of its own: runs of a few steps and of many epochs do not share a figure.
PRESETS = {
    "quick": [
        # Each network at the learning rate that it trains with.
        *({**run, "observe": ",".join(OBSERVED)} for run in _runs("quick", _STEPS)[::3]),
        {**_COMMON, **_STEPS, "out": "quick", "model": [_network(False)], "lr": list(OTHERS)},
    ],
    "full": [
        *_runs("full", _TRAINED),
        # What diverges does so in its first epoch.
        {
            **{**_COMMON, **_TRAINED, "epoch": 1, "lr_drop": None},
            **{"out": "full", "model": [_network(False)], "lr": list(OTHERS)},
        },
    ],
    "cpu": _runs("cpu", _SHORT, depth=20),
}


MATRICES = (1, 3, 5)
SIZE, DRAWS = 1000, 5
_SINGULAR_VALUES = "singular-values.npz"


def measure(out: Path) -> None:
    """Measures the singular values of products of Gaussian matrices: `singular-values.npz`.

    Of products of MATRICES matrices of SIZE x SIZE entries from N(0, 1 / SIZE), as a linear network
    of so many layers multiplies them at initialisation (section 4). Arrays: "matrices", int64
    `(3,)`, and "singular_value", float32 `(3, DRAWS, SIZE)`, descending. Nothing is done if the
    file is.
    """
    if (out / _SINGULAR_VALUES).exists():
        return
    random = np.random.default_rng(0)
    values = [
        [_random_matrices.singular_values(random, SIZE, matrices) for _ in range(DRAWS)]
        for matrices in MATRICES
    ]
    archives.write(
        out / _SINGULAR_VALUES,
        {"matrices": np.array(MATRICES), "singular_value": np.array(values, np.float32)},
    )


def figures(runs: Sequence[Run]) -> Iterator[tuple[str, Figure | str | Film]]:
    """Yields a figure for each measurement that there is, and a table of the numbers."""
    curves = group_runs(runs)
    singular_values = _read_singular_values(runs)
    with np.errstate(all="ignore"):  # what was lost or zero is drawn as such
        for observer in OBSERVED:
            if groups := _groups(curves, observer):
                head = functools.partial(_head, _subtitle(curves, observer))
                yield from observers()[observer].figures(groups, head)
        for name, figure in (
            ("accuracy", _accuracy(curves)),
            ("divergence", _divergence(curves)),
            ("learning-rates", _learning_rates(curves)),
            ("singular-values", _singular_values(singular_values)),
        ):
            if figure is not None:
                yield name, figure
        yield "understanding-bn", _table(curves, singular_values)


def diverged_at(run: Run) -> int | None:
    """Returns the minibatch whose loss was lost or beyond LIMIT, None if there was none."""
    for entry in run.log:
        found = entry.get("diverged_at")
        if isinstance(found, dict) and isinstance(found.get("iteration"), int):
            return found["iteration"]
    return None


def _groups(curves: Sequence[SeedGroup], observer: str) -> list[Measured]:
    """The networks that an observer has measured."""
    found = [(curve, observations.measured(curve.runs, observer)) for curve in curves]
    found = [(curve, measured) for curve, measured in found if measured.seeds]
    names = [_name(curve, curves) for curve, _ in found]
    labels = [
        name if names.count(name) == 1 else _with_rate(curve, curves)
        for name, (curve, _) in zip(names, found, strict=True)
    ]
    return [
        dataclasses.replace(measured, label=label, colour=_colour(curve))
        for label, (curve, measured) in zip(labels, found, strict=True)
    ]


def _subtitle(curves: Sequence[SeedGroup], observer: str) -> str:
    """What was measured: network, data, seeds."""
    shown = [c for c in curves if any((r.folder / f"{observer}.npz").exists() for r in c.runs)]
    seeds = max(len(curve.runs) for curve in shown)
    number = observations.number_of_seeds(observers()[observer], seeds)
    return BETWEEN.join([*_networks(shown), comparison.data(shown), WHEN, number])


def _head(subtitle: str, title: str, to_see: str) -> tuple[str, str]:
    return title, f"{subtitle}\n{to_see}"


def _networks(curves: Sequence[SeedGroup]) -> list[str]:
    """What each network is called in the figure, and the name that `--model` takes."""
    called = dict.fromkeys((_name(curve, curves), curve.model or curve.name) for curve in curves)
    parts = [name if name == model else f"{name}: {model}" for name, model in called]
    kind, *others = dict.fromkeys(map(_without_bn, curves))
    return parts if others or kind in parts else [kind, *parts]  # of several, the names tell it


def _without_bn(curve: SeedGroup) -> str:
    """The network without its BN, such as "ResNet-110"."""
    name, depth = curve.network.class_name or curve.name, curve.network.argument("depth")
    return f"ResNet-{depth or 110}" if name == "ResNetCIFAR" else name


def _bn(curve: SeedGroup) -> str:
    """The network's `bn` as text: "True", "False", or "end"."""
    bn = curve.network.argument("bn")
    return "True" if bn is None else str(bn)


def _name(curve: SeedGroup, among: Sequence[SeedGroup]) -> str:
    """What tells a network from the others, such as "without BN"."""
    network = _without_bn(curve)
    bn = {"False": "without BN", "end": "BN at the end"}.get(_bn(curve), "with BN")
    if not network.startswith("ResNet-"):
        return curve.model or curve.name
    return bn if len(set(map(_without_bn, among))) == 1 else f"{network} {bn}"


def _colour(curve: SeedGroup) -> str:
    return {"False": BLACK, "end": GREEN}.get(_bn(curve), BLUE)


def _rate(curve: SeedGroup) -> float:
    lr = curve.runs[0].args.get("lr")
    return lr if isinstance(lr, int | float) and lr > 0 else 0.01  # Chainer's


def _with_rate(curve: SeedGroup, among: Sequence[SeedGroup]) -> str:
    return f"{_name(curve, among)}, lr {decimal(_rate(curve))}"


def _accuracy(curves: Sequence[SeedGroup]) -> Figure | None:
    """Accuracy against % of training, training above and test below."""
    shown = [curve for curve in curves if curve.unit == "epoch" and _last(curve) > 1]
    shown.sort(key=lambda curve: (_bn(curve) == "False", -_rate(curve)))
    if not shown:
        return None
    colours = (BLUE, SKY, GREEN, VERMILLION, ORANGE, BLACK, GREY)
    titles = {TRAIN_ACCURACY: "Accuracy in training", VALIDATION_ACCURACY: "Test accuracy"}
    figures = []
    for key, title in titles.items():
        lines = []
        for curve, colour in zip(shown, colours * len(shown), strict=False):
            series = panels.of_curve(curve, key, _with_rate(curve, shown), colour)
            percent = 100 / _last(curve)
            crosses = [percent * x for x in series.crosses]
            lines.append(dataclasses.replace(series, x=percent * series.x, crosses=crosses))
        figures.append(panels.Panel(title, lines))
    said = BETWEEN.join([*_networks(shown), comparison.subtitle(shown)])
    said += (
        "\nSee whether BN trains at the large learning rates, and whether it is these that give "
        f"its accuracy. {comparison.training_note('epoch')}"
    )
    count = f"{len(shown)} setting{'s' * (len(shown) > 1)}"
    title = f"Accuracy at {count}{comparison.on(shown)}"
    return panels.stacked(figures, title, said, "% of training")


def _last(curve: SeedGroup) -> int:
    return max(int(run.epochs[-1]) for run in curve.runs)


def _divergence(curves: Sequence[SeedGroup]) -> Figure | None:
    """Loss against minibatches, a panel each with BN and without, a line a seed."""
    shown = [curve for curve in curves if curve.unit == "iteration"]
    rates = sorted({_rate(curve) for curve in shown})
    if not shown:
        return None
    colours = dict(zip(rates, (BLACK, BLUE, GREEN, ORANGE, VERMILLION) * 9, strict=False))
    figures = []
    for name in dict.fromkeys(_name(curve, shown) for curve in shown):
        lines = []
        for curve in sorted((c for c in shown if _name(c, shown) == name), key=_rate):
            beyond = sorted({int(at) for run in curve.runs for at in _beyond(run)})
            for i, run in enumerate(curve.runs):
                x, y = _losses(run)
                label = "" if i else f"lr {decimal(_rate(curve))}{_fate(curve)}"
                lines.append(
                    panels.Series(
                        *(x, y, label, colours[_rate(curve)]),
                        marker=".",
                        crosses=[] if i else beyond,
                    )
                )
        x = np.concatenate([line.x for line in lines])
        limit = panels.Series(np.array([x.min(), x.max()]), np.full(2, LIMIT), "", GREY, DASHES[2])
        lost = f"beyond {decimal(_LOSSES[1])}, or lost"
        figures.append(
            panels.Panel(
                *(f"Loss {name}", [*lines, limit], _LOSSES),
                log_y=True,
                lost=lost,
                lost_is_high=True,
            )
        )
    parts = [*_networks(shown), comparison.data(shown), f"diverged: {_DIVERGED} (dotted line)"]
    to_see = "A line a seed. See at which learning rates the loss explodes at once."
    return panels.stacked(
        figures, "Loss of the first minibatches", f"{BETWEEN.join(parts)}\n{to_see}", "Minibatch"
    )


_LOSSES = (0.5, 1e6)  # that are drawn
_DIVERGED = f"loss beyond {LIMIT:g} after the first step"


def _losses(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """The minibatches and their losses, what is lost or beyond the axis at its upper edge."""
    losses = []
    for entry in run.log:
        loss = entry.get(TRAIN_LOSS)
        if isinstance(loss, bool) or not isinstance(loss, int | float) or loss != loss:
            loss = _LOSSES[1]
        losses.append(min(loss, _LOSSES[1]))
    return run.epochs, np.array(losses, np.float64)


def _beyond(run: Run) -> np.ndarray:
    """The minibatches whose loss is lost or beyond the axis."""
    x, y = _losses(run)
    return x[y >= _LOSSES[1]]


def _fate(curve: SeedGroup) -> str:
    diverged = sum(diverged_at(run) is not None for run in curve.runs)
    return f" ({diverged} of {len(curve.runs)} diverged)" if diverged else ""


def _learning_rates(curves: Sequence[SeedGroup]) -> Figure | None:
    """The share of seeds that diverged, and at which minibatch, against the learning rate."""
    if not any(diverged_at(run) is not None for curve in curves for run in curve.runs):
        return None
    shares: list[panels.Series] = []
    firsts: list[panels.Series] = []
    reached = [at for curve in curves for run in curve.runs if (at := diverged_at(run)) is not None]
    for name in dict.fromkeys(_name(curve, curves) for curve in curves):
        same = sorted((c for c in curves if _name(c, curves) == name), key=_rate)
        rates = np.array([_rate(curve) for curve in same])
        found = [[diverged_at(run) for run in curve.runs] for curve in same]
        share = np.array([np.mean([at is not None for at in seeds]) for seeds in found])
        look = (name, _colour(same[0]), "-")
        shares.append(panels.Series(rates, share, *look, marker="o"))
        lost = [
            (lr, [at for at in seeds if at is not None])
            for lr, seeds in zip(rates, found, strict=True)
        ]
        lost = [(lr, seeds) for lr, seeds in lost if seeds]
        if lost:
            x, y = np.array([lr for lr, _ in lost]), np.array([np.mean(at) for _, at in lost])
            low, high = ([f(at) for _, at in lost] for f in (min, max))
            series = panels.Series(x, y, *look, np.array(low), np.array(high), marker="o")
            firsts.append(series)
    seeds = max(len(curve.runs) for curve in curves)
    parts = [*_networks(curves), comparison.data(curves), comparison.seeds(seeds)]
    parts.append(f"diverged: {_DIVERGED}, in {_lengths(curves)}")
    to_see = "See from which learning rate on a network no longer trains, and how soon that shows."
    return panels.stacked(
        [
            panels.Panel("Share of seeds that diverged", shares, (-0.05, 1.05)),
            panels.Panel(
                *("First minibatch seen to have diverged", firsts, (0, 1.2 * max(reached))),
                integer=True,
            ),
        ],
        f"Which learning rates diverge{comparison.on(curves)}",
        f"{BETWEEN.join(parts)}\n{to_see}",
        "Learning rate",
        log_x=True,
    )


def _lengths(curves: Sequence[SeedGroup]) -> str:
    """How long the runs that did not diverge are, such as "1 to 165 epochs"."""
    lengths = {int(run.epochs[-1]) for curve in curves for run in curve.survivors}
    if not lengths:
        return "every run"
    low, high = min(lengths), max(lengths)
    return f"{high if low == high else f'{low} to {high}'} {curves[0].unit}s"


def _read_singular_values(runs: Sequence[Run]) -> dict[str, np.ndarray] | None:
    """What `measure` wrote beside the runs, None if it is not."""
    found = (run.folder.parent / _SINGULAR_VALUES for run in runs)
    path = next((path for path in found if path.exists()), None)
    if path is None:
        return None
    arrays = archives.read(path)
    matrices, values = (arrays.get(key, np.zeros(0)) for key in ("matrices", "singular_value"))
    fits = (
        matrices.dtype.kind == "i"
        and values.dtype.kind == "f"
        and values.ndim == 3
        and matrices.shape == values.shape[:1]
        and values.size
        and (matrices > 0).all()
        and np.isfinite(values).all()
    )
    if not fits:
        raise UserError(
            f"{path}: expected the singular values that --study understanding-bn writes; remove "
            "the file to draw the rest"
        )
    return {"matrices": matrices, "singular_value": values}


def _singular_values(arrays: dict[str, np.ndarray] | None) -> Figure | None:
    """Histograms of the singular values, the law in the limit, and its edge."""
    if arrays is None:
        return None
    _, draws, size = arrays["singular_value"].shape
    figure, (row,) = heat_maps.grid(
        1,
        len(arrays["matrices"]),
        "Singular values of products of M random matrices",
        f"{size} × {size}, entries from N(0, 1/{size})  ·  {draws} draws  ·  line: the law for "  # noqa: RUF001
        "infinitely large ones, dashed: its edge\n"
        "See how few directions a product of many keeps: most singular values are near 0.",
    )
    for axes, matrices, values in zip(row, *arrays.values(), strict=True):
        edge = _random_matrices.edge(matrices)
        counts, edges = np.histogram(values, 60, (0, 1.05 * edge), density=True)
        axes.stairs(counts, edges, fill=True, color=SKY, alpha=0.6)
        axes.plot(*_random_matrices.density(matrices), color=BLUE)
        axes.axvline(edge, color=BLACK, linestyle=DASHES[1], linewidth=1.1)
        axes.set_ylim(0, 1.6)
        axes.set_title(f"M = {matrices}: edge {edge:.3f}, largest {values.max(axis=1).mean():.3f}")
        axes.set_xlabel("Singular value")
    row[0].set_ylabel("Density")
    return figure


def _table(curves: Sequence[SeedGroup], singular_values: dict[str, np.ndarray] | None) -> str:
    """Markdown: the numbers behind the figures, with their range over seeds."""
    rows: dict[str, dict[str, str]] = {}
    for observer, numbers_of in _NUMBERS.items():
        for curve in curves:
            measured = observations.measured(curve.runs, observer)
            if measured.seeds:
                for what, values in numbers_of(measured):
                    rows.setdefault(what, {})[_with_rate(curve, curves)] = mean_and_range(
                        values, ".4g"
                    )
    columns = list(dict.fromkeys(name for cells in rows.values() for name in cells))
    cells = [[what, *(row.get(name, "") for name in columns)] for what, row in rows.items()]
    text = ""
    if rows:
        text = "At initialisation: mean over seeds, and range.\n\n"
        text += tables.markdown([["", *columns], *cells]) + "\n"
    if singular_values is not None:
        head = ["M", "edge of the law", "largest singular value (range)", "off by"]
        head += ["edge by the top 5%", "off by"]
        law = [head]
        for matrices, values in zip(*singular_values.values(), strict=True):
            edge = _random_matrices.edge(matrices)
            fitted = _random_matrices.fitted_edge(values, matrices)
            largest = values.max(axis=1)
            law.append(
                [
                    *(str(matrices), f"{edge:.3f}", mean_and_range(largest, ".4g")),
                    *(f"{100 * (largest.mean() / edge - 1):+.2f}%", f"{fitted:.3f}"),
                    f"{100 * (fitted / edge - 1):+.2f}%",
                ]
            )
        text += "\n" * bool(text) + tables.markdown(law) + "\n"
    return text


def _moments(group: Measured) -> list[tuple[str, np.ndarray]]:
    what = {"mean": "|channel means|", "std": "std of channel means", "variance": "variance"}
    return [
        (f"growth of the {name} a layer, log10", activation_moments.slopes(group.first(key)))
        for key, name in what.items()
    ]


def _gradients(group: Measured) -> list[tuple[str, np.ndarray]]:
    layer = group.first("layer")[0]
    return [
        (f"{name} of the weight gradients of layer {layer}", group.first(key)[:, layer - 1])
        for key, name in (("kurtosis", "kurtosis"), ("std", "std"), ("maximum", "largest"))
    ]


def _outputs(group: Measured) -> list[tuple[str, np.ndarray]]:
    gradients = group.first("gradient")
    return [
        (
            "images of one sign in the most one-signed column",
            output_gradients.same_sign(gradients),
        ),
        (
            "spread of the most positive column, std / mean",
            output_gradients.dependence_on_input(gradients),
        ),
    ]


def _kernels(group: Measured) -> list[tuple[str, np.ndarray]]:
    ratios = group.first("sum_of_absolute") / group.first("absolute_of_sum")
    layers = group.first("layer")[0]
    return [
        (f"sum of absolute values over absolute sum, layer {layer}", ratios[:, i])
        for i, layer in enumerate(layers)
        if layer in (18, 54, 90)  # of table 1
    ]


def _steps(group: Measured) -> list[tuple[str, np.ndarray]]:
    relative, sizes = group.first("relative_loss"), group.first("step_size")
    relative = np.where(np.isnan(relative), np.inf, relative)
    best = np.take_along_axis(sizes, relative.argmin(axis=1)[:, None], 1)[:, 0]
    best = np.where(np.isfinite(relative).any(axis=1), best, np.nan)
    lost = [size[row > LIMIT] for size, row in zip(sizes, relative, strict=True)]
    found = [("best step size along the first gradient", best)]
    if all(map(len, lost)):
        name = f"smallest step size at which the loss grows {LIMIT:g} times"
        found.append((name, np.array([size[0] for size in lost])))
    return found


def _noise(group: Measured) -> list[tuple[str, np.ndarray]]:
    return [
        ("slope of log noise against log batch size", gradient_noise.slopes(group)),
        ("constant C of the noise", group.first("constant")),
    ]


_NUMBERS = {
    "activation-moments": _moments,
    "gradient-histogram": _gradients,
    "output-gradients": _outputs,
    "kernel-gradients": _kernels,
    "relative-loss": _steps,
    "gradient-noise": _noise,
}


def _compared(
    observer: str, what: str, number: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> Callable[[Sequence[Run]], Numbers]:
    """Returns what measures, of numbers of the table without BN and with it, one of each seed."""

    def measure(runs: Sequence[Run]) -> Numbers:
        both = [_numbers(runs, observer, bn) for bn in ("False", "True")]
        if not all(both):
            return {}
        seeds = min(len(values) for one in both for values in one.values())
        lost = np.full(seeds, np.nan)
        with np.errstate(all="ignore"):
            return {
                "".join(name.partition("layer ")[1:]): number(
                    *(one.get(name, lost)[:seeds] for one in both)
                ).tolist()
                for name in dict.fromkeys([*both[0], *both[1]])
                if what in name
            }

    return measure


def _numbers(runs: Sequence[Run], observer: str, bn: str) -> dict[str, np.ndarray]:
    """An observer's numbers of the table; none unless there is one such network, at one rate."""
    found = [
        measured
        for curve in group_runs(runs)
        if _bn(curve) == bn and (measured := observations.measured(curve.runs, observer)).seeds
    ]
    with np.errstate(all="ignore"):
        return dict(_NUMBERS[observer](found[0])) if len(found) == 1 else {}


def _diverged(bn: str) -> Callable[[Sequence[Run]], Numbers]:
    """Returns what measures at rates from 0.001 on whether each seed diverged, 1, or not, 0."""

    def measure(runs: Sequence[Run]) -> Numbers:
        shown = [c for c in group_runs(runs) if _bn(c) == bn and _rate(c) >= 0.001]
        return {
            f"lr {decimal(_rate(curve))}": [
                float(diverged_at(run) is not None) for run in curve.runs
            ]
            for curve in sorted(shown, key=_rate)
        }

    return measure


def _growth_with_depth(runs: Sequence[Run]) -> Numbers:
    """How many orders more the last layer's variance grows in the step than the first's."""
    every = [curve for curve in group_runs(runs) if _bn(curve) == "False"]
    found = [observations.measured(curve.runs, "diverging-step").seeds for curve in every]
    growths = []
    for series in (one for seeds in found for one in seeds):
        layers = [
            array[0].mean(axis=1) for key, array in series.items() if key.startswith("variance")
        ]
        with np.errstate(all="ignore"):
            first, *_, last = (np.log10(layer[-1] / layer[0]) for layer in layers)
            growths.append(float(last - first))
    return {"": growths}


def _edges(runs: Sequence[Run]) -> Numbers:
    """How far the edge fitted to the largest singular values is off that of the law."""
    arrays = _read_singular_values(runs)
    if arrays is None:
        return {}
    fitted, edge = _random_matrices.fitted_edge, _random_matrices.edge
    return {f"M {m}": [fitted(v, m) / edge(m) - 1] for m, v in zip(*arrays.values(), strict=True)}


def _trained(runs: Sequence[Run], pairs: Sequence[tuple[tuple, tuple]]) -> Numbers:
    """How much higher the first of two settings, BN and learning rate, ends than the second."""
    shown = {
        (_bn(curve) == "True", _rate(curve)): claims.by_seed(curve)
        for curve in claims.curves(runs)
        if curve.unit == "epoch" and _last(curve) > 1
    }
    return {
        f"lr {one[1]:g}, {other[1]:g}": [
            final(run) - final(shown[other][seed])
            for seed, run in shown[one].items()
            if seed in shown[other]
        ]
        for one, other in pairs
        if one in shown and other in shown
    }


_HIGH, _MEDIUM, _LOW, _PLAIN = SETTINGS
CLAIMS = (
    Claim(
        *("activations grow with depth without BN", "growth of channel means, without over with"),
        _compared("activation-moments", "|channel means|", np.divide),
        above=2,
    ),
    Claim(
        *("and gradients are orders larger", "orders of their std, without over with"),
        _compared("gradient-histogram", "std of", lambda a, b: np.log10(a / b)),
        above=1,
    ),
    Claim(
        *("with heavier tails", "kurtosis without BN less that with"),
        _compared("gradient-histogram", "kurtosis", np.subtract),
        above=0,
    ),
    Claim(
        *("the output's gradient needs BN to vary", "spread over images, with BN less without"),
        _compared("output-gradients", "spread", lambda a, b: b - a),
        above=0,
    ),
    Claim(
        *("a kernel's gradient cancels with BN", "how far it does, with over without"),
        _compared("kernel-gradients", "sum of absolute", lambda a, b: b / a),
        above=10,
    ),
    Claim(
        *("steps of 0.001 to 0.01 explode without BN", "step at which the loss grows 1000-fold"),
        _compared("relative-loss", "smallest step", lambda a, b: a),
        above=0.001,
        below=0.01,
    ),
    Claim(
        *("with BN steps of 0.03 to 0.1 are best", "best step along the first gradient"),
        _compared("relative-loss", "best step", lambda a, b: b),
        above=0.03,
        below=0.1,
    ),
    Claim(
        *("it diverges at high rates without BN", "share of seeds, from a rate of 0.001 on"),
        _diverged("False"),
        above=0.5,
    ),
    Claim(
        *("and not with it", "share of seeds, from a rate of 0.001 on"),
        _diverged("True"),
        below=0.5,
    ),
    Claim(
        *("moments grow with depth as it diverges", "orders of variance, last layer less first"),
        _growth_with_depth,
        above=0,
        is_robust=True,
    ),
    Claim(
        *("random matrices' products end at the law", "fitted edge over the law's, less 1"),
        _edges,
        above=-0.01,
        below=0.01,
    ),
    Claim(
        *("the noise falls as 1 / batch size", "slope of its logarithm without BN"),
        _compared("gradient-noise", "slope", lambda a, b: a),
        above=-1.3,
        below=-0.7,
    ),
    Claim(
        *("higher rates end higher with BN", "lead of the test accuracy"),
        lambda runs: _trained(runs, [(_HIGH, _MEDIUM), (_MEDIUM, _LOW)]),
        above=0,
    ),
    Claim(
        *("at 0.0001 both end alike", "test accuracy with BN less that without"),
        lambda runs: _trained(runs, [(_LOW, _PLAIN)]),
        above=-0.02,
        below=0.02,
    ),
)
