"""Interrupts and want of memory while what waits is computed: BN counts each call at most once."""

import sys
import threading
from pathlib import Path

import chainer
import chainer.functions as F
import numpy as np
import pytest

from mnist_bn.kernels import blocks, graph, waiting
from tests.kernels.programs import Net, block, images, pool, statistics

OURS = str(Path(waiting.__file__).parent)


pytestmark = pytest.mark.usefixtures("accelerated")


def two_blocks(net, x):
    h1 = block(net, x)
    h2 = F.relu(net.bn2(net.conv2(h1)))
    return net.d1(pool(h2))


def kept(net, x):
    net.h = net.bn1(net.conv1(x))
    return pool(F.relu(net.bn2(net.conv2(pool(net.h)))))


def network(body=two_blocks):
    np.random.seed(0)
    net = Net(body)
    net.d1(np.zeros((1, 16), "f"))
    return net


class _At:
    """Raises at the k-th line that is executed in our own files."""

    def __init__(self, k, error):
        self.left = k
        self.error = error

    def __call__(self, frame, event, arg):
        return self if frame.f_code.co_filename.startswith(OURS) else None

    def line(self, frame, event, arg):
        if event == "line":
            self.left -= 1
            if self.left == 0:
                raise self.error
        return self.line

    def trace(self, frame, event, arg):
        return self.line if frame.f_code.co_filename.startswith(OURS) else None


def interrupted(net, k, error=KeyboardInterrupt):
    """Calls the network and returns whether it was interrupted, at its k-th line of ours."""
    before = sys.gettrace()
    sys.settrace(_At(k, error).trace)
    try:
        net(images())
        return False
    except error:
        return True
    finally:
        sys.settrace(before)


def assert_counted_at_most_once(net, initial, once):
    for array, zero, one in zip(statistics(net), initial, once, strict=True):
        assert np.array_equal(array, zero) or np.allclose(array, one, rtol=1e-5)


@pytest.mark.parametrize("body", [two_blocks, kept])
def test_interrupted_at_any_line(body):
    net = network(body)
    initial = statistics(net)
    net(images())
    once = statistics(net)
    k, step = 1, 7  # every seventh line, but all of them within three networks
    for offset in range(3):
        k = 1 + offset
        while True:
            net = network(body)
            if not interrupted(net, k):
                break
            state = waiting.here.state
            state.allowed = None  # a trace may strike where a signal cannot: in a `finally`
            assert_counted_at_most_once(net, initial, once)
            if hasattr(net, "h"):  # what was kept can be looked at, and still counts once
                assert np.isfinite(net.h.array).all()
                assert_counted_at_most_once(net, initial, once)
            waiting.compute_all()
            assert_counted_at_most_once(net, initial, once)
            k += step
        assert k > 300
        assert not waiting.here.state.steps


def test_the_next_call_is_as_if_nothing_had_happened(monkeypatch):
    net, other = network(), network()
    run = graph.run
    calls = iter(range(99))

    def short(*args, **kwds):
        if next(calls) == 1:
            raise MemoryError("no memory")
        run(*args, **kwds)

    monkeypatch.setattr(graph, "run", short)
    with pytest.raises(MemoryError):
        net(images())
    monkeypatch.undo()
    other.bn1.avg_mean[...], other.bn1.avg_var[...] = net.bn1.avg_mean, net.bn1.avg_var
    assert not np.array_equal(net.bn1.avg_mean, np.zeros(4))  # the first block was computed
    assert np.array_equal(net.bn2.avg_mean, np.zeros(4))  # the second was not
    np.testing.assert_array_equal(net(images()).array, other(images()).array)
    np.testing.assert_array_equal(net.bn2.avg_mean, other.bn2.avg_mean)


def test_want_of_memory_after_the_kernel(monkeypatch):
    """The kernel has changed the running statistics by then."""
    net = network(lambda net, x: block(net, x))
    connect = graph._connect

    def short(*args):
        raise MemoryError("no memory")

    monkeypatch.setattr(graph, "_connect", short)
    with pytest.raises(MemoryError):
        net(images())
    np.testing.assert_array_equal(net.bn1.avg_mean, np.zeros(4))
    monkeypatch.setattr(graph, "_connect", connect)
    net(images())
    once = network(lambda net, x: block(net, x))
    once(images())
    np.testing.assert_array_equal(net.bn1.avg_mean, once.bn1.avg_mean)


def test_want_of_memory_within_the_kernel(monkeypatch):
    class Short:
        width = blocks._kernels.width

        def forward(self, *args):
            raise MemoryError("no memory for block_forward")

    net = network(lambda net, x: block(net, x))
    with monkeypatch.context() as context:
        context.setattr(blocks, "_kernels", Short())
        with pytest.raises(MemoryError, match="block_forward"):
            net(images())
    np.testing.assert_array_equal(net.bn1.avg_mean, np.zeros(4))
    net(images())
    assert not np.array_equal(net.bn1.avg_mean, np.zeros(4))


def test_what_was_kept_is_computed_when_looked_at_after_a_failure(monkeypatch):
    net, run = network(kept), graph.run
    with monkeypatch.context() as context:
        context.setattr(graph, "run", lambda *args, **kwds: [][0])
        with pytest.raises(IndexError):
            net(images())
    assert graph.run is run
    expected = network(kept)
    expected(images())
    np.testing.assert_array_equal(net.h.array, expected.h.array)
    np.testing.assert_array_equal(net.bn1.avg_mean, expected.bn1.avg_mean)
    np.testing.assert_array_equal(net.h.array, expected.h.array)  # once is enough
    np.testing.assert_array_equal(net.bn1.avg_mean, expected.bn1.avg_mean)


def test_threads_train_their_networks_as_each_alone():
    def work(seed, found):
        np.random.seed(0)  # one generator for all: the networks are made before
        net = nets[seed]
        optimizer = chainer.optimizers.SGD(0.1).setup(net)
        for _ in range(5):
            y = net(images() * (seed + 1))
            net.cleargrads()
            F.mean(y * y).backward()
            optimizer.update()
        found[seed] = [net.conv1.W.array.copy(), *statistics(net)]

    nets = [network() for _ in range(4)]
    alone = [None] * 4
    for seed in range(4):
        work(seed, alone)
    nets = [network() for _ in range(4)]
    together = [None] * 4
    threads = [threading.Thread(target=work, args=(seed, together)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(alone, together, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_variable_of_another_thread_is_computed_once():
    """Two threads look at the same Variable, whose own thread is still within its network."""
    found, ready, go = [], threading.Event(), threading.Event()

    def body(net, x):
        net.h = F.relu(net.bn1(net.conv1(x)))
        ready.set()
        assert go.wait(10)
        return pool(net.h)

    net = network(body)
    inside = threading.Thread(target=lambda: net(images()))
    inside.start()
    assert ready.wait(10)
    lookers = [threading.Thread(target=lambda: found.append(net.h.array)) for _ in range(4)]
    for looker in lookers:
        looker.start()
    for looker in lookers:
        looker.join()
    go.set()
    inside.join()
    once = network(lambda net, x: block(net, x))
    once(images())
    assert len(found) == 4
    assert all(a is found[0] for a in found)
    np.testing.assert_allclose(net.bn1.avg_mean, once.bn1.avg_mean, rtol=1e-5, atol=1e-7)
