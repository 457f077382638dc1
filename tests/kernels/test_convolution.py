"""The convolution's kernels, against stock Chainer in float64."""

import chainer
import chainer.functions as F
import numpy as np
import pytest
from chainer.functions.connection.convolution_2d import Convolution2DFunction, Convolution2DGradW
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_bn.kernels import convolution, costs
from tests.kernels.switching import kernels

PASSES = ("forward_pays", "input_gradient_pays", "weight_gradient_pays")
TOLERANCE = 3e-6  # of the largest number: float32 sums of some hundred products


@pytest.fixture(scope="module")
def replacements(library):
    return convolution.replacements(library)


@pytest.fixture(autouse=True)
def everything_pays(monkeypatch):
    """Has the kernels take every shape that they can."""
    for name in PASSES:
        monkeypatch.setattr(costs, name, lambda case: True)


def arrays(n, c, h, w, out, k, stride=1, pad=0, seed=0):
    """Returns x, W, b and gy, float32; gy is NHWC in memory, as kernels leave it."""
    rng = np.random.RandomState(seed)
    rows, columns = ((size + 2 * pad - k) // stride + 1 for size in (h, w))
    shapes = (n, c, h, w), (out, c, k, k), (out,), (n, out, rows, columns)
    x, w, b, gy = (rng.randn(*shape).astype(np.float32) for shape in shapes)
    return [x, w, b, np.ascontiguousarray(gy.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)]


def results(x, w, b, gy, **options):
    """Returns y, gx, gW and gb."""
    inputs = [chainer.Variable(a) for a in (x, w) + (() if b is None else (b,))]
    y = F.convolution_2d(*inputs, **options)
    y.grad = gy
    y.backward()
    return [y.array, *(v.grad for v in inputs)]


def assert_as_float64(replacements, given, only=True, **options):
    expected = results(*(None if a is None else a.astype(np.float64) for a in given), **options)
    with kernels(replacements, only):
        actual = results(*given, **options)
    for a, e in zip(actual, expected, strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, e, rtol=0, atol=TOLERANCE * max(1, abs(e).max()))


@pytest.mark.parametrize(
    "shape",
    [(4, 1, 28, 28, 16), (3, 16, 13, 13, 32), (5, 32, 6, 6, 64), (2, 3, 16, 16, 16)],
)
def test_the_networks_convolutions(replacements, shape):
    assert_as_float64(replacements, arrays(*shape, 3))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_shape(replacements, data):
    draw = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    k, stride, pad = data.draw(st.sampled_from([1, 2, 3, 5])), draw(1, 3), draw(0, 2)
    low = max(1, k - 2 * pad)
    given_ = arrays(
        draw(1, 5), draw(1, 40), draw(low, 20), draw(low, 20), draw(1, 70), k, stride, pad
    )
    if data.draw(st.booleans()):
        given_[2] = None
    more_than_one = given_[1].shape[0] > 1  # the bias of a single channel is a sum by NumPy
    assert_as_float64(replacements, given_, only=more_than_one, stride=stride, pad=pad)


@pytest.mark.parametrize("layout", ["nhwc", "strided", "reversed", "readonly"])
def test_any_strides(replacements, layout):
    x, w, b, gy = arrays(3, 5, 9, 8, 6, 3)
    if layout == "nhwc":
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    elif layout == "strided":
        x = np.repeat(x, 2, axis=3)[..., ::2]
    elif layout == "reversed":
        x, w = x[:, ::-1], w[..., ::-1]
    else:
        for a in (x, w, b):
            a.flags.writeable = False
    assert_as_float64(replacements, (x, w, b, gy))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite(replacements, value):
    given = arrays(2, 3, 6, 7, 4, 3)
    given[0][1, 2, 3, 4] = value
    with np.errstate(invalid="ignore"):
        expected = results(*given)
    with kernels(replacements, only=True):
        actual = results(*given)
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(np.isnan(a), np.isnan(e))
        np.testing.assert_array_equal(np.isposinf(a), np.isposinf(e))


@pytest.mark.parametrize(
    ("options", "dtype", "channels"),
    [
        ({"dilate": 2}, np.float32, 4),
        ({"groups": 2}, np.float32, 2),
        ({"cover_all": True, "stride": 2}, np.float32, 4),
        ({}, np.float64, 4),
        ({}, np.float16, 4),
    ],
)
def test_what_is_not_covered_goes_to_stock(replacements, options, dtype, channels):
    rng = np.random.RandomState(0)
    x, w = rng.randn(2, 4, 8, 8).astype(dtype), rng.randn(6, channels, 3, 3).astype(dtype)

    def run():
        inputs = chainer.Variable(x), chainer.Variable(w)
        y = F.convolution_2d(*inputs, **options)
        y.grad = np.ones_like(y.array)
        y.backward()
        return y.array, inputs[0].grad, inputs[1].grad

    expected = run()
    with kernels(replacements):
        actual = run()
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a, e)


def test_an_empty_batch_and_a_kernel_too_large_are_as_in_stock(replacements):
    with kernels(replacements):
        w = np.ones((2, 3, 3, 3), np.float32)
        assert F.convolution_2d(np.empty((0, 3, 5, 5), np.float32), w).shape == (0, 2, 3, 3)
        with pytest.raises(Exception, match="should be positive"):
            F.convolution_2d(np.ones((1, 3, 2, 5), np.float32), w)


def test_gradients_of_gradients(replacements):
    given = arrays(2, 3, 7, 6, 5, 3, stride=2, pad=1)

    def second(x, w, b, gy):
        inputs = [chainer.Variable(a) for a in (x, w, b)]
        y = F.convolution_2d(*inputs, stride=2, pad=1)
        # Not gx: the backward pass of Chainer 7.8.1's own deconvolution fails.
        gw, gb = chainer.grad([y**2], inputs[1:], [gy], enable_double_backprop=True)
        return [g.array for g in chainer.grad([F.sum(gw**2) + F.sum(gb**2)], inputs)]

    expected = second(*(a.astype(np.float64) for a in given))
    with kernels(replacements):  # sums over everything are stock's
        actual = second(*given)
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=TOLERANCE * abs(e).max())


def test_deconvolution_as_a_layer(replacements):
    """With a bias it is stock's; without one it is the kernel of the input's gradient."""
    rng = np.random.RandomState(0)
    x, w = (rng.randn(*s).astype(np.float32) for s in ((2, 6, 5, 4), (6, 3, 3, 3)))
    for bias in (None, np.ones(3, np.float32)):
        expected = F.deconvolution_2d(x, w, bias, stride=2, pad=1).array
        with kernels(replacements):
            actual = F.deconvolution_2d(x, w, bias, stride=2, pad=1).array
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)


class Doubled(Convolution2DFunction):
    """Overrides a method that Chainer's forward pass calls, and no kernel does."""

    def _forward_cpu_core(self, x, W, b):
        return (2 * super()._forward_cpu_core(x, W, b)[0],)


def test_subclasses_are_chainers_to_run(replacements):
    x, w, _, _ = arrays(2, 3, 6, 6, 4, 3)
    with kernels(replacements):
        (y,) = Doubled().apply((x, w))
    np.testing.assert_array_equal(y.array, 2 * F.convolution_2d(x, w).array)


def test_sums_of_other_axes_are_stocks(replacements):
    x = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    with kernels(replacements):
        for axis in (None, 0, (0, 2), (0, 2, 3), (1, 2, 3)):
            np.testing.assert_array_equal(F.sum(x, axis=axis).array, x.sum(axis=axis))


def test_uninstalling_restores_stock(replacements):
    before = Convolution2DFunction.forward_cpu, Convolution2DGradW.forward_cpu
    with kernels(replacements):
        assert Convolution2DFunction.forward_cpu is not before[0]
    assert (Convolution2DFunction.forward_cpu, Convolution2DGradW.forward_cpu) == before
