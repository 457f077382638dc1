"""Depthwise convolution and deconvolution with a bias, against stock Chainer in float64."""

import chainer
import chainer.functions as F
import numpy as np
import pytest
from chainer.functions.math.sum import Sum
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_bn.kernels import convolution, costs, depthwise
from tests.kernels.against_stock import (
    LAYOUTS,
    assert_as_exact_as_stock,
    outputs_and_gradients,
    random,
)
from tests.kernels.switching import kernels


@pytest.fixture(scope="module")
def replacements(library):
    depthwise.use(library)
    # A gradient of a bias is a kernel's only in memory as a kernel leaves it.
    return {key: wrap for key, wrap in convolution.replacements(library).items() if key[0] != Sum}


@pytest.fixture(autouse=True)
def everything_pays(monkeypatch):
    """Has the kernels take every shape that they can."""
    for name in ("forward_pays", "input_gradient_pays", "weight_gradient_pays"):
        monkeypatch.setattr(costs, name, lambda case: True)


sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))


@settings(deadline=None, max_examples=80)
@given(
    n=st.integers(1, 20),
    channels=st.sampled_from([16, 17, 40, 100]),
    size=sizes,
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pad=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    layout=st.sampled_from(LAYOUTS),
    has_bias=st.booleans(),
    double=st.booleans(),
)
def test_depthwise(replacements, n, channels, size, kernel, stride, pad, layout, has_bias, double):
    size = [max(s, k - 2 * p) for s, k, p in zip(size, kernel, pad, strict=True)]
    arrays = [random(n, channels, *size), random(channels, 1, *kernel, seed=1)]
    arrays += [random(channels, seed=2)] * has_bias

    def convolve(*inputs):
        return F.convolution_2d(*inputs, stride=stride, pad=pad, groups=channels)

    assert_as_exact_as_stock(convolve, replacements, arrays, layout, double, ulps=64)


def test_the_links_of_mobile_nets_take_the_kernels(replacements, monkeypatch):
    calls = []
    for name in ("forward", "input_gradient", "weight_gradient"):
        real = getattr(depthwise, name)
        monkeypatch.setattr(
            depthwise, name, lambda *a, name=name, real=real: (calls.append(name), real(*a))[1]
        )
    link = chainer.links.Convolution2D(32, 32, 3, pad=1, groups=32, nobias=True)
    x = chainer.Variable(random(4, 32, 14, 14))
    with kernels(replacements):
        y = link(x)
        y.grad = random(*y.shape)
        y.backward()
    assert calls == ["forward", "input_gradient", "weight_gradient"]


@pytest.mark.parametrize(
    "groups, outputs, options",
    [(4, 4, {}), (16, 32, {}), (8, 16, {}), (16, 16, {"dilate": 2})],
)
def test_other_groups_are_stocks(replacements, groups, outputs, options):
    arrays = [random(3, 16, 9, 8), random(outputs, 16 // groups, 3, 3)]

    def convolve(*inputs):
        return F.convolution_2d(*inputs, groups=groups, pad=1, **options)

    gy = random(*convolve(*arrays).shape)
    stock = outputs_and_gradients(convolve, arrays, [gy])
    with kernels(replacements):
        actual = outputs_and_gradients(convolve, arrays, [gy])
    for a, s in zip(actual, stock, strict=True):
        np.testing.assert_array_equal(a, s)


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(1, 4),
    channels=st.tuples(st.integers(2, 20), st.integers(2, 20)),
    size=sizes,
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    pad=st.integers(0, 1),
    layout=st.sampled_from(LAYOUTS),
)
def test_deconvolution_with_a_bias(replacements, n, channels, size, kernel, stride, pad, layout):
    size = [max(s, 2) for s in size]
    kernel = max(kernel, stride, 2 * pad + 1)
    before, after = channels
    arrays = random(n, before, *size), random(before, after, kernel, kernel), random(after, seed=2)

    def deconvolve(x, w, b):
        return F.deconvolution_2d(x, w, b, stride=stride, pad=pad)

    assert_as_exact_as_stock(deconvolve, replacements, arrays, layout, ulps=64)
