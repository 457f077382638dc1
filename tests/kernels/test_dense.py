"""Linear layers, BN, activations and dropout as one node, against a node for each."""

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer.function_hooks import TimerHook as FunctionTimerHook
from chainer.link_hooks import TimerHook
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.usefixtures("accelerated")


class Net(chainer.Chain):
    def __init__(self, linear, ratio):
        super().__init__()
        with self.init_scope():
            self.linear = linear
        self.ratio = ratio

    def forward(self, x):
        return F.dropout(F.relu(self.linear(x)), self.ratio)


def layer(shape, out, dtype="f", seed=0):
    """Returns x, gy and the link, of random numbers."""
    rng = np.random.RandomState(seed)
    linear = L.Linear(int(np.prod(shape[1:])), out)
    for parameter in linear.params():
        parameter.array = rng.randn(*parameter.shape).astype(dtype)
    return rng.randn(*shape).astype(dtype), rng.randn(shape[0], out).astype(dtype), linear


def results(apply, x, gy, linear):
    """Returns the output, the gradients, the gradients of their sum of squares, and what NumPy
    draws next."""
    np.random.seed(1)
    x = chainer.Variable(x)
    y = apply(x)
    inputs = [x, linear.W, linear.b]
    first = chainer.grad([y], inputs, [chainer.Variable(gy)])
    again = chainer.grad([y], inputs, [chainer.Variable(gy)], enable_double_backprop=True)
    second = chainer.grad([sum(F.sum(g * g) for g in again)], [x, linear.W])
    return [y.array, *(v.array for v in (*first, *again, *second)), np.random.rand(1)]


def assert_as_node_for_node(x, gy, linear, ratio=0.5):
    net = Net(linear, ratio)
    expected = results(net.forward, x, gy, linear)  # outside a link's call nothing waits
    actual = results(net, x, gy, linear)
    for a, e in zip(actual[:4], expected[:4], strict=True):
        np.testing.assert_array_equal(a, e)
    for a, e in zip(actual[4:], expected[4:], strict=True):
        assert a.dtype == e.dtype
        np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-5)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.integers(1, 5), min_size=2, max_size=4).map(tuple),
    st.integers(1, 20),
    st.sampled_from([0.0, 0.3, 0.9]),
)
def test_it_is_a_node_for_each_to_the_bit(shape, out, ratio):
    assert_as_node_for_node(*layer(shape, out), ratio=ratio)


def test_a_gradient_of_gradients_if_the_weights_come_of_the_input():
    x, gy, _ = layer((5, 4), 5)

    class Own(chainer.Chain):
        def forward(self, x):
            return F.relu(F.linear(x, F.sigmoid(x), F.sum(x, 1)))

    def second(call):
        v = chainer.Variable(x)
        (gx,) = chainer.grad([call(v)], [v], [chainer.Variable(gy)], enable_double_backprop=True)
        return chainer.grad([F.sum(gx * gx)], [v])[0].array

    net = Own()
    np.testing.assert_allclose(second(net), second(net.forward), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite(value):
    x, gy, linear = layer((4, 3), 5)
    x[1, 2] = value
    with np.errstate(all="ignore"):
        assert_as_node_for_node(x, gy, linear)


def test_maps_in_nhwc_memory():
    x, gy, linear = layer((3, 4, 2, 2), 5)
    x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert_as_node_for_node(x, gy, linear)


def test_no_dropout_in_test_mode():
    x, gy, linear = layer((3, 4), 5)
    with chainer.using_config("train", False):
        assert_as_node_for_node(x, gy, linear)
        y = Net(linear, 0.5)(x)
    np.testing.assert_array_equal(y.array, np.maximum(linear(x).array, 0))


def label(x, linear):
    return Net(linear, 0.5)(x).node.creator_node.label


def test_one_node_where_it_is_covered():
    x, _, linear = layer((3, 4), 5)
    assert label(x, linear) == "Linear, ReLU, dropout"
    assert label(x, L.Linear(5)) == "Linear, ReLU, dropout"


class OtherLinear(L.Linear):
    pass


def test_a_subclass_that_calls_chainers_function_fuses():
    x, _, _ = layer((3, 4), 5)
    assert label(x, OtherLinear(4, 5)) == "Linear, ReLU, dropout"


@pytest.mark.parametrize(
    "change",
    [
        lambda x, linear: (x, L.Linear(4, 5, nobias=True)),
        lambda x, linear: (x.astype("d"), linear),
        lambda x, linear: (x, linear.add_hook(TimerHook()) or linear),
    ],
    ids=["no bias", "float64", "hook"],
)
def test_other_cases_have_a_node_for_each(change):
    x, _, linear = layer((3, 4), 5)
    x, linear = change(x, linear)
    with chainer.using_config("type_check", False):
        assert label(x, linear) == "Dropout"


def test_a_hook_of_functions_sees_each_of_them():
    x, _, linear = layer((3, 4), 5)
    with FunctionTimerHook() as hook:
        Net(linear, 0.5)(x)
    assert [name for name, _ in hook.call_history] == ["LinearFunction", "ReLU", "Dropout"]


def test_a_wrong_size_is_chainers_error():
    x, _, linear = layer((3, 4), 5)
    with pytest.raises(chainer.utils.type_check.InvalidType):
        Net(linear, 0.5)(x[:, :3])


class Dense(chainer.Chain):
    """Functions by their letters: (l)inear, (b)n, (r)elu, (s)igmoid, (k) leaky ReLU, (d)ropout."""

    def __init__(self, letters, bare=()):
        super().__init__()
        self.letters = letters
        with self.init_scope():
            for i, letter in enumerate(letters):
                if letter == "l":
                    setattr(self, f"f{i}", L.Linear(7, 7))
                elif letter == "b":
                    own = {"use_gamma": i not in bare, "use_beta": i not in bare}
                    setattr(self, f"f{i}", L.BatchNormalization(7, **own))

    def forward(self, x):
        plain = {"r": F.relu, "s": F.sigmoid, "k": F.leaky_relu, "d": F.dropout}
        for i, letter in enumerate(self.letters):
            x = (plain.get(letter) or getattr(self, f"f{i}"))(x)
        return x


def of_dense(net, apply, requires_grad):
    """Returns the output, all gradients, and all statistics."""
    np.random.seed(1)
    net.cleargrads()
    x = chainer.Variable(np.random.randn(9, 7).astype("f"), requires_grad=requires_grad)
    for bnorm in net.children():
        if isinstance(bnorm, L.BatchNormalization):
            bnorm.avg_mean, bnorm.avg_var = np.zeros(7, "f"), np.ones(7, "f")
    y = apply(x)
    label = y.node._creator_node.label
    if y.requires_grad:
        y.grad = np.random.randn(9, 7).astype("f")
        y.backward()
    grads = {name: p.grad for name, p in net.namedparams()} | {"x": x.grad, "y": y.array.copy()}
    for name, link in net.namedlinks():
        if isinstance(link, L.BatchNormalization):
            grads |= {name + "mean": link.avg_mean.copy(), name + "var": link.avg_var.copy()}
    return label, grads


@given(
    st.text("lbrskd", min_size=1, max_size=9),
    st.sets(st.integers(0, 9), max_size=4),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_any_chain_has_the_bits_of_a_node_for_each(letters, bare, requires_grad):
    np.random.seed(0)
    net = Dense("l" + letters, bare)
    _, expected = of_dense(net, net.forward, requires_grad)
    label, actual = of_dense(net, net, requires_grad)
    assert label.startswith("Linear, ")  # one node for all
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        if value is None:
            assert actual[name] is None
        else:
            np.testing.assert_array_equal(actual[name], value, err_msg=name)


def test_fixed_statistics_fuse_only_without_gradients():
    net = Dense("lbr")
    with chainer.using_config("train", False):
        label, _ = of_dense(net, net, True)
        assert label == "ReLU"
        x = np.random.RandomState(0).randn(9, 7).astype("f")
        with chainer.no_backprop_mode():
            np.testing.assert_array_equal(net(x).array, net.forward(x).array)


def test_who_looks_at_the_graph_of_a_bn_that_ends_a_chain_updates_nothing_again():
    net, x = Dense("lb"), np.random.RandomState(0).randn(9, 7).astype("f")
    y = net(x)
    mean = net.f1.avg_mean.copy()
    assert y.creator.label == "BatchNormalization"
    np.testing.assert_array_equal(net.f1.avg_mean, mean)


def test_fixed_statistics_begin_no_chain_that_needs_gradients():
    net, x = Dense("lbb"), np.random.RandomState(0).randn(9, 7).astype("f")

    class Keeps(chainer.Chain):
        def __init__(self):
            super().__init__(net=net)

        def forward(self, x):
            self.kept = net.f0(x)  # it waits, and is not fused
            with chainer.using_config("train", False):
                h = net.f1(self.kept)
            return net.f2(h)

    model = Keeps()
    y = model(x)
    y.grad = np.ones_like(y.array)
    y.backward()
    assert net.f1.gamma.grad is not None
