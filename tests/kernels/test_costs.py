"""Which convolutions the kernels take; no test asserts a time."""

import chainer
import chainer.functions as F
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_bn.kernels import convolution, costs
from tests.kernels.switching import kernels

# in_channels, size, out_channels, kernel, stride, pad
NETWORKS = {
    "conv1": (1, 28, 16, 3, 1, 0),
    "conv2": (16, 13, 32, 3, 1, 0),
    "conv3": (32, 6, 64, 3, 1, 0),
    "ResNet, first": (3, 32, 16, 3, 1, 1),
    "ResNet, 32": (16, 32, 16, 3, 1, 1),
    "ResNet, to 16": (16, 32, 32, 3, 2, 1),
    "ResNet, 16": (32, 16, 32, 3, 1, 1),
    "ResNet, to 8": (32, 16, 64, 3, 2, 1),
    "ResNet, 8": (64, 8, 64, 3, 1, 1),
}
PASSES = {
    "forward": costs.forward_pays,
    "gx": costs.input_gradient_pays,
    "gw": costs.weight_gradient_pays,
}


def case(n, in_channels, size, out_channels, kernel, stride, pad, is_nhwc=True):
    out = (size + 2 * pad - kernel) // stride + 1
    sizes = (n, size, size, in_channels, out_channels, kernel, kernel, stride, stride, pad, pad)
    return costs.Case(*sizes, out, out, is_nhwc, is_nhwc)


@pytest.mark.parametrize("n", [1, 8, 32, 60, 100, 500, 1000])
@pytest.mark.parametrize("layer", NETWORKS)
def test_all_that_our_networks_do_pays(layer, n):
    """Their numbers, and so their published results, are the kernels'."""
    shape = NETWORKS[layer]
    taken = {name for name, pays in PASSES.items() if pays(case(n, *shape))}
    if shape[0] < 4:  # the gradient of images, for which nobody asks
        taken.add("gx")
    assert taken == PASSES.keys()


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("gx", (8, 3, 224, 64, 7, 2, 3)),
        ("gx", (32, 1, 32, 128, 8, 4, 2)),
        ("gx", (8, 256, 4, 1024, 3, 4, 0)),
        ("gw", (8, 512, 7, 512, 3, 1, 1)),
        ("gw", (8, 256, 14, 1024, 1, 1, 0)),
        ("gw", (1, 1024, 14, 256, 11, 2, 2)),
        ("forward", (8, 256, 8, 512, 8, 2, 0)),
    ],
)
def test_what_blas_does_better_is_handed_over(name, shape):
    assert not PASSES[name](case(*shape))


def test_a_copy_into_nhwc_counts():
    shape = (1, 1024, 32, 128, 1, 2, 0)
    assert costs.forward_pays(case(*shape))
    assert not costs.forward_pays(case(*shape, is_nhwc=False))


@settings(deadline=None)
@given(
    st.integers(1, 200),
    st.integers(1, 2000),
    st.integers(1, 300),
    st.integers(1, 2000),
    st.integers(1, 12),
    st.integers(1, 5),
    st.integers(0, 12),
)
def test_every_shape_has_an_answer(n, in_channels, size, out_channels, kernel, stride, pad):
    if size + 2 * pad < kernel:
        return
    for pays in PASSES.values():
        assert pays(case(n, in_channels, size, out_channels, kernel, stride, pad)) in (True, False)


@pytest.mark.parametrize("name", PASSES)
def test_what_is_handed_over_is_stocks_to_the_bit(library, name, monkeypatch):
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(s, np.float32) for s in ((2, 3, 9, 9), (5, 3, 3, 3)))
    gy = rng.standard_normal((2, 5, 4, 4), np.float32)

    def results():
        inputs = chainer.Variable(x), chainer.Variable(w)
        y = F.convolution_2d(*inputs, stride=2)
        y.grad = gy
        y.backward()
        return dict(zip(PASSES, (y.array, inputs[0].grad, inputs[1].grad), strict=True))

    expected = results()
    with kernels(convolution.replacements(library)):
        ours = results()
        monkeypatch.setattr(costs, PASSES[name].__wrapped__.__name__, lambda case: False)
        handed_over = results()
    for other in PASSES:
        stock, kernel = (np.array_equal(handed_over[other], r[other]) for r in (expected, ours))
        assert stock if other == name else kernel
    assert not np.array_equal(expected[name], ours[name])
