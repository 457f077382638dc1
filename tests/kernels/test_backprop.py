"""The loop of backpropagation, against Chainer's: the same gradients to the bit."""

import chainer
import chainer.functions as F
import numpy as np
import pytest
from chainer import Variable

from mnist_bn.kernels import backprop
from tests.kernels.switching import kernels

GRAPHS = {}


def graph(function):
    GRAPHS[function.__name__] = function
    return function


def variable(seed, shape=(4, 3), **options):
    array = np.random.RandomState(seed).standard_normal(shape)
    return Variable(np.asarray(array, "f"), **options)


@graph
def a_line():
    x = variable(0)
    loss = F.sum(F.tanh(F.exp(x)))
    loss.backward()
    return [x, loss]


@graph
def one_used_many_times():
    x, y = variable(0), variable(1)
    z = x * y
    loss = F.sum(z * z + F.sin(z) * x + F.concat([x, y, x], axis=0)[2:6])
    loss.backward()
    return [x, y, z, loss]


@graph
def a_gradient_that_was_there():
    x = variable(0, grad=np.ones((4, 3), "f"))
    F.sum(x * x).backward()
    F.sum(F.sin(x)).backward()
    return [x]


@graph
def an_intermediate_gradient_that_was_there():
    x = variable(0)
    y = F.tanh(x)
    y.grad = np.ones((4, 3), "f")
    F.sum(y * y).backward()
    return [x, y]


@graph
def retained():
    x = variable(0)
    y = F.tanh(x)
    parts = F.split_axis(y, 3, axis=1)
    loss = F.sum(parts[0] * parts[2])
    loss.backward(retain_grad=True)
    return [x, y, *parts, loss]


@graph
def one_of_two_outputs_unchained():
    x = variable(0)
    x.grad = np.zeros((4, 3), "f")
    a, b = F.split_axis(x, [2], axis=0)
    a.unchain()
    loss = F.sum(a) + F.sum(b)
    for v in (a, b):
        v.grad = np.zeros(v.shape, "f")
    loss.backward()
    return [x, a, b, loss]


@graph
def several_outputs():
    x = variable(0)
    a, b = F.sin(x), F.cos(x)
    chainer.backward([a, b], [variable(1), variable(2)])
    return [x, a, b]


@graph
def a_leaf_that_wants_none():
    x, w = variable(0, requires_grad=False), variable(1)
    F.sum(x * w + F.sin(x)).backward()
    return [x, w]


@graph
def a_leaf_alone():
    x = variable(0, ())
    x.backward()
    return [x]


@graph
def a_loss_scale():
    x = variable(0)
    loss = F.sum(F.sin(x))
    loss.backward(loss_scale=128)
    return [x, loss]


@graph
def a_gradient_of_the_losss_gradient():
    x = variable(0)
    loss = F.sum(x**3)
    loss.backward(retain_grad=True, enable_double_backprop=True)
    F.sum(x.grad_var).backward()
    return [loss.grad_var, loss]


@graph
def double_backprop():
    x = variable(0)
    F.sum(x**3).backward(enable_double_backprop=True)
    gradient = x.grad_var
    x.cleargrad()
    F.sum(gradient * gradient).backward()
    return [x]


@graph
def a_function_that_accumulates():
    x = variable(0)
    y = F.get_item(x, (slice(None), 1))
    z = F.get_item(x, (slice(None), 1))
    F.sum(y * z + F.sum(x, axis=1)).backward()
    return [x]


@graph
def summed_lazily():
    with chainer.using_config("lazy_grad_sum", True):
        return one_used_many_times()


@pytest.mark.filterwarnings("error::DeprecationWarning")
def test_a_loss_of_one_element_is_chainers_to_warn_of():
    with kernels(backprop.replacements()), pytest.raises(DeprecationWarning, match="one element"):
        variable(0, (1,)).backward()


def gradients(variables):
    return [None if v.grad is None else v.grad.copy() for v in variables]


@pytest.mark.parametrize("name", GRAPHS)
def test_gradients_are_chainers(name):
    expected = gradients(GRAPHS[name]())
    with kernels(backprop.replacements(), only=True):
        actual = gradients(GRAPHS[name]())
    for a, e in zip(actual, expected, strict=True):
        assert (a is None) == (e is None)
        if e is not None:
            assert a.dtype == e.dtype
            np.testing.assert_array_equal(a, e)


class Names(chainer.FunctionHook):
    name = "names"

    def __init__(self):
        self.seen = []

    def backward_preprocess(self, function, in_data, out_grad):
        self.seen.append(("before", function.label, len(in_data), out_grad[0].sum()))

    def backward_postprocess(self, function, in_data, out_grad):
        self.seen.append(("after", function.label))


@pytest.mark.parametrize("own", [True, False])
def test_hooks_see_what_chainers_loop_shows(own):
    def seen():
        hook, x = Names(), variable(0)
        y = F.tanh(x)
        loss = F.sum(y * y)
        if own:
            y.creator.add_hook(hook)
            loss.backward()
        else:
            with hook:
                loss.backward()
        return hook.seen

    expected = seen()
    with kernels(backprop.replacements()):
        assert seen() == expected


def test_a_wrong_gradient_is_chainers_error():
    class Wrong(chainer.FunctionNode):
        def forward(self, inputs):
            return (inputs[0].copy(),)

        def backward(self, indexes, grad_outputs):
            return (grad_outputs[0][:2],)

    def message():
        with pytest.raises(ValueError, match=r"[Ss]hape") as caught:
            F.sum(Wrong().apply([variable(0)])[0]).backward()
        return str(caught.value)

    expected = message()
    with kernels(backprop.replacements(), only=True):
        assert message() == expected


def test_debug_mode_is_chainers():
    class NaN(chainer.FunctionNode):
        def forward(self, inputs):
            return (inputs[0].copy(),)

        def backward(self, indexes, grad_outputs):
            return (grad_outputs[0] * np.float32("nan"),)

    def message():
        with chainer.using_config("debug", True), pytest.raises(RuntimeError) as caught:
            F.sum(NaN().apply([variable(0)])[0]).backward()
        return str(caught.value).split("\n")[0]

    expected = message()
    assert "NaN" in expected
    with kernels(backprop.replacements()):
        assert message() == expected
