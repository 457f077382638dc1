"""The studies on small networks, each made and drawn in miniature."""

import json

import numpy as np
import pytest

import plot_results
import train_mnist
from mnist_bn import studies, training
from mnist_bn.plotting.groups import SeedGroup, group_runs
from mnist_bn.plotting.results import read_runs
from mnist_bn.studies import (
    cs231n,
    dying_relu,
    exercise,
    learning_rate,
    original_paper,
    variance_shift,
)
from mnist_bn.training import prepare
from tests.helpers import write_result_folder


def make(study, out, preset="quick", **given):
    """Trains a study's runs and returns them as plotting reads them."""
    for config in studies.configs(
        study, preset, {**given, "study": study_name(study), "out": str(out)}
    ):
        training.train(prepare(config))
    return read_runs([out], pytest.fail)


def study_name(study):
    return study.__name__.rpartition(".")[2].replace("_", "-")


def drawn(out):
    """The names of what plot_results.py makes of a folder."""
    assert plot_results.main([str(out), "-o", str(out / "figures")]) == 0
    return sorted(path.name for path in (out / "figures").iterdir())


def write_run(folder, seed=0, lr=0.1, **last):
    """A result folder of two epochs, with a folder name of its own; `last` changes the last."""
    entry = {"main/loss": 0.2, "validation/main/loss": 0.2, "validation/main/accuracy": 0.95}
    log = [entry | {"epoch": 1}, {**entry, "epoch": 2, **last}]
    args = {"model": "MnistCNN", "optimizer": "SGD", "lr": lr, "seed": seed}
    return write_result_folder(folder, args, log)


def test_names_have_hyphens():
    assert {"blog", "exercise", "dying-relu", "learning-rate", "original-paper"} <= set(
        studies.names()
    )
    assert studies.get("dying-relu") is dying_relu


@pytest.mark.parametrize(
    "name", ["exercise", "dying-relu", "learning-rate", "original-paper", "cs231n"]
)
@pytest.mark.parametrize("preset", ["quick", "full"])
def test_presets_are_runs_that_the_command_line_takes(name, preset):
    line = ["--study", name, "--preset", preset]
    configs = train_mnist.make_configs(train_mnist.parse_arguments(line))
    assert len({config.name for config in configs}) == len(configs) > 1


def test_what_is_given_goes_before_the_preset(tiny_data):
    given = {"epoch": 2, "seed": [7], "observe": "gradient-norms"}
    made = studies.configs(exercise, "quick", given)
    assert {(c.epoch, c.iteration, c.seed) for c in made} == {(2, None, 7)}
    sloped = studies.configs(dying_relu, "quick", {"batchsize": 20, "observe": "gradient-norms"})
    assert {c.batchsize for c in sloped} == {20}
    assert {c.observe for c in sloped} == {"dead-units,weight-updates,gradient-norms"}
    assert [c.lr for c in studies.configs(learning_rate, "full", {"lr": 0.5})] == [0.5] * 4 * 3


def test_a_study_is_published_at_three_seeds():
    for study in (exercise, dying_relu, learning_rate, original_paper, cs231n, variance_shift):
        assert {config.seed for config in studies.configs(study, "full", {})} == {0, 1, 2}, study


def test_the_pair_of_dying_relu_trains_longer_in_a_folder_of_its_own():
    made = studies.configs(dying_relu, "long", {"out": "result/dying-relu"})
    assert {(c.model, c.epoch, c.batchsize) for c in made} == {
        ("ReluMLP", 100, 100),
        ("ReluMLP_BN", 100, 100),
    }
    assert {str(c.folder.parent) for c in made} == {"result/dying-relu/long"}


def test_exercise(tiny_data, tmp_path):
    runs = make(exercise, tmp_path, iteration=20, batchsize=10)
    assert [run.model for run in runs] == exercise.PRESETS["quick"]["model"]
    assert all(run.args["sampling"] == "replacement" for run in runs)
    assert runs[0].epochs.tolist() == [10, 20]
    assert drawn(tmp_path) == ["claims.md", "exercise.png", "summary.csv", "table.md"]


def test_dying_relu(tiny_data, tmp_path):
    networks = ["ReluMLP", "ReluMLP_BN", "ReluMLP_BN(slope=0.01)"]
    make(dying_relu, tmp_path, epoch=2, batchsize=10, model=networks)
    names = drawn(tmp_path)
    assert {"dying-relu-film.gif", "dead-units.md"} <= set(names)
    assert "dying-relu-slopes.png" in names
    assert not [name for name in names if name.startswith("ReluMLP")]
    table = (tmp_path / "figures" / "dead-units.md").read_text()
    assert "ReluMLP_BN(slope=0.01)" in table


def test_dead_units_are_counted_as_the_study_does(tmp_path):
    flat = np.zeros((4, 256), bool)
    flat[1:, 0] = True  # dead from the third epoch on
    flat[2, 1] = True  # for one epoch alone
    folder = write_run(tmp_path / "run")
    times = {"epoch": np.arange(1, 5), "iteration": 2 * np.arange(1, 5)}
    np.savez(folder / "dead-units.npz", **times, **{"flat_update/l1": flat})
    (curve,) = group_runs(read_runs([folder], pytest.fail))
    epochs, counted = dying_relu.counts(curve, "flat_update")
    assert epochs.tolist() == [1, 2, 3, 4]
    assert counted.tolist() == [[0, 0, 1, 1]]


def test_original_paper(tiny_data, tmp_path):
    runs = make(original_paper, tmp_path, iteration=8, evaluate_every=2, batchsize=10)
    assert [run.model for run in runs] == ["SigmoidMLP", "SigmoidMLP_BN"]
    names = drawn(tmp_path)
    assert names == [
        "cases.md",
        "claims.md",
        "original-paper.md",
        "original-paper.png",
        "summary.csv",
        "table.md",
    ]
    table = (tmp_path / "figures" / "original-paper.md").read_text()
    assert len(table.splitlines()) == 4


def test_steadiness_of_percentiles():
    still = np.tile(np.array([-1.0, 0.0, 1.0])[None, :, None], (5, 1, 2))
    assert original_paper.wandering(still).tolist() == [0, 0]
    assert original_paper.drift(still).tolist() == [0, 0]
    moving = still.copy()
    moving[:, :, 1] += np.arange(5)[:, None]  # by 1 each time, with a spread of 2
    assert original_paper.wandering(moving).tolist() == [0, 0.5]
    assert original_paper.drift(moving).tolist() == [0, 2]
    assert original_paper.growth(moving).tolist() == [1, 1]
    assert original_paper.growth(still * np.arange(1, 6)[:, None, None]).tolist() == [5, 5]


def test_learning_rate(tiny_data, tmp_path):
    for lr in (1e-3, 1e30):
        make(learning_rate, tmp_path, lr=lr, iteration=2, batchsize=10, model=["ReluMLP"])
    runs = read_runs([tmp_path], lambda line: None)
    fates = {run.args["lr"]: learning_rate.has_diverged(run) for run in runs}
    assert fates == {1e-3: False, 1e30: True}
    assert drawn(tmp_path) == ["claims.md", "learning-rate.png", "summary.csv", "table.md"]


@pytest.mark.parametrize("loss", [None, 1e4, "absent"])
def test_divergence_is_read_from_the_log(tmp_path, loss):
    (run,) = read_runs([write_run(tmp_path / "run", **{"validation/main/loss": loss})], print)
    assert learning_rate.has_diverged(run)


def test_largest_learning_rate_that_trains(tmp_path):
    for seed in (0, 1):
        for lr in (0.1, 1.0, 10.0):
            fails = lr == 10.0 or (lr == 1.0 and seed == 1)
            accuracy = {"validation/main/accuracy": 0.1} if fails else {}
            write_run(tmp_path / f"{seed}-{lr}", seed, lr, **accuracy)
    runs = read_runs([tmp_path], pytest.fail)
    assert learning_rate.largest_that_trains(runs) == 0.1
    assert learning_rate.largest_that_trains([r for r in runs if r.args["lr"] == 10.0]) is None


def diverged_study(study, out, **given):
    """A study in miniature of which the network with BN diverged before its first evaluation."""
    make(study, out, **given)
    args = next(path for path in out.glob("*/args") if "_BN" in path.parent.name)
    entry = {"main/loss": None, "epoch": 1, "iteration": 1}
    entry["diverged_at"] = {"iteration": 1, "value": None}
    (args.parent / "log").write_text(json.dumps([entry]))
    for path in args.parent.glob("*-*.npz"):
        path.unlink()


@pytest.mark.parametrize("study", [exercise, dying_relu, learning_rate, original_paper])
def test_a_network_that_diverged_stops_no_figure(tiny_data, tmp_path, study):
    given = {"iteration": 4, "batchsize": 10}
    if study is learning_rate:
        given |= {"model": ["ReluMLP", "ReluMLP_BN"], "lr": 0.1}
    if study is dying_relu:
        given["model"] = ["ReluMLP", "ReluMLP_BN"]
    diverged_study(study, tmp_path, **given)
    names = drawn(tmp_path)
    assert any(name.endswith(".png") for name in names)
    if study is dying_relu:
        table = (tmp_path / "figures" / "dead-units.md").read_text()
        assert "diverged" in table
        assert "two evaluations running" in table  # not counted in epochs


def test_slope_of_a_network_by_its_name():
    def slope(model):
        return dying_relu._slope(SeedGroup((), model, "Adam", "", ""))

    names = ("ReluMLP", "ReluMLP(slope=0.01)", "Net(slope=0.1, width=3)", "Net(slope=1e-3)", None)
    assert [slope(name) for name in names] == [0, 0.01, 0.1, 1e-3, 0]


def test_learning_rates_of_two_optimizers_are_two_lines(tmp_path, monkeypatch):
    for seed, optimizer in enumerate(("SGD", "Adam")):
        folder = write_run(tmp_path / optimizer, seed)
        args = json.loads((folder / "args").read_text()) | {"optimizer": optimizer}
        (folder / "args").write_text(json.dumps(args))
    panels = []
    monkeypatch.setattr(
        learning_rate.panels, "stacked", lambda shown, *a, **k: panels.extend(shown)
    )
    dict(learning_rate.figures(read_runs([tmp_path], pytest.fail)))
    labels = [series.label.partition(", trains")[0] for series in panels[0].series]
    assert labels == ["MnistCNN, SGD", "MnistCNN, Adam"]


def test_a_rate_at_which_one_seed_diverged_is_crossed_and_what_is_not_finished_left_out(
    tmp_path, monkeypatch
):
    write_run(tmp_path / "a", seed=0)
    write_run(tmp_path / "b", seed=1, **{"diverged_at": {"iteration": 9}, "main/loss": None})
    write_run(tmp_path / "c", seed=0, lr=0.01)
    short = write_run(tmp_path / "d", seed=0, lr=0.001)
    args = json.loads((short / "args").read_text()) | {"epoch": 5}
    (short / "args").write_text(json.dumps(args))
    drawn = []
    monkeypatch.setattr(learning_rate.panels, "stacked", lambda *args, **_: drawn.append(args))
    dict(learning_rate.figures(read_runs([tmp_path], pytest.fail)))
    (((panel,), _, said, _),) = drawn
    (line,) = panel.series
    assert line.crosses == [0.1] and line.x.tolist() == [0.01, 0.1]
    assert "a seed diverged" in panel.lost
    assert "1 run not finished, left out" in said


def test_the_length_that_is_given_takes_the_place_of_the_presets():
    made = studies.configs(studies.get("blog"), "quick", {"iteration": 9})
    assert {(config.iteration, config.epoch) for config in made} == {(9, 20)}


def test_a_log_without_test_accuracy_stops_no_study(tiny_data, tmp_path):
    make(original_paper, tmp_path, iteration=4, evaluate_every=2, batchsize=10)
    for log in tmp_path.glob("*/log"):
        entries = json.loads(log.read_text())
        for entry in entries:
            del entry["validation/main/accuracy"]
        log.write_text(json.dumps(entries))
    assert "original-paper.png" in drawn(tmp_path)
