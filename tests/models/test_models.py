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


def test_a_wrong_name_gets_the_nearest_or_all():
    with pytest.raises(UsageError) as error:
        models.create("MnistCNN_BN")
    assert str(error.value) == (
        "no model named 'MnistCNN_BN'; did you mean 'MnistCNN'? --list-models prints all names"
    )
    with pytest.raises(UsageError, match="no model named 'VGG': choose one of MnistCNN, "):
        models.create("VGG")


def test_every_network_says_what_it_is():
    assert all(network.__doc__ for network in models.networks().values())
