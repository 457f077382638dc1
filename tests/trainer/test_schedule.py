"""Runs that are counted in iterations, evaluated every few of them, or sampled with replacement."""

import json

import numpy as np
import pytest

from mnist_bn import sweep, training
from mnist_bn.config import RunConfig
from mnist_bn.data.iterators import ArrayIterator, ReplacementOrderSampler
from mnist_bn.errors import UsageError, UserError
from mnist_bn.trainer import schedule
from mnist_bn.training import prepare


@pytest.fixture
def config(tmp_path, tiny_data):
    return RunConfig(model="ReluMLP", batchsize=10, epoch=2, out=str(tmp_path))


def log(config):
    return json.loads((prepare(config).folder / "log").read_bytes())


def changed(config, **settings):
    return RunConfig(**{**config.to_args(), **settings})


def test_a_run_ends_at_an_iteration_and_evaluates_there(config):
    config = changed(config, iteration=7)
    training.train(prepare(config))
    assert [(e["epoch"], e["iteration"]) for e in log(config)] == [(1, 4), (1, 7)]
    assert all("validation/main/accuracy" in entry for entry in log(config))
    folder = prepare(config).folder
    assert folder.name == "ReluMLP-Adam-b10-s0"
    assert (folder / "snapshot_iter_7").exists()
    assert sweep.is_finished(prepare(config))


def test_evaluation_every_few_iterations_and_at_the_end(config):
    training.train(prepare(changed(config, evaluate_every=3)))
    assert [e["iteration"] for e in log(changed(config, evaluate_every=3))] == [3, 6, 8]


def test_how_often_a_run_is_evaluated_does_not_change_it(config):
    def parameters(config):
        training.train(prepare(config))
        with np.load(prepare(config).folder / "model.npz") as npz:
            return dict(npz)

    often, seldom = parameters(changed(config, evaluate_every=1)), parameters(config)
    assert all(np.array_equal(often[key], seldom[key]) for key in seldom)


def test_resuming_for_fewer_iterations_is_refused(config):
    config = changed(config, iteration=6)
    training.train(prepare(config))
    snapshot = prepare(config).folder / "snapshot_iter_6"
    with pytest.raises(UsageError, match="is of iteration 6: --iteration must not be below that"):
        training.train(prepare(changed(config, iteration=5)), resume=snapshot)


@pytest.mark.parametrize("batchsize", [7, 10, 13, 40])
@pytest.mark.parametrize("sampling", ["shuffle", "replacement"])
def test_the_last_iteration_is_known_before_training(config, batchsize, sampling):
    config = changed(config, batchsize=batchsize, epoch=3, sampling=sampling)
    training.train(prepare(config))
    assert schedule.last_iteration(config, 40) == log(config)[-1]["iteration"]


def test_a_finished_run_that_did_not_observe_is_not_taken_for_one_that_did(config):
    training.train(prepare(config))
    observed = prepare(changed(config, observe="gradient-norms")).config
    with pytest.raises(UserError, match="a finished run without --observe gradient-norms: choose"):
        sweep.is_finished(prepare(observed))


def test_with_replacement_images_repeat_and_the_seed_decides_which():
    def epoch(seed):
        np.random.seed(seed)
        arrays = (np.arange(500), np.arange(500))
        iterator = ArrayIterator(arrays, 50, order_sampler=ReplacementOrderSampler())
        return np.concatenate([next(iterator)[0] for _ in range(30)])

    drawn = epoch(0)
    assert np.array_equal(drawn, epoch(0))
    assert not np.array_equal(drawn, epoch(1))
    # Of n drawn from n, a fraction 1 - 1/e differ; 500 of them by 0.0146 or so.
    for order in drawn.reshape(3, 500):
        assert len(np.unique(order)) / 500 == pytest.approx(1 - np.exp(-1), abs=0.08)
    assert len(np.unique(drawn)) > 450


def test_a_run_that_diverged_before_it_measured_anything_is_finished_too(config):
    config = changed(config, lr=1e30, optimizer="SGD", observe="gradient-norms")
    assert "diverged_at" in training.train(prepare(config))
    config = prepare(config).config
    assert not (config.folder / "gradient-norms.npz").exists()
    assert sweep.is_finished(prepare(config))
