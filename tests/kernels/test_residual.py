"""BN, sum and ReLU as one node, against a node for each, to the bit."""

from collections import Counter

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.resnet_cifar import ResNetCIFAR
from tests.kernels.against_stock import in_layout
from tests.kernels.programs import all_labels

pytestmark = pytest.mark.usefixtures("accelerated")


class Block(chainer.Chain):
    """x, a convolution of it and its BN; then what `body` says, of the network, h and x."""

    def __init__(self, channels, body):
        super().__init__()
        self.body = body
        with self.init_scope():
            self.conv = L.Convolution2D(channels, channels, 3, 1, 1)
            self.bnorm = L.BatchNormalization(channels)
            self.other = L.BatchNormalization(channels)

    def forward(self, x):
        return self.body(self, self.conv(x), x)


BODIES = {
    "no sum": lambda net, h, x: F.relu(net.bnorm(h)),
    "shortcut second": lambda net, h, x: F.relu(net.bnorm(h) + x),
    "shortcut first": lambda net, h, x: F.relu(x + net.bnorm(h)),
    "two BN": lambda net, h, x: F.relu(net.bnorm(h) + net.other(x)),
    "one BN twice": lambda net, h, x: F.relu(net.bnorm(h) + net.bnorm(x)),
    "its own double": lambda net, h, x: F.relu((lambda y: y + y)(net.bnorm(h))),
    "no array shared": lambda net, h, x: F.relu(net.bnorm(h) + F.pad(x[:, :, 1:], PAD, "constant")),
}
PAD = ((0, 0), (0, 0), (1, 0), (0, 0))


def results(call, net, x, gy):
    """Returns output, gradients and statistics of two calls, and gradients of the gradients."""
    net.cleargrads()
    for link in (net.bnorm, net.other):
        link.avg_mean[...], link.avg_var[...] = 0.5, 2
    found = []
    for _ in range(2):
        v = chainer.Variable(x)
        y = call(v)
        y.grad = gy
        y.backward()
        found += [y.array, v.grad]
    found += [p.grad for p in net.params() if p.grad is not None]
    found += [a.copy() for link in (net.bnorm, net.other) for a in (link.avg_mean, link.avg_var)]
    v = chainer.Variable(x)
    (gx,) = chainer.grad([call(v)], [v], [chainer.Variable(gy)], enable_double_backprop=True)
    return found, chainer.grad([F.sum(gx * gx)], [v])[0].array


def drawn(shape, body, seed=0):
    rng = np.random.RandomState(seed)
    net = Block(shape[1], BODIES[body])
    for p in net.params():
        p.array = rng.randn(*p.shape).astype("f")
    return net, rng.randn(*shape).astype("f"), rng.randn(*shape).astype("f")


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.tuples(*[st.integers(2, 5), st.sampled_from([2, 3, 16, 17, 40]), *2 * [st.integers(2, 9)]]),
    st.sampled_from(sorted(BODIES)),
    st.sampled_from(["c", "nhwc", "strided"]),
    st.booleans(),
)
def test_it_is_a_node_for_each_to_the_bit(shape, body, layout, train):
    net, x, gy = drawn(shape, body)
    x, gy = in_layout(x, layout), in_layout(gy, layout)
    with chainer.using_config("train", train):
        # Outside a link's call nothing waits.
        expected, second = results(net.forward, net, x, gy)
        actual, actual_second = results(net, net, x, gy)
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a, e)
    np.testing.assert_allclose(actual_second, second, rtol=1e-3, atol=1e-3 * np.abs(second).max())


@pytest.mark.parametrize("body", sorted(BODIES))
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite(body, value):
    for place in (1, 2):
        drawn_here = drawn((3, 16, 4, 4), body)
        drawn_here[place][1, 2, 0, 0] = value
        with np.errstate(all="ignore"):
            expected, _ = results(drawn_here[0].forward, *drawn_here)
            actual, _ = results(drawn_here[0], *drawn_here)
        for a, e in zip(actual, expected, strict=True):
            np.testing.assert_array_equal(a, e)


def test_what_a_residual_network_is_made_of():
    x = np.random.RandomState(0).rand(4, 3, 32, 32).astype("f")
    found = Counter(all_labels(ResNetCIFAR(depth=14)(x)))
    # Of the sums, those of the two blocks that halve the image come after a shortcut that pads.
    assert found["BN, sum, ReLU"] == 4
    assert found["BN, ReLU"] == 1 + 6
    assert found["BatchNormalization"] == found["_ + _"] == found["ReLU"] == 2


def test_after_training_it_fuses_if_there_is_no_graph():
    net, x, _ = drawn((3, 16, 4, 4), "shortcut second")
    with chainer.using_config("train", False):
        expected = net(x)
        with chainer.no_backprop_mode():
            y = net(x)
    np.testing.assert_array_equal(y.array, expected.array)


def test_a_sum_with_an_nhwc_map_is_one():
    a, b = np.random.RandomState(0).randn(2, 3, 5, 4, 4).astype("f")
    for layouts in (("c", "nhwc"), ("nhwc", "c")):
        y = F.add(*[in_layout(m, layout) for m, layout in zip((a, b), layouts, strict=True)]).array
        np.testing.assert_array_equal(y, a + b)
        assert y.transpose(0, 2, 3, 1).flags.c_contiguous


def test_a_map_whose_memory_others_have_is_copied():
    """They may change it before what waits is computed."""
    net, x, _ = drawn((3, 16, 4, 4), "no sum")

    def body(net, h, x):
        memory = h.array.base
        y = net.bnorm(h)
        memory[...] = 0
        return F.relu(y)

    expected = net(x).array
    net.body = body
    np.testing.assert_array_equal(net(x).array, expected)
