"""Switching the kernels on and off."""

import chainer
import chainer.functions as F
import numpy as np
import pytest
from chainer.functions.connection import convolution_2d

from mnist_bn import kernels
from mnist_bn.kernels import build, seam

KERNELS = kernels.install() != kernels.STOCK
kernels.uninstall()
needs_kernels = pytest.mark.skipif(not KERNELS, reason="no C++ compiler here")


@pytest.fixture(autouse=True)
def stock_afterwards():
    yield
    kernels.uninstall()


@pytest.fixture
def no_kernels(monkeypatch):
    def unavailable():
        raise build.Unavailable("no C++ compiler found: get one")

    monkeypatch.setattr(build, "load", unavailable)


@needs_kernels
def test_installing_replaces_methods_and_uninstalling_restores_them():
    node = convolution_2d.Convolution2DFunction
    stock = node.forward_cpu
    assert kernels.install() == build.instruction_set() == kernels.active()
    assert node.forward_cpu is not stock
    assert kernels.install() == kernels.active()
    kernels.uninstall()
    assert node.forward_cpu is stock
    assert kernels.active() == "off"
    assert not seam._originals


@needs_kernels
def test_stock_after_uninstalling_is_stock_to_the_bit():
    x = np.random.RandomState(0).randn(4, 3, 9, 9).astype(np.float32)
    w = np.random.RandomState(1).randn(5, 3, 3, 3).astype(np.float32)
    before = F.convolution_2d(x, w).array
    kernels.install()
    F.convolution_2d(x, w)
    kernels.uninstall()
    assert np.array_equal(F.convolution_2d(x, w).array, before)


def test_off_by_argument_and_by_environment(monkeypatch):
    assert kernels.install("off") == "off"
    monkeypatch.setenv("MNIST_BN_ACCELERATE", "off")
    assert kernels.install("auto") == "off"


@needs_kernels
def test_on_goes_before_the_environment(monkeypatch):
    monkeypatch.setenv("MNIST_BN_ACCELERATE", "off")
    assert kernels.install("on") == build.instruction_set()


def test_auto_without_kernels_is_stock_and_on_is_an_error(no_kernels):
    assert kernels.install("auto") == "off"
    assert kernels.why_not() == "no C++ compiler found: get one"
    with pytest.raises(kernels.AccelerationUnavailable) as error:
        kernels.install("on")
    assert str(error.value) == "--accelerate on: no C++ compiler found: get one"
    assert error.value.status == 1


@needs_kernels
@pytest.mark.parametrize("cover", ["second order", "no backprop"])
def test_graphs_stay_chainers(cover):
    kernels.install("on")
    x = chainer.Variable(np.random.RandomState(0).randn(2, 1, 6, 6).astype(np.float32))
    w = chainer.Variable(np.random.RandomState(1).randn(3, 1, 3, 3).astype(np.float32))
    if cover == "no backprop":
        with chainer.no_backprop_mode():
            assert F.relu(F.convolution_2d(x, w)).creator is None
        return
    y = F.sum(F.convolution_2d(x, w) ** 2)
    (gradient,) = chainer.grad([y], [w], enable_double_backprop=True)
    (second,) = chainer.grad([F.sum(gradient)], [w])
    # The loss is quadratic in w: its second derivatives do not depend on w.
    w2 = chainer.Variable(w.array + 1)
    y2 = F.sum(F.convolution_2d(x, w2) ** 2)
    (gradient2,) = chainer.grad([y2], [w2])
    np.testing.assert_allclose(
        gradient2.array.sum() - gradient.array.sum(), second.array.sum(), rtol=1e-3
    )
