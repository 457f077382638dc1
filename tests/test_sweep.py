"""Many runs: skipping what is finished, and going on when one fails."""

import json

import pytest

import train_mnist
from mnist_bn import data, sweep, training
from mnist_bn.config import RunConfig, grid
from mnist_bn.errors import UserError
from mnist_bn.outcome import Outcome
from mnist_bn.terminal import live
from mnist_bn.training import prepare

BROKEN = """
import chainer
import chainer.links as L

class Broken(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.l = L.Linear(784, 10)

    def forward(self, x):
        raise RuntimeError("the network is\\nbroken")
"""


@pytest.fixture
def settings(tmp_path):
    return {"dataset": "digits", "epoch": 1, "batchsize": 500, "out": str(tmp_path / "result")}


def test_every_run_has_its_outcome_and_a_failing_one_stops_no_other(settings, tmp_path):
    net = tmp_path / "net.py"
    net.write_text(BROKEN)
    spec = f"{net}:Broken"
    configs = grid({**settings, "model": ["MnistCNN", spec], "seed": [0, 1]})

    outcomes = {o.config: o for o in sweep.run_all(configs, jobs=2)}

    assert set(outcomes) == set(configs)
    for config in configs:
        outcome = outcomes[config]
        if config.model == spec:
            report = config.folder / "error.txt"
            assert outcome.error == (
                f"failed: RuntimeError: the network is (traceback in {report})"
            )
            assert "line 12, in forward" in report.read_text()
            assert not sweep.is_finished(prepare(config))
        else:
            assert outcome.error is None
            assert outcome.entry["epoch"] == 1
            assert sweep.is_finished(prepare(config))


def test_several_processes_give_the_bits_of_one(settings, tmp_path):
    def logs(out, jobs):
        configs = grid({**settings, "seed": [0, 1], "out": str(tmp_path / out)})
        sweep.run_all(configs, jobs)
        entries = [json.loads((c.folder / "log").read_text())[-1] for c in configs]
        return [{k: v for k, v in e.items() if k != "elapsed_time"} for e in entries]

    assert logs("one", 1) == logs("two", 2)


@pytest.mark.parametrize("dataset", ["auto", "digits"])
def test_data_are_read_once_a_process(settings, monkeypatch, no_plots, dataset):
    """By the name that was asked for, and then by the dataset's own."""
    found, read = data.load("digits"), []
    monkeypatch.setattr(data, "load", lambda *key: read.append(key) or found)
    monkeypatch.setattr(data, "_kept", {})
    line = f"-m ReluMLP --dataset {dataset} --seed 0 1 2 -e 1 -b 500 -o {settings['out']}"
    assert train_mnist.main([*line.split(), "--train-images", "500"]) == 0
    assert read == [(dataset, None, False)]


def test_a_folder_of_another_run_is_never_taken(settings, tiny_data, no_plots):
    config = RunConfig(**{**settings, "dataset": "mnist", "batchsize": 20})
    assert not sweep.is_finished(prepare(config))
    training.train(prepare(config))
    assert sweep.is_finished(prepare(config))
    args = config.folder / "args"
    other = json.loads(args.read_text())
    args.write_text(json.dumps({**other, "lr": 0.5}))
    with pytest.raises(UserError, match=r"finished run with lr 0\.5, not 0\.001: choose"):
        sweep.is_finished(prepare(config))
    args.write_text("{")
    with pytest.raises(UserError, match="expected the settings"):
        sweep.is_finished(prepare(config))


def test_a_folder_that_cannot_be_looked_into_is_one_line(settings):
    """Such as one that may not be entered, which root may; this name is too long."""
    config = RunConfig(**{**settings, "out": "x" * 300})
    assert not sweep.is_finished(prepare(config))
    outcome = sweep.run_one(prepare(config), dict)
    assert outcome.error.endswith("cannot be written (File name too long); choose another --out")


def test_a_run_that_another_process_has_finished_is_left_as_it_is(settings, tiny_data, no_plots):
    config = RunConfig(**{**settings, "dataset": "mnist", "batchsize": 20})
    outcomes = [
        sweep.run_one(prepare(config), lambda: training.train(prepare(config))) for _ in range(2)
    ]
    assert outcomes[0].entry["epoch"] == 1
    assert outcomes[1].entry is None
    assert outcomes[1].describe() == (
        f"{config.name}: finished already, by another process: left as it is"
    )


def test_a_run_that_kills_its_process_fails_alone(settings, tmp_path):
    net = tmp_path / "net.py"
    net.write_text(BROKEN.replace("raise RuntimeError", "import os; os._exit(9)  # "))
    broken = f"{net}:Broken"
    configs = grid({**settings, "model": ["MnistCNN", broken]})
    outcomes = {o.config.model: o.error for o in sweep.run_all(configs, jobs=2)}
    assert outcomes == {
        "MnistCNN": None,
        broken: "failed: its process was killed (out of memory?)",
    }


def test_what_was_under_way_when_a_process_was_killed_goes_on(settings, monkeypatch):
    """Where this command had begun it; what an earlier one had begun is set aside, as ever."""
    begun, waiting = configs = grid({**settings, "seed": [0, 1]})
    for config in configs:
        config.folder.mkdir(parents=True)
        (config.folder / "args").write_text('{"run_id": "of an earlier command"}')
    calls = []

    def parallel(configs, jobs, autoload, lines):
        calls.append((tuple(configs), autoload))
        if len(calls) == 1:
            (begun.folder / "args").write_text('{"run_id": "of this command"}')
            raise sweep.TerminatedWorkerError("killed")
        return iter(Outcome(config, {}) for config in configs)

    monkeypatch.setattr(sweep, "_parallel", parallel)
    assert [outcome.config for outcome in sweep._outcomes(configs, 2, False, {})] == configs
    assert calls[1:] == [((begun,), True), ((waiting,), False)]


@pytest.mark.parametrize("failure", [RuntimeError("caf\udce9"), SystemExit(3)])
def test_whatever_a_run_raises_is_its_outcome(tmp_path, failure):
    def fail():
        raise failure

    config = RunConfig(dataset="digits", out=str(tmp_path))
    config.folder.mkdir()
    assert sweep.run_one(prepare(config), fail).error.startswith(
        f"failed: {type(failure).__name__}: "
    )
    assert "Traceback" in (config.folder / "error.txt").read_text()


def test_a_diverged_run_is_called_so():
    entry = {"epoch": 1, "main/loss": float("nan"), "elapsed_time": 3.0}
    outcome = Outcome(RunConfig(dataset="mnist"), {**entry, "validation/main/accuracy": 0.1})
    assert outcome.describe() == (
        "MnistCNN_BN_before-Adam-s0: epoch 1, diverged (training loss nan), "
        "validation accuracy 0.1000, 3 s"
    )


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"model": ["MnistCNN", "ReluMLP"]}, ["MnistCNN", "ReluMLP"]),
        ({"optimizer": ["SGD", "Adam"], "seed": [0, 1], "lr": 0.1}, ["SGD seed 0", "SGD seed 1"]),
        ({"seed": [3]}, ["ReluMLP-Adam-s3"]),
        (
            {
                "model": [
                    "N(layers=7, scale=0.1)",
                    "N(layers=7, scale=1)",
                    "M(layers=7)",
                    "net.py:K",
                ]
            },
            ["N(layers=7, scale=0.1)", "N(layers=7, scale=1)"],
        ),
        ({"model": ["N(layers=7, scale=0.1)", "M(layers=7)"]}, ["N(scale=0.1)", "M"]),
    ],
)
def test_a_run_is_called_by_what_differs_within_the_sweep(settings, expected):
    configs = grid({"model": ["ReluMLP"], "dataset": "mnist", **settings})
    assert list(sweep.labels(configs).values())[: len(expected)] == expected


def test_settings_that_are_no_axes_differ_too():
    configs = [
        RunConfig(dataset="mnist", lr=lr, batchsize=size) for lr, size in ((None, 1), (3, 2))
    ]
    assert list(sweep.labels(configs).values()) == ["lr default batchsize 1", "lr 3 batchsize 2"]


def test_a_label_has_no_momentum_of_an_optimizer_without():
    settings = [("SGD", 0.01, None), ("AdaDelta", None, None)]
    settings += [("MomentumSGD", 0.01, momentum) for momentum in (0.5, 0.9)]
    configs = [RunConfig("A", name, lr=lr, momentum=momentum) for name, lr, momentum in settings]
    assert list(sweep.labels(configs).values()) == [
        "SGD",
        "AdaDelta",
        "MomentumSGD momentum 0.5",
        "MomentumSGD momentum 0.9",
    ]


@pytest.mark.parametrize(
    ("lefts", "runs", "lines"),
    [
        ([None, None], 2, 2),
        ([None, "finished already, by another process: left as it is"], 2, 2),
        ([None, "stopped at iteration 3"], 1, 2),
        (["stopped at iteration 3", "not begun"], 0, 1),
    ],
)
def test_the_runs_that_are_over_are_counted(monkeypatch, capsys, lefts, runs, lines):
    configs = grid({"dataset": "mnist", "seed": [0, 1]})
    entry = {"epoch": 20, "main/loss": 0.1, "elapsed_time": 3.0}
    outcomes = [
        Outcome(config, entry=None if left else entry, left=left)
        for config, left in zip(configs, lefts, strict=True)
    ]
    ended = []
    monkeypatch.setattr(sweep, "_outcomes", lambda *_: iter(outcomes))
    end = live.Display.end
    monkeypatch.setattr(
        live.Display,
        "end",
        lambda self, run, line, is_over: (ended.append(is_over), end(self, run, line, is_over)),
    )
    assert sweep.run_all(configs, jobs=2) == outcomes
    assert sum(ended) == runs
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == "2 runs, 2 at once; a line for each that ends"
    assert len(rest) == lines
    assert "seed 0: 3 s" in rest or lefts[0]


def test_default_rates_of_optimizers_are_no_difference_within_a_sweep():
    sgd, adam = RunConfig(optimizer="SGD", lr=0.01), RunConfig(optimizer="Adam", lr=0.001)
    assert list(sweep.labels([sgd, adam]).values()) == ["SGD", "Adam"]
    faster = RunConfig(optimizer="SGD", lr=0.1)
    assert list(sweep.labels([sgd, faster, adam]).values()) == [
        "SGD lr 0.01",
        "SGD lr 0.1",
        "Adam lr 0.001",
    ]
