"""The networks of the exercise, of dying ReLU and of the original paper."""

import chainer
import numpy as np
import pytest

import models

X = np.random.RandomState(0).rand(12, 784).astype(np.float32)


def in_test_mode(network, x=X):
    with chainer.using_config("train", False):
        return network(x).array


def affine(link, x):
    return x @ link.W.array.T + link.b.array


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("ExerciseMLP", 784 * 40 + 40 + 40 * 20 + 20 + 20 * 10 + 10),
        ("ReluMLP", 784 * 256 + 256 + 256 * 10 + 10),
        ("SigmoidMLP", 784 * 100 + 2 * 100 * 100 + 3 * 100 + 100 * 10 + 10),
    ],
)
def test_sizes(name, parameters):
    network = models.create(name)
    assert network.count_params() == parameters
    assert network(X).shape == (12, 10)


@pytest.mark.parametrize(
    ("name", "hidden"), [("ExerciseMLP", 60), ("ReluMLP", 256), ("SigmoidMLP", 300)]
)
def test_bn_adds_a_scale_and_a_shift_to_each_hidden_unit(name, hidden):
    plain, normalized = (models.create(n).count_params() for n in (name, f"{name}_BN"))
    # The exercise trains neither unless asked.
    assert normalized - plain == (0 if name == "ExerciseMLP" else 2 * hidden)
    assert (
        models.create("ExerciseMLP_BN", trained=True).count_params() - plain == 120 or hidden != 60
    )


def test_the_exercises_forward_pass_written_out():
    network = models.create("ExerciseMLP")
    h = sigmoid(affine(network.l2, sigmoid(affine(network.l1, X))))
    np.testing.assert_allclose(in_test_mode(network), affine(network.l3, h), rtol=1e-4, atol=1e-5)


def test_the_exercises_bn():
    network = models.create("ExerciseMLP_BN")
    a = affine(network.l1, X)
    network(X)
    bn = network.bnorm1
    assert (bn.decay, bn.eps) == (0.9, 1e-6)
    # From 0, one step towards the batch's own variance, not the estimate with m - 1.
    np.testing.assert_allclose(bn.avg_mean, 0.1 * a.mean(axis=0), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(bn.avg_var, 0.1 * a.var(axis=0), rtol=1e-3)
    before = bn.avg_var.copy()
    in_test_mode(network)
    assert np.array_equal(bn.avg_var, before)


@pytest.mark.parametrize("slope", [0.0, 0.01, 0.5])
def test_slope_of_the_relu(slope):
    network = models.create("ReluMLP", slope=slope)
    a = affine(network.l1, X)
    expected = affine(network.l2, np.where(a > 0, a, slope * a))
    np.testing.assert_allclose(in_test_mode(network), expected, rtol=1e-4, atol=1e-5)


def test_bn_stands_before_the_relu():
    network = models.create("ReluMLP_BN")
    a = affine(network.l1, X)
    h = np.maximum((a - a.mean(axis=0)) / np.sqrt(a.var(axis=0) + network.bnorm1.eps), 0)
    np.testing.assert_allclose(network(X).array, affine(network.l2, h), rtol=1e-3, atol=1e-4)


def test_images_are_made_binary():
    network = models.create("SigmoidMLP", threshold=0.7)
    assert np.array_equal(in_test_mode(network), in_test_mode(network, np.float32(X > 0.7)))
    assert not np.allclose(in_test_mode(network), in_test_mode(models.create("SigmoidMLP")))


def test_initial_weights_are_gaussian_of_the_std_asked_for():
    network = models.create("SigmoidMLP_BN", std=0.02)
    for link in (network.l1, network.l2, network.l3, network.l4):
        assert link.W.array.std() == pytest.approx(0.02, rel=0.1)
        assert not link.b.array.any()
