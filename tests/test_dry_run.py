"""--dry-run: the runs of a command, and an estimate, without a trace on disk."""

import re

import pytest

import train_mnist
from mnist_bn import dry_run
from mnist_bn.config import RunConfig
from mnist_bn.preparation import prepare
from mnist_bn.training import train


def lines(capsys, tmp_path, *words):
    command = [*words, "--dataset", "digits", "--out", str(tmp_path / "result")]
    assert train_mnist.main([*command, "--dry-run"]) == 0
    return capsys.readouterr().out.splitlines()


@pytest.fixture(autouse=True)
def briefly(monkeypatch):
    monkeypatch.setattr(dry_run, "TIMED_SECONDS", 0.01)


def test_it_lists_the_runs_and_writes_nothing(tmp_path, capsys):
    out = lines(capsys, tmp_path, "--model", "ReluMLP", "MnistCNN", "--seed", "0", "1", "-e", "2")
    named = [line for line in out if line.startswith(str(tmp_path))]
    assert [line.split("/")[-1] for line in named] == [
        f"{model}-Adam-digits-s{seed}: 2 epochs"
        for model in ("ReluMLP", "MnistCNN")
        for seed in (0, 1)
    ]
    assert "4 runs to train" in out
    assert re.search(r"about \d+ s, and \d+ MB in ", out[-2])
    assert re.search(r"ReluMLP [\d.]+ ms a step of 100, MnistCNN [\d.]+ ms", out[-1])
    assert not list(tmp_path.iterdir())


def test_what_is_finished_or_begun_is_told(tmp_path, capsys):
    config = RunConfig("ReluMLP", dataset="digits", epoch=1, out=str(tmp_path / "result"))
    train(prepare(config))
    words = ("--model", "ReluMLP", "--seed", "0", "1", "--jobs", "2")
    assert "1 run to train; 1 more is finished" in lines(capsys, tmp_path, *words, "-e", "1")
    before = sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*"))
    (first, *_) = (line for line in lines(capsys, tmp_path, *words, "-e", "2") if "s0:" in line)
    assert first.endswith("s0: 2 epochs, begins anew")
    (first, *_) = (
        line for line in lines(capsys, tmp_path, *words, "-e", "2", "--autoload") if "s0:" in line
    )
    assert first.endswith("s0: 2 epochs, goes on")
    assert sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*")) == before


def test_the_estimate_of_disk_is_near_what_a_run_takes(tmp_path):
    config = RunConfig("MnistCNN", dataset="digits", epoch=2, frequency=1, out=str(tmp_path))
    run = prepare(config)
    cost = dry_run.measure(run, 1)
    train(run)
    there = sum(path.stat().st_size for path in run.folder.iterdir())
    assert cost.disk == pytest.approx(there, rel=0.2)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (59.1, "60 s"), (90, "2 min"), (3599, "60 min"), (5400, "1 h 30 min")],
)
def test_durations_in_words(seconds, words):
    assert dry_run._duration(seconds) == words


@pytest.mark.parametrize(
    ("length", "steps", "evaluations"),
    [
        ({"epoch": 3}, 45, 3),  # 44.91: 1497 images in batches of 100
        ({"iteration": 20}, 20, 2),
        ({"iteration": 20, "evaluate_every": 3}, 20, 7),
    ],
)
def test_steps_and_evaluations_are_counted(tmp_path, length, steps, evaluations):
    run = prepare(RunConfig("ReluMLP", dataset="digits", out=str(tmp_path), **length))
    assert dry_run.Cost(1.0, 100.0, 0, 0).seconds(run) == steps + 100 * evaluations
