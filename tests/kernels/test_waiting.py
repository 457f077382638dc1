"""Looks and changes where waiting could be seen: each program does the same on stock Chainer."""

import copy
import pickle
import threading
import warnings

import chainer
import chainer.computational_graph
import chainer.functions as F
import chainer.link_hooks
import chainer.links as L
import numpy as np
import pytest
from chainer import Variable

from tests.kernels.programs import (
    Net,
    T,
    assert_as_stock,
    block,
    error,
    images,
    labels,
    pool,
    statistics,
    train,
)

pytestmark = pytest.mark.usefixtures("library")
PROGRAMS = {}
MAIN = ("Convolution2DFunction", "BatchNormalization", "ReLU", "MaxPoolingND", "Dropout")


def program(function):
    PROGRAMS[function.__name__] = function
    return function


# --- Networks of many shapes ---


@program
def two_blocks():
    return train(lambda net, x: net.l(block(net, block(net, x), 2)))


@program
def all_locals_kept():
    def body(net, x):
        a = net.conv1(x)
        b = net.bn1(a)
        c = F.relu(b)
        d = pool(c)
        return net.l(d)

    return train(body)


@program
def skip_connection():
    def body(net, x):
        a = net.conv2(block(net, x))
        return net.l(pool(F.relu(a) + a))

    return train(body)


@program
def two_users_of_a_temporary():
    def body(net, x):
        c = net.conv1(x)
        a, b = net.bn1(c), F.relu(c)
        del c
        return net.l(pool(F.relu(a)) + pool(b))

    return train(body)


@program
def relu_twice():
    return train(lambda net, x: net.l(pool(F.relu(F.relu(net.bn1(net.conv1(x)))))))


@program
def bn_twice():
    return train(lambda net, x: net.l(pool(F.relu(net.bn2(net.bn1(net.conv1(x)))))))


@program
def pool_twice():
    return train(lambda net, x: net.l(pool(block(net, x))))


@program
def other_pools():
    def body(net, x):
        h = F.max_pooling_2d(F.relu(net.conv1(x)), 3, 2)
        return net.l(F.max_pooling_2d(F.relu(net.conv2(h)), 2, cover_all=False))

    return train(body)


@program
def ends_without_a_pool():
    return train(lambda net, x: F.relu(net.bn1(net.conv1(x))))


@program
def ends_in_a_block():
    return train(lambda net, x: block(net, x))


@program
def results_dropped():
    def body(net, x):
        net.bn2(net.conv1(x))
        block(net, x)
        return net.l(x)

    return train(body)


@program
def a_convolution_shared():
    def body(net, x):
        h = pool(F.relu(net.conv2(net.conv1(x))))
        return net.l(pool(F.relu(net.conv2(h))))

    return train(body)


@program
def a_bn_shared():
    def body(net, x):
        h = pool(F.relu(net.bn1(net.conv1(x))))
        return net.l(pool(F.relu(net.bn1(net.conv2(h)))))

    return train(body)


@program
def two_convolutions_of_the_same():
    return train(lambda net, x: net.l(F.concat([block(net, x), pool(F.relu(net.conv1(x)))])))


@program
def dense_layers():
    def body(net, x):
        h = F.dropout(F.relu(net.d1(x)), 0.3)
        net.see(np.random.rand())
        h = F.relu(net.d2(h))
        net.see(h)
        g = F.dropout(F.dropout(F.relu(net.d1(x)), 0.4))
        net.see(np.random.rand())
        net.r = F.relu(net.d2(g))
        mask = F.dropout(net.r, return_mask=True)[1]
        net.see(0 if mask is None else mask)
        return net.l(F.dropout(net.r))

    return train(body, after=lambda net, loss: [net.r.array])


@program
def sequential():
    np.random.seed(0)
    net = chainer.Sequential(
        L.Convolution2D(2, 4, 3), L.BatchNormalization(4), F.relu, pool, L.Linear(None, 5)
    )
    found = []
    for _ in range(3):
        loss = F.softmax_cross_entropy(net(images()), T)
        net.cleargrads()
        loss.backward()
        found += [loss.array, *(p.grad for p in net.params()), net[1].avg_var.copy()]
    return found


@program
def classifier_and_optimizer():
    np.random.seed(0)
    model = L.Classifier(Net(lambda net, x: net.l(block(net, x))))
    optimizer, found = chainer.optimizers.Adam().setup(model), []
    for _ in range(3):
        optimizer.update(model, images(), T)
        found += [model.loss.array, model.accuracy.array, model.y.array]
    return found


# --- Looks at values ---


@program
def kept_and_read_later():
    def body(net, x):
        net.h = F.relu(net.bn1(net.conv1(x)))
        return net.l(pool(net.h))

    return train(body, after=lambda net, loss: [net.h.array])


@program
def kept_with_its_gradient():
    def body(net, x):
        net.h = net.conv1(x)
        return net.l(pool(F.relu(net.bn1(net.h))))

    return train(
        body,
        after=lambda net, loss: [net.h.array, net.h.grad],
        backward=lambda loss: loss.backward(retain_grad=True),
    )


@program
def printed():
    def body(net, x):
        h = net.conv1(x)
        assert str(h).startswith("variable([[")
        net.see(h)
        h = net.bn1(h)
        repr(h)
        h = F.relu(h)
        net.see(h.data.sum())
        h = pool(h)
        net.see(float(h.array.mean()), h.summary().startswith("<variable at"))
        return net.l(h)

    return train(body)


@program
def shapes():
    def body(net, x):
        h = net.conv1(x)
        net.see(h.shape, h.ndim, h.size, len(h), h.dtype == np.float32, h.xp is np)
        h = F.relu(net.bn1(h))
        net.see(h.shape)
        h = pool(h)
        net.see(h.shape, str(h.device))
        return net.l(h)

    return train(body)


@program
def types_and_attributes():
    def body(net, x):
        h = net.conv1(x)
        net.see(type(h) is Variable, hasattr(h, "array"), hasattr(h, "nope"), h.requires_grad)
        h.mark = 3
        h = F.relu(h)
        if chainer.config.enable_backprop:
            net.see(h.creator.label, h.creator.inputs[0].creator.label)
        net.see(h.rank)
        return net.l(pool(h))

    return train(body)


@program
def copies():
    def body(net, x):
        h = F.relu(net.bn1(net.conv1(x)))
        shallow, deep, pickled = copy.copy(h), copy.deepcopy(h), pickle.loads(pickle.dumps(h))
        net.see(shallow, deep, pickled, shallow._data is h._data, type(shallow) is Variable)
        h = pool(h)
        net.see(copy.copy(h))
        return net.l(h)

    return train(body)


@program
def a_copy_without_a_look():
    def body(net, x):
        h = net.conv1(x)
        shallow = copy.copy(h)
        h = pool(F.relu(net.bn1(h)))
        net.see(shallow, shallow.creator is None)
        return net.l(h)

    return train(body)


@program
def looked_at_by_another_thread():
    def body(net, x):
        h, found = F.relu(net.bn1(net.conv1(x))), []
        thread = threading.Thread(target=lambda: found.append(pool(h)))
        thread.start()
        thread.join()
        return net.l(found[0])

    return train(body)


@program
def gradients_set_and_cleared():
    def body(net, x):
        h = net.conv1(x)
        h.cleargrad()
        g = F.relu(net.bn1(h))
        g.name = "g"
        g.grad = np.ones(g.shape, "f")
        net.see(g.grad)
        g.cleargrad()
        return net.l(pool(g))

    return train(body)


@program
def gradient_wanted_of_nothing():
    def body(net, x):
        h = pool(F.relu(F.convolution_2d(x, net.conv1.W.array.copy())))
        net.see(h.requires_grad)
        return net.l(h)

    return train(body)


# --- Changes of values ---


@program
def edited_in_place():
    def body(net, x):
        h = F.relu(net.bn1(net.conv1(x)))
        h.array[:, 0] = 0
        h = pool(h)
        h.array[:, 1] = 0
        return net.l(block(net, h, 2))

    return train(body)


@program
def data_set():
    def body(net, x):
        h = F.relu(net.bn1(net.conv1(x)))
        h.data = h.data * 2
        h = pool(h)
        h.array = h.array + 1
        return net.l(h)

    return train(body)


@program
def input_edited_through_its_variable():
    def body(net, x):
        x = Variable(x)
        h = net.conv1(x)
        x.array[...] = 0
        return net.l(pool(F.relu(net.bn1(h))))

    return train(body)


@program
def input_set_anew():
    def body(net, x):
        x = Variable(x)
        h = net.conv1(x)
        x.data = x.data + 1
        return net.l(pool(F.relu(net.bn1(h))))

    return train(body)


@program
def weights_changed():
    def body(net, x):
        h = net.conv1(x)
        net.conv1.W.array[...] *= 0.5
        h = net.bn1(h)
        net.bn1.gamma.array[...] *= 0.9
        net.bn1.beta.data += 0.1
        return net.l(pool(F.relu(h)))

    return train(body)


@program
def the_blogs_reshape():
    def body(net, x):
        x = Variable(x.reshape(len(x), -1))
        x.data = x.data.reshape((len(x.data), 2, 14, 14))
        return net.l(block(net, x))

    return train(body)


@program
def statistics_read():
    def body(net, x):
        h = net.bn1(net.conv1(x))
        net.see(net.bn1.avg_mean, net.bn1.avg_var)
        return net.l(pool(F.relu(h)))

    return train(body)


@program
def statistics_set():
    def body(net, x):
        h = net.bn1(net.conv1(x))
        net.bn1.avg_mean = net.bn1.avg_mean * 0.5
        net.bn1.avg_var[...] *= 0.5
        return net.l(pool(F.relu(h)))

    return train(body)


@program
def statistics_of_the_users_own():
    mean, var = np.zeros(4, "f"), np.ones(4, "f")

    def body(net, x):
        bn, h = net.bn1, net.conv1(x)
        h = F.batch_normalization(h, bn.gamma, bn.beta, running_mean=mean, running_var=var)
        net.see(mean, var)
        return net.l(pool(F.relu(h)))

    return train(body)


class BiasedBN(L.BatchNormalization):
    """It reads and writes its statistics around what Chainer does."""

    def forward(self, x):
        faded = self.decay * self.avg_var
        y = super().forward(x)
        if chainer.config.train:
            self.avg_var[...] = faded + (self.avg_var - faded) * 0.9
        return y


@program
def a_bn_that_reads_its_statistics():
    np.random.seed(0)
    net = Net(lambda net, x: net.l(pool(F.relu(net.bn(net.conv1(x))))) + net.bn.avg_var.sum())
    with net.init_scope():
        net.bn = BiasedBN(4)
    found = []
    for _ in range(3):
        y = net(images())
        net.cleargrads()
        F.softmax_cross_entropy(y, T).backward()
        found += [y.array, net.bn.avg_var.copy(), net.conv1.W.grad]
    return found


@program
def a_buffer_refilled_after_a_network():
    np.random.seed(0)
    net, buffer, found = Net(lambda net, x: block(net, x)), images(), []
    for k in range(3):
        buffer[...] = images() * k
        found.append(net(buffer))
    buffer[...] = 7
    net.conv1.W.array[...] = 0
    return [y.array for y in found] + [net.bn1.avg_mean]


@program
def a_buffer_refilled_after_a_bare_link():
    np.random.seed(0)
    net, buffer = Net(), images()
    w = net.conv1.W.array.copy()
    a = net.conv1(buffer)
    b = F.relu(a)
    c = pool(F.relu(F.convolution_2d(buffer, w)))
    buffer[...] = 7
    w[...] = 0
    return [a.array, b.array, c.array]


class OldNet(Net):
    def __call__(self, x):
        return block(self, x)


@program
def a_buffer_refilled_after_an_old_style_call():
    np.random.seed(0)
    net, buffer, found = OldNet(), images(), []
    for k in range(3):
        buffer[...] = images() * k
        found.append(net(buffer))
    buffer[...] = 7
    net.conv1.W.array[...] = 0
    return [y.array for y in found] + [net.bn1.avg_mean]


# --- Modes ---


@program
def order_of_random_numbers():
    def body(net, x):
        h = F.dropout(net.conv1(x), 0.3)
        net.see(np.random.rand())
        h = F.dropout(F.relu(net.bn1(h)), 0.2)
        net.see(np.random.rand())
        return net.l(F.dropout(F.relu(net.d1(pool(h))), 0.5))

    return train(body)


@program
def finetune():
    return train(lambda net, x: net.l(pool(F.relu(net.bn1(net.conv1(x), finetune=True)))))


@program
def recomputation():
    return train(lambda net, x: net.l(F.forget(lambda x: block(net, x), Variable(x))))


@program
def a_part_in_test_mode():
    def body(net, x):
        with chainer.using_config("train", False):
            h = block(net, x)
        return net.l(block(net, h, 2))

    return train(body)


@program
def bn_alone_in_test_mode():
    def body(net, x):
        h = net.conv1(x)
        with chainer.using_config("train", False):
            h = net.bn1(h)
        return net.l(pool(F.relu(h)))

    return train(body)


@program
def parts_without_a_graph():
    def body(net, x):
        with chainer.no_backprop_mode():
            h = block(net, x)
        with chainer.no_backprop_mode():
            g = net.conv2(h)
        return net.l(pool(F.relu(net.bn2(g))))

    return train(body)


@program
def unchained():
    def body(net, x):
        h = net.conv1(x)
        h.unchain()
        return net.l(pool(F.relu(net.bn1(h))))

    return train(body)


@program
def unchained_backward():
    def body(net, x):
        h = block(net, x)
        h.unchain_backward()
        return net.l(block(net, h, 2))

    return train(body)


@program
def arrays_for_parameters():
    def body(net, x):
        h = F.convolution_2d(x, net.conv1.W.array.copy(), net.conv1.b)
        return net.l(pool(F.relu(F.batch_normalization(h, np.ones(4, "f"), np.zeros(4, "f")))))

    return train(body)


@program
def nan_in_the_input():
    def x():
        a = images()
        a[0, 0, 3, 3] = np.nan
        return a

    return [np.isnan(train(lambda net, x: net.l(block(net, x)), x=x, steps=1)[0])]


@program
def threads():
    np.random.seed(0)
    net = Net(lambda net, x: net.l(block(net, x)))
    net(images())
    found = [None] * 4

    def work(k):
        with chainer.using_config("train", False):
            for _ in range(10):
                found[k] = net(images() * k).array

    workers = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return found


# --- Gradients ---


@program
def gradients_of_intermediates():
    def body(net, x):
        net.a = net.conv1(x)
        net.b = pool(F.relu(net.bn1(net.a)))
        return net.l(net.b)

    def after(net, loss):
        return [g.array for g in chainer.grad([loss], [net.a, net.b, net.conv1.W])]

    return train(body, after=after)


@program
def double_backprop():
    found = []
    for body in (
        lambda net, x: net.l(block(net, block(net, x), 2)),
        lambda net, x: net.l(pool(net.bn1(F.relu(net.conv1(x))))),
        lambda net, x: net.l(pool(F.relu(net.conv1(x)))),
        lambda net, x: net.l(F.dropout(F.relu(net.d1(x)))),
    ):
        np.random.seed(0)
        net, x = Net(body), Variable(images())
        y = net(x)
        loss = F.sum(F.log_softmax(y) * y)
        (gx,) = chainer.grad([loss], [x], enable_double_backprop=True)
        net.cleargrads()
        F.sum(gx * gx).backward()
        # A link's gradients together: the bias before a BN has gradient 0, and what is seen of it
        # is the rounding of sums as large as the weights' gradients.
        gradients = [
            [p.grad for p in link.params() if p.grad is not None] for link in net.children()
        ]
        found += [gx.array, *(np.concatenate([*map(np.ravel, g)]) for g in gradients if g)]
    return found


@program
def a_gradient_within_the_forward_pass():
    def body(net, x):
        if not chainer.config.enable_backprop:
            parts = [x, block(net, x)]
        else:
            x = Variable(x)
            y = block(net, x)
            (g,) = chainer.grad([F.sum(y)], [x], enable_double_backprop=True)
            parts = [g, y]
        return net.l(F.concat([F.reshape(part, (len(x), -1)) for part in parts]))

    return train(body)


# --- Hooks, debug mode, the graph ---


class Count(chainer.FunctionHook):
    name = "Count"

    def __init__(self):
        self.names = []

    def forward_postprocess(self, function, in_data):
        self.names.append(function.label)

    def backward_postprocess(self, function, in_data, out_grad):
        self.names.append("-" + function.label)

    def main(self):
        return [name for name in self.names if name.strip("-") in MAIN]


@program
def a_hook_in_between():
    names = []

    def body(net, x):
        h = net.conv1(x)
        with Count() as hook:
            h = net.bn1(h)
        names.extend(hook.names)
        h = F.relu(h)
        with Count() as hook:
            h = pool(h)
        names.extend(hook.names)
        return net.l(h)

    return train(body) + names


@program
def a_hook_around_all():
    with Count() as hook:
        found = train(lambda net, x: net.l(block(net, x)))
    return found + hook.main()


@program
def a_hook_in_the_backward_pass():
    hook = Count()

    def backward(loss):
        with hook:
            loss.backward()

    def body(net, x):
        return F.dropout(F.dropout(F.relu(net.l(block(net, x)))))

    return train(body, backward=backward) + hook.main()


@program
def a_nodes_own_hook():
    def body(net, x):
        h = net.conv1(x)
        net.hook = Count()
        if h.creator is not None:
            h.creator.add_hook(net.hook)
        return net.l(pool(F.relu(net.bn1(h))))

    return train(body, after=lambda net, loss: net.hook.names)


@program
def a_link_hook():
    class Sums(chainer.LinkHook):
        name = "Sums"

        def __init__(self):
            self.sums = []

        def forward_postprocess(self, args):
            self.sums.append(args.out.array.sum())

    with Sums() as hook:
        found = train(lambda net, x: net.l(block(net, x)))
    return found + hook.sums


@program
def a_links_own_hook():
    np.random.seed(0)
    net, found = Net(lambda net, x: net.l(block(net, block(net, x), 2))), []
    net.conv2.add_hook(chainer.link_hooks.SpectralNormalization())
    for _ in range(2):
        y = net(images())
        net.cleargrads()
        F.softmax_cross_entropy(y, T).backward()
        found += [y.array, net.conv1.W.grad]
    return found


@program
def debug_mode():
    def body(net, x):
        return net.l(pool(F.relu(net.bn1(net.conv1(x * np.nan)))))

    with chainer.using_config("debug", True):
        return error(lambda: train(body))


@program
def ranks():
    def body(net, x):
        net.b = block(net, x)
        return net.l(net.b)

    return train(body, after=lambda net, loss: [loss.rank, net.b.rank])


@program
def the_graph_drawn():
    def after(net, loss):
        graph = chainer.computational_graph.build_computational_graph([loss])
        names = sorted(node.label for node in graph.nodes)
        return [*names, len(graph.edges), chainer.grad([loss], [net.conv1.W])[0].array]

    return train(lambda net, x: F.dropout(F.relu(net.l(block(net, x)))), after=after)


@program
def the_graph_drawn_before_the_backward_pass():
    def backward(loss):
        chainer.computational_graph.build_computational_graph([loss])
        loss.backward()

    def body(net, x):
        return F.dropout(F.relu(net.l(block(net, block(net, x), 2))))

    return train(body, backward=backward)


# --- Errors and warnings ---


def wrong_channels(net, x):
    return net.conv1(net.conv1(x))


def wrong_bn(net, x):
    h = net.conv1(x)
    net.reached = "bn"
    h = L.BatchNormalization(8)(h)
    net.reached = "after"
    return h


def too_small(net, x):
    return net.conv1(x[:, :, :2])


def wrong_dtype(net, x):
    return net.conv1(x.astype("d"))


def wrong_size(net, x):
    net.l._initialize_params(7)
    return net.l(F.relu(net.conv1(x)))


def pool_of_nothing(net, x):
    return F.max_pooling_2d(F.relu(net.conv1(x)), 0)


def pool_of_three_dimensions(net, x):
    return F.max_pooling_3d(F.relu(net.conv1(x)), 2)


def no_such_attribute(net, x):
    return net.conv1(x).foo


def truth(net, x):
    return bool(net.conv1(x))


def the_users_own(net, x):
    net.bn1(net.conv1(x))
    raise KeyError("mine")


def wrong_ratio(net, x):
    return F.dropout(F.relu(net.l(x)), 1.5)


def wrong_reshape(net, x):
    return F.reshape(net.conv1(x), (5, -1))


def two_unknown_sizes(net, x):
    return F.reshape(net.conv1(x), (-1, -1))


def wrong_mask(net, x):
    return F.dropout(net.conv1(x), mask=np.ones((3, 3), "f"))


def pooled_to_nothing(net, x):
    return F.max_pooling_2d(net.conv1(x[:, :, :3, :3]), 3, cover_all=False)


ERRORS = (
    *(wrong_channels, wrong_bn, too_small, wrong_dtype, wrong_size, pool_of_nothing),
    *(pool_of_three_dimensions, no_such_attribute, truth, the_users_own, wrong_ratio),
    *(wrong_reshape, two_unknown_sizes, wrong_mask, pooled_to_nothing),
)


@pytest.mark.parametrize("body", ERRORS)
def test_an_error_is_stocks_and_from_the_users_line(body):
    def program():
        np.random.seed(0)
        net = Net(body)
        return [
            *error(lambda: net(images())),
            *statistics(net),
            getattr(net, "reached", ""),
            np.random.rand(),
        ]

    assert_as_stock(program)


@program
def a_single_position_warns():
    def body(net, x):
        h = pool(F.relu(net.bn1(net.conv1(x[:1, :, :3, :3]))))
        return net.l(F.broadcast_to(h, (6, 4, 1, 1)))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = train(body)
    messages = {str(w.message)[:30] for w in caught if issubclass(w.category, UserWarning)}
    return found + sorted(messages)


@pytest.mark.parametrize("name", PROGRAMS)
def test_as_stock(name):
    assert_as_stock(PROGRAMS[name])


# --- What fuses ---

BLOCK = "Convolution, BN, ReLU, max pooling"


def after_block(net, x):
    return pool(net.bn1(F.relu(net.conv1(x))))


def none_block(net, x):
    return pool(F.relu(net.conv1(x)))


@pytest.mark.parametrize(
    ("body", "fused"),
    [
        (lambda net, x: block(net, block(net, x), 2), [BLOCK, BLOCK]),
        (after_block, ["Convolution, ReLU, BN, max pooling"]),
        (none_block, ["Convolution, ReLU, max pooling"]),
        (lambda net, x: F.dropout(F.relu(net.l(x))), ["Linear, ReLU, dropout"]),
        (lambda net, x: F.relu(net.l(block(net, x))), [BLOCK, "Linear, ReLU"]),
    ],
)
def test_fuses(library, body, fused):
    assert labels(body) == fused


def test_one_name_for_all_fuses(library):
    def body(net, x):
        h = net.conv1(x)
        h = net.bn1(h)
        h = F.relu(h)
        h = pool(h)
        return F.relu(h)

    assert labels(body) == [BLOCK, "ReLU"]


def test_a_name_for_each_fuses_too(library):
    def body(net, x):
        h1 = net.conv1(x)
        h2 = net.bn1(h1)
        h3 = F.relu(h2)
        h4 = pool(h3)
        h5 = net.conv2(h4)
        h6 = F.relu(h5)
        h7 = pool(h6)
        h8 = net.d1(h7)
        h9 = F.relu(h8)
        return F.dropout(h9)

    assert labels(body) == [BLOCK, "Convolution, ReLU, max pooling", "Linear, ReLU, dropout"]


def test_what_is_looked_at_ends_a_chain(library):
    def body(net, x):
        h = F.relu(net.bn1(net.conv1(x)))
        h.array  # noqa: B018
        return pool(h)

    assert labels(body) == ["Convolution2DFunction", "BN, ReLU", "MaxPoolingND"]


def test_what_is_kept_ends_a_chain(library):
    def body(net, x):
        net.h = F.relu(net.bn1(net.conv1(x)))
        return pool(net.h)

    assert labels(body) == ["Convolution2DFunction", "BN, ReLU", "MaxPoolingND"]


def test_an_old_style_call_fuses(library):
    class Old(Net):
        def __call__(self, x):
            return block(self, x)

    assert labels(None, cls=OldNet) == labels(None, cls=Old) == [BLOCK]
    assert not hasattr(Old.__call__, "__wrapped__")  # stock is back
