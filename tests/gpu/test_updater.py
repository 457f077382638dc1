"""A step as one CUDA graph has the bits of the same step kernel by kernel."""

import itertools
import json

import chainer
import numpy as np
import pytest

from mnist_bn import optimizers, training
from mnist_bn.config import RunConfig
from mnist_bn.errors import UsageError
from mnist_bn.storage import snapshots
from mnist_bn.training import prepare

pytestmark = pytest.mark.gpu
GPU = "@cupy:0"


@pytest.fixture
def run(tmp_path, tiny_data, no_plots):
    """Trains with these settings: returns parameters and log, without its times."""

    def train(folder, resume=None, **settings):
        defaults = {"model": "MnistCNN_BN_before", "optimizer": "Adam", "batchsize": 4, "epoch": 2}
        out = str(tmp_path / folder)
        prepared = prepare(RunConfig(**{**defaults, **settings}, device=GPU, out=out))
        training.train(prepared, resume=resume)
        log = json.loads((prepared.folder / "log").read_bytes())
        for entry in log:
            del entry["elapsed_time"]
        with np.load(prepared.folder / "model.npz") as npz:
            return {name: npz[name] for name in npz.files}, log

    return train


def assert_same(first, second):
    assert first[1] == second[1]
    assert first[0].keys() == second[0].keys()
    for name, expected in first[0].items():
        assert np.array_equal(second[0][name], expected, equal_nan=True), name


@pytest.fixture
def count_replays(monkeypatch):
    """Counts steps and batches that were replayed."""
    from mnist_bn.gpu.capture import Captured

    replays = []
    call = Captured.__call__

    def counting(self, key=None):
        is_replayed = call(self, key)
        replays.append(is_replayed)
        return is_replayed

    monkeypatch.setattr(Captured, "__call__", counting)
    return lambda: sum(replays)


@pytest.mark.parametrize("semantics", ["today", "2016"])
@pytest.mark.parametrize(
    "model", ["MnistCNN", "MnistCNN_BN_after", "MnistCNN_BN_linear_before", "SigmoidMLP_BN"]
)
def test_the_bits_are_those_without_a_graph(model, semantics, run, count_replays):
    settings = {"model": model, "semantics": semantics}
    captured = run("captured", cuda_graph="on", **settings)
    assert count_replays() > 5
    assert_same(run("kernels", cuda_graph="off", **settings), captured)


@pytest.mark.parametrize("name", sorted(optimizers.OF_2016))
def test_every_optimizer_of_2016_is_captured(name, run):
    settings = {"optimizer": name, "model": "ReluMLP", "weight_decay": 1e-4}
    captured = run("captured", cuda_graph="on", **settings)
    assert_same(run("kernels", cuda_graph="off", **settings), captured)


def test_a_learning_rate_that_drops(run):
    settings = {"lr_drop": "1,2", "epoch": 3, "optimizer": "MomentumSGD", "model": "ReluMLP_BN"}
    captured = run("captured", cuda_graph="on", **settings)
    assert_same(run("kernels", cuda_graph="off", **settings), captured)
    assert len({entry["main/loss"] for entry in captured[1]}) == 3


def test_a_resumed_run_has_the_bits_of_one_never_stopped(run, tmp_path):
    """Dropout's masks too: their counter is the step."""
    whole = run("whole", epoch=3)
    run("stopped", epoch=1)
    (folder,) = (tmp_path / "stopped").iterdir()
    resumed = run("stopped", resume=snapshots.found(folder)[0], epoch=3)
    assert_same(whole, resumed)


def test_observers_see_gradients_and_weights_of_now(run, tmp_path):
    observe = "gradient-norms,weight-updates,training-accuracy,variance-shift"
    for folder, graph in (("captured", "on"), ("kernels", "off")):
        run(folder, cuda_graph=graph, observe=observe)
    for name in observe.split(","):
        one, other = (
            next((tmp_path / folder).glob(f"*/{name}.npz")) for folder in ("captured", "kernels")
        )
        with np.load(one) as ours, np.load(other) as expected:
            for key in expected.files:
                assert np.array_equal(ours[key], expected[key], equal_nan=True), (name, key)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"optimizer": "AdaBound"}, "each step of AdaBound may depend on how many"),
        ({"optimizer": "MSVAG"}, "each step of MSVAG may depend on how many"),
        ({"model": "net.py:Net"}, "may do in Python, at each step, what a graph would leave out"),
    ],
)
def test_what_cannot_be_captured_runs_without(settings, reason, run, tmp_path, count_replays):
    if "model" in settings:
        (tmp_path / "net.py").write_text(
            "import chainer.links as L\n"
            "class Net(L.Linear):\n    def __init__(self): super().__init__(784, 10)\n"
        )
        settings = {"model": f"{tmp_path}/net.py:Net"}
    with pytest.raises(UsageError, match=r"^--cuda-graph on: .*" + reason):
        run("refused", cuda_graph="on", **settings)
    run("without", cuda_graph="auto", **settings)


def test_gradients_are_those_of_the_last_step(run, tmp_path, tiny_data):
    """After a replay Python has the graph's arrays, also if another step came between."""
    config = RunConfig("ReluMLP", "SGD", batchsize=4, device=GPU, out=str(tmp_path))
    trainer = training.build_trainer(prepare(config))
    updater = trainer.updater
    network = updater.get_optimizer("main").target.predictor
    seen = []
    for _ in range(6):
        trainer.observation = {}
        with trainer.reporter.scope(trainer.observation):
            updater.update()
        seen.append(chainer.backends.cuda.to_cpu(network.l1.W.grad).copy())
        network.cleargrads()
    assert all(np.abs(a - b).max() > 0 for a, b in itertools.pairwise(seen))


def test_a_step_that_waits_for_the_gpu_runs_without_a_graph(run, monkeypatch, capfd):
    """A capture that fails has done no work: the steps and their counts are those without it."""
    from mnist_bn.gpu.sums import Sums

    expected = run("kernels", cuda_graph="off", model="ReluMLP")
    add = Sums.add

    def add_and_look(self, classifier):
        float(classifier.loss.array)
        add(self, classifier)

    monkeypatch.setattr(Sums, "add", add_and_look)
    assert_same(expected, run("without", cuda_graph="auto", model="ReluMLP"))
    assert capfd.readouterr().err.startswith("note: without a CUDA graph, kernel by kernel: ")
