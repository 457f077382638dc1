"""A run: what it writes, that its seed decides its bits, and that it learns."""

import dataclasses
import json
import re

import chainer
import numpy as np
import pytest

import models
from mnist_bn import training
from mnist_bn.config import RunConfig
from mnist_bn.errors import UsageError
from mnist_bn.storage import snapshots
from mnist_bn.trainer import schedule, semantics
from mnist_bn.training import prepare


@pytest.fixture
def config_with_plots(tmp_path, tiny_data):
    return RunConfig(optimizer="SGD", batchsize=20, epoch=2, out=str(tmp_path))


@pytest.fixture
def config(config_with_plots, no_plots):
    return config_with_plots


def read(config, name):
    return json.loads((prepare(config).folder / name).read_bytes())


def parameters(config):
    with np.load(prepare(config).folder / "model.npz") as npz:
        return dict(npz)


def test_the_result_folder(config_with_plots, tmp_path):
    config = config_with_plots
    last = training.train(prepare(config))
    folder = tmp_path / "MnistCNN_BN_before-SGD-b20-s0"
    assert sorted(path.name for path in folder.iterdir()) == [
        ".lock",
        "accuracy.png",
        "args",
        "cg.dot",
        "log",
        "loss.png",
        "model.npz",
        "snapshot_iter_4",
    ]
    log = read(config, "log")
    assert [(e["epoch"], e["iteration"]) for e in log] == [(1, 2), (2, 4)]
    assert log[-1] == last
    assert set(last) == {
        "epoch",
        "iteration",
        "elapsed_time",
        "main/loss",
        "main/accuracy",
        "validation/main/loss",
        "validation/main/accuracy",
    }


def test_equal_runs_have_equal_graphs(config):
    """Chainer calls the nodes by their places in memory."""
    one, other = (dataclasses.replace(config, out=f"{config.out}/{out}") for out in "ab")
    training.train(prepare(one))
    training.train(prepare(other))
    first, second = ((prepare(run).folder / "cg.dot").read_text() for run in (one, other))
    assert first == second
    nodes = re.findall(r"(\d+) \[", first)
    assert nodes == [str(number) for number in range(len(nodes))]
    edges = re.findall(r"(\d+) -> (\d+);", first)
    assert len(nodes) > 20 and {node for edge in edges for node in edge} == set(nodes)
    assert re.search(r'\b1 \[label="SoftmaxCrossEntropy"', first) and ("1", "0") in edges


def test_args_say_everything_about_the_run(config):
    training.train(prepare(config))
    args = read(config, "args")
    assert RunConfig.from_args(args) == prepare(config).config
    assert args["dataset"] == "mnist"
    assert args["dataset_sha256"] == {"tiny": "0" * 64}
    assert args["device_name"] == "CPU"
    assert args["versions"]["numpy"] == np.__version__
    assert args["versions"]["chainer"] == chainer.__version__


def test_saved_parameters_load_into_the_network(config):
    training.train(prepare(config))
    saved = parameters(config)
    network = models.create("MnistCNN_BN_before")
    paths = {path.lstrip("/") for path, _ in network.namedparams()}
    assert paths < set(saved)
    assert set(saved) - paths == {
        f"bnorm{i}/{name}" for i in (1, 2, 3) for name in ("avg_mean", "avg_var", "N")
    }


def test_a_seed_gives_the_same_bits_and_another_gives_others(config, tmp_path):
    def run(out, seed):
        run_config = RunConfig(
            **{**config.to_args(), "out": str(tmp_path / out), "seed": seed, "optimizer": "Adam"}
        )
        training.train(prepare(run_config))
        return parameters(run_config)

    first, again, other = run("first", 0), run("again", 0), run("other", 1)
    assert all(np.array_equal(first[key], again[key]) for key in first)
    assert not np.array_equal(first["conv1/W"], other["conv1/W"])


def test_frequency_is_epochs_between_snapshots(config):
    training.train(prepare(RunConfig(**{**config.to_args(), "frequency": 1})))
    folder = prepare(config).folder
    assert [path.name for path in snapshots.found(folder)] == ["snapshot_iter_4", "snapshot_iter_2"]


def test_resuming_goes_on_where_the_snapshot_was_taken(config, tmp_path):
    training.train(prepare(config))
    snapshot = prepare(config).folder / "snapshot_iter_4"
    before = read(config, "log")
    longer = RunConfig(**{**config.to_args(), "epoch": 3})
    training.train(prepare(longer), resume=snapshot)
    log = read(longer, "log")
    assert log[:2] == before
    assert [e["epoch"] for e in log] == [1, 2, 3]


@pytest.mark.parametrize("batchsize", [20, 15])  # 15: the last batch reaches into epoch 3
def test_resuming_for_fewer_epochs_is_refused(config, batchsize):
    config = dataclasses.replace(config, batchsize=batchsize)
    training.train(prepare(config))
    (snapshot,) = snapshots.found(prepare(config).folder)
    training.train(prepare(config), resume=snapshot)  # for as many
    with pytest.raises(UsageError, match=r"is of epoch 2\.\d+: --epoch must not be below that"):
        training.train(prepare(dataclasses.replace(config, epoch=1)), resume=snapshot)


def test_resuming_from_within_the_epoch_after_the_last_is_refused(config, monkeypatch):
    """It would train for ever: the end of the last epoch does not come again."""
    monkeypatch.setattr(schedule, "is_snapshot_due", lambda t, _: t.updater.iteration == 5)
    longer = dataclasses.replace(config, epoch=3)
    training.train(prepare(longer))
    snapshot = prepare(longer).folder / "snapshot_iter_5"
    with pytest.raises(UsageError, match=r"is of epoch 2\.50: --epoch must not be below that"):
        training.train(prepare(config), resume=snapshot)


def test_a_finished_run_that_starts_anew_is_no_longer_finished(config, monkeypatch):
    """A kill on the way must not leave the parameters of before beside the new run's log."""
    training.train(prepare(config))
    folder = prepare(config).folder
    monkeypatch.setattr(training.PreparedRun, "to_args", lambda run: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        training.train(prepare(config))
    assert not (folder / "model.npz").exists()


@pytest.mark.parametrize(("which", "eps"), [("today", 2e-5), ("2016", 1e-5)])
def test_the_runs_semantics_reach_evaluation_and_network(config, which, eps):
    trainer = training.build_trainer(prepare(RunConfig(**{**config.to_args(), "semantics": which})))
    evaluator = trainer.get_extension("validation")
    assert type(evaluator) is semantics.EVALUATORS[which]
    assert evaluator.get_target("main").predictor.bnorm1.eps == eps


def test_autoload_takes_the_newest_snapshot_of_its_folder(config):
    training.train(prepare(config))
    before = read(config, "log")
    training.train(prepare(config), autoload=True)
    # Nothing was left to train: the log is the very same, its times included.
    assert read(config, "log") == before


def test_log_is_strict_json_when_a_number_is_not_finite(config):
    def refuse(token):
        raise AssertionError(token)

    diverging = RunConfig(**{**config.to_args(), "model": "MnistCNN", "lr": 1e30})
    with np.errstate(all="ignore"):
        training.train(prepare(diverging))
    text = (prepare(diverging).folder / "log").read_text()
    log = json.loads(text, parse_constant=refuse)
    assert log[-1]["main/loss"] is None


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_it_learns(config, optimizer):
    settings = {**config.to_args(), "optimizer": optimizer, "epoch": 15, "batchsize": 10}
    assert training.train(prepare(RunConfig(**settings)))["validation/main/accuracy"] > 0.9
