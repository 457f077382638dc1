"""The checks of CS231n's assignment 2, BatchNormalization, with its own numbers and bounds.

Its seed is 231, and what it printed with it is public: the numbers below. Over other seeds some of
its bounds do not hold, because of the numerical gradients: see `complex_step`.
"""

import chainer
import chainer.functions as F
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.small_mlp_cifar import _FullyConnectedNet
from teaching.batch_normalization import (
    batchnorm_backward,
    batchnorm_backward_alt,
    batchnorm_forward,
)

SEED = 231
STEP = 1e-5


def relative_error(a, b):
    """The assignment's: the largest over all elements, of which tiny ones count as 1e-8."""
    return np.max(np.abs(a - b) / np.maximum(1e-8, np.abs(a) + np.abs(b)))


def central_differences(f, x, dout=1.0):
    """The gradient of the sum of `f()` * dout by x, an array that `f` uses, in place."""
    gradient = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        value = x[i]
        x[i] = value + STEP
        above = f()
        x[i] = value - STEP
        below = f()
        x[i] = value
        gradient[i] = np.sum((above - below) * dout) / (2 * STEP)
    return gradient


def complex_step(f, x):
    """As central_differences, for a complex x, without their rounding: Im f(x + ih) / h.

    Squire & Trapp 1998. Nothing is subtracted, so h may be as small as one likes.
    """
    gradient = np.zeros(x.shape)
    for i in np.ndindex(x.shape):
        value = x[i]
        x[i] = value + 1e-30j
        gradient[i] = f().imag / 1e-30
        x[i] = value
    return gradient


def two_layer_activations(rng, w1, w2):
    return np.maximum(0, rng.randn(200, 50) @ w1) @ w2


def test_forward_in_training():
    rng = np.random.RandomState(SEED)
    a = two_layer_activations(rng, rng.randn(50, 60), rng.randn(60, 3))
    y, _ = batchnorm_forward(a, np.ones(3), np.zeros(3), {"mode": "train"})
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-14)
    np.testing.assert_allclose(y.std(axis=0), 1, rtol=1e-7)
    gamma, beta = np.array([1.0, 2.0, 3.0]), np.array([11.0, 12.0, 13.0])
    y, _ = batchnorm_forward(a, gamma, beta, {"mode": "train"})
    np.testing.assert_allclose(y.mean(axis=0), beta, rtol=1e-14)
    np.testing.assert_allclose(y.std(axis=0), gamma, rtol=1e-7)


def test_forward_in_test_mode_after_50_batches():
    rng = np.random.RandomState(SEED)
    w1, w2 = rng.randn(50, 60), rng.randn(60, 3)
    bn_param = {"mode": "train"}
    for _ in range(50):
        batchnorm_forward(two_layer_activations(rng, w1, w2), np.ones(3), np.zeros(3), bn_param)
    bn_param["mode"] = "test"
    y, cache = batchnorm_forward(
        two_layer_activations(rng, w1, w2), np.ones(3), np.zeros(3), bn_param
    )
    assert cache is None
    # "Close to 0 and 1, but noisier": a mean of 200 has a standard error of .07.
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=0.25)
    np.testing.assert_allclose(y.std(axis=0), 1, atol=0.2)


def test_running_statistics_are_biased_and_start_at_0():
    x = 5 * np.random.RandomState(0).randn(4, 5) + 12
    bn_param = {"mode": "train"}
    for batch in (x, 2 * x):
        batchnorm_forward(batch, np.ones(5), np.zeros(5), bn_param)
    mean, var = (
        0.1 * (0.9 * a + b) for a, b in ((x.mean(0), 2 * x.mean(0)), (x.var(0), 4 * x.var(0)))
    )
    np.testing.assert_allclose(bn_param["running_mean"], mean, rtol=1e-13)
    np.testing.assert_allclose(bn_param["running_var"], var, rtol=1e-13)
    before = dict(bn_param, mode="test")
    batchnorm_forward(x, np.ones(5), np.zeros(5), test := dict(before))
    assert all(np.array_equal(test[key], before[key]) for key in before)


def test_a_mode_that_is_neither():
    with pytest.raises(ValueError, match="mode 'eval': expected 'train' or 'test'"):
        batchnorm_forward(np.ones((2, 1)), np.ones(1), np.zeros(1), {"mode": "eval"})


def case(seed):
    """x, gamma, beta and dout of the gradient check."""
    rng = np.random.RandomState(seed)
    return 5 * rng.randn(4, 5) + 12, rng.randn(5), rng.randn(5), rng.randn(4, 5)


def test_gradients_are_the_numerical_ones():
    x, gamma, beta, dout = case(SEED)

    def f():
        return batchnorm_forward(x, gamma, beta, {"mode": "train"})[0]

    _, cache = batchnorm_forward(x, gamma, beta, {"mode": "train"})
    gradients = batchnorm_backward(dout, cache)
    for gradient, by, bound in zip(gradients, (x, gamma, beta), (1e-8, 1e-10, 1e-10), strict=True):
        assert relative_error(central_differences(f, by, dout), gradient) <= bound


@given(seed=st.integers(0, 2**32 - 1))
def test_gradients_are_exact_with_every_seed(seed):
    *inputs, dout = case(seed)
    _, cache = batchnorm_forward(*inputs, {"mode": "train"})
    gradients = batchnorm_backward(dout, cache)
    inputs = [array.astype(complex) for array in inputs]

    def f():
        return (batchnorm_forward(*inputs, {"mode": "train"})[0] * dout).sum()

    for gradient, by in zip(gradients, inputs, strict=True):
        # Not a relative error: where four values lie close together, dx is a small difference.
        np.testing.assert_allclose(gradient, complex_step(f, by), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("shape", [(4, 5), (100, 500)])
def test_the_simplified_backward_agrees(shape):
    rng = np.random.RandomState(SEED)
    x, gamma, beta, dout = 5 * rng.randn(*shape) + 12, *rng.randn(2, shape[1]), rng.randn(*shape)
    _, cache = batchnorm_forward(x, gamma, beta, {"mode": "train"})
    graph, simplified = (back(dout, cache) for back in (batchnorm_backward, batchnorm_backward_alt))
    assert all(relative_error(a, b) <= 1e-11 for a, b in zip(graph, simplified, strict=True))


@given(n=st.integers(2, 20), d=st.integers(1, 5), seed=st.integers(0, 1000))
def test_they_are_chainers_own(n, d, seed):
    rng = np.random.RandomState(seed)
    arrays = 5 * rng.randn(n, d) + 12, rng.randn(d), rng.randn(d)
    dout = rng.randn(n, d)
    variables = [chainer.Variable(array) for array in arrays]
    y = F.batch_normalization(*variables, eps=1e-5)
    y.grad = dout
    y.backward()
    ours, cache = batchnorm_forward(*arrays, {"mode": "train"})
    np.testing.assert_allclose(ours, y.array, rtol=1e-9, atol=1e-10)
    for back in (batchnorm_backward, batchnorm_backward_alt):
        for gradient, variable in zip(back(dout, cache), variables, strict=True):
            np.testing.assert_allclose(gradient, variable.grad, rtol=1e-6, atol=1e-8)


def test_test_mode_is_chainers_own():
    x, gamma, beta, _ = case(SEED)
    mean, var = x[0], x[1] ** 2
    bn_param = {"mode": "test", "running_mean": mean, "running_var": var}
    y = F.fixed_batch_normalization(x, gamma, beta, mean, var, eps=1e-5)
    np.testing.assert_allclose(batchnorm_forward(x, gamma, beta, bn_param)[0], y.array, rtol=1e-13)


class NetworkCheck:
    """The assignment's network, 15-20-30-10, its weights drawn as there, and its two images."""

    def __init__(self, seed):
        self.rng = np.random.RandomState(seed)
        self.x = self.rng.randn(2, 15)
        self.y = self.rng.randint(10, size=2).astype(np.int32)

    def network(self):
        """A network with weights of its own, drawn next; in float64."""
        sizes, scale = [15, 20, 30, 10], 5e-2
        with chainer.using_config("dtype", np.float64):
            network = _FullyConnectedNet(sizes, scale, bn=True)
        for link in (network.l1, network.l2, network.l3):
            link.W.array[...] = (scale * self.rng.randn(*link.W.shape[::-1])).T
        return network

    def loss(self, network, reg):
        """Cross-entropy and the assignment's L2 term, reg / 2 times the sum of all W ** 2."""
        # The network takes pixels in [0, 1]; its mean image is 0 here.
        loss = F.softmax_cross_entropy(network(self.x / 255), self.y)
        for link in (network.l1, network.l2, network.l3):
            loss += 0.5 * reg * F.sum(link.W**2)
        return loss

    def numpy_loss(self, parameters, reg):
        """The same in NumPy, real or complex, on the reference functions.

        Args:
            parameters: Chainer's path -> array.
        """
        h = self.x
        for i in (1, 2):
            a = h @ parameters[f"/l{i}/W"].T + parameters[f"/l{i}/b"]
            gamma, beta = (parameters[f"/bnorm{i}/{name}"] for name in ("gamma", "beta"))
            a, _ = batchnorm_forward(a, gamma, beta, {"mode": "train"})
            h = np.where(a.real > 0, a, 0)
        scores = h @ parameters["/l3/W"].T + parameters["/l3/b"]
        correct = scores[np.arange(len(h)), self.y]
        loss = (np.log(np.exp(scores).sum(axis=1)) - correct).mean()
        return loss + 0.5 * reg * sum((parameters[f"/l{i}/W"] ** 2).sum() for i in (1, 2, 3))


# What the assignment's notebook prints with its seed, without and with regularization.
LOSSES = {0: 2.2611955101340957, 3.14: 6.996533220108303}

# W1, as the assignment says; W2 too, though it does not: its notebook prints 2.85e-6 and 2.28e-6.
WIDER = {"/l1/W": 2e-4, "/l2/W": 1e-5}


def test_gradients_of_the_network():
    check = NetworkCheck(SEED)
    for reg, expected in LOSSES.items():
        network = check.network()
        network.cleargrads()
        loss = check.loss(network, reg)
        loss.backward()
        assert float(loss.array) == pytest.approx(expected, rel=1e-14)

        def value(network=network, reg=reg):
            with chainer.no_backprop_mode():
                return float(check.loss(network, reg).array)

        for path, parameter in network.namedparams():
            error = relative_error(central_differences(value, parameter.array), parameter.grad)
            assert error <= WIDER.get(path, 1e-6), (reg, path)


@pytest.mark.parametrize("seed", [SEED, 0, 1])
@pytest.mark.parametrize("reg", list(LOSSES))
def test_gradients_of_the_network_are_exact(seed, reg):
    check = NetworkCheck(seed)
    network = check.network()
    network.cleargrads()
    check.loss(network, reg).backward()
    values = {path: p.array.astype(complex) for path, p in network.namedparams()}
    for path, parameter in network.namedparams():
        exact = complex_step(lambda: check.numpy_loss(values, reg), values[path])
        if path in ("/l1/b", "/l2/b"):  # BN takes the bias out again
            assert np.abs(exact).max() < 1e-12
            assert np.abs(parameter.grad).max() < 1e-12
        else:
            assert relative_error(exact, parameter.grad) <= 1e-9, path
