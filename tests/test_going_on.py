"""A longer run goes on from a shorter one: it ends with the bits of one that was never stopped."""

import dataclasses
import json
import os
import signal

import numpy as np
import pytest

import train_mnist
from mnist_bn import finished, sweep, training
from mnist_bn.config import RunConfig
from mnist_bn.errors import UsageError, UserError
from mnist_bn.storage import archives, result_folder, snapshots
from mnist_bn.trainer import schedule, signals
from mnist_bn.training import prepare

pytestmark = pytest.mark.usefixtures("no_plots")

DROPOUT = """
import chainer
import chainer.functions as F
import chainer.links as L

class Net(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.l1 = L.Linear(784, 12)
            self.bn = L.BatchNormalization(12)
            self.l2 = L.Linear(12, 10)

    def forward(self, x):
        return self.l2(F.dropout(F.relu(self.bn(self.l1(x)))))
"""


@pytest.fixture
def config(tmp_path, tiny_data):
    """A small network with BN and dropout; an epoch has five iterations."""
    (tmp_path / "net.py").write_text(DROPOUT)
    out = str(tmp_path / "result")
    return RunConfig(f"{tmp_path}/net.py:Net", batchsize=8, out=out, dataset="mnist")


def whole_state(folder):
    """All that must be the same in two runs: log, parameters, observations and last snapshot."""
    log = json.loads((folder / "log").read_bytes())
    for entry in log:
        assert entry.pop("elapsed_time") > 0
    files = {path.name: path.read_bytes() for path in folder.glob("*.npz")}
    snapshot = snapshots.read(snapshots.found(folder)[0])
    header = {k: v for k, v in snapshot.header.items() if k != "run_id"}
    changing = ("/_log", "elapsed_time", "mnist_bn/header")
    arrays = {k: v.tobytes() for k, v in snapshot.arrays.items() if not k.endswith(changing)}
    return log, files, snapshot.path.name, header, arrays


def never_stopped(config, tmp_path):
    whole = dataclasses.replace(config, out=str(tmp_path / "whole"))
    training.train(prepare(whole))
    return whole_state(whole.folder)


EVERY = "gradient-norms,training-accuracy,weight-updates,relative-loss,reestimated-bn"
LONGER = {
    "epochs": ({"epoch": 2}, {"epoch": 4}),
    "2016": ({"epoch": 2, "semantics": "2016"}, {"epoch": 3}),
    "iterations": ({"iteration": 8}, {"iteration": 13}),
    "2016, iterations": ({"iteration": 8, "semantics": "2016"}, {"iteration": 13}),
    "replacement": ({"iteration": 8, "sampling": "replacement"}, {"iteration": 13}),
    "evaluated every 3": ({"iteration": 8, "evaluate_every": 3}, {"iteration": 13}),
    "at the end of an epoch": ({"epoch": 2, "evaluate_every": 3}, {"epoch": 3}),
    "snapshots each epoch": ({"epoch": 2, "frequency": 1, "evaluate_every": 3}, {"epoch": 4}),
    "one that reaches into the next epoch": ({"epoch": 2, "batchsize": 7}, {"epoch": 4}),
    "drops": ({"epoch": 2, "lr_drop": "1,3", "weight_decay": 0.01}, {"epoch": 4}),
    "drops in steps": ({"iteration": 7, "lr_drop": "3,9"}, {"iteration": 11}),
    "momentum": ({"epoch": 2, "optimizer": "MomentumSGD", "weight_decay": 0.1}, {"epoch": 3}),
    "iterations to epochs": ({"iteration": 8}, {"iteration": None, "epoch": 3}),
    "epochs to iterations": ({"epoch": 2}, {"iteration": 13}),
    "observers": ({"iteration": 8, "observe": EVERY}, {"iteration": 13}),
    "observers at the end": (
        {"iteration": 3, "observe": EVERY, "evaluate_every": 2},
        {"iteration": 8},
    ),
    "stock": ({"iteration": 8, "accelerate": "off", "semantics": "2016"}, {"iteration": 13}),
}


@pytest.mark.parametrize(("shorter", "longer"), LONGER.values(), ids=LONGER)
def test_a_longer_run_ends_as_if_never_stopped(config, tmp_path, shorter, longer, capsys):
    shorter = dataclasses.replace(config, **shorter)
    longer = dataclasses.replace(shorter, **longer)
    expected = never_stopped(longer, tmp_path)
    training.train(prepare(shorter))
    run_id = result_folder.read_args(shorter.folder)["run_id"]
    assert longer.folder == shorter.folder
    assert not sweep.is_finished(prepare(longer))
    training.train(prepare(longer), autoload=True)
    assert sweep.is_finished(prepare(longer))
    assert whole_state(longer.folder) == expected
    args = result_folder.read_args(longer.folder)
    assert (args["epoch"], args["iteration"]) == (longer.epoch, longer.iteration)
    assert args["run_id"] == run_id
    assert not (longer.folder / "earlier").exists()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("semantics", ["today", "2016"])
def test_with_the_evaluation_for_the_end_in_its_snapshot_the_ending_is_another(
    config, tmp_path, monkeypatch, semantics
):
    """The control of the test above: in 2016 an evaluation changes the network, too."""
    shorter = dataclasses.replace(config, iteration=8, semantics=semantics)
    longer = dataclasses.replace(shorter, iteration=13)
    expected = never_stopped(longer, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(schedule, "is_evaluation_for_the_end", lambda *_: False)
        training.train(prepare(shorter))
    training.train(prepare(longer), autoload=True)
    ending = whole_state(longer.folder)
    assert [len(ending[0]), len(expected[0])] == [4, 3]
    assert (ending[1] == expected[1]) == (semantics == "today")


def test_the_end_of_a_run_by_an_earlier_version_is_noted(config, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(schedule, "is_evaluation_for_the_end", lambda *_: False)
        training.train(prepare(dataclasses.replace(config, iteration=8)))
    training.train(prepare(dataclasses.replace(config, iteration=9)), autoload=True)
    assert capsys.readouterr().err.endswith(
        "snapshot_iter_8 was taken after an evaluation that a longer run does not make: its entry "
        "stays in the log\n"
    )


def test_a_longer_run_goes_on_twice_and_after_a_stop(config, tmp_path, monkeypatch):
    expected = never_stopped(dataclasses.replace(config, iteration=14), tmp_path)
    training.train(prepare(dataclasses.replace(config, iteration=3)))
    training.train(prepare(dataclasses.replace(config, iteration=8)), autoload=True)
    longer = dataclasses.replace(config, iteration=14)
    with monkeypatch.context() as patch:
        stop_at(patch, 12)
        with pytest.raises(signals.Stopped):
            training.train(prepare(longer), autoload=True)
    training.train(prepare(longer), autoload=True)
    assert whole_state(longer.folder) == expected


def stop_at(monkeypatch, iteration, priority=50):
    build = training.build_trainer

    def build_and_stop(*args, **kwargs):
        trainer = build(*args, **kwargs)

        def stop(trainer):
            if trainer.updater.iteration == iteration:
                os.kill(os.getpid(), signal.SIGTERM)

        trainer.extend(stop, trigger=lambda _: True, priority=priority)
        return trainer

    monkeypatch.setattr(training, "build_trainer", build_and_stop)


@pytest.mark.parametrize("iteration", [10, 13])
def test_observers_of_a_run_stopped_in_an_evaluation_have_its_gradients(
    config, tmp_path, monkeypatch, iteration
):
    config = dataclasses.replace(config, iteration=13, observe=EVERY + ",dead-units")
    expected = never_stopped(config, tmp_path)
    with monkeypatch.context() as patch:
        stop_at(patch, iteration, priority=5000)
        with pytest.raises(signals.Stopped):
            training.train(prepare(config))
    training.train(prepare(config), autoload=True)
    assert whole_state(config.folder) == expected


def test_a_longer_finished_run_is_left_and_said(config, tmp_path, capsys):
    training.train(prepare(dataclasses.replace(config, epoch=3)))
    folder = config.folder
    before = {path: path.read_bytes() for path in folder.iterdir()}
    line = f"-m {config.model} -b 8 --dataset mnist -o {config.out}".split()
    for length, asked in (("-e 2", "2 epochs"), ("--iteration 14", "14 iterations")):
        assert train_mnist.main([*line, *length.split()]) == 0
        printed = capsys.readouterr()
        assert printed.err == (
            f"note: {folder} holds a finished run of 3 epochs, more than the {asked} asked for: "
            "skipped (a shorter one goes into another --out)\n"
        )
        assert "The run is finished already: skipped\n" in printed.out
    assert train_mnist.main([*line, "--iteration", "15"]) == 0  # exactly as long
    assert capsys.readouterr().err == ""
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_run_that_diverged_is_finished_whatever_its_length(config, capsys):
    config = dataclasses.replace(config, lr=1e30, optimizer="SGD", model="MnistCNN", epoch=2)
    assert "diverged_at" in training.train(prepare(config))
    for epoch in (1, 2, 5):
        other = dataclasses.replace(config, epoch=epoch)
        assert sweep.is_finished(prepare(other))
        assert finished.longer_than_asked([prepare(other)]) is None
    assert not sweep.is_finished(prepare(dataclasses.replace(config, on_divergence="continue")))


def test_a_run_that_trained_on_after_it_diverged_goes_on_only_so(config):
    settings = {"lr": 1e30, "optimizer": "SGD", "model": "MnistCNN", "on_divergence": "continue"}
    config = dataclasses.replace(config, **settings, epoch=2)
    training.train(prepare(config))
    longer = dataclasses.replace(config, epoch=3)
    stopping = dataclasses.replace(longer, on_divergence="stop")
    with pytest.raises(UsageError, match=r"diverged at iteration 2 and trained on: resume with --"):
        training.train(prepare(stopping), autoload=True)
    assert (config.folder / "model.npz").exists()
    training.train(prepare(longer), autoload=True)


def test_an_unfinished_run_by_an_earlier_version_is_gone_on_with(config, tmp_path, monkeypatch):
    """It has no ID, neither in `args` nor in its snapshots."""
    expected = never_stopped(dataclasses.replace(config, epoch=4), tmp_path)
    training.train(prepare(dataclasses.replace(config, epoch=2)))
    without_id(config.folder)
    for epoch in (3, 4):
        training.train(prepare(dataclasses.replace(config, epoch=epoch)), autoload=True)
        assert not (config.folder / "earlier").exists()
    assert whole_state(config.folder)[:2] == expected[:2]


def without_id(folder):
    args = result_folder.read_args(folder)
    del args["run_id"]
    (folder / "args").write_text(json.dumps(args))
    for path in snapshots.found(folder):
        arrays = archives.read(path)
        header = json.loads(arrays["mnist_bn/header"].tobytes())
        del header["run_id"]
        arrays["mnist_bn/header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
        archives.write(path, arrays)


def test_a_snapshot_of_an_old_folder_begins_a_run_of_its_own(config, tmp_path):
    expected = never_stopped(dataclasses.replace(config, epoch=3), tmp_path)
    training.train(prepare(dataclasses.replace(config, epoch=2)))
    without_id(config.folder)
    old = config.folder.rename(config.folder.with_name("Net-Adam-b8-e2-s0"))
    before = {path: path.read_bytes() for path in old.iterdir()}
    training.train(prepare(dataclasses.replace(config, epoch=3)), resume=old / "snapshot_iter_10")
    assert {path: path.read_bytes() for path in old.iterdir()} == before
    assert whole_state(config.folder)[:2] == expected[:2]
    graph = (tmp_path / "whole" / config.folder.name / "cg.dot").read_text()
    assert (config.folder / "cg.dot").read_text().count("->") == graph.count("->") > 10
    run_id = result_folder.read_args(config.folder)["run_id"]
    every = [snapshots.read(path).header["run_id"] for path in snapshots.found(config.folder)]
    assert every == [run_id, run_id]


def test_an_id_changes_no_random_number_and_is_each_runs_own(config, tmp_path):
    states, ids = [], []
    for out in "ab":
        training.train(prepare(dataclasses.replace(config, epoch=1, out=str(tmp_path / out))))
        states.append(np.random.get_state()[1].tolist())
        folder = dataclasses.replace(config, out=str(tmp_path / out)).folder
        ids.append(result_folder.read_args(folder)["run_id"])
    assert states[0] == states[1]
    assert ids[0] != ids[1]


def test_a_shorter_run_that_did_not_observe_is_not_gone_on_with(config):
    training.train(prepare(dataclasses.replace(config, epoch=1)))
    before = {path: path.read_bytes() for path in config.folder.iterdir()}
    observed = dataclasses.replace(config, epoch=2, observe="gradient-norms")
    with pytest.raises(UserError, match="--observe gradient-norms: the snapshot is of a run witho"):
        training.train(prepare(observed), autoload=True)
    assert {path: path.read_bytes() for path in config.folder.iterdir()} == before


def test_what_a_longer_run_does_not_observe_any_more_stays(config):
    training.train(prepare(dataclasses.replace(config, epoch=1, observe="gradient-norms")))
    path = config.folder / "gradient-norms.npz"
    before = path.read_bytes()
    training.train(prepare(dataclasses.replace(config, epoch=2)), autoload=True)
    assert path.read_bytes() == before
