"""The kernels behind Chainer's pooling, against stock Chainer in float64."""

import math
from typing import NamedTuple

import chainer
import chainer.functions as F
import numpy as np
import pytest
from chainer.functions.pooling.max_pooling_nd import MaxPoolingND
from chainer.utils.conv import get_conv_outsize
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mnist_bn.kernels import pooling
from tests.kernels.against_stock import (
    LAYOUTS,
    assert_as_exact_as_stock,
    assert_not_finite_as_stock,
    in_layout,
    map_shapes,
    random,
)
from tests.kernels.switching import kernels


@pytest.fixture(scope="module")
def replacements(library):
    return pooling.replacements(library)


class Pooling(NamedTuple):
    """How to pool: sizes of a window, strides and padding, as Chainer takes them."""

    ksize: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int]

    def has_output(self, shape, cover_all):
        """Whether there is any: without, stock Chainer fails with an AssertionError."""
        sizes = zip(shape[2:], *self, strict=True)
        return all(get_conv_outsize(*one, cover_all) > 0 for one in sizes)


def pairs(strategy):
    return st.tuples(strategy, strategy)


poolings = st.one_of(
    st.just(Pooling((2, 2), (2, 2), (0, 0))),
    st.builds(Pooling, *(pairs(st.integers(*limits)) for limits in ((1, 4), (1, 3), (0, 3)))),
)


@settings(deadline=None, max_examples=150)
@given(map_shapes, poolings, st.sampled_from(LAYOUTS), st.booleans(), st.booleans())
def test_max_pooling(replacements, shape, pooling, layout, cover_all, double):
    assume(pooling.has_output(shape, cover_all))

    def pool(x):
        return F.max_pooling_2d(x, *pooling, cover_all=cover_all)

    assume(math.prod(pooling.ksize) >= math.prod(pooling.stride))  # else it may be stock's
    assume(np.isfinite(pool(random(*shape)).array).all())  # no window of padding alone
    assert_as_exact_as_stock(pool, replacements, [random(*shape)], layout, double, ulps=4)


@pytest.mark.parametrize("channels", [1, 16, 17])
@pytest.mark.parametrize("cover_all", [True, False])
@pytest.mark.parametrize("ksize, stride, pad", [(2, 2, 0), (3, 2, 1), ((2, 3), 1, 0), (2, 2, 2)])
def test_max_pooling_takes_the_first_of_equals_and_the_first_nan(
    replacements, channels, cover_all, ksize, stride, pad
):
    values = np.float32([0, -0.0, 1, np.nan, np.inf, -np.inf])
    x = np.random.RandomState(0).choice(values, (50, channels, 5, 7)).astype(np.float32)

    def pool():
        node = MaxPoolingND(2, ksize, stride, pad, cover_all)
        return node.apply((x,))[0].array, node.indexes

    stock = pool()
    with kernels(replacements, only=True):
        actual = pool()
    np.testing.assert_array_equal(actual[0], stock[0])
    np.testing.assert_array_equal(actual[1], stock[1])


def pooling_node(x):
    node = MaxPoolingND(2, 2)
    return node, node.apply((x,))[0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_indexes_of_max_pooling_are_chainers(replacements, layout):
    x = random(3, 5, 7, 6)
    expected = pooling_node(x)[0].indexes
    with kernels(replacements, only=True):
        node, _ = pooling_node(in_layout(x, layout))
        actual = node.indexes
        assert node.indexes is actual
    assert actual.dtype == expected.dtype
    assert actual.flags.c_contiguous
    np.testing.assert_array_equal(actual, expected)
    np.testing.assert_array_equal(actual * 100, expected * 100)


@pytest.mark.parametrize("use", ["looked at", "written to", "after uninstalling", "upsampling"])
def test_gradients_follow_the_indexes(replacements, use):
    def gradient():
        x = chainer.Variable(random(3, 5, 8, 6))
        node, y = pooling_node(x)
        if use == "looked at":
            assert node.indexes.max() == 3
        elif use == "written to":
            node.indexes[...] = 2
        elif use == "upsampling":
            y = F.upsampling_2d(y, node.indexes, 2, outsize=x.shape[2:])
        y.grad = random(*y.shape, seed=1)
        if use != "after uninstalling":
            y.backward()
        return x, y

    expected, y = gradient()
    with kernels(replacements):
        actual, z = gradient()
    if use == "after uninstalling":
        y.backward()
        z.backward()
    np.testing.assert_array_equal(actual.grad, expected.grad)


def test_max_pooling_has_no_indexes_before_it_ran(replacements):
    with kernels(replacements):
        assert not hasattr(MaxPoolingND(2, 2), "indexes")
        node, _ = pooling_node(random(1, 1, 2, 2))
        del node.indexes
        assert not hasattr(node, "indexes")
    assert "indexes" not in vars(MaxPoolingND)


@settings(deadline=None, max_examples=100)
@given(map_shapes, poolings, st.sampled_from(LAYOUTS), st.booleans())
def test_average_pooling(replacements, shape, pooling, layout, double):
    assume(pooling.has_output(shape, cover_all=False))
    assume(math.prod(pooling.ksize) >= math.prod(pooling.stride))  # else it may be stock's

    def pool(x):
        return F.average_pooling_2d(x, *pooling)

    assert_as_exact_as_stock(pool, replacements, [random(*shape)], layout, double)


@settings(deadline=None, max_examples=25)
@given(map_shapes, st.sampled_from(LAYOUTS), st.booleans())
def test_average_pooling_over_the_map(replacements, shape, layout, double):
    def pool(x):
        return F.average_pooling_2d(x, shape[2:])

    assert_as_exact_as_stock(pool, replacements, [random(*shape)], layout, double)


def test_windows_of_more_places_than_a_byte_counts(replacements):
    x = random(2, 5, 17, 17)
    stock = F.max_pooling_2d(x, 17).array
    with kernels(replacements):
        assert np.array_equal(F.max_pooling_2d(x, 17).array, stock)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.max_pooling_2d(x, 2),
        lambda x: F.max_pooling_2d(x, 3, 2, 1),
        lambda x: F.average_pooling_2d(x, x.shape[2:]),
        lambda x: F.average_pooling_2d(x, 3, 1, 1),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_not_a_number_and_infinity_as_stock(replacements, function, value):
    assert_not_finite_as_stock(function, replacements, value)
