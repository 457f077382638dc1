"""The GPU benchmark as far as it goes without one: its parts run on the CPU, and it refuses."""

import importlib.util
import json
import os
import subprocess
import sys
import time
import types

import numpy as np
import pytest

import mnist_bn.gpu
from benchmarks import chainer_runs, device_clock, environment, gpu, roofline, train_step
from mnist_bn.config import RunConfig
from mnist_bn.data import Dataset, Split
from mnist_bn.data.iterators import ArrayIterator

GPU = {"name": "a test", "cupy": "0"}
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed"
)


@pytest.fixture
def dataset():
    rng = np.random.default_rng(0)

    def split(n):
        images = rng.integers(0, 256, (n, 784), np.uint8)
        return Split.from_bytes(images, rng.integers(0, 10, n))

    return Dataset("mnist", split(12), split(8), {}, "a test")


@pytest.fixture
def on_the_cpu(monkeypatch, dataset):
    """Has the benchmark take the CPU for a GPU, and few images."""
    monkeypatch.setattr(gpu, "DEVICE", "@numpy")
    monkeypatch.setattr(gpu, "describe_gpu", lambda: GPU)
    monkeypatch.setattr(mnist_bn.gpu, "install", lambda: None)
    monkeypatch.setattr(device_clock, "cupy_clock", time.perf_counter)
    monkeypatch.setattr(chainer_runs, "load_dataset", lambda test_size: dataset)
    no_torch = dict.fromkeys(gpu.TORCH_VARIANTS, "not for this test")
    monkeypatch.setattr(gpu, "why_missing", lambda: no_torch)


def run(*arguments):
    return gpu.main(gpu.parse_arguments([str(argument) for argument in arguments]))


def test_without_a_gpu_it_refuses_in_one_line():
    command = [sys.executable, "benchmarks/gpu.py", "--tf32"]
    without = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.run(
        command, cwd=environment.ROOT, env=without, capture_output=True, text=True, check=False
    )
    assert process.returncode == 2
    assert process.stderr.startswith("gpu.py: GPU 0 was asked for, but ")
    assert process.stderr.count("\n") == 1
    assert process.stdout == ""


def test_steps_and_epochs_are_measured_and_written(on_the_cpu, tmp_path, capsys):
    file = tmp_path / "gpu.json"
    arguments = ["--model", "MnistCNN", "--batch", 4, "--repeats", 2, "--block", 2, "--json", file]
    assert run(*arguments) == 0
    printed = capsys.readouterr().out
    assert "torch-graph: not available (not for this test)" in printed
    report = json.loads(file.read_text())
    assert report["gpu"] == GPU
    assert report["settings"]["tf32"] is False
    measured = [(result["what"], result["variant"]) for result in report["results"]]
    assert measured == [
        (what, variant)
        for what in ("train", "eval", "epoch")
        for variant in ("stock", "ours-no-graph", "ours")
    ]
    for result in report["results"]:
        assert (result["model"], result["batch"], result["tf32"]) == ("MnistCNN", 4, False)
        if result["what"] == "epoch":
            assert len(result["all_s"]) == gpu.EPOCHS - 2
            assert min(result["all_s"]) <= result["s"] <= max(result["all_s"])
        else:
            assert (result["times_stock"]["median"] == 1) == (result["variant"] == "stock")


@pytest.mark.parametrize("what", gpu.WHAT)
def test_only_what_was_asked_for_is_measured(on_the_cpu, monkeypatch, tmp_path, what):
    other = "measure_steps" if what == "epoch" else "measure_epochs"
    monkeypatch.setattr(gpu, other, None)
    file = tmp_path / "gpu.json"
    once = [] if what == "epoch" else ["--repeats", 1, "--block", 2]
    small = ["--model", "MnistCNN", "--batch", 4, "--variants", "ours", "--json", file]
    assert run("--what", what, *small, *once) == 0
    assert [result["what"] for result in json.loads(file.read_text())["results"]] == [what]


def test_roofline_is_written(on_the_cpu, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(roofline, "measure_rates", lambda: roofline.Rates(50e12, 4e12))
    file = tmp_path / "roofline.json"
    assert run("--roofline", "--batch", 100, 500, "--json", file) == 0
    assert "50.0 TFLOP/s, copy 4.00 TB/s" in capsys.readouterr().out
    rates, first, second = json.loads(file.read_text())["results"]
    assert rates == {"rates": {"flops": 50e12, "bytes": 4e12}}
    assert (first["batch"], second["batch"]) == (100, 500)
    assert second["flops"] == 5 * first["flops"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--variants", "tensorflow"], "--variants tensorflow: choose from stock"),
        (["--variants", "torch"], "none of --variants is available"),
        (["--block", "0"], "1 or more"),
        (["--model", "ResNet"], "invalid choice"),
        (["--roofline", "--what", "train"], "--what: does nothing beside --roofline"),
        (["--roofline", "--variants", "ours"], "--variants: does nothing"),
        # A value that is the default, too.
        (["--roofline", "--repeats", "10"], "--repeats: does nothing"),
        (["--block", "7", "--roofline"], "--block: does nothing"),
        (["--what", "epoch", "--block", "7"], "--block: does nothing beside --what epoch"),
    ],
)
def test_a_wrong_argument_is_refused(on_the_cpu, arguments, expected, capsys):
    with pytest.raises(SystemExit) as end:
        sys.exit(run(*arguments))
    assert end.value.code == (1 if expected.startswith("none of") else 2)
    refusal = capsys.readouterr().err
    assert expected in refusal
    assert refusal.count("\n") == 1


def test_the_defaults_are_what_is_published():
    arguments = gpu.parse_arguments([])
    assert arguments.model == ["MnistCNN_BN_before"]
    assert arguments.batch == [100, 500, 2000]
    assert not arguments.tf32
    assert arguments.what == [*train_step.parse_arguments([]).what, "epoch"]


@pytest.mark.parametrize(("tf32", "value"), [(False, "0"), (True, "1")])
def test_tf32_is_switched_for_all_libraries_at_once(tf32, value):
    variables = gpu.variables(tf32)
    assert variables["NVIDIA_TF32_OVERRIDE"] == variables["CUPY_TF32"] == value
    assert variables["OMP_NUM_THREADS"] == "1"


def test_a_moment_waits_only_when_it_is_read():
    log = []

    class Event:
        def __init__(self, milliseconds):
            self.milliseconds = milliseconds

        def record(self):
            log.append("record")

        def synchronize(self):
            log.append("wait")

    def between(first, last):
        return last.milliseconds - first.milliseconds

    start = device_clock.Moment(Event(5.0), between)
    end = device_clock.Moment(Event(1005.0), between)
    assert log == ["record", "record"]
    assert end - start == 1.0
    assert log == ["record", "record", "wait"]


def test_steps_are_timed_without_waiting_between_them(dataset, tmp_path):
    """The Trainer's steps are all done before the first difference of two moments is taken."""
    trainer = chainer_runs.build_trainer(
        RunConfig("MnistCNN", batchsize=4, dataset="mnist", epoch=1000, out=str(tmp_path)), dataset
    )
    iterations_when_read = []

    class Moment:
        def __sub__(self, earlier):
            iterations_when_read.append(trainer.updater.iteration)
            return 0.5

    run = chainer_runs.ChainerRun(trainer, lambda: None, Moment)
    assert run.train(3) == 0.5
    run.close()
    # Four steps, and one that ended an epoch and is not counted.
    assert iterations_when_read == [5, 5, 5, 5]


def test_stock_is_chainers_own_data_path(dataset, tmp_path):
    losses = []
    for variant in ("ours", "stock"):
        config = RunConfig("MnistCNN", batchsize=4, dataset="mnist", epoch=2, out=str(tmp_path))
        trainer = chainer_runs.build_trainer(config, dataset)
        if variant == "stock":
            # Each iterator draws its first order when it is made.
            np.random.seed(0)
            chainer_runs.feed_as_stock(trainer, dataset, 4)
            assert not isinstance(trainer.updater.get_iterator("main"), ArrayIterator)
        else:
            np.random.seed(0)
            trainer.updater.get_iterator("main").reset()
        (seconds,) = [chainer_runs.epoch_seconds(trainer)]
        assert seconds == []
        entries = trainer.get_extension("LogReport").log
        losses.append([(e["main/loss"], e["validation/main/loss"]) for e in entries])
    assert losses[0] == losses[1]


def test_each_epoch_from_the_third_on_is_timed():
    log = [{"elapsed_time": t} for t in (5.0, 7.0, 8.0, 9.5)]
    trainer = types.SimpleNamespace(
        run=lambda show_loop_exception_msg: None,
        get_extension=lambda name: types.SimpleNamespace(log=log),
    )
    assert chainer_runs.epoch_seconds(trainer) == [1.0, 1.5]


def test_the_variants_are_told_apart_by_name():
    assert set(gpu.VARIANTS) == {*gpu.CHAINER_VARIANTS, *gpu.TORCH_VARIANTS}
    for name, options in gpu.TORCH_VARIANTS.items():
        assert ("channels-last" in name) == bool(options.get("channels_last"))
        assert ("compile" in name) == ("compiled" in options)


@needs_torch
def test_pytorch_learns_from_bytes_as_from_floats(dataset, monkeypatch):
    import torch

    from benchmarks import torch_runs

    losses = []
    for as_bytes in (False, True):
        torch.manual_seed(0)
        run = torch_runs.TorchRun("MnistCNN", dataset, 4, time.perf_counter)
        if as_bytes:
            run._train_data[0] = torch.from_numpy(dataset.train.pixels)
        run.train(5)
        losses.append(run._sums.tolist())
    assert losses[0] == losses[1]


@needs_torch
def test_an_epoch_of_pytorch_is_every_whole_batch(dataset):
    from benchmarks import torch_runs

    run = torch_runs.TorchRun("MnistCNN", dataset, 5, time.perf_counter)
    evaluated = []
    run.evaluate = evaluated.append
    run._sums += 100
    assert run.epoch() > 0
    assert evaluated == [1]
    loss, accuracy = run._sums.tolist()
    assert 2 < loss < 10
    assert 0 <= accuracy <= 2
