"""Mean and variance of a stream of batches, against NumPy on all of it at once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_bn.observers.moments import Moments


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.sampled_from([0, 1e4]))
def test_any_split_into_batches_gives_the_moments_of_the_whole(sizes, offset):
    rng = np.random.RandomState(sum(sizes))
    x = (rng.randn(sum(sizes), 3, 2, 2) + offset).astype(np.float32)
    moments = Moments()
    for batch in np.split(x, np.cumsum(sizes)[:-1]):
        moments.add(batch, (0, 2, 3))
    whole = x.astype(np.float64)
    assert moments.count == x.size // 3
    np.testing.assert_allclose(moments.mean, whole.mean(axis=(0, 2, 3)), rtol=1e-12, atol=1e-12)
    expected = whole.var(axis=(0, 2, 3), ddof=1)
    np.testing.assert_allclose(moments.variance, expected, rtol=1e-9)


def test_one_number_has_no_variance():
    moments = Moments()
    moments.add(np.ones((1, 4), np.float32), (0,))
    assert moments.mean.tolist() == [1] * 4
    assert np.isnan(moments.variance).all()


@pytest.mark.parametrize("axis", [(0,), (0, 2)])
def test_channels_are_what_is_not_averaged_over(axis):
    x = np.random.RandomState(0).rand(5, 3, 4)
    moments = Moments()
    moments.add(x, axis)
    np.testing.assert_allclose(moments.variance, x.var(axis=axis, ddof=1))
