"""Reading what observers measured, and a figure or a film of each."""

import dataclasses

import numpy as np
import pytest
from matplotlib.text import Text

from mnist_bn import drawing, observations
from mnist_bn.errors import UserError
from mnist_bn.observers import dead_units, gradient_norms, variance_shift
from mnist_bn.observers.reestimated_bn import ReestimatedBN
from mnist_bn.plotting.appearance import line_look
from mnist_bn.plotting.results import read_runs


def shift_series(layers, times=1, channels=4):
    """What `--observe variance-shift` writes: a shift of 2 and so on."""
    parts = {"shift": 2.0, "real_mean": 0.0, "real_var": 1.0, "moving_mean": 0, "moving_var": 2.0}
    shape = (times, channels)
    return {f"{k}/{layer}": np.full(shape, float(v)) for layer in layers for k, v in parts.items()}


@pytest.fixture
def run(tmp_path, make_run):
    """A run of three epochs with a file for every observer."""
    folder = make_run(tmp_path / "result", "MnistCNN", "SGD", epochs=3)
    rng = np.random.RandomState(0)
    times = {"epoch": np.arange(1, 4), "iteration": 600 * np.arange(1, 4)}
    series = {
        "dead-units": {
            "flat_update/l1": rng.rand(3, 8) < 0.3,
            "flat_gradient/l1": rng.rand(3, 8) < 0.3,
            "never_positive/relu1": rng.rand(3, 8) < 0.3,
        },
        "weight-updates": {"l1": rng.randint(256, size=(3, 10, 28, 28)).astype(np.uint8)},
        "activation-percentiles": {"sigmoid1": np.sort(rng.randn(3, 3, 5), axis=1)},
        "gradient-norms": {"l1/W": rng.rand(3), "l1/b": np.full(3, np.nan)},
        "training-accuracy": {"accuracy": rng.rand(3)},
        "variance-shift": shift_series(["bnorm1", "block/bnorm2"], times=3),
        "reestimated-bn": {"accuracy": rng.rand(3)},
    }
    for name, arrays in series.items():
        np.savez(folder / f"{name}.npz", **times, **arrays)
    return read_runs([folder], pytest.fail)[0]


def test_every_observer_has_a_figure_or_a_film(run, tmp_path):
    names = {path.name for path in drawing.save(observations.figures([run]), tmp_path / "figures")}
    names = {name for name in names if not name.endswith(".mp4")}
    assert names == {
        f"{run.name}-{name}"
        for name in (
            *("dead-units.png", "activation-percentiles.png", "gradient-norms.png"),
            *("training-accuracy.png", "variance-shift.png", "reestimated-bn.png"),
            "weight-updates.gif",
        )
    }


def test_what_was_measured_in_test_mode_says_so_where_the_run_was_evaluated_in_train_mode(run):
    of_2016 = dataclasses.replace(run, args={**run.args, "semantics": "2016"})
    for one, expected in (
        (run, {"statistics of training", "re-estimated"}),
        (of_2016, {"train mode", "re-estimated in test mode"}),
    ):
        measured = observations.measured([one], "reestimated-bn")
        figure = ReestimatedBN.figure([measured], "title", "subtitle")
        assert expected <= {text.get_text() for text in figure.findobj(Text)}


def test_what_a_study_shows_itself_is_left_out(run, tmp_path):
    shown = ("dead-units", "weight-updates", "activation-percentiles", "gradient-norms")
    shown += ("training-accuracy", "variance-shift", "reestimated-bn")
    assert list(observations.figures([run], leave_out=shown)) == []


def test_dead_is_flat_twice_running():
    flat = np.array([[1, 1, 0], [0, 1, 1], [1, 1, 1]], bool)
    assert dead_units.dead(flat).tolist() == [[0, 0, 0], [0, 1, 0], [0, 1, 1]]


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut off"])
def test_a_damaged_file_is_one_line(run, content):
    (run.folder / "dead-units.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"dead-units\.npz: expected the arrays that --observe"):
        observations.read(run, "dead-units")


def test_series_of_different_lengths_are_refused(run):
    np.savez(
        run.folder / "dead-units.npz", epoch=np.arange(3), iteration=np.arange(3), a=np.zeros(2)
    )
    with pytest.raises(UserError, match="its arrays differ in length"):
        observations.read(run, "dead-units")


@pytest.mark.parametrize(
    ("name", "arrays"),
    [
        ("dead-units", {"flat_update/l1": np.zeros((3, 8))}),
        ("dead-units", {}),
        ("activation-percentiles", {"sigmoid1": np.zeros((3, 2, 5))}),
        ("activation-percentiles", {"sigmoid1": np.zeros(3)}),
        ("weight-updates", {"l1": np.zeros((3, 0, 28, 28), np.uint8)}),
        ("gradient-norms", {"l1/W": np.array([{}] * 3)}),
        ("gradient-norms", {"epoch": np.zeros(3)}),
        ("variance-shift", {"shift/bn": np.ones((3, 4))}),
        ("variance-shift", {"accuracy": np.ones((3, 4))}),
        ("variance-shift", shift_series(["bn"], 3) | {"shift/bn": np.ones((3, 5))}),
        ("variance-shift", shift_series(["bn"], 3) | {"real_var/bn": np.ones(3)}),
        ("variance-shift", shift_series(["bn"], 3) | {"more/bn": np.ones((3, 4))}),
        ("variance-shift", shift_series(["bn"], 3) | {"shift/bn": np.ones((3, 4), int)}),
        ("reestimated-bn", {"loss": np.ones(3)}),
        ("reestimated-bn", {"accuracy/bn": np.ones(3)}),
        ("reestimated-bn", {"accuracy": np.ones((3, 2))}),
    ],
)
def test_arrays_of_another_layout_are_one_line(run, tmp_path, name, arrays):
    times = {"epoch": np.arange(3), "iteration": np.arange(3)}
    np.savez(run.folder / f"{name}.npz", **{**times, **arrays})
    with pytest.raises(UserError, match=rf"{name}\.npz: expected the arrays that "):
        list(observations.figures([run]))


@pytest.mark.parametrize("place", [200, 400, -30])
def test_a_file_with_a_wrong_byte_is_one_line(run, tmp_path, place):
    path = run.folder / "dead-units.npz"
    np.savez_compressed(path, **observations.read(run, "dead-units"))
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"dead-units\.npz: expected the arrays that"):
        list(observations.figures([run]))


def test_folders_of_one_name_have_figures_of_their_own(run, tmp_path):
    drawn = observations.figures([run, run], leave_out=("weight-updates",))
    paths = drawing.save(drawn, tmp_path / "figures")
    assert len({path.name for path in paths}) == len(paths) == 12


def test_shifts_of_the_layers_in_their_order(run):
    found = variance_shift.shifts(observations.read(run, "variance-shift"))
    assert {layer: array.shape for layer, array in found.items()} == {
        "bnorm1": (3, 4),
        "block/bnorm2": (3, 4),
    }
    assert variance_shift.layer_ticks(list(found)) == {1: "bnorm1", 2: "block/bnorm2"}


def test_many_layers_are_counted():
    assert variance_shift.layer_ticks([f"bn{i}" for i in range(109)])[109] == "109"


def test_what_is_counted_in_iterations_says_so(run):
    assert "two epochs" in dead_units.twice("epoch")
    assert "two evaluations" in dead_units.twice("iteration")


def test_lines_of_one_colour_differ_in_dashes():
    looks = [line_look(i) for i in range(gradient_norms.MAX_LINES)]
    assert len(set(looks)) == len(looks)
