"""The numbers in the tables."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from mnist_bn.config import IDENTITY
from mnist_bn.plotting import tables
from mnist_bn.plotting.groups import group_runs
from mnist_bn.plotting.results import VALIDATION_ACCURACY, read_runs


def log(*accuracies):
    return [{"epoch": i + 1, VALIDATION_ACCURACY: a} for i, a in enumerate(accuracies)]


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_mean_and_standard_deviation_over_seeds(tmp_path, make_run):
    final = (0.91, 0.94, 0.98)
    for seed, accuracy in enumerate(final):
        make_run(tmp_path, "MnistCNN", "SGD", seed, log=log(0.5, accuracy))
    make_run(tmp_path, "MnistCNN_BN_before", "SGD", 0, log=log(0.5, 0.97, None))
    make_run(tmp_path, "MnistCNN_BN_before", "Adam", 0, log=log(0.99))
    text = tables.table(group_runs(read_runs([tmp_path], print)))
    expected = f"{np.mean(final):.4f} ± {np.std(final, ddof=1):.4f}"
    assert rows(text) == [
        ["Optimizer", "MnistCNN", "MnistCNN_BN_before"],
        ["SGD, lr 0.01", expected, "diverged (1 seed)"],
        ["Adam, lr 0.001", "", "0.9900 (1 seed, 1 epoch)"],
    ]
    assert text.splitlines()[0] == (
        "Final validation accuracy, mean ± standard deviation of 3 seeds after 2 epochs unless"
        " said otherwise."
    )


def test_a_diverged_seed_is_counted_beside_the_mean(tmp_path, make_run):
    for seed, accuracy in enumerate((0.9, 0.8, None)):
        make_run(tmp_path, "MnistCNN", "SGD", seed, log=log(0.5, accuracy))
    text = tables.table(group_runs(read_runs([tmp_path], print)))
    assert rows(text)[1] == ["SGD, lr 0.01", "0.8500 ± 0.0707 (1 diverged)"]


def test_an_unfinished_seed_is_counted_beside_the_mean(tmp_path, make_run):
    for seed, accuracies in enumerate(((0.5, 0.9), (0.5, 0.8), (0.5,))):
        make_run(tmp_path, "MnistCNN", "SGD", seed, log=log(*accuracies))
    text = tables.table(group_runs(read_runs([tmp_path], print)))
    assert rows(text)[1] == ["SGD, lr 0.01", "0.8500 ± 0.0707 (2 of 3 seeds)"]
    assert "of 2 seeds after 2 epochs" in text


def test_without_any_accuracy_the_caption_promises_none(tmp_path, make_run):
    make_run(tmp_path, "MnistCNN", "SGD", log=log(0.5, None))
    make_run(tmp_path, "MnistCNN", "Adam", log=[{"epoch": 1, "main/loss": 0.5}])
    text = tables.table(group_runs(read_runs([tmp_path], print)))
    assert text.splitlines()[0] == "No run has a final validation accuracy."
    assert rows(text)[1:] == [["SGD, lr 0.01", "diverged"], ["Adam, lr 0.001", "not recorded"]]


def test_a_curve_that_diverged_says_its_seeds_where_they_are_others(tmp_path, make_run):
    for seed in (1, 2):
        make_run(tmp_path, "MnistCNN", "SGD", seed, log=log(0.5, None))
    text = tables.table(group_runs(read_runs([tmp_path], print)))
    assert rows(text)[1:] == [["SGD, lr 0.01", "diverged (2 seeds)"]]
    make_run(tmp_path, "MnistCNN", "Adam", log=log(0.5, 0.9))
    text = tables.table(group_runs(read_runs([tmp_path], print)))
    assert rows(text)[1:] == [["SGD, lr 0.01", "diverged (2 seeds)"], ["Adam, lr 0.001", "0.9000"]]


def test_the_summary_has_a_row_a_run(result):
    runs = read_runs([result], print)
    table = list(csv.DictReader(io.StringIO(tables.summary(runs))))
    assert len(table) == 8
    for row, run in zip(table, runs, strict=True):
        assert (row["model"], row["optimizer"], row["seed"]) == (run.model, run.optimizer, run.seed)
        assert float(row[VALIDATION_ACCURACY]) == run.log[-1][VALIDATION_ACCURACY]
        assert (row["epochs"], row["iterations"], row["unit"]) == ("3", "1800", "epoch")
        assert (row["diverged_at"], row["momentum"]) == ("", "")
        assert row["lr"] == {"SGD": "0.01", "Adam": "0.001"}[run.optimizer]


def test_the_summary_says_what_a_run_was_trained_and_measured_on(tmp_path, make_run):
    settings = {"augment": "crop-flip", "weight_decay": 0.0001, "lr_drop": "82,123"}
    settings |= {"train_images": 500, "test_images": 200, "holdout": 1000}
    make_run(tmp_path, "MnistCNN", "SGD", **settings)
    (row,) = csv.DictReader(io.StringIO(tables.summary(read_runs([tmp_path], print))))
    assert {name: row[name] for name in settings} == {k: str(v) for k, v in settings.items()}


def test_a_log_that_has_only_its_start(tmp_path, make_run):
    make_run(tmp_path, "MnistCNN", "SGD", log=[{"epoch": 0, VALIDATION_ACCURACY: 0.1}])
    text = tables.table(group_runs(read_runs([tmp_path], print)))
    assert rows(text)[1] == ["SGD, lr 0.01", "0.1000"]
    assert "of 1 seed after 0 epochs" in text


def test_many_networks_are_rows(tmp_path, make_run):
    names = [f"Net{i:02}" for i in range(tables.MAX_NETWORKS + 1)]
    for i, name in enumerate(names):
        make_run(tmp_path, name, "SGD", log=log(0.5, i / 100))
    make_run(tmp_path, names[0], "Adam", log=log(0.5, 0.6))
    text = tables.table(group_runs(read_runs([tmp_path], print)))
    assert rows(text)[:3] == [
        ["Network", "SGD, lr 0.01", "Adam, lr 0.001"],
        ["Net00", "0.0000", "0.6000"],
        ["Net01", "0.0100", ""],
    ]
    assert len(rows(text)) == 1 + len(names)


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+1+1", "'+1+1"),
        ("-1+1|cmd", "'-1+1|cmd"),
        ("@SUM(A1)", "'@SUM(A1)"),
        (" =1+1", "' =1+1"),
        ("\uff1d1+1", "'\uff1d1+1"),
        ("\t=1", "\N{REPLACEMENT CHARACTER}=1"),
        ("-inf", "'-inf"),
        ("-1", "-1"),
        ("-1.5e-3", "-1.5e-3"),
        ("Net(x=-1)", "Net(x=-1)"),
        ("a\r\n=b", "a\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}=b"),
        ("\x1b[31mred", "\N{REPLACEMENT CHARACTER}[31mred"),
    ],
)
def test_no_cell_of_the_summary_is_a_formula(tmp_path, make_run, text, cell):
    make_run(tmp_path, "MnistCNN", "SGD", model=text, dataset=text, study=text, sampling=text)
    (row,) = csv.DictReader(io.StringIO(tables.summary(read_runs([tmp_path], print))))
    assert [row[name] for name in ("model", "dataset", "study", "sampling")] == [cell] * 4


def test_numbers_of_the_summary_stay_numbers(tmp_path, make_run):
    make_run(tmp_path, seed=-3, lr=-0.5, log=[{"epoch": 1, "main/loss": -0.25}])
    (row,) = csv.DictReader(io.StringIO(tables.summary(read_runs([tmp_path], print))))
    assert (row["seed"], row["lr"], row["main/loss"]) == ("-3", "-0.5", "-0.25")


def test_a_folder_is_no_formula(tmp_path, make_run, monkeypatch):
    make_run(tmp_path).rename(tmp_path / "=cmd")
    monkeypatch.chdir(tmp_path)
    (row,) = csv.DictReader(io.StringIO(tables.summary(read_runs([Path()], print))))
    assert row["folder"] == "'=cmd"


def test_the_summary_counts_as_the_run_does(tmp_path, make_run):
    log = [{"epoch": 2, "iteration": 1500, VALIDATION_ACCURACY: 0.5, "main/loss": None}]
    make_run(tmp_path, evaluate_every=500, log=log)
    (row,) = csv.DictReader(io.StringIO(tables.summary(read_runs([tmp_path], print))))
    assert (row["unit"], row["epochs"], row["iterations"]) == ("iteration", "2", "1500")
    assert (row["diverged_at"], row["evaluate_every"]) == ("1500", "500")


def test_the_summary_has_every_setting_that_numbers_depend_on():
    (head,) = csv.reader([tables.summary([])])
    lengths = {"epoch": "epochs", "iteration": "iterations"}  # what the run has done of them
    wanted = {lengths.get(name, name) for name in (*IDENTITY, "init_sha256", "model_sha256")}
    assert wanted <= set(head)


def test_the_table_says_the_effective_learning_rate_and_momentum(tmp_path, make_run):
    for optimizer in ("SGD", "MomentumSGD", "AdaDelta", "Mine"):
        make_run(tmp_path, "MnistCNN", optimizer, log=log(0.5))
    make_run(tmp_path, "MnistCNN", "MomentumSGD", lr=0.1, log=log(0.5))
    text = tables.table(group_runs(read_runs([tmp_path], print)))
    assert [row[0] for row in rows(text)[1:]] == [
        "SGD, lr 0.01",
        "MomentumSGD, momentum 0.9, lr 0.01",
        "MomentumSGD, momentum 0.9, lr 0.1",
        "AdaDelta",
        "Mine",
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<script>alert(1)</script>", "&lt;script>alert(1)&lt;/script>"),
        ("a|b", "a\\|b"),
        ("`code`", "\\`code\\`"),
        ("![x](here)", "!\\[x\\](here)"),
        ("&lt;", "&amp;lt;"),
        ("\\|", "\\\\\\|"),
        ("$x$ *y* ~z~", "\\$x\\$ \\*y\\* \\~z\\~"),
        ("_x_ MnistCNN_BN_before", "\\_x\\_ MnistCNN_BN_before"),
        ("a\nb\u202ec", "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c"),
        ("ReluMLP(slope=0.1), lr / 10 after epoch 8,12", None),
    ],
)
def test_markdown_shows_foreign_text_as_it_is(tmp_path, make_run, text, shown):
    make_run(tmp_path, model=text, dataset=text)
    shown = text if shown is None else shown
    table = tables.table(group_runs(read_runs([tmp_path], print)))
    assert table.splitlines()[3].startswith(f"| Optimizer    | {shown} ")
    assert table.splitlines()[1].startswith(f"{shown}  ·  ")


def test_a_table_too_wide_for_the_terminal_is_a_line_a_cell(tmp_path, make_run):
    for optimizer, lr in (("SGD", 0.1), ("SGD", 0.01), ("Adam", 0.001)):
        make_run(tmp_path, "MnistCNN", optimizer, lr=lr, log=log(0.5, 0.9))
    make_run(tmp_path, "MnistCNN_BN_before", "SGD", lr=0.1, log=log(0.5, 0.95))
    curves = group_runs(read_runs([tmp_path], print))
    assert tables.on_terminal(curves, 79) == tables.table(curves)
    assert tables.on_terminal(curves, 45) == (
        "Final validation accuracy of 1 seed after 2\n"
        "  epochs unless said otherwise.\n"
        "MNIST  ·  evaluated in test mode.\n"
        "\n"
        "SGD, lr 0.01\n"
        "  MnistCNN            0.9000\n"
        "SGD, lr 0.1\n"
        "  MnistCNN            0.9000\n"
        "  MnistCNN_BN_before  0.9500\n"
        "Adam, lr 0.001\n"
        "  MnistCNN            0.9000\n"
    )


def test_runs_that_recorded_no_optimizer_are_called_by_their_folders(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "log").write_text(json.dumps(log(0.9)))
    text = tables.table(group_runs(read_runs([tmp_path], print)))
    assert rows(text) == [["Folder", "network not recorded"], ["a", "0.9000"], ["b", "0.9000"]]
