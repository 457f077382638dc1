"""RunConfig: names of folders, ranges, and the way to `args` and back."""

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_bn.config import LENGTHS, RunConfig, grid
from mnist_bn.errors import UsageError
from mnist_bn.storage.identity import difference


def test_name_says_only_what_differs():
    assert RunConfig(dataset="mnist").name == "MnistCNN_BN_before-Adam-s0"
    other = RunConfig("MnistCNN", "SGD", lr=0.1, seed=3, dataset="digits", epoch=5, batchsize=50)
    assert other.name == "MnistCNN-SGD-digits-lr0.1-b50-s3"
    assert RunConfig(dataset="mnist", semantics="2016").name == "MnistCNN_BN_before-Adam-2016-s0"


def test_name_of_a_users_network_is_its_class():
    assert RunConfig("some/where.py:MyNet", dataset="mnist").name == "MyNet-Adam-s0"
    resnet = RunConfig('ResNetCIFAR(depth=20, bn="end")', dataset="mnist")
    assert resnet.name == "ResNetCIFAR-depth20-bnend-Adam-s0"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("batchsize", 0, "--batchsize 0: expected 1 or more"),
        ("epoch", 0, "--epoch 0: expected 1 or more"),
        ("frequency", 0, "--frequency 0: expected -1 or >= 1"),
        ("seed", -1, "--seed -1: expected 0 to 4294967295"),
        ("lr", 0.0, "--lr 0.0: expected a number above 0"),
        ("lr", float("nan"), "--lr nan: expected a number above 0"),
        ("momentum", 1.0, "--momentum 1.0: expected 0 <= momentum < 1"),
        ("semantics", "2017", "--semantics 2017: expected today or 2016"),
        ("iteration", 0, "--iteration 0: expected 1 or more"),
        ("evaluate_every", 0, "--evaluate-every 0: expected 1 or more"),
        ("sampling", "none", "--sampling none: expected shuffle or replacement"),
        ("train_images", 0, "--train-images 0: expected 1 or more"),
        ("test_images", -1, "--test-images -1: expected 1 or more"),
        ("holdout", 0, "--holdout 0: expected 1 or more"),
        ("augment", "flip", "--augment flip: expected none or crop-flip"),
        ("weight_decay", 0.0, "--weight-decay 0.0: expected a number above 0"),
        ("weight_decay", float("inf"), "--weight-decay inf: expected a number above 0"),
        ("unverified_data", True, "--unverified-data goes with --dataset cifar10"),
        *(
            (
                "lr_drop",
                drops,
                f"--lr-drop {drops}: expected ascending numbers above 0 with commas between, as in "
                "82,123",
            )
            for drops in ("", "0", "5,5", "9,8", "1,", "1.5", "-1", "1, 2", "many", "\u0661")
        ),
        ("dataset", "svhn", "--dataset svhn: expected auto or mnist or digits or cifar10"),
    ],
)
def test_values_out_of_range(field, value, message):
    with pytest.raises(UsageError) as error:
        RunConfig(**{field: value})
    assert str(error.value) == message


def test_name_of_a_network_with_arguments():
    config = RunConfig("SigmoidMLP(std=0.1, threshold=0.5)", "SGD", dataset="mnist")
    assert config.name == "SigmoidMLP-std0.1-threshold0.5-SGD-s0"


def test_name_of_a_run_on_a_part_of_cifar10():
    config = RunConfig(
        "MyNet",
        dataset="cifar10-unverified",
        unverified_data=True,
        augment="crop-flip",
        weight_decay=5e-4,
        lr_drop="82,123",
        train_images=1000,
        test_images=500,
        holdout=2000,
    )
    assert config.name == (
        "MyNet-Adam-cifar10-unverified-crop-flip-wd0.0005-drop82,123-train1000-test500-holdout2000-"
        "s0"
    )
    assert config.lr_drops == [82, 123]
    assert RunConfig().lr_drops == []


def test_name_of_a_run_counted_in_iterations():
    config = RunConfig(iteration=1000, evaluate_every=10, sampling="replacement", dataset="mnist")
    assert config.name == "MnistCNN_BN_before-Adam-every10-replacement-s0"
    assert config.unit == "iteration"
    assert RunConfig().unit == "epoch"


configs = st.builds(
    RunConfig,
    model=st.text(min_size=1),
    lr=st.none() | st.floats(1e-10, 100),
    momentum=st.none() | st.floats(0, 0.99),
    seed=st.integers(0, 2**32 - 1),
    dataset=st.sampled_from(["mnist", "digits", "cifar10", "cifar10-unverified"]),
    augment=st.sampled_from(["none", "crop-flip"]),
    weight_decay=st.none() | st.floats(1e-10, 1),
    lr_drop=st.none() | st.sampled_from(["1", "82", "82,123"]),
    train_images=st.none() | st.integers(1, 3),
    test_images=st.none() | st.integers(1, 3),
    holdout=st.none() | st.integers(1, 3),
    batchsize=st.integers(1, 10**6),
    semantics=st.sampled_from(["today", "2016"]),
    iteration=st.none() | st.integers(1, 10**6),
    evaluate_every=st.none() | st.integers(1, 10**6),
    sampling=st.sampled_from(["shuffle", "replacement"]),
)


@given(configs)
def test_args_hold_the_whole_config(config):
    args = json.loads(json.dumps(config.to_args()))
    assert RunConfig.from_args({**args, "versions": {"numpy": "2.4"}}) == config


def test_args_of_a_wrong_type():
    with pytest.raises(UsageError, match="wrong type"):
        RunConfig.from_args({"epoch": "many"})


@given(configs, configs)
def test_runs_that_differ_in_their_numbers_have_folders_of_their_own(a, b):
    a, b = (dataclasses.replace(config, model="MnistCNN") for config in (a, b))
    assert (a.name == b.name) == (numbers_but_length(a) == numbers_but_length(b))


@given(configs, st.integers(1, 10**6))
def test_how_long_a_run_is_is_no_part_of_its_name(config, number):
    config = dataclasses.replace(config, model="MnistCNN")
    longer = "iteration" if config.iteration else "epoch"
    assert dataclasses.replace(config, **{longer: number}).name == config.name


def test_drops_after_epochs_and_after_steps_are_two_runs():
    epochs = RunConfig(dataset="mnist", lr_drop="5,9")
    steps = dataclasses.replace(epochs, iteration=20)
    assert epochs.name == "MnistCNN_BN_before-Adam-drop5,9-s0"
    assert steps.name == "MnistCNN_BN_before-Adam-drop5,9steps-s0"


def numbers_but_length(config):
    """What a run's numbers depend on up to where the shorter of two ends."""
    settings = {k: v for k, v in config.identity().items() if k not in LENGTHS}
    return settings, config.lr_drop is not None and config.iteration is not None


NEW_SETTINGS = ("augment", "weight_decay", "lr_drop", "train_images", "test_images", "holdout")


def test_a_run_of_before_there_was_a_setting_had_its_default():
    now = RunConfig().identity()
    before = {key: value for key, value in now.items() if key not in NEW_SETTINGS}
    assert len(before) == len(now) - len(NEW_SETTINGS)
    assert difference(before, now) is None
    assert difference(now, now) is None


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("augment", "crop-flip", "augment none, not crop-flip"),
        ("weight_decay", 0.1, "weight_decay the default, not 0.1"),
        ("lr_drop", "3", "lr_drop the default, not 3"),
        ("train_images", 5, "train_images the default, not 5"),
    ],
)
def test_a_run_of_before_there_was_a_setting_is_not_one_with_it(setting, value, words):
    before = {k: v for k, v in RunConfig().identity().items() if k not in NEW_SETTINGS}
    assert difference(before, RunConfig(**{setting: value}).identity()) == words


def test_grid_is_every_combination_once():
    made = grid({"model": ["A", "B"], "optimizer": ["SGD"], "seed": [0, 1, 0], "epoch": 3})
    assert [(c.model, c.optimizer, c.seed, c.epoch) for c in made] == [
        ("A", "SGD", 0, 3),
        ("A", "SGD", 1, 3),
        ("B", "SGD", 0, 3),
        ("B", "SGD", 1, 3),
    ]
    assert grid({}) == [RunConfig()]


@pytest.mark.parametrize(
    "settings",
    [
        {"model": "ReluMLP(slope=0.1)#/../../../escaped"},
        {"model": "../escaped"},
        {"model": "net.py:A\\B"},
        {"model": "net.py:A\x1b[2J"},
        {"model": "net.py:.hidden"},
        {"model": "net.py:-rf"},
        {"model": 'Net(bn="a:b")'},
        {"model": "Net(bn='a|b')"},
        {"model": "Net(a=1, b='*?<>')"},
        {"model": "Net\u202e"},
    ],
)
def test_what_would_leave_its_folder_is_refused(settings):
    with pytest.raises(UsageError) as error:
        _ = RunConfig(**settings, dataset="mnist").folder
    line = str(error.value)
    assert line.startswith("the run's folder would be called ") and line.isprintable()


@given(st.text(min_size=1), st.sampled_from(["SGD", "Adam(beta1=0.5)"]))
def test_a_run_has_one_folder_in_out_or_none(model, optimizer):
    try:
        config = RunConfig(model, optimizer, dataset="mnist", out="out")
        folder = config.folder
    except UsageError:
        return
    assert folder.parent == Path("out") and len(folder.name.encode()) <= 255
    assert folder.name.endswith("-s0") and folder.name[0] not in ".-"
    assert not set(folder.name) & set('/\\<>:"|?*') and folder.name.isprintable()


def test_names_in_any_language_and_of_any_length():
    assert RunConfig("réseau.py:Réseau网", dataset="mnist").name == "Réseau网-Adam-s0"
    long = [RunConfig(f"N{'网' * 200}{end}", dataset="mnist", seed=12) for end in "ab"]
    names = [config.name for config in long]
    assert names[0] != names[1]
    for name in names:
        assert len(name.encode()) <= 255 and name.startswith("N网网") and name.endswith("-s12")


@pytest.mark.parametrize("files", [1.5, [], "net.py"])
def test_checksums_that_are_none_are_a_difference(files):
    """As in the header of a snapshot of another program's."""
    now = {"model_files": {"net.py": "0"}}
    assert difference({"model_files": files}, now) == (
        f"model_files {files}, not {now['model_files']}"
    )
