"""BN in train mode on a GPU, against float64."""

import chainer
import chainer.functions as F
import numpy as np
import pytest
from chainer.backends import cuda
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.gpu.compared import assert_as_float64, results

pytestmark = pytest.mark.gpu
FEW = settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def shapes(draw):
    shape = draw(st.tuples(st.integers(2, 20), st.integers(1, 40)))
    return (*shape, *draw(st.sampled_from([(), (1, 1), (3, 2), (13, 13), (26, 1)])))


def inputs(shape):
    rng = np.random.RandomState(0)
    return [3 * rng.randn(*shape) + 1, rng.randn(shape[1]), rng.randn(shape[1])]


@FEW
@given(shapes())
def test_bn_of_any_shape(gpu, shape):
    # Of two numbers a channel, which BN makes 1 and -1, x has next to no gradient.
    bound = 1e-4 if np.prod(shape) // shape[1] > 3 else 1e-2
    assert_as_float64(F.batch_normalization, inputs(shape), gpu, bound)


@pytest.mark.parametrize("shape", [(100, 16, 26, 26), (100, 512), (4, 300, 2, 2)])
def test_running_statistics(shape, gpu):
    found = []
    for device, dtype in ((chainer.get_device("@numpy"), "d"), (gpu, "f")):
        statistics = [device.send(np.full(shape[1], value, dtype)) for value in (0.5, 2)]
        mean, var = statistics

        def normalize(x, gamma, beta, mean=mean, var=var):
            return F.batch_normalization(
                x, gamma, beta, eps=1e-5, running_mean=mean, running_var=var, decay=0.8
            )

        results(normalize, inputs(shape), device, dtype)
        found.append([cuda.to_cpu(a) for a in statistics])
    for expected, actual in zip(*found, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_values_far_from_zero(gpu):
    """The variance of numbers near 1,000, which E[x^2] - E[x]^2 would lose in float32."""
    x = (np.random.RandomState(0).randn(50, 3, 20, 20) + 1000).astype("f")
    y = F.batch_normalization(gpu.send(x), *gpu.send((np.ones(3, "f"), np.zeros(3, "f"))))
    mean, std = x.astype("d").mean((0, 2, 3)), x.astype("d").std((0, 2, 3))
    expected = (x - mean[:, None, None]) / std[:, None, None]
    assert np.abs(cuda.to_cpu(y.array) - expected).max() < 1e-3


@pytest.mark.parametrize("axis", [(0, 1), (0, 3)])
def test_other_axes_are_chainers(axis, gpu):
    shape = (4, 5, 6, 3)
    kept = [size for i, size in enumerate(shape) if i not in axis]
    rng = np.random.RandomState(0)
    arrays = [rng.randn(*shape), rng.randn(*kept), rng.randn(*kept)]
    assert_as_float64(
        lambda x, gamma, beta: F.batch_normalization(x, gamma, beta, axis=axis), arrays, gpu, 1e-4
    )


@FEW
@given(shapes())
def test_sums_over_all_but_the_channels(gpu, shape):
    axis = (0, 2, 3) if len(shape) == 4 else 0
    assert_as_float64(lambda x: F.sum(x, axis=axis), inputs(shape)[:1], gpu)
