"""Building the graph for NumPy arrays, against Chainer's own way."""

import chainer
import chainer.functions as F
import numpy as np
import pytest
from chainer import backend, function_hooks
from chainer.function_node import FunctionNode
from chainer.functions.evaluation.accuracy import Accuracy
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_bn.kernels import graph
from tests.kernels.switching import kernels

REPLACEMENTS = graph.replacements()


class Returns(FunctionNode):
    """Returns what it was made with, and counts how often."""

    def __init__(self, outputs):
        self.outputs_given = outputs
        self.calls = 0

    def forward(self, inputs):
        self.calls += 1
        self.retain_inputs((0,))
        self.retain_outputs((0,))
        return self.outputs_given


class ReturnsElementwise(Returns):
    is_elementwise = True


def array(*shape, seed=0):
    return np.random.RandomState(seed).randn(*shape).astype(np.float32)


def a_bit_of_everything(x, w):
    """Several inputs and outputs, a branch, a branch that ends, an array among the Variables."""
    a, b = F.split_axis(F.tanh(F.matmul(x, w)), 2, 1)
    F.exp(b)
    return F.sum(F.concat([a * b, a + 1, b * np.float32(2)], 1) ** 2)


def derivatives(shape):
    """Returns y, its gradients, and the gradients of their sum of squares."""
    x, w = chainer.Variable(array(*shape)), chainer.Variable(array(shape[1], 4, seed=1))
    y = a_bit_of_everything(x, w)
    first = chainer.grad([y], [x, w], enable_double_backprop=True)
    second = chainer.grad([sum(F.sum(g * g) for g in first)], [x, w])
    x.cleargrad()
    y.backward()
    return [y.array, *(v.array for v in (*first, *second)), x.grad, w.grad]


@settings(deadline=None)
@given(st.tuples(st.integers(1, 5), st.integers(1, 5)))
def test_results_and_derivatives_are_the_same_bits(shape):
    expected = derivatives(shape)
    with kernels(REPLACEMENTS):
        actual = derivatives(shape)
    for a, e in zip(actual, expected, strict=True):
        assert a.dtype == e.dtype
        np.testing.assert_array_equal(a, e)


def test_plain_functions_do_not_go_to_chainer():
    with kernels(REPLACEMENTS, only=True):
        derivatives((2, 3))
        x = chainer.Variable(array(4, 3))
        y = F.batch_normalization(x, array(3), array(3, seed=1))
        chainer.grad([y], [x])


@pytest.mark.parametrize("lazy", [False, True])
def test_lazy_sums_of_gradients_are_kept(lazy):
    with kernels(REPLACEMENTS), chainer.using_config("lazy_grad_sum", lazy):
        assert F.exp(chainer.Variable(array(2))).creator_node.lazy_grad_sum is lazy


def test_types_are_checked_only_where_that_is_wanted():
    with (
        kernels(REPLACEMENTS),
        chainer.using_config("type_check", False),
        pytest.raises(ValueError, match="matmul"),
    ):
        F.matmul(array(2, 3), array(2, 3))


def test_types_that_passed_let_no_others_pass():
    scores, labels = array(4, 3), np.array([0, 1, 2, 0], np.int32)
    wrong = [(scores, labels[:3]), (scores.astype(np.int32), labels), (scores, labels[:, None])]
    with kernels(REPLACEMENTS):
        for function in (F.softmax_cross_entropy, F.accuracy):
            for _ in range(2):
                function(scores, labels)
                for x, t in wrong:
                    with pytest.raises(chainer.utils.type_check.InvalidType):
                        function(x, t)


def test_a_check_put_in_after_types_passed_is_called(monkeypatch):
    scores, labels = array(4, 3), np.array([0, 1, 2, 0], np.int32)
    with kernels(REPLACEMENTS):
        F.accuracy(scores, labels)
        monkeypatch.setattr(Accuracy, "check_type_forward", Refuses.refuse)
        with pytest.raises(ValueError, match="refused"):
            F.accuracy(scores, labels)


class Refuses(Returns):
    """Has checks of its own, as a subclass, an instance or a mock may have them."""

    def refuse(self, inputs):
        raise ValueError("refused")


def on_the_class(check):
    return type("Checks", (Refuses,), {check: Refuses.refuse})((array(2),))


def on_the_instance(check):
    node = Refuses((array(2),))
    setattr(node, check, node.refuse)
    return node


def on_the_base(check, monkeypatch):
    monkeypatch.setattr(FunctionNode, check, Refuses.refuse)
    return Refuses((array(2),))


@pytest.mark.parametrize("check", ["check_type_forward", "check_layout_forward"])
@pytest.mark.parametrize("where", [on_the_class, on_the_instance, on_the_base])
def test_a_nodes_own_checks_are_called(where, check, monkeypatch):
    node = where(check, monkeypatch) if where is on_the_base else where(check)
    with kernels(REPLACEMENTS), pytest.raises(ValueError, match="refused"):
        node.apply((array(2),))


def test_checks_of_layouts_get_variables():
    seen = []
    node = Returns((array(2),))
    node.check_layout_forward = seen.extend
    x = chainer.Variable(array(2))
    with kernels(REPLACEMENTS):
        y = node.apply((x, array(2)))[0]
    assert seen[0] is x
    assert type(seen[1]) is chainer.Variable
    assert y.creator_node.inputs[0] is x.node


def test_subclasses_of_variable_are_chainers_to_handle():
    class Frozen(chainer.Variable):
        requires_grad = False

    with kernels(REPLACEMENTS):
        assert not F.exp(Frozen(array(2))).requires_grad


def test_layouts_can_be_changed():
    x = chainer.Variable(array(2, 3, 4, 5))
    layout = chainer.memory_layouts.CUDNN_CHANNEL_LAST_X
    with kernels(REPLACEMENTS):
        y = x.as_layout(layout)
    assert y.layout == layout
    np.testing.assert_array_equal(y.raw_array, x.array.transpose(0, 2, 3, 1))


def test_layouts_are_chainers():
    x = chainer.Variable(array(2, 3, 4, 5)).as_layout(chainer.memory_layouts.CUDNN_CHANNEL_LAST_X)
    assert x.layout is not None
    with kernels(REPLACEMENTS):
        assert F.relu(x).layout == x.layout


def both_errors(run):
    with pytest.raises(Exception) as stock:
        run()
    with kernels(REPLACEMENTS), pytest.raises(type(stock.value)) as actual:
        run()
    return str(actual.value), str(stock.value)


@pytest.mark.parametrize(
    "run",
    [
        lambda: F.matmul(array(2, 3), array(2, 3)),
        lambda: F.relu(np.zeros(3, np.int32)),
        lambda: Returns([array(2)]).apply((array(2),)),
        lambda: Returns((1.0,)).apply((array(2),)),
        lambda: ReturnsElementwise((array(2), array(3))).apply((array(2),)),
        lambda: F.exp("two"),
    ],
    ids=["shapes", "dtype", "a list", "no array", "not elementwise", "a string"],
)
def test_errors_are_chainers(run):
    actual, expected = both_errors(run)
    assert actual == expected


@pytest.mark.parametrize(
    "outputs",
    [(array(2),), (array(2), None), (array(2).view(np.matrix),)],
    ids=["array", "None", "subclass"],
)
def test_forward_runs_once(outputs):
    node = Returns(outputs)
    x = chainer.Variable(array(2))
    with kernels(REPLACEMENTS):
        results = node.apply((x,))
    assert node.calls == 1
    assert "forward" not in vars(node)
    assert [r.array is y for r, y in zip(results, outputs, strict=True)] == [True] * len(outputs)
    assert results[0].creator_node is node
    assert node.get_retained_inputs()[0].array is x.array
    assert node.get_retained_outputs()[0].array is outputs[0]


def test_what_is_retained_may_be_named_by_an_array():
    class Retains(FunctionNode):
        def forward(self, inputs):
            self.retain_inputs(np.array([0, 1]))
            return (inputs[0] + inputs[1],)

    with kernels(REPLACEMENTS):
        y = Retains().apply((chainer.Variable(array(2)), chainer.Variable(array(2))))[0]
    assert len(y.creator_node.get_retained_inputs()) == 2


def test_a_forward_of_the_nodes_own_stays():
    node = Returns((array(2),))
    node.forward = lambda inputs: (array(2), None)
    with kernels(REPLACEMENTS):
        node.apply((array(2),))
    assert "forward" in vars(node)


@pytest.mark.parametrize("mode", [chainer.no_backprop_mode, chainer.force_backprop_mode])
def test_backprop_modes(mode):
    x = chainer.Variable(array(2))
    with kernels(REPLACEMENTS), chainer.no_backprop_mode(), mode():
        y = F.exp(x)
    assert (y.creator is None) == (mode is chainer.no_backprop_mode)


def test_requires_grad_is_passed_on():
    with kernels(REPLACEMENTS):
        assert not F.exp(array(2)).requires_grad
        assert F.exp(chainer.Variable(array(2))).requires_grad
        assert not F.exp(chainer.Variable(array(2), requires_grad=False)).requires_grad


@pytest.mark.parametrize("local", [False, True])
def test_hooks_are_called(local):
    hook = function_hooks.TimerHook()
    node = F.activation.relu.ReLU()
    with kernels(REPLACEMENTS):
        if local:
            node.add_hook(hook)
            node.apply((array(2),))
        else:
            with hook:
                node.apply((array(2),))
    assert [name for name, _ in hook.call_history] == ["ReLU"]


def test_debug_mode_finds_nan():
    with (
        kernels(REPLACEMENTS),
        chainer.using_config("debug", True),
        pytest.raises(RuntimeError, match="NaN is detected"),
    ):
        F.identity(np.full(2, np.nan, np.float32))


@pytest.mark.parametrize(
    "arrays", [[], [array(2)], [None, array(2)], [array(2), "two"], [array(2), 1.0]]
)
def test_compatibility_and_device_of_arrays(arrays):
    expected = chainer.is_arrays_compatible(arrays), backend.get_device_from_array(*arrays)
    with kernels(REPLACEMENTS):
        actual = chainer.is_arrays_compatible(arrays), backend.get_device_from_array(*arrays)
    assert actual == expected
