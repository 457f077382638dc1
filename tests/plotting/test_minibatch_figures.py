"""Figures of what is measured on one minibatch, from files alone."""

import warnings

import numpy as np
import pytest

from mnist_bn import drawing, observations
from mnist_bn.errors import UserError
from mnist_bn.observers import activation_moments, gradient_noise, output_gradients
from mnist_bn.observers.measured import Measured
from mnist_bn.observers.relative_loss import RelativeLoss
from mnist_bn.plotting import heat_maps
from mnist_bn.plotting.results import read_runs
from mnist_bn.studies import understanding_bn


def measured(times=1, layers=110):
    """A file for every observer, as it might be written."""
    random = np.random.RandomState(0)

    def some(*shape):
        return random.rand(times, *shape) + 0.1

    def counted(values):
        return np.tile(np.array(values, np.int64), (times, *[1] * np.ndim(values)))

    series = {
        "activation-moments": {key: some(layers) for key in ("mean", "std", "variance")},
        "channel-gradients": {"gradient": some(4, 6), "layer": counted(45)[:, ...]},
        "diverging-step": {
            "lr": some(),
            "fraction": np.tile(np.linspace(0, 1, 5), (times, 1)),
            "loss": some(5),
            "mean/8": some(5, 3) - 0.5,
            "variance/8": some(5, 3),
        },
        "gradient-histogram": {
            **{key: some(layers) for key in ("std", "kurtosis", "minimum", "maximum")},
            "layer": counted(min(55, layers)),
            "counts": random.randint(1, 9, (times, 11)),
            "limit": some(),
        },
        "gradient-noise": {
            "batch_size": counted([2, 4]),
            "noise": some(2),
            "constant": some(),
        },
        "kernel-gradients": {
            "layer": counted([6, 18]),
            "sum_of_absolute": some(2),
            "absolute_of_sum": some(2),
        },
        "output-gradients": {"gradient": some(7, 10) - 0.6, "label": counted(range(7))},
        "relative-loss": {"step_size": some(4), "relative_loss": some(4), "loss": some()},
    }
    clock = {key: np.arange(times) for key in ("epoch", "iteration")}
    return {name: {**clock, **arrays} for name, arrays in series.items()}


FIGURES = {*measured(), "gradient-scale"}


def write(folder, files):
    for name, arrays in files.items():
        np.savez(folder / f"{name}.npz", **arrays)


@pytest.fixture
def run(tmp_path, make_run):
    folder = make_run(tmp_path / "result", "MnistCNN", "SGD", epochs=3)
    write(folder, measured())
    return read_runs([folder], pytest.fail)[0]


def test_each_has_its_figure(run, tmp_path):
    write(run.folder, measured(times=3, layers=8))
    names = {path.name for path in drawing.save(observations.figures([run]), tmp_path / "figures")}
    assert names == {f"{run.name}-{name}.png" for name in FIGURES}


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_what_is_lost_or_zero_is_drawn_as_such(run, tmp_path, value):
    files = measured()
    for arrays in files.values():
        for key, array in arrays.items():
            if array.dtype.kind == "f" and key not in ("step_size", "fraction"):
                array[...] = value
    write(run.folder, files)
    with warnings.catch_warnings(action="error"):
        assert len(drawing.save(observations.figures([run]), tmp_path / "figures")) == len(FIGURES)
        paths = drawing.save(understanding_bn.figures([run]), tmp_path / "figures")
    assert {f"{name}.png" for name in FIGURES} <= {path.name for path in paths}
    (best,) = (line for line in paths[-1].read_text().splitlines() if "best step size" in line)
    assert ("nan" in best) == (value != 0)  # where every loss was lost, no step is the best


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("activation-moments", {"mean": np.ones((1, 9))}),
        ("activation-moments", {"other": np.ones((1, 110))}),
        ("activation-moments", {"variance": None}),
        ("channel-gradients", {"gradient": np.ones((1, 4, 6, 1))}),
        ("diverging-step", {"mean/8": None}),
        ("diverging-step", {"loss": np.ones((1, 6))}),
        ("gradient-histogram", {"layer": np.array([111])}),
        ("gradient-histogram", {"layer": np.array([0])}),
        ("gradient-histogram", {"counts": np.ones((1, 11))}),
        ("gradient-noise", {"noise": np.ones((1, 3))}),
        ("kernel-gradients", {"layer": np.array([[6, 0]])}),
        ("output-gradients", {"label": np.ones((1, 8), int)}),
        ("relative-loss", {"loss": np.ones((1, 4))}),
    ],
)
def test_arrays_of_another_layout_are_one_line(run, name, wrong):
    arrays = {**measured()[name], **wrong}
    write(run.folder, {name: {k: array for k, array in arrays.items() if array is not None}})
    with pytest.raises(UserError, match=rf"{name}\.npz: expected the arrays that "):
        observations.read(run, name)


def test_seeds_of_other_shapes_are_not_averaged(tmp_path, make_run):
    folders = [make_run(tmp_path / "result", seed=seed) for seed in (0, 1)]
    write(folders[0], measured())
    write(folders[1], measured(layers=9))
    runs = read_runs([tmp_path / "result"], pytest.fail)
    with pytest.raises(UserError, match=r"same shapes as in .* draw these runs apart"):
        observations.measured(runs, "activation-moments")
    write(folders[1], measured(times=3))  # the other ended early
    assert len(observations.measured(runs, "activation-moments").seeds) == 2


def test_minibatches_are_named_where_the_first_seed_ended_early():
    def series(*iterations):
        shape = len(iterations), 3
        sizes = np.tile([0.1, 0.2, 0.3], (shape[0], 1))
        return {"iteration": np.array(iterations), "step_size": sizes, "relative_loss": sizes}

    seeds = [series(0), series(0, 3, 6), series(0, 3)]
    figure = RelativeLoss.figure([Measured("a", "k", seeds)], "title", "subtitle")
    names = [text.get_text() for text in figure.axes[0].texts]
    assert sorted(names) == ["minibatch 1", "minibatch 4", "minibatch 7"]


def test_slopes_are_of_the_logarithm_and_leave_out_what_has_none():
    layers = np.arange(1, 11)
    rows = np.array([10 ** (0.05 * layers), 3 * 10 ** (-0.2 * layers), np.full(10, np.nan)])
    rows[1, 4] = 0
    np.testing.assert_allclose(activation_moments.slopes(rows), [0.05, -0.2, np.nan])


def test_noise_that_falls_as_one_over_the_batch_size_has_slope_minus_one():
    sizes = np.array([[2, 4, 8]])
    group = Measured("", "", [{"batch_size": sizes, "noise": 7.0 / sizes}])
    np.testing.assert_allclose(gradient_noise.slopes(group), [-1])


def test_signs_and_spread_of_output_gradients():
    saturated = np.zeros((1, 8, 10))
    saturated[0, :, 4] = 1 / 8
    saturated[0, 0, 4] = -1
    assert output_gradients.same_sign(saturated) == [7 / 8]
    assert output_gradients.dependence_on_input(saturated) == [0]
    saturated[0, 1:, 4] = [1, 3, 1, 3, 1, 3, 2]
    assert output_gradients.dependence_on_input(saturated) == pytest.approx([np.sqrt(6 / 7) / 2])


def test_rows_of_heat_maps_may_differ_in_length():
    one = heat_maps.HeatMap("one", np.arange(6.0).reshape(2, 3), "x", "y")
    figure = heat_maps.heat_maps([[one], [one, one, one]], "title", "subtitle")
    assert sum(bool(axes.images) for axes in figure.axes) == 4
    assert len(figure.axes) == 8  # each with its colour bar


def test_a_heat_map_has_its_own_scale():
    one = heat_maps.HeatMap("one", np.arange(6.0).reshape(2, 3), "x", "y")
    signed = heat_maps.HeatMap("two", np.array([[-1.0, 3.0]]), "x", "y", is_signed=True)
    figure = heat_maps.heat_maps([[one, signed]], "title", "subtitle")
    images = [axes.images[0] for axes in figure.axes if axes.images]
    assert [image.get_clim() for image in images] == [(0, 5), (-3, 3)]
