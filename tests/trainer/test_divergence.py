"""Divergence is a result: recorded where it happened, with the run ended well."""

import dataclasses
import json
import types

import numpy as np
import pytest

from mnist_bn import sweep, training
from mnist_bn.config import RunConfig
from mnist_bn.errors import UserError
from mnist_bn.plotting import results
from mnist_bn.trainer import divergence
from mnist_bn.trainer.divergence import Divergence
from mnist_bn.training import prepare

pytestmark = pytest.mark.usefixtures("no_plots")


@pytest.fixture
def config(tmp_path, tiny_data):
    """A run whose loss is lost within its first iterations."""
    return RunConfig(
        model="MnistCNN", optimizer="SGD", lr=1e4, batchsize=8, epoch=2, dataset="mnist",
        out=str(tmp_path), accelerate="off",
    )  # fmt: skip


def read_log(config):
    def refuse(token):
        raise AssertionError(token)

    return json.loads((config.folder / "log").read_text(), parse_constant=refuse)


def trainer_with(loss, device="cpu", iteration=7, is_new_epoch=False):
    xp = np if device == "cpu" else object()
    updater = types.SimpleNamespace(
        iteration=iteration, epoch=1, is_new_epoch=is_new_epoch, device=types.SimpleNamespace(xp=xp)
    )
    return types.SimpleNamespace(updater=updater, observation={"main/loss": np.float32(loss)})


@pytest.mark.parametrize("loss", [np.nan, np.inf, -np.inf, 1001, -1001])
def test_what_counts_as_divergence(loss):
    watch = Divergence(ends_training=True)
    watch(trainer_with(999.0))
    assert watch.diverged_at is None and not watch.has_ended_training
    watch(trainer_with(loss))
    assert watch.diverged_at["iteration"] == 7
    assert watch.has_ended_training
    entry = {"epoch": 1}
    watch.mark(entry)
    assert entry == {"epoch": 2, "diverged_at": watch.diverged_at}


def test_a_gpu_is_asked_for_its_loss_now_and_then():
    trigger = Divergence(ends_training=True).trigger
    assert trigger(trainer_with(1, "cpu", 7))
    assert not trigger(trainer_with(1, "gpu", 7))
    assert trigger(trainer_with(1, "gpu", 200))
    assert trigger(trainer_with(1, "gpu", 7, is_new_epoch=True))


def test_a_gpu_is_asked_where_the_log_has_the_loss(config):
    each = dataclasses.replace(config, evaluate_every=3)
    trigger = training.build_trainer(prepare(each)).get_extension("Divergence").trigger
    looked_at = [i for i in range(1, 10) if trigger(trainer_with(1, "gpu", i))]
    assert looked_at == [3, 6, 9]


@pytest.mark.parametrize(("iteration", "loss", "counts"), [
    (1, 1001, False), (1, np.nan, True), (1, np.inf, True), (2, 1001, True),
])  # fmt: skip
def test_a_large_loss_before_any_step_is_none(iteration, loss, counts):
    watch = Divergence(ends_training=True)
    watch(trainer_with(loss, iteration=iteration))
    assert (watch.diverged_at is not None) == counts


def test_the_run_ends_well_and_says_where(config):
    outcome = sweep.run_one(prepare(config), lambda: training.train(prepare(config)))
    (entry,) = read_log(config)
    where = entry["diverged_at"]["iteration"]
    assert where == entry["iteration"] < 10
    assert entry["epoch"] == 1
    assert sweep.is_finished(prepare(config))
    assert f"diverged at iteration {where} (training loss " in outcome.describe()
    run = results.read_run(config.folder)
    assert run.diverged_at == 1


def test_without_it_the_run_trains_on_and_nothing_says_where(config, monkeypatch):
    """The control of the test above."""
    monkeypatch.setattr(Divergence, "__call__", lambda self, trainer: None)
    assert "diverged_at" not in training.train(prepare(config))
    assert [entry["iteration"] for entry in read_log(config)] == [5, 10]


def test_without_the_limit_a_finite_loss_is_no_divergence(monkeypatch):
    """The control of `test_what_counts_as_divergence`."""
    monkeypatch.setattr(divergence, "LIMIT", np.inf)
    watch = Divergence(ends_training=True)
    watch(trainer_with(1001.0))
    assert watch.diverged_at is None


@pytest.mark.parametrize(("on_divergence", "iterations"), [("stop", [5]), ("continue", [5, 10])])
def test_a_run_that_diverged_just_before_a_snapshot(config, monkeypatch, on_divergence, iterations):
    """What failed at the end of an epoch is then kept as a result, or trained on, exactly once."""
    monkeypatch.setattr(divergence, "LIMIT", -1)  # any loss
    monkeypatch.setattr(Divergence, "trigger", lambda self, t: t.updater.iteration == 5)
    failing = dataclasses.replace(config, lr=0.01, frequency=1, on_divergence="fail")
    with pytest.raises(UserError, match="diverged at iteration 5"):
        training.train(prepare(failing))
    kept = dataclasses.replace(failing, on_divergence=on_divergence)
    assert training.train(prepare(kept), autoload=True)["diverged_at"]["iteration"] == 5
    log = read_log(kept)
    assert [entry["iteration"] for entry in log] == iterations
    assert ["diverged_at" in entry for entry in log] == [True, False][: len(log)]
    assert sweep.is_finished(prepare(kept))


def test_in_a_sweep_the_others_go_on(config):
    fine = dataclasses.replace(config, lr=0.01)
    failing = dataclasses.replace(config, on_divergence="fail")
    outcomes = {o.config: o for o in sweep.run_all([failing, config, fine])}
    assert outcomes[failing].error.startswith(f"failed: {config.folder}: diverged at iteration ")
    assert "diverged at iteration" in outcomes[config].describe()
    assert "diverged" not in outcomes[fine].describe()


def test_continue_trains_on_also_where_the_run_had_been_ended(config):
    training.train(prepare(config))
    on = dataclasses.replace(config, on_divergence="continue")
    assert not sweep.is_finished(prepare(on))
    training.train(prepare(on))
    log = read_log(on)
    assert [entry["iteration"] for entry in log] == [5, 10]
    assert ["diverged_at" in entry for entry in log] == [True, False]
    assert sweep.is_finished(prepare(on))


def test_fail_is_a_failed_run(config):
    failing = dataclasses.replace(config, on_divergence="fail")
    with pytest.raises(UserError, match=r"diverged at iteration \d+ .training loss .*lower --lr"):
        training.train(prepare(failing))
    assert "diverged_at" in read_log(failing)[-1]
    assert not sweep.is_finished(prepare(failing))


def test_a_run_that_does_not_diverge_says_nothing(config):
    fine = dataclasses.replace(config, lr=0.01)
    assert "diverged_at" not in training.train(prepare(fine))
    assert [entry["iteration"] for entry in read_log(fine)] == [5, 10]
    assert results.read_run(fine.folder).diverged_at is None
