"""What holds of every observer: it declares its arrays, they round-trip, and they are drawn."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from mnist_bn import observations, observers, training
from mnist_bn.config import RunConfig
from mnist_bn.errors import UserError
from mnist_bn.observers.arrays import Array, what_is_wrong, written
from mnist_bn.observers.base import Observer
from mnist_bn.observers.gradient_norms import GradientNorms
from mnist_bn.plotting.results import read_runs
from mnist_bn.preparation import prepare

NAMES = list(observers.observers())
MORE = {"gradient-histogram": {"gradient-histogram", "gradient-scale"}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two seeds of a small network, with all observers."""
    out = tmp_path_factory.mktemp("result")
    for seed in (0, 1):
        config = RunConfig(
            model="MnistCNN_BN_before",
            dataset="digits",
            train_images=40,
            test_images=20,
            batchsize=20,
            epoch=2,
            seed=seed,
            observe=",".join(NAMES),
            out=str(out),
        )
        training.train(prepare(config))
    return read_runs([out], pytest.fail)


def drawn(runs):
    """The names of the figures, without their format."""
    names = [name for name, _ in observations.figures(runs)]
    assert len(set(names)) == len(names)
    return set(names)


@pytest.fixture(scope="module")
def figures(runs):
    return drawn(runs)


@pytest.mark.parametrize("name", NAMES)
def test_it_declares_its_arrays_and_writes_these(runs, name):
    declared = observers.observers()[name].arrays
    series = observations.measurements(observations.read(runs[0], name))
    assert declared and series
    assert what_is_wrong(declared, series) is None
    for key, array in written(declared, series).items():
        assert array.dtype == series[key].dtype


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", ["another", "none", "kind", "shape"])
def test_a_file_of_other_arrays_is_refused(runs, tmp_path, name, damage):
    series = observations.read(runs[0], name)
    key = next(iter(observations.measurements(series)))
    if damage == "another":
        series["a\x00b"] = series[key].astype(complex)
    elif damage == "none":
        series = {clock: series[clock] for clock in ("epoch", "iteration")}
    elif damage == "kind":
        series[key] = series[key].astype(complex)
    else:
        series[key] = series[key][..., np.newaxis]
    run = dataclasses.replace(runs[0], folder=tmp_path)
    np.savez(tmp_path / f"{name}.npz", **series)
    with pytest.raises(UserError, match=rf"{name}\.npz: expected the arrays that --observe"):
        observations.read(run, name)


@pytest.mark.parametrize("name", NAMES)
def test_it_has_a_figure_for_a_run_and_for_seeds(runs, figures, name):
    network = runs[0].name.removesuffix("-s0")
    for shown in ("s0", "s1", "seeds"):
        assert {f"{network}-{shown}-{figure}" for figure in MORE.get(name, {name})} <= figures


@pytest.mark.parametrize("name", NAMES)
def test_networks_stand_side_by_side(runs, name):
    groups = [observations.measured([run], name, run.name, "#000000") for run in runs]
    for _, figure in observers.observers()[name].figures(groups, lambda *words: words):
        assert figure is not None


def test_seeds_are_averaged_at_the_times_that_all_have(runs):
    measured = observations.measured(runs, "training-accuracy")
    seeds = [{key: array.copy() for key, array in series.items()} for series in measured.seeds]
    seeds[0]["accuracy"][:] = [0.25, 0.5]
    seeds[1] = {key: array[1:] for key, array in seeds[1].items()}
    seeds[1]["accuracy"][:] = 1
    (panel,) = observers.observers()["training-accuracy"].panels(
        dataclasses.replace(measured, seeds=seeds)
    )
    (line,) = panel.series
    assert (line.x, line.y, line.low, line.high) == ([2], [0.75], [0.5], [1])


def test_a_seed_alone_has_no_figure_of_seeds(runs):
    other = dataclasses.replace(runs[1], unreadable=frozenset(NAMES))
    names = drawn([runs[0], other])
    assert names and not [name for name in names if "-seeds-" in name]


def test_an_array_that_is_not_declared_is_one_line(tmp_path, tiny_data, monkeypatch):
    monkeypatch.setattr(GradientNorms, "arrays", {"l1/*": Array("float64")})
    config = RunConfig(
        model="ReluMLP", batchsize=20, epoch=1, observe="gradient-norms", out=str(tmp_path)
    )
    with pytest.raises(UserError, match=r"^--observe gradient-norms: measured other arrays than "):
        training.train(prepare(config))


def test_what_is_written_has_the_dtype_that_is_declared():
    arrays = written({"a": Array("float32")}, {"a": np.ones(3)})
    assert arrays["a"].dtype == np.float32


def test_every_file_has_the_title_of_a_figure_and_what_to_see():
    for observer in observers.observers().values():
        assert issubclass(observer, Observer) and observer.__doc__
        if observer.name != "weight-updates":  # a film
            assert observer.title and observer.to_see.endswith(".")


def test_training_loads_no_figures():
    code = (
        "import sys\n"
        "from mnist_bn import observers, training\n"
        "observers.observers()\n"
        "print([name for name in sys.modules if name.startswith('mnist_bn.plotting.')])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
