"""The kernels behind Chainer's layers, against stock Chainer in float64."""

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_bn.kernels import layers, pooling
from tests.kernels.against_stock import (
    FLOAT32_ULP,
    LAYOUTS,
    assert_as_exact_as_stock,
    assert_not_finite_as_stock,
    in_layout,
    map_shapes,
    outputs_and_gradients,
    random,
    row_shapes,
)
from tests.kernels.switching import kernels


@pytest.fixture(scope="module")
def replacements(library):
    return layers.replacements(library) | pooling.replacements(library)


# --- Batch Normalization ---


@settings(deadline=None, max_examples=40)
@given(st.one_of(map_shapes, row_shapes), st.sampled_from(LAYOUTS), st.integers(0, 99))
def test_batch_normalization(replacements, shape, layout, seed):
    arrays = random(*shape, seed=seed, offset=1), random(shape[1], offset=1), random(shape[1])
    assert_as_exact_as_stock(F.batch_normalization, replacements, arrays, layout)


@pytest.mark.parametrize("shape", [(3, 2, 4, 5), (5, 17), (100, 16, 26, 26), (700, 3, 5, 5)])
def test_batch_normalization_of_many_rows_and_twice_differentiated(replacements, shape):
    arrays = random(*shape), random(shape[1], offset=2), random(shape[1])
    assert_as_exact_as_stock(F.batch_normalization, replacements, arrays, double=True, ulps=64)


@pytest.mark.parametrize("channels", [1, 16, 20])
@pytest.mark.parametrize("outlier", [False, True])
@pytest.mark.parametrize("offset, spread", [(1e4, 1e-2), (1e3, 1.0), (1e-6, 1e-9), (1e6, 1.0)])
def test_batch_normalization_of_a_large_mean_and_a_tiny_variance(
    replacements, channels, outlier, offset, spread
):
    x = random(20, channels, 13, 13, scale=spread, offset=offset)
    if outlier:
        x[0, :, 0, 0] = 0  # no good origin for a shifted one-pass sum
    one = np.ones(channels, "f")

    def normalize(x):
        return F.batch_normalization(x, one.astype(x.dtype), one.astype(x.dtype), eps=1e-12).array

    exact = normalize(x.astype("d"))
    stock = np.abs(normalize(x) - exact).max()
    with kernels(replacements, only=True):
        error = np.abs(normalize(x) - exact).max()
    assert error <= 1.01 * stock + 4 * FLOAT32_ULP * np.abs(exact).max()


def test_running_statistics_as_stock(replacements):
    def run():
        mean, var = np.zeros(17, "f"), np.ones(17, "f")
        for seed in range(5):
            x = random(8, 17, 3, 3, seed=seed, offset=3, scale=2)
            one = np.ones(17, "f")
            F.batch_normalization(x, one, one, running_mean=mean, running_var=var, decay=0.7)
        return mean, var

    stock = run()
    with kernels(replacements, only=True):
        actual = run()
    for a, s in zip(actual, stock, strict=True):
        np.testing.assert_allclose(a, s, rtol=4e-7)


@settings(deadline=None, max_examples=30)
@given(st.one_of(map_shapes, row_shapes), st.sampled_from(LAYOUTS), st.booleans())
def test_fixed_batch_normalization(replacements, shape, layout, double):
    c = shape[1]
    arrays = random(*shape), random(c), random(c), random(c), np.abs(random(c)) + np.float32(0.5)
    assert_as_exact_as_stock(F.fixed_batch_normalization, replacements, arrays, layout, double)


def test_batch_normalization_of_one_row_warns_as_stock(replacements):
    one = np.ones(4, "f")
    with kernels(replacements), pytest.warns(UserWarning, match="no more than one"):
        y = F.batch_normalization(random(1, 4), one, one)
    assert (y.array == 1).all()


# --- ReLU ---


@settings(deadline=None, max_examples=25)
@given(st.one_of(map_shapes, row_shapes), st.sampled_from(["c", "nhwc"]), st.booleans())
def test_relu(replacements, shape, layout, double):
    assert_as_exact_as_stock(F.relu, replacements, [random(*shape)], layout, double, ulps=0)


def test_relu_keeps_nhwc_memory(replacements):
    x = chainer.Variable(in_layout(random(2, 5, 4, 3), "nhwc"))
    with kernels(replacements, only=True):
        y = F.relu(x)
        (gx,) = chainer.grad([y], [x], [chainer.Variable(random(2, 5, 4, 3))])
    assert y.array.strides == x.array.strides == gx.array.strides


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "function",
    [
        F.relu,
        F.leaky_relu,
        lambda x: F.leaky_relu(x, 0),
        lambda x: F.batch_normalization(x, *np.ones((2, x.shape[1]), "f")),
        lambda x: F.fixed_batch_normalization(x, *np.ones((4, x.shape[1]), "f")),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_not_a_number_and_infinity_as_stock(replacements, function, value):
    assert_not_finite_as_stock(function, replacements, value)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_infinity_in_the_running_mean_as_stock(replacements):
    def running_mean():
        x, mean, one = random(900, 2), np.zeros(2, "f"), np.ones(2, "f")
        x[5, 0] = np.inf
        F.batch_normalization(x, one, one, running_mean=mean, running_var=np.ones(2, "f"))
        return mean

    stock = running_mean()
    with kernels(replacements, only=True):
        np.testing.assert_allclose(running_mean(), stock, rtol=1e-5, atol=1e-7)


@settings(deadline=None, max_examples=40)
@given(
    st.one_of(map_shapes, row_shapes),
    st.sampled_from(["c", "nhwc"]),
    st.sampled_from([0, 0.01, 0.2, 1.0, 1.5, -0.3]),
    st.booleans(),
)
def test_leaky_relu(replacements, shape, layout, slope, double):
    def leaky(x):
        return F.leaky_relu(x, slope)

    assert_as_exact_as_stock(leaky, replacements, [random(*shape)], layout, double, ulps=0)


# --- Dropout ---


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from(["c", "nhwc"]),
    st.lists(st.integers(1, 40), min_size=1, max_size=3) | map_shapes,
    st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.97]),
    st.integers(0, 700),
)
def test_dropout_draws_the_bits_of_stock(replacements, layout, shape, ratio, position):
    x = in_layout(random(*shape), layout)

    def draw():
        np.random.seed(3)
        np.random.bytes(4 * position)  # moves by single words of 32 bits
        y = [F.dropout(x, ratio).array for _ in range(2)]
        return *y, np.random.rand()

    stock = draw()
    with kernels(replacements, only=True):
        actual = draw()
    for a, s in zip(actual, stock, strict=True):
        np.testing.assert_array_equal(a, s)


def test_dropout_with_another_generator_is_stock(replacements):
    x = random(30, 20)
    previous = np.random.get_bit_generator()

    def draw():
        np.random.set_bit_generator(np.random.PCG64(1))
        return F.dropout(x).array

    try:
        stock = draw()
        with kernels(replacements):
            np.testing.assert_array_equal(draw(), stock)
    finally:
        np.random.set_bit_generator(previous)


# --- Softmax cross-entropy and accuracy ---


@settings(deadline=None, max_examples=30)
@given(
    st.integers(1, 30), st.integers(1, 20), st.sampled_from(LAYOUTS), st.booleans(), st.booleans()
)
def test_softmax_cross_entropy(replacements, rows, classes, layout, normalize, some_ignored):
    t = np.random.RandomState(rows).randint(-1 if some_ignored else 0, classes, rows).astype("i")

    def loss(x):
        return F.softmax_cross_entropy(x, t, normalize=normalize)

    x = random(rows, classes, scale=20)
    assert_as_exact_as_stock(loss, replacements, [x], layout)


@pytest.mark.parametrize("label", [-2, 5])
def test_labels_that_are_none_are_stocks_to_handle(replacements, label):
    x, t = random(3, 5), np.int32([0, label, 1])

    def loss():
        return F.softmax_cross_entropy(chainer.Variable(x), t)

    with kernels(replacements):
        if label == 5:
            with pytest.raises(IndexError):
                loss()
            return
        y = loss()
        y.backward()
    np.testing.assert_array_equal(y.array, loss().array)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_scores_not_a_number_as_stock(replacements):
    x, t = random(4, 5), np.int32([0, -1, 1, 2])
    for row, value in ((0, np.nan), (1, np.nan), (2, np.inf), (3, -np.inf)):
        scores = x.copy()
        scores[row, 1] = value
        loss = outputs_and_gradients(lambda x: F.softmax_cross_entropy(x, t), [scores], [random()])
        with kernels(replacements, only=True):
            actual = outputs_and_gradients(
                lambda x: F.softmax_cross_entropy(x, t), [scores], [random()]
            )
        for a, s in zip(actual, loss, strict=True):
            np.testing.assert_allclose(a, s, rtol=1e-5)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 50), st.integers(1, 20), st.sampled_from(LAYOUTS))
def test_accuracy(replacements, rows, classes, layout):
    rng = np.random.RandomState(rows)
    y = rng.choice(np.float32([0, 1, 2, np.nan]), (rows, classes), p=[0.4, 0.3, 0.2, 0.1])
    t = rng.randint(-1, classes, rows).astype("i")
    stock = F.accuracy(y, t).array
    with kernels(replacements, only=True):
        np.testing.assert_array_equal(F.accuracy(in_layout(y, layout), t).array, stock)


# --- What no kernel covers ---

UNCOVERED = {
    "max pooling with indices": lambda x: F.max_pooling_2d(x, 2, return_indices=True)[0],
    "max pooling, one axis": lambda x: F.max_pooling_1d(x[0], 2),
    "average pooling of volumes": lambda x: F.average_pooling_nd(x[None], 2),
    "BN over one axis": lambda x: F.batch_normalization(
        x, *np.ones((2, *x.shape[1:]), x.dtype), axis=0
    ),
    "BN of three axes": lambda x: F.batch_normalization(x[0], *np.ones((2, 5), x.dtype)),
    "loss without a mean": lambda x: F.sum(
        F.softmax_cross_entropy(x[:, :, 0, 0], np.zeros(len(x), "i"), reduce="no")
    ),
    "loss of a map": lambda x: F.softmax_cross_entropy(x, np.zeros((3, 5, 5), "i")),
    "ReLU, strided": lambda x: F.relu(x[:, :, ::2]),
}
COVERED_IN_FLOAT32 = {
    "relu": F.relu,
    "max pooling": lambda x: F.max_pooling_2d(x, 2),
    "max pooling, padded": lambda x: F.max_pooling_2d(x, 3, 2, 1),
    "average pooling": lambda x: F.average_pooling_2d(x, x.shape[2:]),
    "average pooling, padded": lambda x: F.average_pooling_2d(x, x.shape[2:], pad=1),
    "BN": lambda x: F.batch_normalization(x, *np.ones((2, 6), x.dtype)),
    "fixed BN": lambda x: F.fixed_batch_normalization(x, *np.ones((4, 6), x.dtype)),
    "leaky ReLU": F.leaky_relu,
    "dropout": F.dropout,
    "loss": lambda x: F.softmax_cross_entropy(x[:, :, 0, 0], np.zeros(len(x), "i")),
}


@pytest.mark.parametrize(
    "name, dtype",
    [
        *((name, "f") for name in UNCOVERED),
        *((name, dtype) for name in COVERED_IN_FLOAT32 for dtype in "de"),
    ],
)
def test_what_no_kernel_covers_has_stocks_very_bits(replacements, name, dtype):
    function = (UNCOVERED | COVERED_IN_FLOAT32)[name]
    x = random(3, 6, 5, 5).astype(dtype)

    def run():
        np.random.seed(0)
        gy = random(*function(x).shape)
        np.random.seed(0)
        return outputs_and_gradients(function, [x], [gy])

    stock = run()
    with kernels(replacements):
        actual = run()
    for a, s in zip(actual, stock, strict=True):
        assert a.dtype == s.dtype
        np.testing.assert_array_equal(a, s)


def test_uninstalling_between_the_passes_is_harmless(replacements):
    x, gy = chainer.Variable(random(2, 3, 5, 5)), chainer.Variable(random(2, 3, 3, 3))
    with kernels(replacements, only=True):
        y = F.max_pooling_2d(F.relu(F.batch_normalization(x, *np.ones((2, 3), "f"))), 2)
    (gx,) = chainer.grad([y], [x], [gy])
    (stock,) = chainer.grad(
        [F.max_pooling_2d(F.relu(F.batch_normalization(x, *np.ones((2, 3), "f"))), 2)], [x], [gy]
    )
    np.testing.assert_allclose(gx.array, stock.array, rtol=1e-4, atol=1e-6)


def test_a_static_graph_trains_as_stock_does(replacements):
    """Chainer's static graphs record what its own functions call, and replay it."""

    class Network(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.l1 = L.Linear(5, 4)
                self.l2 = L.Linear(4, 3)

        @chainer.static_graph
        def forward(self, x):
            return self.l2(F.relu(self.l1(x)))

    def train():
        np.random.seed(0)
        model = Network()
        optimizer = chainer.optimizers.SGD().setup(model)
        x, t = np.random.randn(6, 5).astype("f"), np.arange(6, dtype="i") % 3
        with chainer.using_config("use_static_graph", True):
            for _ in range(4):
                optimizer.update(lambda: F.softmax_cross_entropy(model(x), t))
        return [parameter.array for parameter in model.params()]

    expected = train()
    with kernels(replacements):
        actual = train()
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-5)


def test_running_statistics_that_must_not_be_written_are_not(replacements):
    frozen = np.frombuffer(np.ones(3, np.float32).tobytes(), np.float32)
    arrays = np.random.RandomState(0).randn(4, 3).astype("f"), np.ones(3, "f"), np.zeros(3, "f")
    with kernels(replacements), pytest.raises(ValueError, match="read-only"):
        F.batch_normalization(*arrays, running_mean=frozen, running_var=frozen)
    assert (frozen == 1).all()


LABELS = np.zeros(100, np.int32)
# Name -> a function of x, and an x that NumPy takes by whole vectors and the kernels do not.
HANDED_OVER = {
    "pooling of one channel": (lambda x: F.max_pooling_2d(x, 2), (10, 1, 28, 28)),
    "pooling of few channels": (lambda x: F.max_pooling_2d(x, 3, 2), (10, 3, 28, 28)),
    "average pooling of few channels": (lambda x: F.average_pooling_2d(x, 2), (10, 3, 28, 28)),
    "pooling that skips pixels": (lambda x: F.average_pooling_2d(x, 1, 2), (10, 16, 28, 28)),
    "BN of one channel": (
        lambda x: F.batch_normalization(x, *np.ones((2, 1), "f")),
        (10, 1, 28, 28),
    ),
    "fixed BN of few channels": (
        lambda x: F.fixed_batch_normalization(x, *np.ones((4, 3), "f")),
        (10, 3, 28, 28),
    ),
    "the loss of many classes": (lambda x: F.softmax_cross_entropy(x, LABELS), (100, 300)),
    "the accuracy of many classes": (lambda x: F.accuracy(x, LABELS), (100, 600)),
}


@pytest.mark.parametrize("name", HANDED_OVER)
def test_what_stock_does_as_fast_is_stocks_to_the_bit(replacements, name):
    function, shape = HANDED_OVER[name]
    calls = []

    def counting(original):
        def method(self, *args):
            calls.append(type(self).__name__)
            return original(self, *args)

        return method

    def spied(wrap):
        return lambda original: wrap(counting(original))

    x = random(*shape)
    expected = function(x).array
    spies = {key: spied(wrap) for key, wrap in replacements.items() if key[1] != "indexes"}
    with kernels(spies):
        actual = function(x).array
        assert calls
        calls.clear()
        function(x[:1, :, :16, :16] if x.ndim == 4 else x[:, :10].copy())
        assert not calls  # smaller ones are the kernels'
    np.testing.assert_array_equal(actual, expected)
