"""Every study's figures: their titles, what they say to look for, and how they call networks."""

import dataclasses

import numpy as np
import pytest
from matplotlib.figure import Figure

from mnist_bn import studies
from mnist_bn.plotting.appearance import style
from mnist_bn.plotting.groups import group_runs
from mnist_bn.plotting.results import CURVE_KEYS, read_runs
from mnist_bn.studies import understanding_bn
from tests.helpers import write_result_folder

RANDOM = np.random.RandomState(0)
LENGTH = 3
MEASURED = {
    "dead-units": {
        f"{kind}/l1": RANDOM.rand(LENGTH, 8) < 0.3
        for kind in ("flat_update", "flat_gradient", "never_positive")
    },
    "activation-percentiles": {"sigmoid3": RANDOM.randn(LENGTH, 3, 2)},
    "training-accuracy": {"accuracy": RANDOM.rand(LENGTH)},
    "variance-shift": {
        f"{part}/bn{i}": 1 + RANDOM.rand(LENGTH, 3)
        for part in ("shift", "real_mean", "real_var", "moving_mean", "moving_var")
        for i in (1, 2)
    },
    "reestimated-bn": {"accuracy": RANDOM.rand(LENGTH)},
    "activation-moments": {
        key: 0.1 + RANDOM.rand(LENGTH, 4) for key in ("mean", "std", "variance")
    },
}


def write_run(config):
    """A finished run of LENGTH evaluations, with files of those observers that are above."""
    args = dataclasses.asdict(config) | {"dataset": "mnist"}
    last = config.iteration or config.epoch
    times = np.linspace(1, max(last, LENGTH), LENGTH).astype(int)
    entry = dict.fromkeys(CURVE_KEYS, 0.5)
    log = [{**entry, "epoch": int(t), "iteration": int(t)} for t in times]
    write_result_folder(config.folder, args, log)
    for name in (config.observe or "").split(","):
        if name in MEASURED:
            clock = {"epoch": times, "iteration": times}
            np.savez(config.folder / f"{name}.npz", **clock, **MEASURED[name])


@pytest.fixture
def figures_of(tmp_path):
    """Returns what draws a study's quick preset: its runs, and its figures by name."""

    def draw(name):
        study = studies.get(name)
        given = {"out": str(tmp_path / "result"), "study": name}
        configs = studies.configs(study, "quick", given)
        for config in configs:
            write_run(config)
        with style():
            drawn = list(study.figures(read_runs([tmp_path / "result"], pytest.fail)))
        return configs, {name: one for name, one in drawn if isinstance(one, Figure)}

    return draw


def texts(figure):
    every = list(figure.texts)
    for axes in figure.axes:
        every += [*axes.texts, axes._left_title]
    return [text.get_text() for text in every]


@pytest.mark.parametrize("name", studies.names())
def test_a_figure_says_its_data_what_to_see_and_names_that_can_be_typed(name, figures_of):
    configs, figures = figures_of(name)
    assert figures
    for figure in figures.values():
        said = " ".join(text.get_text() for text in figure.texts).replace("\n", " ")
        assert "MNIST" in said
        assert "See " in said
    said = "\n".join(text for figure in figures.values() for text in texts(figure))
    for network in {config.model for config in configs}:
        # Arguments over which a figure's x axis or lines range are on that axis.
        assert network.partition("(")[0] in said


def test_dashes_have_a_word(figures_of):
    _, figures = figures_of("dying-relu")
    assert "Dashed: without BN." in " ".join(texts(figures["dying-relu-slopes"]))
    assert "minibatches: dotted" in " ".join(texts(figures["dying-relu"]))


def test_of_a_figure_of_the_first_seed_is_said_so(tmp_path):
    runs = [
        *studies.configs(
            studies.get("understanding-bn"), "quick", {"out": str(tmp_path), "lr": 0.1}
        ),
    ]
    for config in runs:
        write_run(config)
        for name in ("output-gradients", "activation-moments"):
            (config.folder / f"{name}.npz").touch()
    curves = group_runs(read_runs([tmp_path], pytest.fail))
    said = understanding_bn._subtitle(curves, "output-gradients")
    assert said.endswith("the first of 3 seeds")
    assert understanding_bn._subtitle(curves, "activation-moments").endswith("mode  ·  3 seeds")
