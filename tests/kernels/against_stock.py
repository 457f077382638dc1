"""Comparing kernels with stock Chainer in float64, over layouts of memory."""

import chainer
import numpy as np
from hypothesis import strategies as st

from tests.kernels.switching import kernels

FLOAT32_ULP = 2.0**-23
CHANNELS = (1, 3, 10, 16, 17, 40, 512)
LAYOUTS = ("c", "nhwc", "strided")


def in_layout(x, layout):
    """Returns x with other strides."""
    if layout == "nhwc" and x.ndim == 4:
        return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    if layout == "strided":
        wide = np.full((*x.shape[:-1], 2 * x.shape[-1]), 7, x.dtype)
        wide[..., ::2] = x
        return wide[..., ::2]
    return x


def outputs_and_gradients(function, arrays, gys, double=False):
    """Returns the arrays of function(*arrays), of its gradients, and with `double` of theirs."""
    inputs = [chainer.Variable(a) for a in arrays]
    y = function(*inputs)
    gy = chainer.Variable(gys[0].astype(y.dtype))
    gradients = chainer.grad([y], inputs, [gy], enable_double_backprop=double)
    results = [y, *gradients]
    if double:
        weights = [chainer.Variable(g.astype(y.dtype)) for g in gys[1:]]
        results += chainer.grad(gradients, [*inputs, gy], weights)
    return [r.array for r in results if r is not None]


def assert_as_exact_as_stock(function, replacements, arrays, layout="c", double=False, ulps=16):
    """Errors against float64: no more than twice those of stock in float32, or a few roundings."""
    shape = function(*arrays).shape
    gys = [random(*s, seed=i) for i, s in enumerate((shape, *(a.shape for a in arrays)))]
    exact = outputs_and_gradients(function, [a.astype("d") for a in arrays], gys, double)
    stock = outputs_and_gradients(function, arrays, gys, double)
    strided = [in_layout(a, layout) if a.ndim > 1 else a for a in arrays]
    with kernels(replacements, only=True):
        actual = outputs_and_gradients(
            function, strided, [in_layout(g, layout) if g.ndim > 1 else g for g in gys], double
        )
    assert len(actual) == len(exact)
    rounding = ulps * FLOAT32_ULP * max(np.abs(e).max() for e in exact)
    for a, s, e in zip(actual, stock, exact, strict=True):
        assert a.dtype == np.float32 and a.shape == e.shape
        assert np.abs(a - e).max() <= 2 * np.abs(s - e).max() + rounding


def assert_not_finite_as_stock(function, replacements, value):
    """With the value in an input, and in a gradient, all else is as stock Chainer has it."""
    for in_gradient in (False, True):
        x, gy = random(3, 20, 5, 5), random(*function(random(3, 20, 5, 5)).shape)
        (gy if in_gradient else x)[1, 3, 0, 0] = value
        stock = outputs_and_gradients(function, [x], [gy])
        with kernels(replacements, only=True):
            actual = outputs_and_gradients(function, [x], [gy])
        for a, s in zip(actual, stock, strict=True):
            np.testing.assert_allclose(a, s, rtol=1e-4, atol=1e-5)  # equal NaN and Inf


def random(*shape, seed=0, scale=1.0, offset=0.0):
    return np.asarray(np.random.RandomState(seed).randn(*shape) * scale + offset, np.float32)


map_shapes = st.tuples(
    st.integers(2, 5), st.sampled_from(CHANNELS), st.integers(1, 9), st.integers(1, 9)
)
row_shapes = st.tuples(st.integers(2, 40), st.sampled_from(CHANNELS))
