"""The fully connected layer with its ReLU and dropout, against its definition."""

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer.function_hooks import TimerHook as FunctionTimerHook
from chainer.link_hooks import TimerHook
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_bn.kernels import dense, layers
from tests.kernels.switching import kernels


@pytest.fixture(scope="module")
def replacements(library):
    return layers.replacements(library)


@pytest.fixture(autouse=True)
def stock_afterwards():
    yield
    dense.use(False)


def layer(shape, out, dtype="f", seed=0):
    """Returns x, gy and the link, of random numbers."""
    rng = np.random.RandomState(seed)
    linear = L.Linear(int(np.prod(shape[1:])), out)
    for parameter in linear.params():
        parameter.array = rng.randn(*parameter.shape).astype(dtype)
    return rng.randn(*shape).astype(dtype), rng.randn(shape[0], out).astype(dtype), linear


def results(x, gy, linear, ratio=0.5):
    """Returns the output, the gradients, the gradients of their sum of squares, and what NumPy
    draws next."""
    np.random.seed(1)
    x = chainer.Variable(x)
    y = dense.linear_relu_dropout(x, linear, ratio)
    inputs = [x, linear.W, linear.b]
    first = chainer.grad([y], inputs, [chainer.Variable(gy)])
    again = chainer.grad([y], inputs, [chainer.Variable(gy)], enable_double_backprop=True)
    second = chainer.grad([sum(F.sum(g * g) for g in again)], [x, linear.W])
    return [y.array, *(v.array for v in (*first, *again, *second)), np.random.rand(1)]


def assert_as_defined(replacements, *arguments, **options):
    with kernels(replacements):
        dense.use(False)
        expected = results(*arguments, **options)
        dense.use(True)
        actual = results(*arguments, **options)
    for a, e in zip(actual[:4], expected[:4], strict=True):
        np.testing.assert_array_equal(a, e)
    for a, e in zip(actual[4:], expected[4:], strict=True):
        assert a.dtype == e.dtype
        np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-5)


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 5), min_size=2, max_size=4).map(tuple),
    st.integers(1, 20),
    st.sampled_from([0.0, 0.3, 0.9]),
)
def test_it_is_its_definition_to_the_bit(replacements, shape, out, ratio):
    assert_as_defined(replacements, *layer(shape, out), ratio=ratio)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite(replacements, value):
    x, gy, linear = layer((4, 3), 5)
    x[1, 2] = value
    with np.errstate(all="ignore"):
        assert_as_defined(replacements, x, gy, linear)


def test_maps_in_nhwc_memory(replacements):
    x, gy, linear = layer((3, 4, 2, 2), 5)
    x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert_as_defined(replacements, x, gy, linear)


def test_no_dropout_in_test_mode(replacements):
    x, gy, linear = layer((3, 4), 5)
    with chainer.using_config("train", False):
        assert_as_defined(replacements, x, gy, linear)
        dense.use(True)
        y = dense.linear_relu_dropout(x, linear)
    np.testing.assert_array_equal(y.array, np.maximum(linear(x).array, 0))


def test_one_node_where_it_is_covered():
    x, _, linear = layer((3, 4), 5)
    dense.use(True)
    y = dense.linear_relu_dropout(x, linear)
    assert y.creator.label == "Linear, ReLU, dropout"


class OtherLinear(L.Linear):
    pass


@pytest.mark.parametrize(
    "change",
    [
        lambda x, linear: (x, OtherLinear(4, 5)),
        lambda x, linear: (x, L.Linear(4, 5, nobias=True)),
        lambda x, linear: (x, L.Linear(5)),
        lambda x, linear: (x.astype("d"), linear),
        lambda x, linear: (x, linear.add_hook(TimerHook()) or linear),
    ],
    ids=["subclass", "no bias", "not initialized", "float64", "hook"],
)
def test_other_cases_are_chainers(change):
    x, _, linear = layer((3, 4), 5)
    x, linear = change(x, linear)
    dense.use(True)
    with chainer.using_config("type_check", False):
        y = dense.linear_relu_dropout(x, linear)
    assert y.creator.label == "Dropout"


def test_a_hook_of_functions_sees_each_of_them():
    x, _, linear = layer((3, 4), 5)
    dense.use(True)
    with FunctionTimerHook() as hook:
        dense.linear_relu_dropout(x, linear)
    assert [name for name, _ in hook.call_history] == ["LinearFunction", "ReLU", "Dropout"]


def test_a_wrong_size_is_chainers_error():
    x, _, linear = layer((3, 4), 5)
    dense.use(True)
    with pytest.raises(chainer.utils.type_check.InvalidType):
        dense.linear_relu_dropout(x[:, :3], linear)
