"""More programs: arrays that others have, whole networks looked at, Chainer's rarer ways."""

import copy
import gc
import io
import pickle
import weakref

import chainer
import chainer.function_hooks
import chainer.functions as F
import chainer.link_hooks
import chainer.links as L
import numpy as np
import pytest
from chainer import Variable

from mnist_bn import kernels
from mnist_bn.kernels import waiting
from tests.kernels.programs import (
    Net,
    T,
    all_labels,
    assert_as_stock,
    block,
    both,
    forward,
    images,
    labels,
    pool,
    statistics,
    train,
)

pytestmark = pytest.mark.usefixtures("library")
BODIES = {}


def body(function):
    """Registers a forward pass, to be trained and evaluated on stock Chainer and on ours."""
    BODIES[function.__name__] = function
    return function


# --- Somebody else has an array, and changes it between the call and the look ---


@body
def raw_input_changed(net, x):
    h = net.conv1(x)
    x[...] = 0
    return net.l(pool(F.relu(net.bn1(h))))


@body
def part_of_the_raw_input_changed(net, x):
    h = pool(F.relu(net.conv1(x)))
    x[2, 1, 3:, 5] += 1
    return net.l(h)


@body
def input_changed_by_a_view_from_before(net, x):
    view = x[1:3]
    x = Variable(x)
    h = F.relu(net.bn1(net.conv1(x)))
    view[...] *= -1
    return net.l(pool(h))


@body
def input_that_is_a_view_changed_by_its_base(net, x):
    h = net.conv1(x[:, :, ::-1])
    x[...] = 1
    return net.l(pool(F.relu(net.bn1(h))))


@body
def reshaped_input_changed(net, x):
    h = F.reshape(x, (6, 2, 14, 14))
    h = F.relu(net.conv1(F.reshape(h, (6, 2, 7, 28))))
    x[...] = 1
    return net.l(pool(h))


@body
def weight_changed_by_its_array(net, x):
    w = net.conv1.W.array
    h = net.conv1(x)
    w *= 0.5
    return net.l(pool(F.relu(net.bn1(h))))


@body
def weight_changed_by_a_view(net, x):
    w = net.conv1.W.array[0]
    h = net.conv1(x)
    w *= 0.5
    return net.l(pool(F.relu(net.bn1(h))))


@body
def weight_changed_by_a_memoryview(net, x):
    w = memoryview(net.conv1.W.array)
    h = net.conv1(x)
    np.asarray(w)[...] *= 0.5
    return net.l(pool(F.relu(net.bn1(h))))


@body
def weight_changed_by_a_transposed_variable(net, x):
    w = F.transpose(net.conv1.W)
    h = net.conv1(x)
    w.array[...] *= 0.5
    return net.l(pool(F.relu(net.bn1(h))))


@body
def weight_transposed_and_changed_meanwhile(net, x):
    h = net.conv1(x)
    F.transpose(net.conv1.W).array[...] *= 0.5
    return net.l(pool(F.relu(net.bn1(h))))


@body
def weight_changed_by_a_copy_of_its_variable(net, x):
    w = copy.copy(net.conv1.W)
    h = net.conv1(x)
    w.array[...] *= 0.5
    return net.l(pool(F.relu(net.bn1(h))))


@body
def weight_changed_by_a_copy_of_its_link(net, x):
    other = net.conv1.copy("share")
    h = net.conv1(x)
    other.W.array[...] *= 0.5
    return net.l(pool(F.relu(net.bn1(h))))


@body
def weight_changed_through_its_raw_array(net, x):
    h = net.conv1(x)
    net.conv1.W.raw_array[...] *= 0.5
    return net.l(pool(F.relu(net.bn1(h))))


@body
def bias_gamma_and_beta_changed(net, x):
    arrays = net.conv1.b.array, net.bn1.gamma.array, net.bn1.beta.array
    h = F.relu(net.bn1(net.conv1(x)))
    for a in arrays:
        a += 0.25
    return net.l(pool(h))


@body
def linear_weight_changed(net, x):
    w = net.d1.W.array
    h = F.relu(net.d1(x))
    if w is not None:
        w *= 0.5
    return net.l(F.dropout(h))


@body
def all_parameters_changed(net, x):
    h = net.bn1(net.conv1(x))
    for p in net.params():
        if p.array is not None:
            p.array[...] *= 0.9
    return net.l(pool(F.relu(h)))


@body
def parameters_copied_from_another_link(net, x):
    other = net.conv1.copy("copy")
    for p in other.params():
        p.data = p.data * 0.5
    h = net.conv1(x)
    net.conv1.copyparams(other)
    return net.l(pool(F.relu(net.bn1(h))))


@body
def statistics_read_by_their_array(net, x):
    mean, var = net.bn1.avg_mean, net.bn1.avg_var
    h = net.bn1(net.conv1(x))
    net.see(mean, var)
    return net.l(pool(F.relu(h)))


@body
def statistics_changed_by_a_view(net, x):
    mean = net.bn1.avg_mean[1:]
    h = net.bn1(net.conv1(x))
    mean += 1
    return net.l(pool(F.relu(h)))


@body
def statistics_shared_by_two_links(net, x):
    net.bn2.avg_mean = net.bn1.avg_mean
    h = block(net, x)
    h = block(net, h, 2)
    net.see(net.bn1.avg_mean, net.bn2.avg_var)
    return net.l(h)


@body
def statistics_changed_after_test_mode(net, x):
    with chainer.using_config("train", False):
        h = net.bn1(net.conv1(x))
    net.bn1.avg_mean[...] += 1
    return net.l(pool(F.relu(h)))


@body
def own_statistics_changed_after_a_fixed_bn(net, x):
    mean, var = np.zeros(4, "f"), np.ones(4, "f")
    bn, h = net.bn1, net.conv1(x)
    h = F.fixed_batch_normalization(h, bn.gamma, bn.beta, mean, var)
    mean += 1
    return net.l(pool(F.relu(h)))


@body
def own_statistics_are_variables(net, x):
    mean, var = Variable(np.zeros(4, "f")), Variable(np.ones(4, "f"))
    bn, h = net.bn1, net.conv1(x)
    h = pool(F.relu(F.fixed_batch_normalization(h, bn.gamma, bn.beta, mean, var)))
    if chainer.config.enable_backprop:
        net.see(*chainer.grad([F.sum(h)], [mean, var, bn.gamma]))
    return net.l(h)


@body
def mask_of_dropout_changed(net, x):
    h, mask = F.dropout(F.relu(net.d1(x)), return_mask=True)
    if mask is not None:
        mask[:, 0] = 0
    return net.l(h)


# --- Whole links looked at, copied, changed ---


@body
def link_serialized(net, x):
    h = net.bn1(net.conv1(x))
    serializer = chainer.serializers.DictionarySerializer()
    serializer.save(net.bn1)
    net.see(serializer.target["avg_mean"])
    return net.l(pool(F.relu(h)))


@body
def network_saved_as_npz(net, x):
    h = net.bn1(net.conv1(x))
    file = io.BytesIO()
    chainer.serializers.save_npz(file, net)
    file.seek(0)
    with np.load(file) as saved:
        net.see(saved["bn1/avg_var"])
    return net.l(pool(F.relu(h)))


@body
def network_loaded(net, x):
    file = io.BytesIO()
    chainer.serializers.save_npz(file, net)
    file.seek(0)
    h = block(net, x)
    chainer.serializers.load_npz(file, net, strict=False)
    net.see(net.bn1.avg_mean)
    return net.l(h)


@body
def link_copied_deeply(net, x):
    h = net.bn1(net.conv1(x))
    net.see(vars(copy.deepcopy(net.bn1))["avg_mean"])
    return net.l(pool(F.relu(h)))


@body
def link_pickled(net, x):
    h = net.bn1(net.conv1(x))
    net.see(pickle.loads(pickle.dumps(net.bn1)).avg_mean)
    return net.l(pool(F.relu(h)))


@body
def link_copied(net, x):
    h = net.bn1(net.conv1(x))
    other = net.bn1.copy("copy")
    net.see(vars(other)["avg_mean"])
    return net.l(pool(F.relu(other(h))))


@body
def link_sent_to_the_cpu(net, x):
    h = net.bn1(net.conv1(x))
    net.to_device("@numpy")
    return net.l(pool(F.relu(h)))


@body
def parameter_sent_to_the_cpu(net, x):
    h = net.conv1(x)
    net.conv1.W.to_device("@numpy")
    h.to_device("@numpy")
    return net.l(pool(h))


@body
def statistic_deleted(net, x):
    h = net.bn1(net.conv1(x))
    mean = net.bn1.avg_mean.copy()
    del net.bn1.avg_mean
    net.see(hasattr(net.bn1, "avg_mean"), mean)
    net.bn1.add_persistent("avg_mean", mean)
    return net.l(pool(F.relu(h)))


@body
def updated_within_the_call(net, x):
    h = block(net, x)
    other = L.Linear(4, 2, initialW=1)
    optimizer = chainer.optimizers.SGD(0.1).setup(net.conv1)
    net.conv1.cleargrads()
    optimizer.update()
    other.cleargrads()
    return net.l(h)


@body
def trained_within_the_call(net, x):
    y = net.l(block(net, x))
    if chainer.config.enable_backprop:
        optimizer = chainer.optimizers.SGD(0.01).setup(net.conv3)
        part = net.conv3(net.conv1(x))
        net.cleargrads()
        F.mean(part * part).backward()
        optimizer.update()
        net.see(net.conv3.W, net.conv1.W.grad)
    return y


@body
def gradients_cleared_meanwhile(net, x):
    h = net.conv1(x)
    net.cleargrads()
    return net.l(pool(F.relu(h)))


# --- Ways to write a network ---


@body
def a_name_for_each(net, x):
    h1 = net.conv1(x)
    h2 = net.bn1(h1)
    h3 = F.relu(h2)
    h4 = pool(h3)
    h5 = net.conv2(h4)
    h6 = F.relu(h5)
    h7 = net.bn2(h6)
    h8 = pool(h7)
    h9 = net.d1(h8)
    h10 = F.relu(h9)
    return net.l(F.dropout(h10))


@body
def residual(net, x):
    h = net.bn1(net.conv1(x))
    return net.l(
        pool(F.relu(h + net.bn2(net.conv2(F.pad(h, [(0, 0)] * 2 + [(1, 1)] * 2, "edge")))))
    )


@body
def one_added_to_itself(net, x):
    h = net.conv1(x)
    return net.l(pool(F.relu(h + h)))


@body
def relu_of_a_relu_used_twice(net, x):
    h = F.relu(net.conv1(x))
    return net.l(F.concat([pool(h), pool(F.relu(h))]))


@body
def branches_that_begin_as_one(net, x):
    h = net.conv1(x)
    a = F.relu(net.bn1(h))
    b = net.bn2(F.relu(h))
    del h
    return net.l(pool(b) - pool(a))


@body
def branches_in_turns(net, x):
    a, b = net.conv1(x), net.conv1(-x)
    a, b = net.bn1(a), net.bn2(b)
    a, b = F.relu(a), F.relu(b)
    return net.l(F.concat([pool(b), pool(a)]))


@body
def a_bn_used_by_both_branches_in_turns(net, x):
    a, b = net.conv1(x), net.conv1(-x)
    b, a = net.bn1(b), net.bn1(a)
    return net.l(F.concat([pool(F.relu(a)), pool(F.relu(b))]))


@body
def weights_that_are_computed(net, x):
    w = F.reshape(F.relu(net.d2(np.ones((9, 9), "f")))[:, :8], (4, 2, 3, 3))
    return net.l(pool(F.relu(F.convolution_2d(x, w))))


@body
def a_linear_layer_of_computed_weights(net, x):
    w = F.reshape(net.conv3(net.conv1(x))[:, :, :3, :3][:1], (2, 36))
    return net.l(F.relu(F.linear(pool(net.conv2(net.conv1(x)))[:, :1].reshape(6, -1), w[:, :25])))


@body
def a_linear_layer_whose_weights_are_reshaped(net, x):
    w = F.reshape(pool(F.relu(net.conv1(x))), (6, -1))
    return net.l(F.relu(F.linear(w, w, np.ones(6, "f"))))


@body
def gamma_that_is_computed(net, x):
    gamma = F.relu(net.l2(np.ones((1, 2), "f"))).reshape(4) if hasattr(net, "l2") else net.bn1.gamma
    return net.l(pool(F.relu(F.batch_normalization(net.conv1(x), gamma, net.bn1.beta))))


@body
def a_part_of_a_batch(net, x):
    h = F.relu(net.bn1(net.conv1(x)))[1:5]
    return net.l(F.concat([pool(h), pool(h)[:2]], axis=0))


@body
def in_place_operators(net, x):
    h = net.conv1(x)
    h += 1
    h *= net.bn1(h)
    return net.l(pool(-h))


@body
def methods_of_a_variable(net, x):
    h = net.conv1(x)
    net.see(h.T, h.transpose(1, 0, 2, 3), abs(h), h.reshape(6, -1))
    h = net.bn1(h)
    net.see(h[0, 1], h.item(0) if h.size == 1 else 0, F.flatten(h))
    return net.l(h.reshape(6, -1))


@body
def taken_apart(net, x):
    rows = [F.relu(row) for row in F.separate(net.conv1(x))]
    return net.l(pool(F.stack(rows)))


@body
def reshaped_in_between(net, x):
    h = F.reshape(F.relu(net.conv1(x)), (6, -1, 12, 6))
    h = F.reshape(h, (-1, 4, 12, 12))
    return net.l(F.reshape(pool(h), (len(x), -1)))


@body
def mixed_axes_of_linear(net, x):
    h = net.d1(F.reshape(net.conv1(x), (6, -1)))
    h = net.d2(F.reshape(h, (2, 3, 9)), n_batch_axes=2)
    return net.l(F.reshape(F.relu(h), (6, -1)))


@body
def no_bias(net, x):
    h = F.convolution_2d(x, net.conv1.W)
    h = F.linear(
        pool(F.relu(h)),
        net.d1.W[:, :144] if net.d1.W.array is not None else h[:9, 0].reshape(-1, 144)[:9],
    )
    return net.l(F.dropout(F.relu(h)))


@body
def given_mask(net, x):
    mask = np.random.RandomState(0).rand(6, 9).astype("f")
    return net.l(F.dropout(F.relu(net.d1(x)), mask=mask))


@body
def no_ratio(net, x):
    return net.l(F.dropout(F.dropout(F.relu(net.d1(x)), 0.0)))


@body
def other_geometry(net, x):
    w, b = net.conv1.W, net.conv1.b
    h = F.convolution_2d(x, w, b, stride=2, pad=1)
    g = F.convolution_2d(x, w, b, dilate=2, pad=(3, 3), stride=2)
    k = F.convolution_2d(x, w, b, pad=(1, 2), stride=(2, 3), cover_all=True)
    return net.l(F.concat([F.relu(y[:, :, :4, :4]) for y in (h, g, k)]))


@body
def padded_after_a_block(net, x):
    h = pool(F.relu(net.conv1(x)))
    h = F.convolution_2d(h, net.conv2.W, net.conv2.b, pad=1, stride=2)
    return net.l(F.relu(net.bn2(h)))


@body
def bn_over_other_axes(net, x):
    h = F.batch_normalization(
        net.conv1(x), np.ones((4, 12), "f"), np.zeros((4, 12), "f"), axis=(0, 3)
    )
    return net.l(pool(F.relu(h)))


@body
def bn_of_a_linear_layer(net, x):
    h = net.d1(x)
    h = F.batch_normalization(h, np.ones(9, "f"), np.zeros(9, "f"))
    return net.l(F.dropout(F.relu(h)))


@body
def bn_without_gamma_and_beta(net, x):
    if not hasattr(net, "bare"):
        with net.init_scope():
            net.bare = L.BatchNormalization(4, use_gamma=False, use_beta=False)
    h = pool(F.relu(net.bare(net.conv1(x))))
    net.see(net.bare.avg_mean)
    return net.l(h)


@body
def other_dtypes(net, x):
    h = F.cast(net.conv1(x), "float64")
    h = F.cast(F.relu(h), "float16")
    return net.l(F.cast(pool(h), "float32"))


@body
def an_empty_batch_on_the_way(net, x):
    h = F.relu(net.conv1(x[:0]))
    net.see(h.shape)
    return net.l(pool(F.concat([h, F.relu(net.conv1(x))], axis=0)))


@body
def a_function_of_the_old_style(net, x):
    class Twice(chainer.Function):
        def forward(self, inputs):
            return (2 * inputs[0],)

        def backward(self, inputs, grads):
            return (2 * grads[0],)

    return net.l(pool(Twice()(F.relu(net.conv1(x)))))


@body
def caught_within_the_call(net, x):
    h = net.bn1(net.conv1(x))
    try:
        net.conv3(x)
    except chainer.utils.type_check.InvalidType:
        net.see(net.bn1.avg_mean)
    return net.l(pool(F.relu(h)))


@body
def rows_given_by_a_generator(net, x):
    def halves():
        for half in (x[:3], x[3:]):
            yield pool(F.relu(net.bn1(net.conv1(half))))

    return net.l(F.concat(halves(), axis=0))


@body
def links_within_links(net, x):
    inner = chainer.ChainList(net.conv1, net.bn1)
    outer = chainer.Sequential(lambda h: inner[1](inner[0](h)), F.relu, pool)
    return net.l(outer(x))


@body
def a_variable_that_dies(net, x):
    h = net.conv1(x)
    g = F.relu(h)
    net.see(h is g, gc.is_tracked(h))
    alive = weakref.ref(h)
    del h
    net.see(alive() is None)
    return net.l(pool(g))


@body
def gradients_added(net, x):
    h = net.conv1(x)
    other = Variable(np.zeros(h.shape, "f"), grad=np.ones(h.shape, "f"))
    h.cleargrad()
    h.addgrad(other)
    net.see(h.grad)
    h.copydata(other)
    return net.l(pool(F.relu(h)))


@body
def reported(net, x):
    h = block(net, x)
    reporter = chainer.Reporter()
    reporter.add_observer("net", net)
    with reporter:
        chainer.report({"h": h}, net)
    net.see(reporter.observation["net/h"])
    return net.l(h)


@body
def printed_for_debugging(net, x):
    h = net.conv1(x)
    lines = h.debug_print().split("\n")
    net.see(lines[1:5], lines[6:])
    return net.l(pool(h))


@body
def truth_of_a_part(net, x):
    h = F.relu(net.conv1(x))
    if h.array.max() > 0.1:
        h = net.bn1(h)
    return net.l(pool(h))


@pytest.mark.parametrize("name", BODIES)
def test_as_stock(name):
    assert_as_stock(lambda: train(BODIES[name], steps=2))


# --- Chainer's settings, the graph, the order of calls ---


def plain(net, x):
    return net.l(block(net, block(net, x), 2))


@pytest.mark.parametrize(
    ("setting", "value"),
    [("lazy_grad_sum", True), ("type_check", False), ("use_ideep", "auto")],
)
def test_a_setting(setting, value):
    def program():
        with chainer.using_config(setting, value):
            return train(plain)

    assert_as_stock(program)


@pytest.mark.parametrize("setting", ["enable_backprop", "in_recomputing", "lazy_grad_sum", "debug"])
def test_settings_are_those_of_the_call(setting):
    def program():
        def body(net, x):
            h = F.relu(net.bn1(net.conv1(x)))
            with chainer.using_config(setting, not getattr(chainer.config, setting)):
                h = pool(h)
                h.array  # noqa: B018
            net.see(h.requires_grad, h.creator is None)
            return net.l(h)

        return forward(body)

    assert_as_stock(program)


def test_a_hook_around_a_look_sees_no_call_from_before():
    def program():
        def body(net, x):
            h = F.relu(net.bn1(net.conv1(x)))
            with chainer.function_hooks.TimerHook() as hook:
                h.array  # noqa: B018
            net.see(len(hook.call_history))
            return net.l(pool(h))

        return forward(body)

    assert_as_stock(program)


def test_a_loss_that_outlives_its_step():
    def program():
        np.random.seed(0)
        net = Net(plain)
        optimizer, losses = chainer.optimizers.SGD(0.1).setup(net), []
        for _ in range(3):
            losses.append(F.softmax_cross_entropy(net(images()), T))
            net.cleargrads()
            losses[-1].backward()
            optimizer.update()
        return [loss.array for loss in losses] + statistics(net)

    assert_as_stock(program)


def test_a_graph_gone_back_through_twice():
    def program():
        np.random.seed(0)
        net = Net(plain)
        loss = F.softmax_cross_entropy(net(images()), T)
        net.cleargrads()
        loss.backward()
        loss.backward()
        return [p.grad for p in net.params() if p.array is not None] + statistics(net)

    assert_as_stock(program)


def test_gradients_set_by_chainer_grad():
    def program():
        np.random.seed(0)
        net, x = Net(plain), Variable(images())
        loss = F.softmax_cross_entropy(net(x), T)
        gradients = chainer.grad([loss], [x, net.conv1.W], set_grad=True, retain_grad=True)
        return [*(g.array for g in gradients), x.grad, net.conv1.W.grad]

    assert_as_stock(program)


def test_chainer_backward():
    def program():
        np.random.seed(0)
        net, x = Net(plain), Variable(images())
        y = net(x)
        net.cleargrads()
        chainer.backward([y], [Variable(np.ones(y.shape, "f"))])
        return [x.grad, net.conv1.W.grad, net.bn2.gamma.grad]

    assert_as_stock(program)


def test_a_parameter_without_an_update_and_a_leaf_without_a_gradient():
    def program():
        np.random.seed(0)
        net = Net(plain)
        net.conv1.disable_update()
        x = Variable(images(), requires_grad=False)
        loss = F.softmax_cross_entropy(net(x), T)
        net.cleargrads()
        loss.backward()
        return [x.grad is None, net.conv1.W.grad, net.l.b.grad]

    assert_as_stock(program)


def test_the_creators_are_chainers():
    def program():
        np.random.seed(0)
        node, found = Net(plain)(images()).creator, []
        while node is not None:
            found += [node.label, node.rank, len(node.inputs), node.inputs[0].shape]
            node = node.inputs[0].creator
        return [str(f) for f in found]

    stock, ours = both(program)
    assert stock == ours


def test_gradients_through_the_creators():
    def program():
        np.random.seed(0)
        y = Net(plain)(images())
        assert y.creator is not None
        h = y.creator.inputs[0]
        for _ in range(3):
            h = h.creator.inputs[0]
        (g,) = chainer.grad([F.sum(y * y)], [h.get_variable()])
        return [g.array]

    assert_as_stock(program)


def test_a_static_graph():
    def program():
        class Static(chainer.Chain):
            def __init__(self):
                super().__init__()
                with self.init_scope():
                    self.conv = L.Convolution2D(2, 4, 3)
                    self.l = L.Linear(144, 5)

            @chainer.static_graph
            def forward(self, x):
                return self.l(pool(F.relu(self.conv(x))))

        np.random.seed(0)
        net, losses = L.Classifier(Static()), []
        optimizer = chainer.optimizers.SGD(0.1).setup(net)
        with chainer.using_config("use_static_graph", True):
            for k in range(4):
                optimizer.update(net, images() * (k + 1), T)
                losses.append(net.loss.array.copy())
        return losses

    assert_as_stock(program)


def test_an_interval_of_hooks_within_a_link_with_a_hook():
    def program():
        np.random.seed(0)
        net, hook = Net(plain), chainer.link_hooks.TimerHook()
        net.conv2.add_hook(hook)
        y = net(images())
        return [y.array, len(hook.call_history), *statistics(net)]

    assert_as_stock(program)


def test_a_method_that_somebody_replaced_is_called(monkeypatch):
    from chainer.functions.activation.relu import ReLU

    def program():
        shapes, original = [], ReLU.forward_cpu

        def forward_cpu(self, inputs):
            shapes.append(inputs[0].shape)
            return original(self, inputs)

        with monkeypatch.context() as context:
            context.setattr(ReLU, "forward_cpu", forward_cpu)
            found = train(plain, steps=1)
        return found + shapes

    assert_as_stock(program)


def test_nothing_waits_outside_a_links_call():
    kernels.install("on")
    try:
        y = F.relu(F.convolution_2d(images(), np.ones((4, 2, 3, 3), "f")))
        assert "_data" in vars(y)
        y = Net(lambda net, x: net.conv1(x))(images())
        assert "_data" in vars(y)
    finally:
        kernels.install("off")


def test_uninstalling_computes_what_waits():
    kernels.install("on")
    kept = []

    def body(net, x):
        h = net.conv1(x)
        kernels.install("off")
        kept.append(h.array)
        return pool(F.relu(h))

    try:
        assert Net(body)(images()).shape == (6, 4, 6, 6)
    finally:
        kernels.install("off")


def test_no_array_of_a_parameter_is_copied_in_training(monkeypatch):
    """Optimizers, gradients and the graph of the step before do not count as somebody else."""
    copied = []
    known = waiting._known

    def spy(state, inputs):
        result = known(state, inputs)
        if result is not None:
            copied.extend(type(inputs[i]).__name__ for i in result[2])
        return result

    monkeypatch.setattr(waiting, "_known", spy)
    kernels.install("on")
    try:
        for optimizer in (chainer.optimizers.Adam(), chainer.optimizers.MomentumSGD()):
            model = L.Classifier(Net(plain))
            optimizer.setup(model)
            for _ in range(3):
                optimizer.update(model, images(), T)
            copied.clear()
            optimizer.update(model, images(), T)
            assert "Parameter" not in copied
    finally:
        kernels.install("off")


# --- What is declared elsewhere ---


def test_a_new_function_joins_by_its_declaration(monkeypatch):
    """A sum waits, and convolution, BN, sum and ReLU fuse."""
    from chainer.functions.math.basic_math import Add

    from mnist_bn.kernels.fused import Fused

    for name in ("_functions", "_fusions", "_methods"):
        monkeypatch.setattr(waiting, name, copy.copy(getattr(waiting, name)))

    @waiting.function("+", Add)
    def add(node, inputs):
        a, b = inputs
        return a.shape if a.shape == b.shape and b.dtype == np.float32 else None

    waiting._fusion_of.cache_clear()

    @waiting.fusion("CB[+]R")
    class Residual(Fused):
        label = "residual"

        @classmethod
        def covers(cls, parts, inputs, arrays):
            return parts[2][2] in (0, 1)

        def forward(self, inputs):
            with chainer.using_config("enable_backprop", False):
                self.retain_inputs(tuple(range(len(inputs))))
                state, waiting.here.state.allowed = waiting.here.state.allowed, False
                try:
                    return (self.replay([Variable(a) for a in inputs]).array,)
                finally:
                    waiting.here.state.allowed = state

        def gradients(self, indexes, inputs, gy):
            inputs = [Variable(a) for a in inputs]
            with chainer.force_backprop_mode():
                y = self.replay(inputs)
            gradients = chainer.grad([y], [inputs[i] for i in indexes], [Variable(gy)])
            return [g.array for g in gradients]

    def with_statistics(swap):
        def body(net, x):
            h = F.relu(net.conv1(x))
            b = F.sigmoid(h[:, :, 1:-1, 1:-1])
            a = F.batch_normalization(net.conv2(h), net.bn1.gamma, net.bn1.beta)
            h = F.relu(b + a if swap else a + b)
            return net.l(F.sigmoid(h))

        return body

    for swap in (False, True):
        assert_as_stock(lambda swap=swap: train(with_statistics(swap)))
        assert "residual" in _all_labels(with_statistics(swap))
    waiting._fusion_of.cache_clear()


def _all_labels(body):
    kernels.install("on")
    try:
        return all_labels(Net(body)(images()))
    finally:
        kernels.install("off")


def test_the_variable_that_training_hands_a_network_waits_as_any():
    from mnist_bn.inputs import Input

    found = labels(lambda net, x: block(net, Input(x)))
    assert found == ["Convolution, BN, ReLU, max pooling"]


def test_the_graph_is_drawn_of_chainers_functions_whoever_draws_it():
    """By a name that was imported before the kernels were switched on, too."""
    from mnist_bn.trainer import dump_graph

    def program():
        np.random.seed(0)
        y = Net(plain)(images())
        graph = dump_graph.build_computational_graph([y])
        return sorted(node.label for node in graph.nodes)

    stock, ours = both(program)
    assert stock == ours


def test_padded_convolutions_do_not_wait_for_nothing():
    """Of a ResNet's layers, those that follow are fused."""

    def body(net, x):
        h = F.convolution_2d(x, net.conv1.W, pad=1)
        assert "_data" in vars(h)
        return F.relu(net.bn1(h))

    assert labels(body) == ["Convolution2DFunction", "BN, ReLU"]
