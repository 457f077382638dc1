"""RunConfig: names of folders, ranges, and the way to `args` and back."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_bn.config import RunConfig, grid
from mnist_bn.errors import UsageError


def test_name_says_only_what_differs():
    assert RunConfig(dataset="mnist").name == "MnistCNN_BN_before-Adam-s0"
    other = RunConfig("MnistCNN", "SGD", lr=0.1, seed=3, dataset="digits", epoch=5, batchsize=50)
    assert other.name == "MnistCNN-SGD-digits-lr0.1-b50-e5-s3"
    assert RunConfig(dataset="mnist", semantics="2016").name == "MnistCNN_BN_before-Adam-2016-s0"


def test_name_of_a_users_network_is_its_class():
    assert RunConfig("some/where.py:MyNet", dataset="mnist").name == "MyNet-Adam-s0"


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


def test_name_of_a_run_counted_in_iterations():
    config = RunConfig(iteration=1000, evaluate_every=10, sampling="replacement", dataset="mnist")
    assert config.name == "MnistCNN_BN_before-Adam-i1000-every10-replacement-s0"
    assert config.unit == "iteration"
    assert RunConfig().unit == "epoch"


configs = st.builds(
    RunConfig,
    model=st.text(min_size=1),
    lr=st.none() | st.floats(1e-10, 100),
    momentum=st.none() | st.floats(0, 0.99),
    seed=st.integers(0, 2**32 - 1),
    dataset=st.sampled_from(["mnist", "digits"]),
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
    assert (a.name == b.name) == (a.identity() == b.identity())


def test_grid_is_every_combination_once():
    made = grid({"model": ["A", "B"], "optimizer": ["SGD"], "seed": [0, 1, 0], "epoch": 3})
    assert [(c.model, c.optimizer, c.seed, c.epoch) for c in made] == [
        ("A", "SGD", 0, 3),
        ("A", "SGD", 1, 3),
        ("B", "SGD", 0, 3),
        ("B", "SGD", 1, 3),
    ]
    assert grid({}) == [RunConfig()]
