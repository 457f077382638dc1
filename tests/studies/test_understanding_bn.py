"""Understanding Batch Normalization: its runs and figures, in miniature."""

import numpy as np
import pytest

import plot_results
import train_mnist
from mnist_bn import data, drawing, studies, training
from mnist_bn.errors import UserError
from mnist_bn.observers import gradient_noise
from mnist_bn.plotting.groups import group_runs
from mnist_bn.plotting.results import read_runs
from mnist_bn.studies import understanding_bn
from mnist_bn.training import prepare
from tests.helpers import write_result_folder

NETWORKS = [f"ResNetCIFAR(depth=8, bn={bn})" for bn in (True, False)]


@pytest.fixture
def tiny_colours(monkeypatch):
    """Replaces CIFAR-10 by 40 training and 20 test images of noise, 8x8 pixels."""
    random = np.random.RandomState(0)

    def split(n):
        images = random.rand(n, 3, 8, 8).astype(np.float32)
        return data.Split(images, np.arange(n, dtype=np.int32) % 10)

    dataset = data.Dataset("cifar10", split(40), split(20), {"tiny": "0" * 64}, "a test", "")
    monkeypatch.setattr(data, "load", lambda *_: dataset)
    data._kept.clear()
    yield dataset
    data._kept.clear()


@pytest.mark.parametrize(("preset", "runs"), [("quick", 18), ("full", 24), ("cpu", 12)])
def test_presets_are_runs_that_the_command_line_takes(preset, runs):
    line = ["--study", "understanding-bn", "--preset", preset]
    configs = train_mnist.make_configs(train_mnist.parse_arguments(line))
    assert len({config.name for config in configs}) == len(configs) == runs
    assert {config.folder.parent.name for config in configs} == {preset}
    assert studies.get("understanding-bn") is understanding_bn


def test_the_four_settings_are_in_each_training_preset():
    for preset, epochs, depth in (("full", 165, 110), ("cpu", 16, 20)):
        long = [c for c in studies.configs(understanding_bn, preset, {}) if c.epoch == epochs]
        settings = {(config.model, config.lr) for config in long}
        assert settings == {
            (f"ResNetCIFAR(depth={depth}, bn={bn})", lr)
            for bn, lr in ((True, 0.1), (True, 0.003), (True, 0.0001), (False, 0.0001))
        }
        assert {c.lr_drop for c in long} == {f"{epochs // 2},{int(0.75 * epochs)}"}


def test_what_is_given_goes_before_and_is_observed_once():
    configs = studies.configs(
        understanding_bn, "quick", {"lr": 0.01, "seed": [7], "model": NETWORKS}
    )
    assert [(c.model, c.lr, c.seed) for c in configs] == [(name, 0.01, 7) for name in NETWORKS]
    assert all(config.observed == list(understanding_bn.OBSERVED) for config in configs)


def test_quick(tiny_colours, tmp_path, monkeypatch, no_plots):
    monkeypatch.setattr(understanding_bn, "SIZE", 20)
    monkeypatch.setattr(gradient_noise, "ALL", 4)
    given = {
        "seed": [0],
        "model": NETWORKS,
        "lr": 0.01,
        "batchsize": 20,
        "test_images": 20,
        "out": str(tmp_path),
    }
    for config in studies.configs(
        understanding_bn, "quick", {**given, "study": "understanding-bn"}
    ):
        training.train(prepare(config))
    understanding_bn.measure(tmp_path / "quick")
    assert plot_results.main([str(tmp_path)]) == 0
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"divergence.png", "singular-values.png", "understanding-bn.md"} <= names
    assert {f"{name}.png" for name in (*understanding_bn.OBSERVED, "gradient-scale")} <= names
    assert "accuracy.png" not in names
    table = (tmp_path / "figures" / "understanding-bn.md").read_text()
    assert "| with BN, lr 0.01 " in table
    assert "| 5 | 3.864" in table


def test_singular_values_are_measured_once(tmp_path, monkeypatch):
    monkeypatch.setattr(understanding_bn, "SIZE", 30)
    understanding_bn.measure(tmp_path)
    (path,) = tmp_path.iterdir()
    before = path.read_bytes()
    with np.load(path) as npz:
        assert npz["matrices"].tolist() == [1, 3, 5]
        assert npz["singular_value"].shape == (3, understanding_bn.DRAWS, 30)
        assert (np.diff(npz["singular_value"]) <= 0).all()
    monkeypatch.setattr(understanding_bn._random_matrices, "singular_values", pytest.fail)
    understanding_bn.measure(tmp_path)
    assert path.read_bytes() == before


def write_run(folder, bn=True, lr=0.1, seed=0, epochs=4, model=None, unit="epoch", **last):
    """A result folder of epochs, of which `last` changes the last."""
    accuracy = {"main/accuracy": 0.6, "validation/main/accuracy": 0.5 + seed / 10}
    losses = {"main/loss": 1.0, "validation/main/loss": 1.2}
    log = [{**accuracy, **losses, "epoch": 1} | {unit: i} for i in range(1, epochs + 1)]
    log[-1] |= last
    args = {"optimizer": "MomentumSGD", "seed": seed, "dataset": "cifar10", "semantics": "today"}
    args |= {"model": model or f"ResNetCIFAR(depth=20, bn={bn})", "lr": lr}
    args |= {"study": "understanding-bn"} | ({"evaluate_every": 1} if unit == "iteration" else {})
    return write_result_folder(folder, args, log)


@pytest.mark.parametrize("content", [b"", b"no archive", "other arrays"])
def test_damaged_singular_values_are_one_line(tmp_path, content):
    folder = write_run(tmp_path / "run")
    path = tmp_path / "singular-values.npz"
    if content == "other arrays":
        understanding_bn.archives.write(path, {"matrices": np.ones(3), "other": np.ones(3)})
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"singular-values\.npz: "):
        dict(understanding_bn.figures(read_runs([folder], pytest.fail)))


def test_accuracy_and_learning_rates_of_training_runs(tmp_path):
    for seed in (0, 1):
        for bn, lr in understanding_bn.SETTINGS:
            write_run(tmp_path / f"{bn}{lr}s{seed}", bn, lr, seed)
        lost = {"diverged_at": {"iteration": 3 + seed, "value": 1e4}}
        write_run(tmp_path / f"lost{seed}", False, 0.1, seed, epochs=1, **lost)
    runs = read_runs([tmp_path], pytest.fail)
    paths = drawing.save(understanding_bn.figures(runs), tmp_path / "figures")
    names = {path.name for path in paths}
    assert names == {"accuracy.png", "learning-rates.png", "understanding-bn.md"}
    figure = understanding_bn._accuracy(group_runs(runs))
    for axes in figure.axes:
        curves = [line for line in axes.lines if len(line.get_xdata()) == 4 and not line.get_gid()]
        assert [line.get_xdata().tolist() for line in curves] == [[25, 50, 75, 100]] * 4
        assert {text.get_text() for text in axes.texts} == {
            *("with BN, lr 0.1", "with BN, lr 0.003", "with BN, lr 0.0001"),
            "without BN, lr 0.0001",
        }
    share, when = understanding_bn._learning_rates(group_runs(runs)).axes
    without, with_bn = (line.get_xydata().tolist() for line in share.lines[:2])
    assert without == [[0.0001, 0], [0.1, 1]]
    assert with_bn == [[0.0001, 0], [0.003, 0], [0.1, 0]]
    assert when.lines[0].get_xydata().tolist() == [[0.1, 3.5]]


def test_presets_are_drawn_apart(tmp_path, capsys):
    write_run(tmp_path / "full" / "run")
    write_run(tmp_path / "quick" / "run", unit="iteration")
    write_run(tmp_path / "cpu" / "run")
    assert plot_results.main([str(tmp_path)]) == 0
    assert "in 3 groups: they differ in preset and epochs or iterations" in capsys.readouterr().out
    drawn = {path.parent.name: path.name for path in tmp_path.glob("figures/*/*.png")}
    assert drawn == {
        "understanding-bn-full": "accuracy.png",
        "understanding-bn-cpu": "accuracy.png",
        "understanding-bn-quick": "divergence.png",
    }


def curves_of(tmp_path):
    return group_runs(read_runs([tmp_path], pytest.fail))


def test_a_network_is_called_what_it_is(tmp_path):
    write_run(tmp_path / "a", model="ResNetCIFAR(bn = 'end')")
    named = ["ResNet-110", "BN at the end: ResNetCIFAR(bn = 'end')"]
    assert understanding_bn._networks(curves_of(tmp_path)) == named
    (curve,) = curves_of(tmp_path)
    assert understanding_bn._name(curve, [curve]) == "BN at the end"
    write_run(tmp_path / "b", model="ResNetCIFAR(depth = 20, bn=False)")
    write_run(tmp_path / "c", model="MnistCNN")
    curves = curves_of(tmp_path)
    assert [understanding_bn._with_rate(curve, curves) for curve in curves] == [
        "MnistCNN, lr 0.1",
        "ResNet-110 BN at the end, lr 0.1",
        "ResNet-20 without BN, lr 0.1",
    ]
    assert understanding_bn._networks(curves) == [
        "MnistCNN",
        "ResNet-110 BN at the end: ResNetCIFAR(bn = 'end')",
        "ResNet-20 without BN: ResNetCIFAR(depth = 20, bn=False)",
    ]


def test_figures_say_what_diverged_means_and_how_long_the_runs_were(tmp_path):
    diverged = {"diverged_at": {"iteration": 2, "value": 1e4}}
    write_run(tmp_path / "a", lr=0.1, epochs=1, bn=False, **diverged)
    write_run(tmp_path / "b", lr=0.01, epochs=1, bn=False)
    write_run(tmp_path / "c", lr=0.01, epochs=4)
    figure = understanding_bn._learning_rates(curves_of(tmp_path))
    said = " ".join(text.get_text() for text in figure.texts)
    assert "1 seed" in said
    assert "diverged: loss beyond 1000 after the first step, in 1 to 4 epochs" in said
    write_run(tmp_path / "d", unit="iteration", **diverged)
    heads = [
        figure_of(curves_of(tmp_path)).texts[0].get_text()
        for figure_of in (understanding_bn._divergence, understanding_bn._learning_rates)
    ]
    assert heads == ["Loss of the first minibatches", "Which learning rates diverge, on CIFAR-10"]


def test_singular_values_in_a_file_of_another_order(tmp_path):
    folder = write_run(tmp_path / "run")
    arrays = {"singular_value": np.ones((1, 2, 3), np.float32), "matrices": np.array([1])}
    understanding_bn.archives.write(
        tmp_path / "singular-values.npz", {**arrays, "more": arrays["matrices"]}
    )
    figures = understanding_bn.figures(read_runs([folder], pytest.fail))
    assert "singular-values" in dict(figures)


def test_steps_that_are_given_drop_no_learning_rate_at_epochs():
    (config, *_) = studies.configs(understanding_bn, "full", {"iteration": 200})
    assert config.iteration == 200
    assert config.lr_drop is None
    (config, *_) = studies.configs(understanding_bn, "full", {"iteration": 200, "lr_drop": "100"})
    assert config.lr_drop == "100"
    (config, *_) = studies.configs(understanding_bn, "full", {"epoch": 100})
    assert config.lr_drop == "82,123"


@pytest.mark.parametrize("odd", [None, 3, {"iteration": "3"}, {}])
def test_when_a_run_diverged(tmp_path, odd):
    diverged = {"diverged_at": {"iteration": 3, "value": 1e4}}
    folders = [write_run(tmp_path / "a", **diverged), write_run(tmp_path / "b", diverged_at=odd)]
    runs = read_runs(folders, pytest.fail)
    assert [understanding_bn.diverged_at(run) for run in runs] == [3, None]
    assert "understanding-bn" in dict(understanding_bn.figures(runs[1:]))
