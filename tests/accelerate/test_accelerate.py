"""Switching the kernels on and off."""

import chainer
import chainer.functions as F
import numpy as np
import pytest
from chainer.functions.connection import convolution_2d

from mnist_bn import accelerate
from mnist_bn.accelerate import build, seam

KERNELS = accelerate.install() != accelerate.STOCK
accelerate.uninstall()
needs_kernels = pytest.mark.skipif(not KERNELS, reason="no C++ compiler here")


@pytest.fixture(autouse=True)
def stock_afterwards():
    yield
    accelerate.uninstall()


@pytest.fixture
def no_kernels(monkeypatch):
    def unavailable():
        raise build.Unavailable("no C++ compiler found: get one")

    monkeypatch.setattr(build, "load", unavailable)


@needs_kernels
def test_installing_replaces_methods_and_uninstalling_restores_them():
    node = convolution_2d.Convolution2DFunction
    stock = node.forward_cpu
    assert accelerate.install() == build.instruction_set() == accelerate.active()
    assert node.forward_cpu is not stock
    assert accelerate.install() == accelerate.active()
    accelerate.uninstall()
    assert node.forward_cpu is stock
    assert accelerate.active() == "off"
    assert not seam._originals


@needs_kernels
def test_stock_after_uninstalling_is_stock_to_the_bit():
    x = np.random.RandomState(0).randn(4, 3, 9, 9).astype(np.float32)
    w = np.random.RandomState(1).randn(5, 3, 3, 3).astype(np.float32)
    before = F.convolution_2d(x, w).array
    accelerate.install()
    F.convolution_2d(x, w)
    accelerate.uninstall()
    assert np.array_equal(F.convolution_2d(x, w).array, before)


def test_off_by_argument_and_by_environment(monkeypatch):
    assert accelerate.install("off") == "off"
    monkeypatch.setenv("MNIST_BN_ACCELERATE", "off")
    assert accelerate.install("auto") == "off"


@needs_kernels
def test_on_goes_before_the_environment(monkeypatch):
    monkeypatch.setenv("MNIST_BN_ACCELERATE", "off")
    assert accelerate.install("on") == build.instruction_set()


def test_auto_without_kernels_is_stock_and_on_is_an_error(no_kernels):
    assert accelerate.install("auto") == "off"
    assert accelerate.why_not() == "no C++ compiler found: get one"
    with pytest.raises(accelerate.AccelerationUnavailable) as error:
        accelerate.install("on")
    assert str(error.value) == "--accelerate on: no C++ compiler found: get one"
    assert error.value.status == 1


@needs_kernels
@pytest.mark.parametrize("cover", ["second order", "no backprop"])
def test_graphs_stay_chainers(cover):
    accelerate.install("on")
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
