"""Winograd convolution, against float64 and direct convolution; and the switch between the two."""

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mnist_bn import kernels
from mnist_bn.errors import UsageError
from mnist_bn.kernels import convolution, costs
from tests.kernels import test_blocks
from tests.kernels.test_convolution import arrays, results
from tests.kernels.test_costs import NETWORKS, case

# Of the sum of the products' absolute values, its maximum over the elements. Up to 3.7e-6 was seen,
# where all weights and gradients are almost 1; direct convolution's error was 1.6e-6 there.
TOLERANCE = 1e-5
# Root mean squares of the errors, over those of direct convolution. Up to 4.9 was seen, for the
# weights' gradient; 2.9 for y and 2.7 for gx.
TIMES_DIRECT = 8


@pytest.fixture(autouse=True)
def stock_afterwards(library):
    yield
    convolution.use("auto")
    kernels.install("off")


def convolve(method, given, **options):
    """Returns y, gx, gW and gb (None without a bias), by the kernels."""
    kernels.install("on")
    convolution.use(method)
    found = results(*given, **options)
    kernels.install("off")
    return found


def exact(given, **options):
    """Returns the same in float64, and for each the largest sum of absolute products."""
    given = [None if a is None else a.astype(np.float64) for a in given]
    absolute = [None if a is None else abs(a) for a in given]
    bounds = [a.max() for a in results(*absolute, **options)]
    return results(*given, **options), bounds


def assert_as_float64(given, **options):
    expected, bounds = exact(given, **options)
    actual = convolve("winograd", given, **options)
    for a, e, bound in zip(actual, expected, bounds, strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, e, rtol=0, atol=TOLERANCE * bound)


def rms(a):
    return np.sqrt(np.square(a).mean())


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_shape(data):
    """Images smaller than a tile, and tiles that images do not fill, among them."""
    draw = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    pad = draw(0, 1)
    low = 3 - 2 * pad
    shape = draw(1, 5), draw(1, 40), draw(low, 20), draw(low, 20), draw(1, 70)
    given_ = arrays(*shape, 3, pad=pad, seed=draw(0, 99))
    if data.draw(st.booleans()):
        given_[2] = None
    assert_as_float64(given_, pad=pad)


@pytest.mark.parametrize("pad", [(0, 1), (1, 0)])
def test_padding_of_one_axis(pad):
    x, w, b, gy = arrays(2, 5, 9, 6, 20, 3)
    rows, columns = 7 + 2 * pad[0], 4 + 2 * pad[1]
    gy = np.resize(gy, (2, 20, rows, columns))
    assert_as_float64((x, w, b, gy), pad=pad)


def test_more_tiles_than_are_worked_on_at_a_time():
    assert_as_float64(arrays(1, 64, 70, 41, 64, 3, pad=1), pad=1)


KINDS = {
    "random": lambda x, w, gy, scale: (x, w, gy),
    "large means": lambda x, w, gy, scale: (100 + 0.01 * x, w, gy),
    "almost constant": lambda x, w, gy, scale: (100 + 0.01 * x, 1 + 0.01 * w, 1 + 0.01 * gy),
    "channels of many scales": lambda x, w, gy, scale: (x * scale, w * scale, gy),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("shape", "pad"), [((20, 16, 13, 13, 32), 0), ((20, 32, 6, 6, 64), 0), ((2, 17, 7, 7, 19), 1)]
)
def test_the_error_is_a_few_times_direct_convolutions(kind, shape, pad):
    x, w, b, gy = arrays(*shape, 3, pad=pad)
    scale = 10 ** np.random.RandomState(1).uniform(-4, 4, (1, shape[1], 1, 1))
    x, w, gy = (a.astype(np.float32) for a in KINDS[kind](x, w, gy, scale))
    given_ = x, w, b, gy
    expected, _ = exact(given_, pad=pad)
    errors = {
        method: [rms(a - e) for a, e in zip(found, expected, strict=True)]
        for method in ("winograd", "direct")
        for found in [convolve(method, given_, pad=pad)]
    }
    for ours, direct in zip(errors["winograd"][:3], errors["direct"][:3], strict=True):
        assert 0 < ours < TIMES_DIRECT * direct


def test_an_image_has_the_same_bits_in_any_batch():
    x, w, b, gy = arrays(50, 16, 13, 13, 32, 3)
    y, gx, *_ = convolve("winograd", (x, w, b, gy))
    for i in (0, 7, 49):
        alone = convolve("winograd", (x[i : i + 1], w, b, gy[i : i + 1]))
        np.testing.assert_array_equal(alone[0][0], y[i])
        np.testing.assert_array_equal(alone[1][0], gx[i])


def test_a_second_call_has_the_same_bits():
    given_ = arrays(50, 16, 13, 13, 32, 3)
    once, again = (convolve("winograd", given_) for _ in range(2))
    for a, b in zip(once, again, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_in_its_tiles(value):
    given_ = arrays(2, 16, 12, 12, 16, 3, pad=1)
    clean, *_ = convolve("winograd", given_, pad=1)
    given_[0][1, 3, 5, 6] = value
    with np.errstate(invalid="ignore"):
        expected, _ = exact(given_, pad=1)
    y, gx, gw, _ = convolve("winograd", given_, pad=1)
    assert not np.isfinite(y[~np.isfinite(expected[0])]).any()
    # The pixel at (5, 6) is among the 6x6 inputs of the tile of rows and columns 4 to 7 alone.
    assert not np.isfinite(y[1, :, 4:8, 4:8]).any()
    y[1, :, 4:8, 4:8] = clean[1, :, 4:8, 4:8]
    np.testing.assert_array_equal(y, clean)
    assert np.isfinite(gx).all()
    assert not np.isfinite(gw[:, 3]).any()
    assert np.isfinite(np.delete(gw, 3, axis=1)).all()


@pytest.mark.parametrize("name", ["before", "after"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_batch_that_is_not_finite_shows(name, value):
    """In the loss, the gradients and the running statistics of all channels."""
    x, _, conv, bnorm = test_blocks.block(8, 16, 13, 13, 32)
    x[5, 3, 7, 7] = value
    kernels.install("on")
    convolution.use("auto")
    with np.errstate(invalid="ignore"):
        loss = F.sum(test_blocks.Net(name, conv, bnorm)(chainer.Variable(x)) ** 2)
        assert not np.isfinite(loss.array)
        loss.backward()
    assert not np.isfinite(conv.W.grad).any()
    assert not np.isfinite(bnorm.avg_mean).any()
    assert not np.isfinite(bnorm.avg_var).any()


def is_near_tie(name, x, conv):
    """Whether rounding may turn a sign, or which pixel of a pooling window is the largest."""
    y = F.convolution_2d(*(a.astype(np.float64) for a in (x, conv.W.array, conv.b.array))).array
    if name == "after":
        y = np.maximum(y, 0)
    n, c, rows, columns = y.shape
    windows = y[..., : rows // 2 * 2, : columns // 2 * 2]
    windows = windows.reshape(n, c, rows // 2, 2, columns // 2, 2).transpose(0, 1, 2, 4, 3, 5)
    windows = np.sort(windows.reshape(-1, 4), axis=1)
    gaps = np.diff(windows)
    return abs(y[y != 0]).min() < 1e-3 or gaps[gaps > 0].min(initial=1) < 1e-3


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_fused_blocks_of_any_shape(data):
    draw = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    # Without an odd row or column: every window has four pixels.
    shape = draw(2, 3), draw(1, 20), 2 * draw(2, 6), 2 * draw(2, 5), draw(1, 20)
    x, gy, conv, bnorm = test_blocks.block(*shape, seed=draw(0, 999))
    name, train = data.draw(st.sampled_from(test_blocks.ORDERS)), data.draw(st.booleans())
    assume(not is_near_tie(name, x, conv))
    with pytest.MonkeyPatch.context() as patch, chainer.using_config("train", train):
        patch.setenv("MNIST_BN_CONVOLUTION", "winograd")
        # One channel's gradient of gamma was 0.0237 off by 4.2e-6, a sum of 18 terms of up to 5.
        test_blocks.assert_as_float64(name, x, gy, conv, bnorm, least=1e-1)


@pytest.mark.parametrize("name", test_blocks.ORDERS)
def test_blocks_have_the_numbers_of_their_parts(name):
    """As pooling is exact, and the normalization all but nothing."""
    x, _, conv, bnorm = test_blocks.block(20, 16, 13, 13, 32)
    bnorm.gamma.array[...] = 1
    kernels.install("on")
    y = conv(x).array
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        bnorm.avg_mean[...], bnorm.avg_var[...] = 0, 1 - bnorm.eps
        bnorm.beta.array[...] = 0
        block = test_blocks.Net(name, conv, bnorm)(x).array
    np.testing.assert_allclose(block, F.max_pooling_2d(np.maximum(y, 0), 2).array, rtol=1e-6)


def test_gradients_of_gradients():
    given_ = arrays(3, 16, 12, 9, 16, 3, pad=1)

    def second(method, dtype):
        kernels.install("off" if method is None else "on")
        if method:
            convolution.use(method)
        inputs = [chainer.Variable(a.astype(dtype)) for a in given_[:3]]
        y = F.convolution_2d(*inputs, pad=1)
        gw, gb = chainer.grad(
            [y**2], inputs[1:], [given_[3].astype(dtype)], enable_double_backprop=True
        )
        return [g.array for g in chainer.grad([F.sum(gw**2) + F.sum(gb**2)], inputs)]

    expected = second(None, np.float64)
    for a, e in zip(second("winograd", np.float32), expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=1e-5 * abs(e).max())


# --- Where it is used ---


def test_which_of_our_networks_layers_it_takes():
    cases = {name: case(100, *shape) for name, shape in NETWORKS.items()}
    taken = {name for name in cases if convolution.takes_winograd(cases[name])}
    assert taken == {"conv2", "conv3", "ResNet, 32", "ResNet, 16", "ResNet, 8"}


@pytest.mark.parametrize(
    "shape",
    [
        (7, 32, 6, 64, 3, 1, 0),  # seven tiles
        (32, 32, 5, 32, 3, 1, 1),  # of 4x4, 4x1, 1x4 and 1x1 pixels
        (32, 8, 16, 16, 3, 1, 1),
        (32, 16, 16, 8, 3, 1, 1),
        (32, 512, 7, 512, 3, 1, 1),
    ],
)
def test_what_direct_convolution_does_better_is_left_to_it(shape):
    assert not costs.winograd_pays(case(*shape))


@pytest.mark.parametrize(
    ("kernel", "stride", "pad"), [(3, 2, 0), (3, 1, 2), (5, 1, 0), (1, 1, 0), (2, 1, 1)]
)
def test_other_kernels_are_direct_even_if_asked_not_to(kernel, stride, pad):
    convolution.use("winograd")
    assert not convolution.takes_winograd(case(8, 16, 20, 16, kernel, stride, pad))
    assert convolution.takes_winograd(case(1, 1, 3, 1, 3, 1, 0))


@pytest.mark.parametrize("method", convolution.METHODS)
def test_the_switch(method, monkeypatch):
    monkeypatch.setenv("MNIST_BN_CONVOLUTION", method)
    kernels.install("on")
    assert kernels.convolution_method() == method
    kernels.install("off")
    assert kernels.convolution_method() == "direct"


def test_the_switch_by_default(monkeypatch):
    monkeypatch.setenv("MNIST_BN_CONVOLUTION", "")
    kernels.install("on")
    assert kernels.convolution_method() == "auto"


@pytest.mark.parametrize("mode", kernels.MODES)
def test_a_switch_to_what_there_is_not(mode, monkeypatch):
    monkeypatch.setenv("MNIST_BN_CONVOLUTION", "fft")
    line = "^MNIST_BN_CONVOLUTION=fft: expected auto, direct or winograd$"
    with pytest.raises(UsageError, match=line) as error:
        kernels.install(mode)
    assert error.value.status == 2


def test_directly_holds_whatever_the_switch():
    given_ = arrays(8, 16, 12, 12, 16, 3)
    direct, winograd = (convolve(method, given_)[0] for method in ("direct", "winograd"))
    assert not np.array_equal(direct, winograd)
    with convolution.directly():
        with convolution.directly():
            pass
        np.testing.assert_array_equal(convolve("winograd", given_)[0], direct)
    np.testing.assert_array_equal(convolve("winograd", given_)[0], winograd)


def test_a_block_goes_back_as_it_came():
    """The method is the forward pass's, whatever the switch is moved to in between."""
    x, gy, conv, bnorm = test_blocks.block(8, 2, 12, 12, 16)

    def gradient(*methods):
        kernels.install("on")
        convolution.use(methods[0])
        links = conv.copy("copy"), bnorm.copy("copy")
        y = test_blocks.Net("before", *links)(x)
        y.grad = gy
        _ = y.array
        convolution.use(methods[1])
        y.backward()
        return links[0].W.grad

    straight = gradient("winograd", "winograd")
    np.testing.assert_array_equal(gradient("winograd", "direct"), straight)
    assert not np.array_equal(gradient("direct", "direct"), straight)


def test_it_is_used_where_nothing_is_said():
    kernels.install("on")
    conv = L.Convolution2D(16, 32, 3)
    x = np.random.RandomState(0).rand(100, 16, 13, 13).astype(np.float32)
    found = conv(x).array
    with convolution.directly():
        assert not np.array_equal(conv(x).array, found)
