"""The fused blocks, against the same text on stock Chainer and in float64."""

import copy

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer.function_hooks import TimerHook as FunctionTimerHook
from chainer.link_hooks import TimerHook
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_bn import kernels
from mnist_bn.kernels import convolution
from mnist_bn.kernels.blocks import Block

ORDERS = ("after", "before", "none")


@pytest.fixture(autouse=True)
def stock_afterwards(library):
    yield
    kernels.install("off")


class Net(chainer.Chain):
    """Convolution, BN before or after the ReLU, or none, max pooling."""

    def __init__(self, order, conv, bnorm):
        super().__init__()
        with self.init_scope():
            self.conv = conv
            self.bnorm = bnorm
        self.order = order

    def forward(self, x):
        h = self.conv(x)
        if self.order == "before":
            h = self.bnorm(h)
        h = F.relu(h)
        if self.order == "after":
            h = self.bnorm(h)
        return F.max_pooling_2d(h, 2)


def node_of(y):
    """Returns the class of the node that made y; `y.creator` would put Chainer's in its place."""
    return type(y.node.creator_node)


def block(n, c, h, w, out, k=3, bias=True, seed=0):
    """Returns x, gy and the two links, of float32 random numbers."""
    rng = np.random.RandomState(seed)
    conv, bnorm = L.Convolution2D(c, out, k, nobias=not bias), L.BatchNormalization(out)
    for parameter in [*conv.params(), *bnorm.params()]:
        parameter.array[...] = rng.randn(*parameter.shape)
    bnorm.avg_mean[...] = rng.randn(out)
    bnorm.avg_var[...] = 0.5 + rng.rand(out)
    pooled = (n, out, (h - k + 2) // 2, (w - k + 2) // 2)
    return (*(rng.randn(*s).astype(np.float32) for s in ((n, c, h, w), pooled)), conv, bnorm)


def results(name, x, gy, conv, bnorm, dtype=np.float32):
    """Returns the creator's class and a dict of all that a block sets."""
    conv, bnorm = copy.deepcopy((conv, bnorm))
    for parameter in [*conv.params(), *bnorm.params()]:
        parameter.array = parameter.array.astype(dtype)
        parameter.cleargrad()
    bnorm.avg_mean, bnorm.avg_var = (a.astype(dtype) for a in (bnorm.avg_mean, bnorm.avg_var))
    x = chainer.Variable(x.astype(dtype))
    y = Net(name, conv, bnorm)(x)
    y.grad = gy.astype(dtype)
    y.backward()
    found = {"y": y.array, "gx": x.grad, "avg_mean": bnorm.avg_mean, "avg_var": bnorm.avg_var}
    for link, of in ((conv, "conv"), (bnorm, "bnorm")):
        found |= {of + key: p.grad for key, p in link.namedparams() if p.grad is not None}
    return node_of(y), found


def assert_as_float64(name, x, gy, conv, bnorm, least=1e-2):
    """Allows what float32 may lose, or three times what stock's float32 loses.

    Args:
        least: a number is taken to be at least so large, beside gy: it may be a sum that cancels.
    """
    kernels.install("off")
    _, exact = results(name, x, gy, conv, bnorm, np.float64)
    _, stock = results(name, x, gy, conv, bnorm)
    kernels.install("on")
    creator, fused = results(name, x, gy, conv, bnorm)
    assert creator is Block
    assert fused.keys() == exact.keys()
    for key, e in exact.items():
        assert fused[key].dtype == np.float32
        scale = max(abs(e).max(), least * abs(gy).max())
        # Sums of up to 1,000 products, each rounded: 1.0e-5 has been seen where they cancel.
        allowed = max(3e-5 * scale, 3 * abs(stock[key] - e).max())
        np.testing.assert_allclose(fused[key], e, rtol=0, atol=allowed, err_msg=key)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("shape", [(3, 1, 28, 28, 16), (3, 16, 13, 13, 32), (5, 32, 6, 6, 64)])
def test_the_networks_blocks(name, shape, train):
    with chainer.using_config("train", train):
        assert_as_float64(name, *block(*shape))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_shape(data):
    draw = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    k = data.draw(st.sampled_from([1, 2, 3, 5]))
    # Batch statistics of few numbers are ill-conditioned: at least eight.
    shape = draw(2, 5), draw(1, 40), draw(k + 1, 30), draw(k + 1, 20), draw(1, 70)
    x, gy, conv, bnorm = block(*shape, k, bias=data.draw(st.booleans()), seed=draw(0, 99))
    # Whole numbers, whose direct convolution float32 has exactly: rounding would turn a maximum or
    # a sign that is all but a tie, of which there are some in so many shapes, and so the gradient.
    x = np.rint(3 * x)
    for parameter in conv.params():
        parameter.array = np.rint(3 * parameter.array)
    with convolution.directly(), chainer.using_config("train", data.draw(st.booleans())):
        name = data.draw(st.sampled_from(ORDERS))
        assert_as_float64(name, x, gy, conv, bnorm)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", ORDERS)
def test_no_backprop_mode_gives_the_same_and_keeps_nothing(name, train):
    x, _, conv, bnorm = block(4, 3, 30, 17, 20)
    kernels.install("on")
    with chainer.using_config("train", train):
        expected = Net(name, conv, copy.deepcopy(bnorm))(x).array
        with chainer.no_backprop_mode():
            y = Net(name, conv, bnorm)(x)
    np.testing.assert_array_equal(y.array, expected)
    assert y.creator is None


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", ["before", "after"])
def test_ill_conditioned_statistics(name, train):
    """A mean of a thousand standard deviations: no worse than stock."""
    x, gy, conv, bnorm = block(8, 2, 12, 12, 16)
    x, conv.W.array = 100 + 0.01 * x, abs(conv.W.array)
    with chainer.using_config("train", train):
        assert_as_float64(name, x, gy, conv, bnorm)


def test_the_first_pixel_is_an_outlier():
    x, gy, conv, bnorm = block(4, 1, 20, 20, 16)
    x[0, 0, :3, :3] = 1e4
    assert_as_float64("before", x, gy, conv, bnorm)


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite(name, value):
    x, gy, conv, bnorm = block(3, 2, 8, 9, 5)
    x[1, 1, 3, 4] = value
    with np.errstate(invalid="ignore"):
        for train in (True, False):
            with chainer.using_config("train", train):
                kernels.install("off")
                _, stock = results(name, x, gy, conv, bnorm)
                kernels.install("on")
                _, fused = results(name, x, gy, conv, bnorm)
            for key in ("y", "avg_mean", "avg_var"):
                np.testing.assert_array_equal(np.isfinite(fused[key]), np.isfinite(stock[key]))
            if name != "none":  # there, what is cut off is not multiplied
                for key in ("gx", "conv/W"):
                    assert np.isfinite(stock[key]).all() == np.isfinite(fused[key]).all()


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("gamma", [1.0, -1.0, 0.0])
def test_of_equals_the_first_takes_the_gradient(name, gamma):
    """A constant image: all pixels of a window are equal."""
    x, gy, conv, bnorm = block(2, 1, 7, 7, 4)
    x[...] = 1
    conv.W.array = abs(conv.W.array)
    conv.b.array[...] = 0
    bnorm.gamma.array[...] = gamma
    bnorm.beta.array[...] = 1
    bnorm.avg_mean[...] = 0
    gy = abs(gy)
    with chainer.using_config("train", False):
        assert_as_float64(name, x, gy, conv, bnorm)


def test_gradient_of_the_bias_is_exactly_zero_before_batch_normalization():
    x, gy, conv, bnorm = block(3, 1, 9, 9, 7)
    kernels.install("on")
    _, found = results("before", x, gy, conv, bnorm)
    assert not found["conv/b"].any()


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("train", [True, False])
def test_gradients_of_gradients(name, train):
    x, gy, conv, bnorm = block(3, 2, 8, 7, 5)

    def second(dtype):
        links = copy.deepcopy((conv, bnorm))
        for link in links:
            for parameter in link.params():
                parameter.array = parameter.array.astype(dtype)
        links[1].avg_mean, links[1].avg_var = (
            a.astype(dtype) for a in (bnorm.avg_mean, bnorm.avg_var)
        )
        image = chainer.Variable(x.astype(dtype))
        with chainer.using_config("train", train):
            y = Net(name, *links)(image)
        wanted = [links[0].W] + ([] if name == "none" else [links[1].gamma])
        grads = chainer.grad([y**2], wanted, [gy.astype(dtype)], enable_double_backprop=True)
        norm = sum(F.sum(g**2) for g in grads)
        # Not gx: the backward pass of Chainer 7.8.1's own deconvolution fails.
        return [g.array for g in chainer.grad([norm], [*wanted, image])], links[1].avg_mean

    kernels.install("off")
    expected, _ = second(np.float64)
    _, once = second(np.float32)
    kernels.install("on")
    actual, moved = second(np.float32)
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=1e-4 * abs(e).max())
    np.testing.assert_allclose(moved, once, rtol=1e-5)  # running statistics moved once


def test_any_strides():
    x, gy, conv, bnorm = block(3, 4, 9, 10, 6)
    for strided in (x[::-1], x[:, ::-1], x[..., ::2], x.transpose(0, 1, 3, 2)):
        _, _, h, w = strided.shape
        out = gy.ravel()[: 3 * 6 * ((h - 1) // 2) * ((w - 1) // 2)]
        out = out.reshape(3, 6, (h - 1) // 2, (w - 1) // 2)
        assert_as_float64("before", strided, out, conv, bnorm)


def test_the_first_layers_input_needs_no_gradient():
    x, gy, conv, bnorm = block(3, 1, 9, 9, 7)
    kernels.install("on")
    y = Net("before", conv, bnorm)(x)
    y.grad = gy
    y.backward()
    assert conv.W.grad is not None


@pytest.mark.parametrize(
    "change",
    [
        lambda conv, bnorm: setattr(conv, "stride", (2, 2)),
        lambda conv, bnorm: setattr(conv, "pad", (1, 1)),
        lambda conv, bnorm: setattr(conv, "dilate", (2, 2)),
        lambda conv, bnorm: conv.add_hook(TimerHook()),
        lambda conv, bnorm: bnorm.add_hook(TimerHook()),
    ],
)
def test_what_is_not_covered_has_a_node_for_each(change):
    x, _, conv, bnorm = block(3, 2, 9, 9, 7)
    change(conv, bnorm)
    expected = F.max_pooling_2d(F.relu(copy.deepcopy(bnorm)(conv(x))), 2)
    kernels.install("on")
    y = Net("before", conv, bnorm)(x)
    assert node_of(y) is not Block
    np.testing.assert_allclose(y.array, expected.array, rtol=1e-4, atol=1e-5)


def test_a_hook_of_functions_sees_each_of_them():
    x, _, conv, bnorm = block(3, 2, 9, 9, 7)
    kernels.install("on")
    with FunctionTimerHook() as hook:
        Net("before", conv, bnorm)(x)
    names = [name for name, _ in hook.call_history]
    assert names == ["Convolution2DFunction", "BatchNormalization", "ReLU", "MaxPoolingND"]


def test_links_not_initialized_yet_and_other_dtypes():
    kernels.install("on")
    x = np.ones((2, 3, 6, 6), np.float32)
    lazy = L.Convolution2D(None, 4, 3)
    assert node_of(Net("none", lazy, None)(x)) is Block
    with chainer.using_config("dtype", np.float64):
        double = L.Convolution2D(3, 4, 3)
    assert Net("none", double, None)(x.astype(np.float64)).dtype == np.float64


def test_a_batch_of_one_number_warns_as_in_stock():
    x, _, conv, bnorm = block(1, 2, 3, 3, 4)
    kernels.install("on")
    with pytest.warns(UserWarning, match="no more than one sample"):
        Net("before", conv, bnorm)(x)


def test_recomputing_leaves_running_statistics():
    x, _, conv, bnorm = block(3, 2, 9, 9, 7)
    before = bnorm.avg_mean.copy()
    kernels.install("on")
    with chainer.using_config("in_recomputing", True):
        Net("before", conv, bnorm)(x)
    np.testing.assert_array_equal(bnorm.avg_mean, before)
