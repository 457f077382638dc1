"""Programs that look where waiting could be seen, and what runs them on stock Chainer and on ours.

A program is a function without arguments; it returns arrays, numbers and strings, which must be
those of stock Chainer, and between two runs nothing may be left waiting.
"""

import traceback

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np

from mnist_bn import kernels
from mnist_bn.kernels import waiting

T = np.array([0, 1, 2, 3, 4, 0], "i")


class Net(chainer.Chain):
    """Three convolutions, two BN links and a linear layer; `body(net, x)` is its forward pass."""

    def __init__(self, body=None):
        super().__init__()
        with self.init_scope():
            self.conv1 = L.Convolution2D(2, 4, 3)
            self.bn1 = L.BatchNormalization(4)
            self.conv2 = L.Convolution2D(4, 4, 3)
            self.bn2 = L.BatchNormalization(4)
            self.conv3 = L.Convolution2D(4, 8, 3)
            self.d1 = L.Linear(None, 9)
            self.d2 = L.Linear(9, 8)
            self.l = L.Linear(None, 5)
        self.body = body
        self.seen = []

    def forward(self, x):
        return self.body(self, x)

    def see(self, *values):
        """Keeps copies of what the forward pass saw."""
        self.seen += [np.array(chainer.as_array(value)) for value in values]


def images():
    """Returns float32 `(6, 2, 14, 14)`."""
    return np.random.RandomState(3).randn(6, 2, 14, 14).astype("f")


def block(net, h, i=1):
    """Returns convolution, BN, ReLU and pooling of h."""
    return pool(F.relu(net[f"bn{i}"](net[f"conv{i}"](h))))


def pool(h):
    return F.max_pooling_2d(h, 2)


def train(body, steps=3, x=images, after=None, backward=chainer.Variable.backward):
    """Trains a network of the body: returns all that can be seen of it.

    Args:
        x: makes the input.
        after: gets the network and the loss after each backward pass; what it returns is seen.
        backward: gets the loss.
    """
    np.random.seed(0)
    net = Net(body)
    optimizer = chainer.optimizers.MomentumSGD(0.1).setup(net)
    found = []
    for _ in range(steps):
        y = net(x())
        loss = F.softmax_cross_entropy(y, T[: len(y)]) if y.ndim == 2 else F.mean(y * y)
        net.cleargrads()
        backward(loss)
        found += [loss.array, *(after(net, loss) if after else [])]
        optimizer.update()
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        found.append(net(x()).array)
    found += [p.array for p in net.params() if p.array is not None]
    for bn in (net.bn1, net.bn2):
        found += [bn.avg_mean, bn.avg_var]
    return [*found, np.random.rand(2), *net.seen]


def forward(body):
    """Returns what one forward pass returns and shows, in training mode."""
    np.random.seed(0)
    net = Net(body)
    y = net(images())
    parameters = [p.array for p in net.params() if p.array is not None]
    return [y.array, *parameters, *statistics(net), *net.seen]


def statistics(net):
    return [np.array(a) for bn in (net.bn1, net.bn2) for a in (bn.avg_mean, bn.avg_var)]


def error(call):
    """Returns the type and message of the exception, and the test's function that it is from."""
    try:
        call()
    except Exception as e:
        frames = traceback.extract_tb(e.__traceback__)
        mine = [f.name for f in frames if f.filename.endswith(("programs.py", "_waiting.py"))]
        return [type(e).__name__, str(e), mine[-1]]
    raise AssertionError("no error")


def both(program):
    """Returns what the program does on stock Chainer, and on ours."""
    kernels.install("off")
    np.random.seed(5)
    stock = program()
    kernels.install("on")
    try:
        np.random.seed(5)
        ours = program()
        state = waiting.here.state
        assert not state.steps and not waiting.busy and state.allowed is None
    finally:
        kernels.install("off")
    return stock, ours


def assert_as_stock(program):
    """Asserts that ours does what stock does, but for rounding."""
    stock, ours = both(program)
    assert len(stock) == len(ours)
    for k, (s, o) in enumerate(zip(map(np.asarray, stock), map(np.asarray, ours), strict=True)):
        assert (s.shape, s.dtype.kind) == (o.shape, o.dtype.kind), k
        if s.dtype.kind == "f":
            assert s.dtype == o.dtype, k
            # Differences of rounding grow in the three steps.
            largest = np.nanmax(np.abs(s), initial=0)
            np.testing.assert_allclose(o, s, rtol=2e-3, atol=5e-4 * max(1, largest), err_msg=str(k))
        else:
            np.testing.assert_array_equal(o, s, err_msg=str(k))


def all_labels(y):
    """Returns the label of each node of the graph of `y`, as it is."""
    nodes, seen, found = [y.node.creator_node], set(), []
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            found.append(node.label)
            nodes += [x.creator_node for x in node.inputs]
    return found


def labels(body, *, cls=Net):
    """Returns the labels of the nodes that ours has made, first to last."""
    kernels.install("on")
    try:
        node, found = cls(body)(images()).node.creator_node, []
        while node is not None:
            found.append(node.label)
            node = node.inputs[0].creator_node
        return found[::-1]
    finally:
        kernels.install("off")
