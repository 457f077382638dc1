"""BN written out in NumPy against Chainer's link and numerical gradients, in float64."""

import chainer
import chainer.links as L
import numpy as np
import pytest
from chainer import gradient_check
from hypothesis import given
from hypothesis import strategies as st

from teaching.batch_normalization import BatchNormalization


def both(n, d, seed):
    """Our BN and Chainer's with the same random gamma and beta; x and dy, `(n, d)`."""
    rng = np.random.RandomState(seed)
    ours = BatchNormalization(d)
    ours.gamma, ours.beta = rng.randn(d), rng.randn(d)
    chainers = L.BatchNormalization(
        *(d, 0.9, 1e-6, np.float64),
        initial_gamma=ours.gamma,
        initial_beta=ours.beta,
        initial_avg_var=0,
    )
    return ours, chainers, 5 * rng.randn(n, d) + 12, rng.randn(n, d)


@given(n=st.integers(2, 20), d=st.integers(1, 5), seed=st.integers(0, 1000))
def test_forward_and_backward_are_chainers(n, d, seed):
    ours, chainers, x, dy = both(n, d, seed)
    chainers.cleargrads()
    variable = chainer.Variable(x)
    y = chainers(variable)
    y.grad = dy
    y.backward()
    # Where two rows are close together, x_hat is a small difference over a small number.
    tolerance = {"rtol": 1e-6, "atol": 1e-8}
    np.testing.assert_allclose(ours.forward(x), y.array, **tolerance)
    np.testing.assert_allclose(ours.backward(dy), variable.grad, **tolerance)
    np.testing.assert_allclose(ours.dgamma, chainers.gamma.grad, **tolerance)
    np.testing.assert_allclose(ours.dbeta, chainers.beta.grad, **tolerance)


def test_running_statistics_and_test_mode_are_chainers():
    n = 10
    ours, chainers, x, _ = both(n, 4, 0)
    for batch in (x, 2 * x, x - 3):
        ours.forward(batch)
        chainers(batch)
    np.testing.assert_allclose(ours.running_mean, chainers.avg_mean, rtol=1e-12)
    # Chainer's running variance averages the unbiased estimates.
    np.testing.assert_allclose(ours.running_var * n / (n - 1), chainers.avg_var, rtol=1e-12)
    chainers.avg_var[...] = ours.running_var
    with chainer.using_config("train", False):
        y = chainers(x).array
    np.testing.assert_allclose(ours.forward(x, train=False), y, rtol=1e-12)


def test_a_batch_comes_out_with_mean_beta_and_deviation_gamma():
    ours, _, x, _ = both(200, 3, 1)
    ours.gamma, ours.beta = np.array([1.0, 2.0, 3.0]), np.array([11.0, 12.0, 13.0])
    y = ours.forward(x)
    np.testing.assert_allclose(y.mean(axis=0), ours.beta, rtol=1e-12)
    np.testing.assert_allclose(y.std(axis=0), ours.gamma, rtol=1e-6)


@pytest.mark.parametrize("seed", [0, 1])
def test_gradient_is_the_numerical_one(seed):
    ours, _, x, dy = both(4, 5, seed)

    def f():
        return (ours.forward(x),)

    numerical = gradient_check.numerical_grad(f, (x, ours.gamma, ours.beta), (dy,), eps=1e-5)
    ours.forward(x)
    dx = ours.backward(dy)
    for ours_gradient, expected in zip((dx, ours.dgamma, ours.dbeta), numerical, strict=True):
        np.testing.assert_allclose(ours_gradient, expected, rtol=1e-6, atol=1e-8)
