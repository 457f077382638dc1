"""Runs that differ only in their seed are one curve; nothing else is averaged."""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mnist_bn.config import IDENTITY, RunConfig
from mnist_bn.plotting.groups import group_runs
from mnist_bn.plotting.results import VALIDATION_ACCURACY, Run, read_run, read_runs
from mnist_bn.training import prepare


def log(*accuracies):
    return [{"epoch": i + 1, VALIDATION_ACCURACY: a} for i, a in enumerate(accuracies)]


def test_seeds_are_one_curve_with_their_mean_and_range(tmp_path, make_run):
    logs = (log(0.2, 0.5, 0.6), log(0.4, 0.6, 0.7), log(0.9, 0.7, 0.8))
    del logs[0][2][VALIDATION_ACCURACY]
    runs = [read_run(make_run(tmp_path, seed=s, log=logs[s])) for s in range(3)]
    (curve,) = group_runs(runs)
    band = curve.band(VALIDATION_ACCURACY)
    np.testing.assert_array_equal(band.epochs, [1, 2])  # those that all seeds have
    np.testing.assert_allclose(band.mean, [0.5, 0.6])
    np.testing.assert_array_equal(band.low, [0.2, 0.5])
    np.testing.assert_array_equal(band.high, [0.9, 0.7])


def test_an_unfinished_seed_does_not_hide_the_finished_ones(tmp_path, make_run):
    logs = (log(0.2, 0.5), log(0.4, 0.6), log(0.9), log(0.1, 0.2, None))
    runs = [read_run(make_run(tmp_path, seed=s, log=logs[s])) for s in range(4)]
    notes: list[str] = []
    (curve,) = group_runs(runs, notes.append)
    assert (curve.finished, curve.unfinished) == (tuple(runs[:2]), (runs[2],))
    np.testing.assert_allclose(curve.band(VALIDATION_ACCURACY).mean, [0.3, 0.55])
    assert notes == [f"{runs[2].folder}: fewer epochs than the other seeds; left out of their mean"]


def test_seeds_that_are_all_as_far_are_all_in_the_mean(tmp_path, make_run):
    runs = [read_run(make_run(tmp_path, seed=s, epochs=1)) for s in range(2)]
    (curve,) = group_runs(runs, pytest.fail)
    assert curve.finished == tuple(runs)


def test_a_diverged_seed_is_not_in_the_mean(tmp_path, make_run):
    logs = (log(0.2, 0.5), log(0.4, None))
    runs = [read_run(make_run(tmp_path, seed=s, log=logs[s])) for s in range(2)]
    (curve,) = group_runs(runs)
    assert curve.diverged == (runs[1],)
    np.testing.assert_array_equal(curve.band(VALIDATION_ACCURACY).mean, [0.2, 0.5])


@pytest.mark.parametrize(
    ("setting", "values", "variants"),
    [
        ("lr", (None, 0.1), ["lr 0.01", "lr 0.1"]),
        ("momentum", (0.5, 0.9), ["momentum 0.5", "momentum 0.9"]),
        ("batchsize", (64, 128), ["batch 128", "batch 64"]),
        ("lr_drop", (None, "82,123"), ["", "lr / 10 after epoch 82,123"]),
        ("augment", ("none", "crop-flip"), ["augment crop-flip", "augment none"]),
        ("train_images", (None, 1000), ["", "training images 1000"]),
        ("weight_decay", (1e-4, 1.0), ["weight decay 0.0001", "weight decay 1"]),
    ],
)
def test_a_setting_that_differs_is_another_curve_and_named(
    tmp_path, make_run, setting, values, variants
):
    runs = [read_run(make_run(tmp_path, **{setting: value})) for value in values]
    assert sorted(curve.variant for curve in group_runs(runs)) == variants


def test_curves_are_in_the_order_of_the_numbers_in_their_names(tmp_path, make_run):
    sizes = (128, 16, 100)
    runs = [read_run(make_run(tmp_path, batchsize=size)) for size in sizes]
    assert [c.variant for c in group_runs(runs)] == ["batch 16", "batch 100", "batch 128"]
    models = ("Net(depth=110)", "Net(depth=20)")
    runs = [read_run(make_run(tmp_path, model=model)) for model in models]
    assert [curve.model for curve in group_runs(runs)] == [*reversed(models)]


def test_drops_of_the_learning_rate_after_epochs_are_not_those_after_iterations(tmp_path, make_run):
    log = [{"epoch": 1, "iteration": 10, VALIDATION_ACCURACY: 0.5}]
    settings = {"lr_drop": "2,3", "evaluate_every": 10, "log": log}
    runs = [
        read_run(make_run(tmp_path, seed=0, iteration=None, **settings)),
        read_run(make_run(tmp_path, seed=1, iteration=50, **settings)),
    ]
    assert [curve.variant for curve in group_runs(runs)] == [
        "lr / 10 after epoch 2,3",
        "lr / 10 after iteration 2,3",
    ]


def test_other_unverified_images_are_another_curve(tmp_path, make_run):
    def run(seed, sha256):
        unverified = {"dataset": "cifar10-unverified", "unverified_data": True}
        sums = {"data_batch_1.bin": sha256, "test_batch.bin": "0" * 64}
        return read_run(make_run(tmp_path, seed=seed, dataset_sha256=sums, **unverified))

    (same,) = group_runs([run(0, "1" * 64), run(1, "1" * 64)])
    assert (len(same.runs), same.variant) == (2, "")
    curves = group_runs([run(0, "1" * 64), run(1, "2" * 64)])
    variants = [curve.variant for curve in curves]
    assert len(set(variants)) == 2
    assert all(re.fullmatch(r"images [0-9a-f]{8}", variant) for variant in variants)


def test_settings_that_do_not_change_the_numbers_do_not_split(tmp_path, make_run):
    runs = [
        read_run(make_run(tmp_path, seed=0, device="@numpy", epoch=3, data_dir=None)),
        read_run(make_run(tmp_path, seed=1, device="@cupy:0", epoch=5, data_dir="x")),
    ]
    assert len(group_runs(runs)) == 1


def test_a_run_of_before_there_was_a_setting_had_its_default(tmp_path, make_run):
    new = {"augment": "none", "weight_decay": None, "lr_drop": None, "unverified_data": False}
    runs = [read_run(make_run(tmp_path, seed=0)), read_run(make_run(tmp_path, seed=1, **new))]
    assert len(group_runs(runs)) == 1
    other = read_run(make_run(tmp_path, **{**new, "augment": "crop-flip"}))
    assert [c.variant for c in group_runs([*runs, other])] == ["augment crop-flip", "augment none"]


def test_a_run_of_before_there_was_sampling_was_shuffled(tmp_path, make_run):
    new = {"sampling": "shuffle"}
    runs = [read_run(make_run(tmp_path, seed=i, **s)) for i, s in enumerate(({}, new))]
    assert len(group_runs(runs)) == 1
    other = read_run(make_run(tmp_path, sampling="replacement"))
    variants = [curve.variant for curve in group_runs([*runs, other])]
    assert variants == ["sampling replacement", "sampling shuffle"]


def test_thousands_of_seeds_are_told_apart_in_linear_time(monkeypatch):
    compared = Counter()
    monkeypatch.setattr(Run, "__eq__", lambda *_: compared.update("=") or False)
    runs = [bare_run(seed=i) for i in range(100)]
    (curve,) = group_runs(runs)
    assert (len(curve.finished), curve.unfinished) == (100, ())
    assert compared["="] < 200


def test_the_same_run_twice_is_not_two_seeds(tmp_path, make_run):
    short = read_run(make_run(tmp_path / "a", epochs=2))
    long = read_run(make_run(tmp_path / "b", epochs=4))
    notes: list[str] = []
    (curve,) = group_runs([short, long], notes.append)
    assert curve.runs == (long,)
    assert notes == [
        f"{short.folder}: same settings and seed as {long.folder}, which is drawn instead"
    ]


def test_of_many_times_the_same_run_each_note_names_the_one_that_is_drawn(tmp_path, make_run):
    runs = [read_run(make_run(tmp_path, epochs=epochs)) for epochs in (2, 2, 3, 2)]
    notes: list[str] = []
    (curve,) = group_runs(runs, notes.append)
    assert curve.runs == (runs[2],)
    assert [note.partition(": ")[0] for note in notes] == [str(runs[i].folder) for i in (0, 1, 3)]
    assert all(note.endswith(f"{runs[2].folder}, which is drawn instead") for note in notes)


def test_runs_without_args_are_each_their_own_curve(tmp_path, entries):
    runs = []
    for name in ("a/run", "b/run", "c"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "log").write_text(json.dumps(entries("MnistCNN", "SGD", 0, 2)))
        (tmp_path / name / "args").write_text('{"batchsize": 100, "learnrate": 0.1}')
        runs.append(read_run(tmp_path / name))
    names = [curve.name for curve in group_runs(runs)]
    assert names == [str(tmp_path / "a/run"), str(tmp_path / "b/run"), "c"]


def test_a_network_from_a_file_is_called_by_its_class(tmp_path, make_run):
    paths = ("one.py:Net", "two.py:Net", "dir/net.py:MyNet")
    runs = [read_run(make_run(tmp_path / str(i), model=p)) for i, p in enumerate(paths)]
    assert [c.model for c in group_runs(runs)] == ["MyNet", "one.py:Net", "two.py:Net"]


def test_an_edited_network_is_another_curve(tmp_path, make_run):
    ours = read_run(make_run(tmp_path, "MnistCNN", model_sha256=None))
    old, new = (
        read_run(make_run(tmp_path, model="net.py:Net", model_sha256=sha))
        for sha in ("0123456789", "abcdefghij")
    )
    assert [curve.variant for curve in group_runs([ours, old])] == ["", ""]
    variants = [curve.variant for curve in group_runs([ours, old, new])]
    assert variants == ["", "source 01234567", "source abcdefgh"]


def bare_run(**settings) -> Run:
    """A run of one epoch, of these settings."""
    args = {"model": "MnistCNN", "optimizer": "SGD", "seed": 0} | settings
    return Run(Path("run"), args, ({"epoch": 1, "main/loss": 0.5},))


@pytest.mark.parametrize(
    ("runs", "variants"),
    [
        # By default each optimizer has its own, and names that say it would say nothing.
        ([("SGD", None), ("Adam", None)], ["", ""]),
        ([("SGD", 0.01), ("Adam", 0.001)], ["", ""]),  # as it is recorded now
        ([("SGD", None), ("SGD", 0.1), ("Adam", None)], ["lr 0.01", "lr 0.1", ""]),
        ([("SGD", None), ("Adam", 0.1)], ["", "lr 0.1"]),
        ([("SGD", 0.1), ("Adam", 0.1)], ["", ""]),
        ([("Mine", 0.1), ("Mine", 0.2)], ["lr 0.1", "lr 0.2"]),
        ([("Adam(beta1=0.5)", None), ("SGD", 0.1)], ["lr 0.1", ""]),
        ([("Adam(beta1=0.5)", 0.001), ("SGD", 0.1)], ["lr 0.1", ""]),
        ([("Adam(alpha=0.01)", None), ("Adam", None)], ["lr 0.001", "lr 0.01"]),
    ],
)
def test_learning_rates_tell_the_curves_of_an_optimizer_apart(tmp_path, make_run, runs, variants):
    for optimizer, lr in runs:
        make_run(tmp_path, optimizer=optimizer, lr=lr, log=log(0.5))
    assert [curve.variant for curve in group_runs(read_runs([tmp_path], pytest.fail))] == variants


def test_a_default_that_is_recorded_is_the_default(tmp_path, make_run):
    make_run(tmp_path, optimizer="MomentumSGD", seed=0)
    make_run(tmp_path, optimizer="MomentumSGD", seed=1, lr=0.01, momentum=0.9)
    (curve,) = group_runs(read_runs([tmp_path], pytest.fail))
    assert len(curve.runs) == 2


def test_of_the_same_run_twice_the_one_that_went_further_is_kept(tmp_path, make_run):
    log = [{"epoch": 1, "iteration": i, VALIDATION_ACCURACY: 0.5} for i in (10, 20, 30, 500)]
    often = read_run(make_run(tmp_path, log=log[:3], evaluate_every=10))
    far = read_run(make_run(tmp_path, log=log[3:], evaluate_every=500))
    assert [curve.runs for curve in group_runs([often, far])] == [(far,)]


def test_an_optimizer_from_a_file_is_called_by_its_class():
    paths = ("one.py:Mine", "two.py:Mine", "dir/other.py:Other")
    curves = group_runs([bare_run(optimizer=p, optimizer_files={p: p}) for p in paths])
    assert [c.optimizer for c in curves] == ["Other", "one.py:Mine", "two.py:Mine"]
    assert {curve.variant for curve in curves} == {""}


def test_an_edited_optimizer_is_another_curve():
    runs = [bare_run(optimizer="o.py:Mine", seed=i, optimizer_files={"o": str(i)}) for i in (1, 2)]
    variants = [curve.variant for curve in group_runs(runs)]
    assert len(set(variants)) == 2
    assert all(re.fullmatch("optimizer's source [0-9a-f]{8}", variant) for variant in variants)


def test_names_of_any_length_are_cut_and_stay_apart():
    long = "x" * 3000
    names = (long + end for end in "ab")
    curves = group_runs([bare_run(model=name, optimizer=name, more=name) for name in names])
    for words in ("model", "optimizer", "variant"):
        shown = [getattr(curve, words) for curve in curves]
        assert len(set(shown)) == 2
        assert max(map(len, shown)) <= 200


def test_what_a_run_records_of_itself_makes_no_other_curve(tiny_data, tmp_path):
    """Whatever `args` has besides the settings that numbers depend on."""
    recorded = prepare(RunConfig(dataset="mnist", batchsize=8, out=str(tmp_path))).to_args()
    own = {key for key in recorded if key in IDENTITY or key.endswith(("_sha256", "_files"))}
    own |= {key for key, value in recorded.items() if isinstance(value, dict | bool)}
    other = {key: value if key in own else f"another {key}" for key, value in recorded.items()}
    runs = [bare_run(**recorded | {"run_id": "1"}), bare_run(**other | {"run_id": "2", "seed": 1})]
    assert len(group_runs(runs)) == 1
