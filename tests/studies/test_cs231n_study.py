"""The study of CS231n's assignment 2, in miniature."""

import numpy as np
import pytest

import plot_results
from mnist_bn import data, training
from mnist_bn.errors import UserError
from mnist_bn.plotting.results import VALIDATION_ACCURACY, read_run, read_runs
from mnist_bn.studies import cs231n
from mnist_bn.trainer.divergence import LIMIT
from mnist_bn.training import prepare
from tests.helpers import write_result_folder


@pytest.fixture
def tiny_cifar(monkeypatch, no_plots):
    """Replaces CIFAR-10 by 60 images for training and 20 for testing."""
    rng = np.random.RandomState(0)

    def split(n):
        return data.Split(rng.rand(n, 3, 32, 32).astype("f"), np.arange(n, dtype=np.int32) % 10)

    dataset = data.Dataset("cifar10", split(60), split(20), {"tiny": "0" * 64}, "a test", "")
    monkeypatch.setattr(data, "load", lambda *_: dataset)
    monkeypatch.setattr(data, "_kept", {})


def write_run(folder, losses, accuracies, scale=0.01, evaluate_every=20, **args):
    """A result folder of a run that is evaluated every 20 steps, an epoch."""
    args = {
        "model": f"CS231nMLP(hidden=50, layers=8, weight_scale={scale})",
        **{"optimizer": "Adam", "seed": 0, "dataset": "cifar10", "semantics": "today"},
        **{
            "evaluate_every": evaluate_every,
            "on_divergence": "continue",
            "study": "cs231n",
            **args,
        },
    }
    log = [
        {
            **{"iteration": evaluate_every * i, "epoch": i},
            **{"main/loss": loss, "validation/main/accuracy": accuracy},
        }
        for i, (loss, accuracy) in enumerate(zip(losses, accuracies, strict=True), start=1)
    ]
    write_result_folder(folder, args, log)
    times = evaluate_every * np.arange(1, len(log) + 1)
    accuracy = np.linspace(0.2, 0.4, len(log))[::-1]
    np.savez(folder / "training-accuracy.npz", epoch=times, iteration=times, accuracy=accuracy)
    return read_run(folder)


def test_full_is_the_assignments_twenty_scales_and_quick_some_of_them():
    assert len(cs231n.SCALES) == 20
    np.testing.assert_allclose(cs231n.SCALES, np.logspace(-4, 0, 20), rtol=5e-4)
    quick, full = (cs231n.configs(preset, {}) for preset in ("quick", "full"))
    assert {config.name for config in quick} < {config.name for config in full}
    assert len(quick) == 2 + 2 * 7
    assert len(full) == 2 * 3 + 2 * 20 * 3


def test_what_is_given_goes_before_the_presets():
    given = {"model": ["CS231nMLP(layers=3)"], "seed": [4], "epoch": 2, "holdout": 10}
    (config,) = cs231n.configs("full", given)
    assert (config.model, config.seed, config.epoch, config.holdout) == (
        *("CS231nMLP(layers=3)", 4, 2, 10),
    )
    assert (config.evaluate_every, config.train_images, config.sampling) == (1, 1000, "replacement")


def test_made_and_drawn(tiny_cifar, tmp_path, monkeypatch):
    depth, _ = cs231n.PRESETS["quick"]
    monkeypatch.setitem(cs231n.PRESETS, "quick", [depth, cs231n._sweep((0.01, 1.0), [0])])
    given = {"train_images": 40, "holdout": 20, "batchsize": 10, "epoch": 2}
    for config in cs231n.configs("quick", {**given, "study": "cs231n", "out": str(tmp_path)}):
        training.train(prepare(config))
    runs = read_runs([tmp_path], pytest.fail)
    assert [len(run.log) for run in runs if cs231n.weight_scale(run) is None] == [8, 8]
    lost = [run for run in runs if np.isnan(cs231n.final_loss(run))]
    assert [(run.model.partition("(")[0], cs231n.weight_scale(run)) for run in lost] == [
        ("CS231nMLP", 1.0)
    ]
    assert plot_results.main([str(tmp_path), "-o", str(tmp_path / "figures")]) == 0
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == [
        *("claims.md", "cs231n-depth.png", "cs231n-weight-scale.png", "cs231n.md", "summary.csv"),
        "table.md",
    ]
    table = (tmp_path / "figures" / "cs231n.md").read_text()
    assert "training 0.687, validation 0.327" in table
    assert [line for line in table.splitlines() if line.startswith("| 1 ")]


def test_final_loss_is_of_the_last_100_iterations(tmp_path):
    losses = [9.0, 9.0, 1.0, 2.0, 3.0, 4.0, 5.5]
    run = write_run(tmp_path / "even", losses, [0.1] * 7)
    assert cs231n.final_loss(run) == pytest.approx(np.mean(losses[-5:]))
    # Three evaluations of 30 fit into 100; of 200 none.
    run = write_run(tmp_path / "uneven", losses, [0.1] * 7, evaluate_every=30)
    assert cs231n.final_loss(run) == pytest.approx(np.mean(losses[-3:]))
    run = write_run(tmp_path / "coarse", losses, [0.1] * 7, evaluate_every=200)
    assert np.isnan(cs231n.final_loss(run))


@pytest.mark.parametrize("loss", [None, 6 * LIMIT])
def test_a_final_loss_that_is_lost_is_a_gap_and_a_cross(tmp_path, loss):
    kept = write_run(tmp_path / "kept", [1.0] * 6, [0.3] * 6, scale=0.01)
    lost = write_run(tmp_path / "lost", [1.0] * 5 + [loss], [0.2] * 6, scale=1)
    # Lost at first, and found again.
    back = write_run(tmp_path / "back", [loss] + [2.0] * 5, [0.2] * 6, scale=0.1)
    (line,) = cs231n._sweep_lines([lost, kept, back], cs231n.final_loss)
    np.testing.assert_array_equal(line.x, [0.01, 0.1, 1])
    np.testing.assert_array_equal(line.y, [1, 2, np.nan])
    assert line.crosses == [1]
    (line,) = cs231n._sweep_lines([lost, kept, back], cs231n.best_validation)
    assert line.y.tolist() == [0.3, 0.2, 0.2]


def test_best_accuracies_are_over_all_evaluations(tmp_path):
    run = write_run(tmp_path / "run", [1.0] * 3, [0.2, 0.35, 0.3])
    assert cs231n.best_validation(run) == 0.35
    assert cs231n.best_training(run) == pytest.approx(0.4)
    assert run.values(VALIDATION_ACCURACY)[-1] == 0.3
    (run.folder / "training-accuracy.npz").unlink()
    assert np.isnan(cs231n.best_training(run))


def test_depth_is_the_mean_and_range_of_the_seeds(tmp_path):
    for seed, accuracy in enumerate((0.3, 0.4)):
        write_run(tmp_path / str(seed), [1.0], [accuracy], model="CS231nMLP_BN", seed=seed)
    figures = dict(cs231n.figures(read_runs([tmp_path], pytest.fail)))
    assert "0.350 (0.300 to 0.400)" in figures["cs231n"]
    assert figures.keys() == {"cs231n-depth", "cs231n"}


def test_other_settings_are_other_lines_and_never_averaged(tmp_path):
    for optimizer, accuracy in (("Adam", 0.4), ("SGD", 0.2)):
        for seed in (0, 1):
            folder = tmp_path / f"{optimizer}{seed}"
            write_run(folder, [1.0], [accuracy + 0.1 * seed], optimizer=optimizer, seed=seed)
    write_run(tmp_path / "wide", [1.0], [0.3], batchsize=10)
    runs = read_runs([tmp_path], pytest.fail)
    lines = cs231n._sweep_lines(runs, cs231n.best_validation)
    assert {line.label: line.y.tolist() for line in lines} == {
        "CS231nMLP(hidden=50, layers=8), Adam": [pytest.approx(0.45)],
        "CS231nMLP(hidden=50, layers=8), Adam, batch 10": [0.3],
        "CS231nMLP(hidden=50, layers=8), SGD": [pytest.approx(0.25)],
    }
    assert len({line.colour for line in lines}) == 3
    assert "best validation, CS231nMLP(hidden=50, layers=8), SGD" in cs231n._sweep_table(runs)


def test_of_the_sweep_what_is_not_finished_is_left_out(tmp_path):
    for scale, length in ((0.01, 6), (0.1, 3)):
        write_run(tmp_path / str(scale), [1.0] * length, [0.3] * length, scale=scale)
    (line,) = cs231n._sweep_lines(read_runs([tmp_path], pytest.fail), cs231n.final_loss)
    assert line.x.tolist() == [0.01]


def test_two_networks_with_bn_are_told_apart():
    keys = [(f"CS231nMLP_BN(layers={n})", "Adam", "") for n in (3, 8)]
    looks = cs231n._looks([*keys, ("CS231nMLP", "Adam", "")])
    assert [look.label for look in looks] == [
        *("CS231nMLP_BN(layers=3)", "CS231nMLP_BN(layers=8)", "CS231nMLP"),
    ]
    assert len({look.colour for look in looks}) == 3


@pytest.mark.parametrize(
    ("model", "scale"),
    [
        ("CS231nMLP", None),
        ("CS231nMLP_BN(hidden=50, layers=8, weight_scale=0.0001624)", 0.0001624),
        ("path/net.py:Net(weight_scale=1e-4)", 1e-4),
        ("Net(weight_scale=1-)", None),
    ],
)
def test_weight_scale_of_a_run(tmp_path, model, scale):
    assert cs231n.weight_scale(write_run(tmp_path / "run", [1.0], [0.1], model=model)) == scale


def test_a_damaged_series_is_one_line(tmp_path):
    run = write_run(tmp_path / "run", [1.0], [0.1])
    (run.folder / "training-accuracy.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"training-accuracy\.npz: expected the arrays that"):
        dict(cs231n.figures([run]))
