"""Softmax cross-entropy and accuracy on a GPU, against float64 on the CPU."""

import chainer
import chainer.functions as F
import numpy as np
import pytest
from chainer.backends import cuda
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.gpu
FEW = settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])


def results(device, x, t, dtype, **options):
    """Loss, its gradient, accuracy."""
    x = chainer.Variable(device.send(x.astype(dtype)))
    t = device.send(t)
    loss = F.softmax_cross_entropy(x, t, **options)
    loss.backward()
    return [cuda.to_cpu(a) for a in (loss.array, x.grad, F.accuracy(x, t).array)]


@FEW
@given(st.integers(1, 600), st.sampled_from([1, 2, 10, 64, 65]), st.booleans(), st.booleans())
def test_any_shape(gpu, n, classes, ignores, normalize):
    rng = np.random.RandomState(n)
    x = 30 * rng.randn(n, classes)
    t = rng.randint(-1 if ignores else 0, classes, n).astype("i")
    exact = results(chainer.get_device("@numpy"), x, t, "d", normalize=normalize)
    found = results(gpu, x, t, "f", normalize=normalize)
    for expected, actual in zip(exact, found, strict=True):
        assert actual.shape == expected.shape and actual.dtype == np.float32
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)


def test_all_ignored(gpu):
    t = np.full(5, -1, "i")
    loss, gradient, _ = results(gpu, np.ones((5, 3)), t, "f")
    assert loss == 0 and not gradient.any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_score_that_is_not_finite_shows(gpu, bad):
    x = np.ones((5, 3))
    x[2, 1] = bad
    assert np.isnan(results(gpu, x, np.zeros(5, "i"), "f")[0])


def test_the_first_of_equal_scores_counts_and_nan_is_the_largest(gpu):
    x = np.array([[1, 1, 0], [0, np.nan, 5], [2, 1, np.nan]])
    expected = results(chainer.get_device("@numpy"), x, np.array([0, 1, 2], "i"), "f")[2]
    actual = results(gpu, x, np.array([0, 1, 2], "i"), "f")[2]
    assert actual == expected == 1


def test_a_label_that_is_no_class_gives_no_number(gpu):
    """On the CPU it is an error; here nobody waits for the device to see it."""
    x = gpu.send(np.ones((2, 3), "f"))
    assert np.isnan(cuda.to_cpu(F.softmax_cross_entropy(x, gpu.send(np.array([0, 3], "i"))).array))
