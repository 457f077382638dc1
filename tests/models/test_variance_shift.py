"""The networks of the variance-shift study: where their dropout stands."""

import chainer
import numpy as np
import pytest

import models
from mnist_bn import kernels

X = np.random.RandomState(0).rand(6, 784).astype(np.float32)
BLOCK = ["Convolution2DFunction", "BatchNormalization", "ReLU", "MaxPoolingND"]
# What follows the first block, which is left alone; dropout stands before, in or after.
PLACES = {
    "MnistCNN_dropout_BN": [
        *[BLOCK[0], "Dropout", *BLOCK[1:]] * 2,
        *("LinearFunction", "Dropout", "BatchNormalization", "ReLU", "LinearFunction"),
    ],
    "MnistCNN_dropout_conv_BN": [
        *["Dropout", *BLOCK] * 2,
        *("Dropout", "LinearFunction", "BatchNormalization", "ReLU", "LinearFunction"),
    ],
    "MnistCNN_BN_dropout": [
        *BLOCK * 2,
        *("LinearFunction", "BatchNormalization", "ReLU", "Dropout", "LinearFunction"),
    ],
}


class Functions(chainer.FunctionHook):
    name = "functions"

    def __init__(self):
        self.found = []

    def forward_preprocess(self, function, in_data):
        # Reshape and Transpose move numbers only.
        if type(function).__name__ not in ("Reshape", "Transpose"):
            self.found.append(type(function).__name__)


@pytest.mark.parametrize("name", PLACES)
def test_where_dropout_stands(name):
    with Functions() as functions:
        models.create(name)(X)
    assert functions.found == BLOCK + PLACES[name]


@pytest.mark.parametrize("name", PLACES)
def test_they_have_one_more_bn_than_the_blogs(name):
    network = models.create(name)
    assert network.count_params() == 160_234 + 2 * 512
    assert network.ratio == 0.5
    assert network(X).shape == (6, 10)


@pytest.mark.parametrize("is_training", [False, True])
def test_without_dropout_they_are_one_network(is_training):
    networks = [models.create(name, ratio=0 if is_training else 0.7) for name in PLACES]
    for other in networks[1:]:
        other.copyparams(networks[0])
    with chainer.using_config("train", is_training):
        logits = [network(X).array for network in networks]
    for other in logits[1:]:
        np.testing.assert_allclose(other, logits[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", PLACES)
def test_with_kernels_they_compute_the_same(name):
    network = models.create(name)
    np.random.seed(3)
    stock = network(X).array
    if kernels.install() == kernels.STOCK:
        pytest.skip(kernels.why_not())
    np.random.seed(3)
    np.testing.assert_allclose(network(X).array, stock, rtol=1e-2, atol=2e-3)


@pytest.mark.parametrize("ratio", [-0.1, 1, 1.5])
def test_a_ratio_out_of_range_is_refused(ratio):
    with pytest.raises(ValueError, match="expected 0 <= ratio < 1"):
        models.create("MnistCNN_BN_dropout", ratio=ratio)
