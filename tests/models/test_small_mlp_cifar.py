"""The networks of CS231n's assignment 2; their gradients are in tests/teaching/test_cs231n.py."""

import chainer
import numpy as np
import pytest

import models
from mnist_bn.storage import parameters

IMAGES = np.random.RandomState(0).rand(12, 3, 32, 32).astype(np.float32)


def in_test_mode(network, x=IMAGES):
    with chainer.using_config("train", False):
        return network(x).array


def affine(link, x):
    return x @ link.W.array.T + link.b.array


@pytest.mark.parametrize(
    ("arguments", "parameters"),
    [
        ({}, 3072 * 100 + 4 * 100 * 100 + 5 * 100 + 100 * 10 + 10),
        ({"hidden": 50, "layers": 8}, 3072 * 50 + 6 * 50 * 50 + 7 * 50 + 50 * 10 + 10),
    ],
)
def test_sizes(arguments, parameters):
    plain, normalized = (models.create(name, **arguments) for name in ("CS231nMLP", "CS231nMLP_BN"))
    hidden_units = arguments.get("hidden", 100) * (arguments.get("layers", 6) - 1)
    assert plain.count_params() == parameters
    assert normalized.count_params() == parameters + 2 * hidden_units
    assert plain(IMAGES).shape == normalized(IMAGES).shape == (12, 10)


@pytest.mark.parametrize("name", ["CS231nMLP", "CS231nMLP_BN"])
def test_initial_weights_are_gaussian_of_the_scale_asked_for(name):
    network = models.create(name, weight_scale=0.3)
    for i in range(1, 7):
        assert network[f"l{i}"].W.array.std() == pytest.approx(0.3, rel=0.1)
        assert not network[f"l{i}"].b.array.any()


def test_a_network_has_a_layer():
    with pytest.raises(ValueError, match="layers 0: expected 1 or more"):
        models.create("CS231nMLP_BN", layers=0)


def test_forward_pass_written_out():
    network = models.create("CS231nMLP", layers=3)
    network.fit_input(IMAGES)
    x = 255 * IMAGES.reshape(12, -1)
    h = np.maximum(affine(network.l1, x - x.mean(axis=0)), 0)
    h = np.maximum(affine(network.l2, h), 0)
    np.testing.assert_allclose(in_test_mode(network), affine(network.l3, h), rtol=1e-3, atol=1e-3)


def test_bn_stands_before_the_relu_and_not_after_the_last_layer():
    network = models.create("CS231nMLP_BN", layers=2)
    a = affine(network.l1, 255 * IMAGES.reshape(12, -1))
    h = np.maximum((a - a.mean(axis=0)) / np.sqrt(a.var(axis=0) + 1e-5), 0)
    np.testing.assert_allclose(network(IMAGES).array, affine(network.l2, h), rtol=1e-3, atol=1e-3)
    # As the assignment's: from 0, a tenth of the batch's own variance.
    np.testing.assert_allclose(network.bnorm1.avg_var, 0.1 * a.var(axis=0), rtol=1e-3)


def test_flat_images_are_the_same():
    network = models.create("CS231nMLP_BN")
    flat = IMAGES.reshape(12, -1)
    assert np.array_equal(in_test_mode(network), in_test_mode(network, flat))


def test_the_mean_image_is_part_of_the_parameters_file(tmp_path):
    network, other = models.create("CS231nMLP"), models.create("CS231nMLP")
    network.fit_input(IMAGES)
    assert network.mean_image == pytest.approx(255 * IMAGES.reshape(12, -1).mean(axis=0), rel=1e-5)
    parameters.save(tmp_path / "model.npz", network)
    parameters.load(tmp_path / "model.npz", other)
    assert np.array_equal(in_test_mode(network), in_test_mode(other))
