"""Which figures a set of runs gets, what is refused, and what is left on disk."""

import json
import re

import pytest
from matplotlib.image import imread

from mnist_bn import drawing
from mnist_bn.errors import UserError
from mnist_bn.plotting import comparison, curves, partition
from mnist_bn.plotting.groups import group_runs
from mnist_bn.plotting.results import read_runs


def read(root):
    return read_runs([root], pytest.fail)


def names(root) -> list[str]:
    return [name for name, _ in comparison.of_curves(group_runs(read(root)))]


def test_the_figures_of_two_networks_under_two_optimizers(result, tmp_path):
    paths = drawing.save(comparison.figures(read(result)), tmp_path / "out", ("png", "svg"))
    stems = ["network-MnistCNN", "network-MnistCNN_BN_before"]
    stems += ["optimizer-SGD", "optimizer-Adam", "overview"]
    assert [p.name for p in paths] == [f"{s}.{e}" for s in stems for e in ("png", "svg")]
    assert sorted(paths) == sorted((tmp_path / "out").iterdir())
    for path in paths[::2]:
        height, width = imread(path).shape[:2]
        assert width > 1000 and height > 500
    svg = (tmp_path / "out" / "network-MnistCNN.svg").read_text()
    assert ">MnistCNN under 2 optimizers, on MNIST</text>" in svg  # text stays text


def test_long_names_of_curves_stay_apart(tmp_path, make_run):
    """The middle goes, and no name's beginning: it is the network, as the end is a setting."""
    settings = {"augment": "crop-flip", "lr_drop": "82,123", "weight_decay": 0.0001}
    networks = ("MnistCNN", "MnistCNN_BN_after")
    for network in networks:
        make_run(tmp_path / "runs", network)
        make_run(tmp_path / "runs", network, **settings)
    drawing.save(comparison.figures(read(tmp_path / "runs")), tmp_path, ["svg"])
    drawn = (tmp_path / "optimizer-SGD.svg").read_text()
    shown = [label for label in re.findall(r">([^<]*)</text>", drawn) if "…" in label]
    assert all(label.endswith(" weight decay 0.0001") for label in shown)
    assert {label.split(",")[0] for label in shown} == set(networks)
    assert len(set(shown)) == 2  # each in both panels


def test_a_wide_subtitle_does_not_widen_a_figure(tmp_path, make_run):
    settings = {"dataset": "cifar10-unverified", "train_images": 40000, "holdout": 5000}
    settings["test_images"] = 1000
    for kind, parts in (("whole", {"dataset": "cifar10"}), ("parts", settings)):
        for network in ("MnistCNN", "MnistCNN_BN_before"):
            for optimizer in ("SGD", "Adam"):
                make_run(tmp_path / kind, network, optimizer, **parts)
    sizes = {}
    for kind in ("whole", "parts"):
        figures = comparison.of_curves(group_runs(read(tmp_path / kind)))
        sizes[kind] = {name: figure.get_size_inches() for name, figure in figures}
    assert {"network-MnistCNN", "optimizer-SGD", "overview"} <= sizes["parts"].keys()
    for name, (width, height) in sizes["parts"].items():
        assert (width, height) == pytest.approx(sizes["whole"][name] + [0, 0.18])


def test_the_same_runs_give_the_same_bytes(result, tmp_path):
    runs = read(result)[:1]
    for name in "ab":
        drawing.save(comparison.figures(runs), tmp_path / name, ("png", "svg", "pdf"))
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_only_figures_that_compare_something(tmp_path, make_run):
    make_run(tmp_path / "one", "MnistCNN", "SGD")
    assert names(tmp_path / "one") == ["runs"]
    make_run(tmp_path / "two", "MnistCNN", "SGD")
    make_run(tmp_path / "two", "MnistCNN", "Adam")
    assert names(tmp_path / "two") == ["network-MnistCNN"]
    make_run(tmp_path / "three", "MnistCNN", "SGD")
    make_run(tmp_path / "three", "MnistCNN_BN_after", "SGD")
    assert names(tmp_path / "three") == ["optimizer-SGD"]


def test_many_runs_without_args_are_continued_in_several_figures(tmp_path, entries):
    for i in range(20):
        (tmp_path / f"try{i}").mkdir()
        (tmp_path / f"try{i}" / "log").write_text(json.dumps(entries("MnistCNN", "SGD", i, 2)))
    every = dict(comparison.of_curves(group_runs(read(tmp_path))))
    assert list(every) == ["runs-1", "runs-2"]
    assert "dataset not recorded  ·  semantics not recorded" in every["runs-1"].texts[1].get_text()


def test_a_run_that_did_not_record_is_drawn_with_others_and_told(tmp_path, make_run, entries):
    make_run(tmp_path, "MnistCNN", "SGD")
    (tmp_path / "stock").mkdir()
    (tmp_path / "stock" / "log").write_text(json.dumps(entries("MnistCNN", "Adam", 0, 3)))
    (part,) = partition.parts(read(tmp_path))
    assert comparison.conditions(group_runs(part.runs)) == (
        "MNIST (not recorded for 1 of 2 runs)  ·  evaluated in test mode (not recorded for 1 of 2"
        " runs)"
    )


def test_the_subtitle_counts_the_seeds_in_the_mean(tmp_path, make_run):
    for seed, epochs in enumerate((3, 3, 1)):
        make_run(tmp_path, "MnistCNN", "SGD", seed, epochs)
    every = group_runs(read(tmp_path))
    assert comparison.subtitle(every).endswith("mean and range of 2 seeds")
    make_run(tmp_path, "MnistCNN", "Adam")
    every = group_runs(read(tmp_path))
    assert comparison.subtitle(every).endswith("mean and range of up to 2 seeds")


def test_seeds_that_all_diverged_are_counted(tmp_path, make_run, entries):
    make_run(tmp_path, "MnistCNN", "Adam")
    for seed in range(3):
        diverged = {"main/loss": None, "diverged_at": [2, 1e9]}
        log = [entries("MnistCNN", "SGD", seed, 1)[0] | diverged]
        make_run(tmp_path, "MnistCNN", "SGD", seed, log=log)
    every = group_runs(read(tmp_path))
    assert "  mean and range of up to 3 seeds  " in comparison.subtitle(every)
    assert {curve.optimizer: curves.fate(curve) for curve in every} == {
        "Adam": "",
        "SGD": " (3 of 3 diverged)",
    }


def test_a_figure_that_cannot_be_written_leaves_the_old_one(result, tmp_path, monkeypatch):
    (old,) = drawing.save(comparison.figures(read(result)[:1]), tmp_path / "out")
    before = old.read_bytes()

    def full(self, file, **options):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    with pytest.raises(UserError, match=r"runs\.png: cannot be written \(No space left"):
        drawing.save(comparison.figures(read(result)[:1]), tmp_path / "out")
    assert old.read_bytes() == before
    assert list((tmp_path / "out").iterdir()) == [old]


def test_names_from_outside_are_safe_as_file_names_and_labels(tmp_path, make_run):
    for optimizer in ("SGD", "Adam"):
        make_run(tmp_path / "in", "MnistCNN", optimizer, model="../$x_/\ud800\n" + "数" * 300)
    paths = drawing.save(
        comparison.figures(read(tmp_path / "in")), tmp_path / "out", ("png", "svg")
    )
    assert {path.parent for path in paths} == {tmp_path / "out"}
    assert all(path.stat().st_size > 1000 for path in paths)


def titles(root) -> dict[str, str]:
    figures = comparison.of_curves(group_runs(read(root)))
    return {
        name: next(text.get_text() for text in figure.texts if text.get_fontsize() > 10)
        for name, figure in figures
    }


def test_a_title_says_what_is_compared_on_what_data(result, tmp_path, make_run, entries):
    assert titles(result) == {
        "network-MnistCNN": "MnistCNN under 2 optimizers, on MNIST",
        "network-MnistCNN_BN_before": "MnistCNN_BN_before under 2 optimizers, on MNIST",
        "optimizer-SGD": "2 networks under SGD, on MNIST",
        "optimizer-Adam": "2 networks under Adam, on MNIST",
        "overview": "Validation accuracy of 2 networks under 2 optimizers, on MNIST",
    }
    make_run(tmp_path / "one", dataset="digits")
    assert titles(tmp_path / "one") == {"runs": "MnistCNN under SGD, on scikit-learn digits"}
    for batch in (10, 20, 30):
        make_run(tmp_path / "three", batchsize=batch, dataset="cifar10-unverified")
    assert set(titles(tmp_path / "three").values()) == {
        "MnistCNN under SGD, 3 settings, on unverified CIFAR-10"
    }
    (tmp_path / "stock" / "try").mkdir(parents=True)
    log = json.dumps(entries("MnistCNN", "SGD", 0, 2))
    (tmp_path / "stock" / "try" / "log").write_text(log)
    assert titles(tmp_path / "stock") == {"runs": "try"}


def test_learning_rates_are_named_in_one_notation(tmp_path, make_run):
    for lr in (1e-5, 1e-4, 0.1):
        make_run(tmp_path, lr=lr)
    curves = group_runs(read(tmp_path))
    assert [curve.variant for curve in curves] == ["lr 0.00001", "lr 0.0001", "lr 0.1"]
