"""The benchmark runs and its numbers mean what its table says; no test asserts a speed."""

import functools
import importlib.util
import itertools
import json
import os
import re
import subprocess
import sys
import time

import chainer
import chainer.links as L
import numpy as np
import pytest

import models
from benchmarks import blog, chainer_runs, convolutions, environment, steps, train_step
from benchmarks import kernels as kernel_times
from mnist_bn import kernels
from mnist_bn.config import RunConfig
from mnist_bn.data import Dataset, Split
from mnist_bn.errors import UsageError
from models import mnist_cnn

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed"
)


def run(*arguments, **variables):
    command = [sys.executable, "benchmarks/train_step.py", *map(str, arguments)]
    inherited = {name: value for name, value in os.environ.items() if name != "MNIST_BN_DATA"}
    return subprocess.run(
        command,
        cwd=environment.ROOT,
        env={**inherited, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_prints_a_table_and_writes_json(tmp_path):
    file = tmp_path / "speed.json"
    small = ["--model", "MnistCNN", "--batch", 4, "--repeats", 2, "--block", 2]
    variants = ["stock"] if kernels.why_not() else ["stock", "accelerated", "verbatim"]
    process = run(*small, "--variants", *variants, "--json", file)
    assert process.returncode == 0, process.stderr
    assert "MnistCNN, batch 4" in process.stdout
    report = json.loads(file.read_text())
    measured = [(result["what"], result["variant"]) for result in report["results"]]
    assert measured == [(what, variant) for what in ("train", "eval") for variant in variants]
    for result in report["results"]:
        assert 0 < result["ms"]["p10"] <= result["ms"]["median"] <= result["ms"]["p90"]
        assert (result["times_stock"]["median"] == 1) == (result["variant"] == "stock")
    assert report["settings"]["batch"] == [4]
    assert report["versions"]["numpy"] == np.__version__
    assert report["machine"]["cpu"]


@pytest.mark.parametrize("name", train_step.MODELS)
def test_the_blogs_text_is_the_named_network_to_the_bit(name):
    def train(network):
        np.random.seed(0)
        model = L.Classifier(network())
        optimizer = chainer.optimizers.MomentumSGD(0.1).setup(model)
        rng = np.random.RandomState(1)
        for _ in range(3):
            x, t = rng.rand(8, 784).astype("f"), rng.randint(0, 10, 8).astype("i")
            optimizer.update(model, chainer.as_variable(x), t)
            assert x.shape == (8, 784)
        return dict(model.predictor.namedparams()), model.loss.array

    kernels.install("auto")
    try:
        (ours, loss), (theirs, same) = train(getattr(mnist_cnn, name)), train(getattr(blog, name))
    finally:
        kernels.install("off")
    assert loss.tobytes() == same.tobytes()
    assert ours.keys() == theirs.keys()
    for path, parameter in ours.items():
        assert parameter.array.tobytes() == theirs[path].array.tobytes(), path


def test_profile_prints_where_the_time_goes():
    small = ["--model", "MnistCNN", "--batch", 2, "--repeats", 1, "--block", 3]
    process = run(*small, "--variants", "stock", "--profile")
    assert process.returncode == 0, process.stderr
    assert "MnistCNN, Adam, batch 2, stock, 3 steps" in process.stdout
    assert "tottime" in process.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--variants", "tensorflow"], "choose from stock"),
        (["--variants", "torch", "--profile"], "available|stock or accelerated"),
        (["--batch", "0"], "1 or more"),
        (["--json", "no/such/folder/file.json"], "no folder"),
        (["--epoch", "--batch", "32"], "--batch: does nothing beside --epoch"),
        (["--sweep", "--clock", "cpu"], "--clock: does nothing beside --sweep"),
        (["--kernels", "--model", "MnistCNN"], "--model: does nothing beside --kernels"),
        (["--convolutions", "1", "--batch", "8"], "--batch: does nothing beside --convolutions"),
        (["--convolutions", "0"], "--convolutions: expected 1 or more"),
        (["--profile", "--json", "profile.json"], "--json: does nothing beside --profile"),
        (["--epoch", "--kernels"], "not allowed with"),
    ],
)
def test_a_wrong_argument_is_refused(arguments, expected, capsys):
    with pytest.raises(SystemExit) as end:
        sys.exit(train_step.main(train_step.parse_arguments(arguments)))
    assert end.value.code in (1, 2)
    refusal = capsys.readouterr().err
    assert re.search(expected, refusal)
    assert refusal.count("\n") == 1


def test_restart_sets_every_variable_once(monkeypatch):
    restarts = []
    monkeypatch.setattr(os, "execve", lambda *arguments: restarts.append(arguments))
    monkeypatch.setenv("A", "1")
    environment.restart_with({"A": "1"})
    assert restarts == []
    environment.restart_with({"A": "1", "B": "2"})
    ((_, command, variables),) = restarts
    assert command[0] == sys.executable
    assert (variables["A"], variables["B"]) == ("1", "2")


def test_ratios_are_taken_round_by_round():
    slow_machine = np.array([1.0, 1.0, 5.0])
    times = {
        "stock": 0.04 * slow_machine,
        "torch": 0.02 * slow_machine,
        "fast": 0.01 / slow_machine,
    }
    stock, torch, fast = steps.summarize(times)
    assert stock["times_torch"] == pytest.approx({"median": 0.5, "p10": 0.5, "p90": 0.5})
    assert torch["times_stock"] == pytest.approx({"median": 2.0, "p10": 2.0, "p90": 2.0})
    assert fast["times_torch"]["median"] == pytest.approx(2.0)
    assert stock["ms"]["median"] == pytest.approx(40.0)


def test_ratios_need_the_other_side():
    (summary,) = steps.summarize({"stock": [0.04]})
    assert "times_torch" not in summary


@pytest.fixture
def dataset():
    rng = np.random.default_rng(0)

    def split(n):
        images = rng.random((n, 784), np.float32)
        return chainer_runs.Split(images, rng.integers(0, 10, n, np.int32))

    return chainer_runs.Dataset("mnist", split(12), split(4), {}, "a test")


@pytest.fixture
def make_run(dataset, tmp_path):
    def make(clock):
        config = RunConfig("MnistCNN", batchsize=4, dataset="mnist", epoch=1000, out=str(tmp_path))
        trainer = chainer_runs.build_trainer(config, dataset)
        return chainer_runs.ChainerRun(trainer, lambda: None, clock), trainer

    return make


def test_the_trainer_makes_the_steps_it_is_asked_for_and_waits(make_run):
    ticks = iter(range(10**6))
    run, trainer = make_run(lambda: next(ticks))
    # Two readings of the clock a step. Each third step ends an epoch, and is not counted.
    assert run.train(1) == 1
    assert trainer.updater.iteration == 2
    assert run.train(3) == 1
    assert trainer.updater.iteration == 8
    assert run.evaluate(1) == 1
    run.close()
    assert trainer.updater.iteration <= 9


def test_an_error_in_a_step_reaches_the_caller(make_run):
    run, trainer = make_run(lambda: 0.0)
    trainer.updater.update = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        run.train(1)


def test_random_images_stand_in_for_mnist(monkeypatch):
    monkeypatch.delenv("MNIST_BN_DATA", raising=False)
    dataset = chainer_runs.load_dataset(30)
    assert dataset.train.images.shape == (60_000, 784)
    assert dataset.test.images.shape == (30, 784)
    assert dataset.test.labels.dtype == np.int32


def test_every_function_of_the_networks_is_measured():
    how = ["stock"], 1, lambda: 0.0
    results = kernel_times.measure(kernel_times.operations(2), *how)
    results += kernel_times.measure(kernel_times.further_operations(2), *how)
    results += kernel_times.measure_adam(*how)
    names = [result["what"] for result in results]
    assert names[:3] == ["conv1", "conv2", "conv3"]
    assert names[-1] == "Adam"
    assert len(names) == len(set(names))


def test_random_convolutions_are_the_same_each_time_and_real():
    first, again = (list(itertools.islice(convolutions.shapes(), 200)) for _ in range(2))
    assert first == again
    assert {shape.kernel for shape in first} == set(convolutions.KERNELS)
    assert all(shape.out_size >= 1 for shape in first)
    small = convolutions.Shape(2, 3, 6, 4, 3, 2, 1)
    for is_nhwc in (False, True):
        y, gx, gw = convolutions.passes(small, is_nhwc).values()
        assert y().shape == (2, 4, 3, 3)
        assert gx().shape == (2, 3, 6, 6)
        assert gw()[0].shape == (4, 3, 3, 3)


def test_slower_kernels_are_named(monkeypatch, capsys):
    monkeypatch.setattr(chainer_runs, "switch", lambda accelerated: None)
    small = convolutions.Shape(2, 3, 6, 4, 3, 2, 1)
    monkeypatch.setattr(convolutions, "shapes", lambda: iter([small]))
    ticks = itertools.accumulate(itertools.cycle([0, 1, 0, 2]))  # the second call takes twice
    results = convolutions.measure(1, 1, lambda: next(ticks) / 1e3)
    assert [r["what"] for r in results] == ["forward", "gx", "gw"] * 2
    convolutions.print_table(results)
    printed = capsys.readouterr().out
    assert "forward: 2 cases" in printed
    assert "n 2, 3 to 4 channels, map 6, kernel 3/2, pad 1, NHWC" in printed


def test_the_models_offered_are_the_blogs():
    assert set(train_step.MODELS) == set(models.links_of(mnist_cnn))


def test_a_folder_without_mnist_is_refused(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("MNIST_BN_DATA", str(tmp_path))
    assert train_step.main(train_step.parse_arguments(["--variants", "stock"])) == 1
    assert str(tmp_path) in capsys.readouterr().err


def test_jax_has_only_the_blogs_networks_on_one_thread():
    needs = pytest.raises(UsageError, match="--variants jax: it has the blog's four networks")
    make = functools.partial(
        steps.make_cpu_run, "jax", batchsize=4, dataset=None, clock=None, out=""
    )
    if importlib.util.find_spec("flax") is not None:
        with needs:
            make(model="ExerciseMLP", threads=1)
        with needs:
            make(model="MnistCNN", threads=2)
    else:
        assert "jax" in steps.why_missing()


@pytest.mark.skipif(importlib.util.find_spec("flax") is None, reason="JAX is not installed")
@pytest.mark.parametrize("name", train_step.MODELS)
def test_jax_learns(name):
    from benchmarks.jax_runs import JaxRun

    rng = np.random.default_rng(0)
    labels = np.arange(100, dtype=np.int32) % 10
    images = rng.random((100, 784), np.float32) / 10
    images[np.arange(100), 78 * labels] = 5
    split = Split(images, labels)
    run = JaxRun(name, Dataset("mnist", split, split, {}, "a test"), 50, time.perf_counter)
    assert run.train(4) > 0
    first = run.losses()[0] / 5
    for _ in range(12):
        run.train(4)
    assert run.losses()[0] / 65 < 0.8 * first
    assert run.evaluate(2) > 0
    run.close()


@needs_torch
@pytest.mark.parametrize("name", train_step.MODELS)
def test_pytorchs_network_computes_the_same(name, monkeypatch):
    import torch

    from benchmarks.torch_networks import MnistCNN

    monkeypatch.setattr("chainer.functions.dropout", lambda h, ratio: h)
    monkeypatch.setattr("torch.nn.functional.dropout", lambda h, p, training: h)
    ours, theirs = models.create(name), MnistCNN(name)
    assert sum(p.size for p in ours.params()) == sum(p.numel() for p in theirs.parameters())
    links = (ours.conv1, ours.conv2, ours.conv3, ours.l1, ours.l2)
    with torch.no_grad():
        for link, module in zip(links, (*theirs.convs, theirs.l1, theirs.l2), strict=True):
            module.weight.copy_(torch.from_numpy(link.W.array))
            module.bias.copy_(torch.from_numpy(link.b.array))
    x = np.random.default_rng(0).random((50, 784), np.float32)
    for train in (True, True, False):
        theirs.train(train)
        with chainer.using_config("train", train):
            expected = ours(x).array
        actual = theirs(torch.from_numpy(x)).detach().numpy()
        np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-3)
