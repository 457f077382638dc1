"""A run is prepared once, and then trained with what was found."""

import json

import numpy as np
import pytest

import train_mnist
from mnist_bn import data, kernels, optimizers, training
from mnist_bn.config import RunConfig
from mnist_bn.storage import identity
from mnist_bn.training import prepare

pytestmark = pytest.mark.usefixtures("no_plots")


def test_the_door_prepares_a_run_once(tmp_path, tiny_data, monkeypatch):
    calls = []

    def counted(module, name):
        real = getattr(module, name)

        def count(*arguments):
            calls.append(name)
            return real(*arguments)

        monkeypatch.setattr(module, name, count)

    counted(data, "load")
    counted(optimizers, "resolve")
    counted(identity, "of")
    counted(identity, "circumstances")
    line = f"-m ReluMLP --dataset mnist -b 20 -e 1 -o {tmp_path}"
    assert train_mnist.main(line.split()) == 0
    assert sorted(calls) == ["circumstances", "load", "of", "resolve"]


def test_what_was_found_is_trained_and_recorded(tmp_path, tiny_data):
    config = RunConfig("relumlp", "sgd", dataset="auto", batchsize=20, epoch=1, out=str(tmp_path))
    run = prepare(config)
    found = run.config.model, run.config.optimizer, run.config.dataset, run.config.lr
    assert found == ("ReluMLP", "SGD", "mnist", 0.01)
    assert run.folder == tmp_path / "ReluMLP-SGD-b20-s0"
    assert run.device.xp is np
    training.train(run)
    args = json.loads((run.folder / "args").read_bytes())
    assert RunConfig.from_args(args) == run.config
    recorded = {**run.identity, **run.circumstances, **run.provenance}
    assert {key: args[key] for key in recorded} == recorded


def test_other_images_take_the_place_of_those_that_are_named(tmp_path, tiny_data, monkeypatch):
    monkeypatch.setattr(data, "load", lambda *_: 1 / 0)
    run = prepare(RunConfig(batchsize=20, out=str(tmp_path)), dataset=tiny_data)
    assert run.dataset is tiny_data
    assert run.identity["dataset_sha256"] == tiny_data.sha256


def test_each_run_trains_with_its_own_kernels(tmp_path, tiny_data):
    """Whichever was prepared last."""
    settings = {"dataset": "mnist", "batchsize": 20, "epoch": 1}
    stock = prepare(RunConfig(**settings, accelerate="off", out=str(tmp_path / "a")))
    fast = prepare(RunConfig(**settings, accelerate="auto", out=str(tmp_path / "b")))
    for run in (stock, fast, stock):
        training.build_trainer(run)
        assert kernels.active() == run.circumstances["acceleration"]
