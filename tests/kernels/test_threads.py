"""Several threads: the bits of one, whatever the network, and whoever else calls the kernels."""

import contextlib
import json
import os
import threading

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import models
from mnist_bn import kernels
from mnist_bn.config import RunConfig
from mnist_bn.kernels import threads
from mnist_bn.preparation import prepare
from mnist_bn.training import train

COUNTS = (1, 2, 3, 4)
BLOG = ("MnistCNN", "MnistCNN_BN_before", "MnistCNN_BN_after", "MnistCNN_BN_linear_before")


@pytest.fixture(autouse=True)
def one_thread_afterwards(library):
    kernels.install("on")
    yield
    threads.set_count(1)
    kernels.uninstall()


@contextlib.contextmanager
def counted(count):
    threads.set_count(count)
    try:
        yield
    finally:
        threads.set_count(1)


def assert_same_bits(compute):
    """Compares what `compute()` returns, arrays by name, on one thread and on several."""
    results = []
    for count in COUNTS:
        with counted(count):
            results.append(compute())
    for result in results[1:]:
        for name, array in results[0].items():
            np.testing.assert_array_equal(result[name], array, err_msg=name, strict=True)


def trained(make, shape, labels=10, optimizer=chainer.optimizers.Adam, batch=70):
    """Returns all numbers of a network after three steps, the last on a smaller batch."""
    np.random.seed(0)
    network = L.Classifier(make())
    method = optimizer()
    method.setup(network)
    losses = []
    for step, n in enumerate((batch, batch, batch // 2 + 1)):
        random = np.random.RandomState(step)
        x = random.rand(n, *shape).astype(np.float32)
        t = random.randint(0, labels, n).astype(np.int32)
        method.update(network, x, t)
        losses.append(network.loss.array.copy())
    state = {path: np.array(p) for path, p in network.namedparams() for p in [p.array]}
    for path, link in network.namedlinks():
        for name in link._persistent:
            state[f"{path}/{name}"] = np.array(getattr(link, name))
    return {**state, "losses": np.array(losses)}


@pytest.mark.parametrize("name", BLOG)
def test_the_blogs_networks(name):
    assert_same_bits(lambda: trained(lambda: models.create(name), (784,)))


@pytest.mark.parametrize("method", ["direct", "winograd"])
def test_both_ways_to_convolve(monkeypatch, method):
    monkeypatch.setenv("MNIST_BN_CONVOLUTION", method)
    kernels.install("on")
    assert_same_bits(lambda: trained(lambda: models.create("MnistCNN_BN_after"), (784,), batch=33))


@pytest.mark.parametrize("optimizer", ["SGD", "MomentumSGD", "NesterovAG", "AdaGrad", "AdaDelta",
                                       "RMSprop", "RMSpropGraves", "SMORMS3"])  # fmt: skip
def test_update_rules(optimizer):
    method = getattr(chainer.optimizers, optimizer)
    assert_same_bits(lambda: trained(lambda: models.create("ReluMLP"), (784,), optimizer=method))


def test_resnet():
    """Padding, strides, sums, BN on its own and average pooling."""
    assert_same_bits(
        lambda: trained(lambda: models.create("ResNetCIFAR", depth=8), (3, 32, 32), batch=20)
    )


@settings(deadline=None, max_examples=25)
@given(
    st.integers(1, 90),
    st.sampled_from([1, 3, 16, 24, 40]),
    st.sampled_from([1, 8, 20, 33]),
    st.integers(3, 14),
    st.sampled_from([(3, 1, 0), (3, 1, 1), (3, 2, 1), (1, 1, 0), (5, 1, 2)]),
)
def test_convolution_bn_relu_and_pooling(n, c_in, c_out, size, geometry):
    k, stride, pad = geometry
    if size + 2 * pad < k:
        return
    random = np.random.RandomState(0)
    x, w, b = (
        random.randn(*s).astype("f") for s in ((n, c_in, size, size), (c_out, c_in, k, k), (c_out,))
    )

    def compute():
        inputs = [chainer.Variable(a) for a in (x, w, b)]
        h = F.convolution_2d(*inputs, stride, pad)
        y = F.max_pooling_2d(F.relu(h), 2)
        m = F.batch_normalization(h, np.ones(c_out, "f"), np.zeros(c_out, "f")) if n > 1 else h
        loss = F.sum(y * y) + F.sum(F.average_pooling_2d(m, h.shape[2:]) ** 3)
        loss.backward()
        return {"y": y.array, **{str(i): v.grad for i, v in enumerate(inputs)}}

    assert_same_bits(compute)


@settings(deadline=None, max_examples=40)
@given(st.integers(16, 150), st.integers(16, 600), st.integers(16, 600))
def test_linear_layers_beside_float64(n, inputs, outputs):
    random = np.random.RandomState(0)
    shapes = (n, inputs), (outputs, inputs), (outputs,), (n, outputs)
    x, w, b, gy = (random.randn(*shape).astype("f") for shape in shapes)

    def compute():
        variables = [chainer.Variable(a) for a in (x, w, b)]
        y = F.linear(*variables)
        y.grad = gy
        y.backward()
        return {"y": y.array, **{str(i): v.grad for i, v in enumerate(variables)}}

    assert_same_bits(compute)
    result = compute()
    x, w, b, gy = (a.astype(np.float64) for a in (x, w, b, gy))
    exact = {"y": x @ w.T + b, "0": gy @ w, "1": gy.T @ x, "2": gy.sum(0)}
    for name, array in exact.items():
        # A sum of k products: its rounding grows no faster than k, and is about its root.
        k = {"y": inputs, "0": outputs, "1": n, "2": n}[name]
        assert np.abs(result[name] - array).max() <= 2.0**-22 * k * np.sqrt(np.log(array.size) + 1)


def test_nan_and_infinity_stay_where_they_are():
    x = np.random.RandomState(0).randn(64, 300).astype("f")
    w = np.random.RandomState(1).randn(300, 300).astype("f")
    x[3, 5], x[7, 2] = np.nan, np.inf
    with counted(2):
        y = F.linear(x, w).array
    assert np.isnan(y[3]).all() and np.isinf(y[7]).all()
    assert np.isfinite(np.delete(y, [3, 7], axis=0)).all()


@pytest.mark.parametrize("columns", [slice(None), slice(None, None, -1)])
def test_other_strides(columns):
    random = np.random.RandomState(0)
    x = random.randn(300, 128).astype("f").T[:, columns]
    w = random.randn(300, 400).astype("f").T[:, columns]
    np.testing.assert_allclose(F.linear(x, w).array, x.astype("d") @ w.astype("d").T, atol=1e-3)


def test_a_forked_process_has_threads_of_its_own():
    def compute():
        return trained(lambda: models.create("MnistCNN_BN_before"), (784,))["losses"].tobytes()

    with counted(3):
        expected = compute()
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(writer, compute())
            finally:
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            assert pipe.read() == expected
        assert os.waitpid(child, 0)[1] == 0


def test_two_threads_of_python_at_a_time():
    random = np.random.RandomState(0)
    x, w = random.randn(64, 24, 12, 12).astype("f"), random.randn(24, 24, 3, 3).astype("f")
    expected = F.convolution_2d(x, w).array
    wrong = []

    def convolve():
        for _ in range(50):
            if not np.array_equal(F.convolution_2d(x, w).array, expected):
                wrong.append(1)

    with counted(2):
        callers = [threading.Thread(target=convolve) for _ in range(3)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert not wrong


def test_a_run_goes_on_with_another_number_of_threads(tmp_path):
    def run(out, count, steps):
        config = RunConfig(
            dataset="digits", iteration=steps, evaluate_every=4, out=str(tmp_path / out),
            threads=str(count), frequency=1,
        )  # fmt: skip
        prepared = prepare(config)
        train(prepared, autoload=True)
        log = json.loads((prepared.folder / "log").read_text())
        with np.load(prepared.folder / "model.npz") as model:
            return {**model}, [{**entry, "elapsed_time": 0} for entry in log]

    run("mixed", 3, 4)
    mixed, log = run("mixed", 2, 8)
    whole, whole_log = run("whole", 1, 8)
    assert log == whole_log
    assert mixed.keys() == whole.keys()
    assert all(np.array_equal(mixed[name], whole[name]) for name in whole)


@pytest.mark.parametrize(
    ("wanted", "runs", "cores", "expected"),
    [
        ("auto", 1, 2, 2),
        ("auto", 1, 64, 8),
        ("auto", 2, 4, 2),
        ("auto", 3, 2, 1),
        ("6", 1, 2, 6),
        ("6", 2, 8, 4),
        ("1", 2, 8, 1),
    ],
)
def test_several_runs_share_the_cores(monkeypatch, wanted, runs, cores, expected):
    monkeypatch.setattr(threads, "cpu_count", lambda: cores)
    assert threads.share(wanted, runs) == expected
