"""Choosing a network by name."""

import pytest

import models
from mnist_bn.errors import UsageError


def test_names_are_the_public_classes_in_order():
    assert models.names()[:4] == [
        "MnistCNN",
        "MnistCNN_BN_before",
        "MnistCNN_BN_after",
        "MnistCNN_BN_linear_before",
    ]
    assert not [name for name in models.names() if name.startswith("_")]


def test_arguments_reach_the_constructor():
    assert models.create("MnistCNN_BN_after", c1=7).bnorm1.gamma.shape == (7,)


def test_wrong_name_lists_the_right_ones():
    with pytest.raises(UsageError, match="no model named 'MnistCNN_BN': choose one of MnistCNN, "):
        models.create("MnistCNN_BN")


def test_every_network_says_what_it_is():
    assert all(network.__doc__ for network in models.networks().values())
