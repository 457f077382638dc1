"""Convolution, linear layers and their gradients on a GPU, against float64."""

import chainer.functions as F
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.gpu.compared import assert_as_float64

pytestmark = pytest.mark.gpu
FEW = settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])


def random(*shape):
    return np.random.RandomState(sum(shape)).randn(*shape)


@pytest.mark.parametrize(
    ("x", "w", "stride", "pad"),
    [
        ((5, 1, 28, 28), (16, 1, 3, 3), 1, 0),  # of the blog's networks
        ((3, 16, 13, 13), (32, 16, 3, 3), 1, 0),
        ((2, 32, 6, 6), (64, 32, 3, 3), 1, 0),
        ((2, 16, 8, 8), (32, 16, 3, 3), 2, 1),  # of ResNet
        ((2, 16, 8, 8), (32, 16, 1, 1), 2, 0),
    ],
)
def test_convolution(x, w, stride, pad, gpu):
    def convolve(x, w, b):
        return F.convolution_2d(x, w, b, stride, pad)

    assert_as_float64(convolve, [random(*x), random(*w), random(w[0])], gpu)


@st.composite
def convolutions(draw):
    kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    pad = draw(st.tuples(*(st.integers(0, k - 1) for k in kernel)))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    size = draw(st.tuples(*(st.integers(k, 12) for k in kernel)))
    n, c, out = draw(st.tuples(st.integers(1, 4), st.integers(1, 20), st.integers(1, 40)))
    return (n, c, *size), (out, c, *kernel), stride, pad


@FEW
@given(convolutions())
def test_a_convolution_of_any_size(gpu, case):
    x, w, stride, pad = case
    arrays = [random(*x), random(*w), random(w[0])]
    assert_as_float64(lambda x, w, b: F.convolution_2d(x, w, b, stride, pad), arrays, gpu)


@FEW
@given(convolutions())
def test_a_deconvolution_of_any_size(gpu, case):
    x, w, stride, pad = case
    arrays = [random(x[0], w[0], *x[2:]), random(*w), random(w[1])]
    if all((x[2 + i] - 1) * stride[i] + w[2 + i] - 2 * pad[i] > 0 for i in (0, 1)):
        assert_as_float64(lambda x, w, b: F.deconvolution_2d(x, w, b, stride, pad), arrays, gpu)


@FEW
@given(st.integers(1, 130), st.integers(1, 400), st.integers(1, 80), st.booleans())
def test_a_linear_layer_of_any_size(gpu, n, inputs, outputs, has_bias):
    arrays = [random(n, inputs), random(outputs, inputs), random(outputs)][: 2 + has_bias]
    assert_as_float64(F.linear, arrays, gpu)


def test_arrays_that_are_not_contiguous(gpu):
    def convolve(x, w):
        return F.convolution_2d(F.transpose(x, (0, 3, 1, 2)), F.transpose(w, (1, 0, 3, 2)))

    assert_as_float64(convolve, [random(2, 7, 8, 3), random(3, 5, 2, 3)], gpu)
    assert_as_float64(lambda x, w: F.linear(x.T, w.T), [random(5, 4), random(5, 6)], gpu)


@pytest.mark.parametrize(
    ("w", "options"),
    [
        ((6, 4, 3, 3), {"dilate": 2}),
        ((6, 2, 3, 3), {"groups": 2}),
        ((6, 4, 3, 3), {"stride": 2, "cover_all": True}),
    ],
)
def test_other_convolutions_are_chainers(w, options, gpu):
    arrays = [random(2, 4, 8, 8), random(*w)]
    assert_as_float64(lambda x, w: F.convolution_2d(x, w, **options), arrays, gpu)
