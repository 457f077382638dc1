"""The variance-shift study in miniature: its runs, its numbers from files, its figures."""

import json

import numpy as np
import pytest

import plot_results
import train_mnist
from mnist_bn import studies, training
from mnist_bn.plotting.groups import group_runs
from mnist_bn.plotting.results import read_runs
from mnist_bn.studies import variance_shift
from mnist_bn.training import prepare
from tests.helpers import write_result_folder

FILES = ["claims.md", "summary.csv", "table.md", "variance-shift-accuracy.png", "variance-shift.md"]
FILES += ["variance-shift.png"]


def write_run(root, model, seed=0, accuracy=0.9, shift=2.0, anew=0.95, layers=("bn1", "bn2")):
    """A result folder of one epoch; `shift` is that of every layer, in each of 3 channels."""
    folder = root / f"{model}-s{seed}"
    args = {"model": model, "optimizer": "Adam", "seed": seed, "dataset": "mnist"}
    args |= {"semantics": "today", "study": "variance-shift"}
    entry = {"main/loss": 0.2, "validation/main/accuracy": accuracy, "epoch": 1}
    write_result_folder(folder, args, [entry])
    times = {"epoch": np.arange(1, 2), "iteration": np.arange(1, 2)}
    parts = {"shift": shift, "real_mean": 1.0, "real_var": 2.0, "moving_mean": 1, "moving_var": 4}
    series = {
        f"{k}/{layer}": np.full((1, 3), float(v)) for layer in layers for k, v in parts.items()
    }
    np.savez(folder / "variance-shift.npz", **times, **series)
    if anew is not None:
        np.savez(folder / "reestimated-bn.npz", **times, accuracy=np.full(1, anew))
    return folder


def drawn(root):
    assert plot_results.main([str(root), "-o", str(root / "figures")]) == 0
    return sorted(path.name for path in (root / "figures").iterdir())


def table(root):
    return (root / "figures" / "variance-shift.md").read_text()


def test_every_network_at_every_ratio():
    made = studies.configs(studies.get("variance-shift"), "full", {})
    assert len(made) == (3 * 5 + 1) * 3
    assert {config.observe for config in made} == {"variance-shift,reestimated-bn"}
    line = ["--study", "variance-shift", "--preset", "quick"]
    configs = train_mnist.make_configs(train_mnist.parse_arguments(line))
    assert len({config.name for config in configs}) == 16


def test_trained_and_drawn(tiny_data, tmp_path):
    given = {"epoch": 1, "batchsize": 20, "out": str(tmp_path), "study": "variance-shift"}
    given["model"] = ["MnistCNN_dropout_BN(ratio=0.7)", "MnistCNN_BN_linear_before"]
    for config in studies.configs(variance_shift, "quick", given):
        training.train(prepare(config))
    assert drawn(tmp_path) == FILES
    rows = table(tmp_path).splitlines()
    assert "bnorm5" in rows[-4]
    assert len([row for row in rows if row.startswith("| MnistCNN")]) == 2


def test_means_are_over_channels_and_seeds(tmp_path):
    write_run(tmp_path, "MnistCNN_dropout_BN(ratio=0.5)", 0, shift=2.0)
    write_run(tmp_path, "MnistCNN_dropout_BN(ratio=0.5)", 1, shift=4.0, accuracy=0.8)
    (curve,) = group_runs(read_runs([tmp_path], pytest.fail))
    (one,) = variance_shift.measured([curve])
    assert (one.name, one.ratio, one.layers) == ("MnistCNN_dropout_BN", 0.5, ["bn1", "bn2"])
    assert one.shift.tolist() == [[2, 2], [4, 4]]
    # A mean of 1 and a variance of 2 become E[x^2] / p - c^2 = 3 / 0.5 - 1 = 5.
    assert one.predicted.tolist() == [[2.5, 2.5]] * 2
    assert drawn(tmp_path) == FILES
    cells = [cell.strip() for cell in table(tmp_path).splitlines()[-1].split("|")]
    assert cells[3:8] == ["0.8500 ± 0.0707", "0.9500 ± 0.0000", "3", "3", "2.5"]


def test_of_other_networks_and_of_what_was_not_observed_the_rest_is_drawn(tmp_path):
    write_run(tmp_path, "Net(width=3)", layers=("block/0",))
    write_run(tmp_path, "MnistCNN_BN_dropout(ratio=0)", anew=None)
    bare = write_run(tmp_path, "MnistCNN_BN_dropout(ratio=0.3)")
    (bare / "variance-shift.npz").unlink()
    assert drawn(tmp_path) == FILES
    assert "ratio" not in table(tmp_path).splitlines()[-1]
    assert len(table(tmp_path).splitlines()) == 9


def test_networks_with_other_arguments_are_told_apart(tmp_path):
    for width, ratio in ((3, 0.1), (4, 0.1), (4, 0.3)):
        write_run(tmp_path, f"Net(ratio={ratio}, width={width})")
    every = variance_shift.measured(group_runs(read_runs([tmp_path], pytest.fail)))
    assert [(one.name, one.ratio) for one in every] == [
        *(("Net(width=3)", 0.1), ("Net(width=4)", 0.1), ("Net(width=4)", 0.3)),
    ]


def test_a_network_without_a_drop_ratio_has_no_place_on_its_axis(tmp_path):
    write_run(tmp_path, "Net")
    assert drawn(tmp_path) == [name for name in FILES if "accuracy" not in name]


def test_two_optimizers_are_two_panels_and_two_lines(tmp_path, monkeypatch):
    for optimizer in ("Adam", "SGD"):
        for ratio in (0, 0.5):
            model = f"MnistCNN_dropout_BN(ratio={ratio})"
            folder = write_run(tmp_path / optimizer, model)
            args = json.loads((folder / "args").read_text()) | {"optimizer": optimizer}
            (folder / "args").write_text(json.dumps(args))
    shown = []
    monkeypatch.setattr(
        variance_shift.panels, "stacked", lambda panels, *a, **k: shown.append(panels)
    )
    dict(variance_shift.figures(read_runs([tmp_path], pytest.fail)))
    layers, (accuracy,) = shown
    assert [panel.title.rpartition(", ")[2] for panel in layers] == ["Adam", "SGD"]
    lines = [series for series in accuracy.series if series.label]
    name = "MnistCNN_dropout_BN: a, dropout → BN"
    assert [line.label for line in lines] == [f"{name}, Adam", f"{name}, SGD"]
    assert [line.x.tolist() for line in lines] == [[0, 0.5]] * 2
    assert len({line.colour for line in lines}) == 2


def test_of_a_single_layer_the_theory_says_nothing(tmp_path):
    write_run(tmp_path, "MnistCNN_dropout_BN(ratio=0.5)", layers=("bn",))
    assert drawn(tmp_path) == FILES


def test_of_many_layers_each_has_a_row(tmp_path):
    write_run(tmp_path, "Net", layers=[f"bn{i}" for i in range(11)])
    drawn(tmp_path)
    cells = [line.split() for line in table(tmp_path).splitlines() if line.startswith("| bn2 ")]
    assert cells == [["|", "bn2", "|", "2", "|"]]


def test_what_is_not_a_number_is_drawn(tmp_path):
    write_run(tmp_path, "MnistCNN_dropout_BN(ratio=0.1)", shift=np.nan)
    write_run(tmp_path, "MnistCNN_dropout_BN(ratio=0.3)", shift=np.inf)
    assert drawn(tmp_path) == FILES


def test_what_the_observers_measured_is_said_to_be_in_test_mode_where_the_rest_is_not(
    tmp_path, monkeypatch
):
    shown = []
    monkeypatch.setattr(variance_shift.panels, "stacked", lambda *args, **_: shown.append(args))
    for semantics, times in (("today", 0), ("2016", 1)):
        folder = write_run(tmp_path / semantics, "MnistCNN_dropout_BN(ratio=0.5)")
        args = json.loads((folder / "args").read_text()) | {"semantics": semantics}
        (folder / "args").write_text(json.dumps(args))
        dict(variance_shift.figures(read_runs([tmp_path / semantics], pytest.fail)))
        (_, _, shift, _), ((accuracy,), *_) = shown[-2:]
        assert shift.partition("MNIST")[0].count("in test mode") == times
        assert accuracy.title.count("in test mode") == times


def test_a_run_that_is_not_finished_is_left_out(tmp_path):
    write_run(tmp_path, "MnistCNN_dropout_BN(ratio=0.1)")
    whole = write_run(tmp_path, "MnistCNN_dropout_BN(ratio=0.3)")
    log = json.loads((whole / "log").read_text())
    (whole / "log").write_text(json.dumps([*log, {**log[0], "epoch": 2}]))
    drawn(tmp_path)
    assert "| 0.1 " not in table(tmp_path)
    assert "| 0.3 " in table(tmp_path)


def test_runs_that_all_diverged_leave_an_empty_table(tmp_path):
    folder = write_run(tmp_path, "MnistCNN_dropout_BN(ratio=0.5)")
    entry = {"main/loss": None, "epoch": 1, "diverged_at": {"iteration": 1, "value": None}}
    (folder / "log").write_text(json.dumps([entry]))
    assert "variance-shift.md" in drawn(tmp_path)


def test_the_theory():
    mean, variance = np.array([0.0, 2.0]), np.array([3.0, 4.0])
    assert variance_shift.theory(mean, variance, 0.0).tolist() == [1, 1]
    assert variance_shift.theory(mean, variance, 0.5).tolist() == [2, 3]


@pytest.mark.parametrize(
    ("model", "ratio"),
    [
        ("Net(ratio=0.3)", 0.3),
        ("Net(width=2, ratio=1e-2)", 0.01),
        ("Net(ratio=0)", 0),
        ("Net(ratio=.5, width=2)", 0.5),
        ("MnistCNN_BN_linear_before", 0.5),
        ("MnistCNN_dropout_BN", 0.5),
        ("Net", None),
        ("Net(ratio=1)", None),
        ("Net(ratio=1.2.3)", None),
    ],
)
def test_drop_ratio_of_a_network_by_its_name(model, ratio):
    assert variance_shift._ratio(model) == ratio
