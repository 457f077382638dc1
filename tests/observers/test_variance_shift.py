"""The variance shift, against closed forms and against NumPy on all test images at once."""

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest

import models
from mnist_bn import data, kernels, training
from mnist_bn.config import RunConfig
from mnist_bn.errors import UserError
from mnist_bn.observers import variance_shift
from mnist_bn.observers.variance_shift import VarianceShift, shift
from mnist_bn.studies.variance_shift import theory
from mnist_bn.training import prepare

CPU = chainer.get_device("@numpy")
PARTS = ("shift", "real_mean", "real_var", "moving_mean", "moving_var")


class DropoutBN(chainer.Chain):
    """Dropout -> [linear ->] BN."""

    def __init__(self, units, ratio, linear=None):
        super().__init__()
        self.ratio, self.linear = ratio, linear
        with self.init_scope():
            self.bn = L.BatchNormalization(units)

    def forward(self, x):
        h = F.dropout(x, self.ratio)
        return self.bn(h if self.linear is None else F.linear(h, self.linear))


def dataset_of(x):
    split = data.Split(x.astype(np.float32), np.zeros(len(x), np.int32))
    return data.Dataset("mnist", split, split, {}, "a test")


def trained_and_measured(network, x):
    """Lets BN gather its running statistics with dropout on, then measures on the same images."""
    network.bn.decay = 0.98
    for batch in np.array_split(x.astype(np.float32), 400):
        network(batch)
    return VarianceShift(dataset_of(x), CPU).measure(network)


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.7])
def test_dropout_directly_before_bn_has_the_shift_of_the_closed_form(ratio):
    np.random.seed(0)
    mean, std = np.array([0.0, 1.0, -3.0]), np.array([2.0, 0.5, 1.5])
    x = np.random.randn(100_000, 3) * std + mean
    found = trained_and_measured(DropoutBN(3, ratio), x)["shift/bn"]
    p = 1 - ratio
    # E[(a x / p)^2] - E[a x / p]^2 of a Bernoulli a, divided by the variance of x.
    expected = ((mean**2 + std**2) / p - mean**2) / std**2
    np.testing.assert_allclose(found, expected, rtol=0.04)
    np.testing.assert_allclose(theory(mean, std**2, ratio), expected)
    assert expected[0] == pytest.approx(1 / p)  # free of a mean


def test_dropout_before_a_linear_layer_has_the_shift_of_the_closed_form():
    np.random.seed(0)
    p, mixing = 0.4, np.random.randn(5, 5)
    x = np.random.randn(100_000, 5) @ mixing + np.arange(5)
    weights = np.random.randn(2, 5).astype(np.float32)
    found = trained_and_measured(DropoutBN(2, 1 - p, weights), x)["shift/bn"]
    # The masks are independent: each adds (1 - p) / p w^2 E[x^2] to the variance of the sum.
    added = (1 - p) / p * weights**2 @ (np.diag(mixing.T @ mixing) + np.arange(5) ** 2)
    expected = 1 + added / np.diag(weights @ mixing.T @ mixing @ weights.T)
    np.testing.assert_allclose(found, expected, rtol=0.04)


def bn_inputs(network, x):
    """What arrives at the BN layers of a network of `models.variance_shift` in test mode."""
    arrays = []
    h = F.reshape(x, (len(x), 1, 28, 28))
    for i in (1, 2, 3):
        arrays.append(network[f"conv{i}"](h).array)
        h = F.max_pooling_2d(F.relu(network[f"bnorm{i}"](arrays[-1])), 2)
    return [*arrays, network.l1(h).array]


@pytest.fixture
def trained(tiny_data):
    network = models.create("MnistCNN_dropout_BN", ratio=0.5)
    for _ in range(5):
        network(tiny_data.train.images)
    return network


def test_it_is_what_numpy_finds_on_all_images_at_once(trained, tiny_data, monkeypatch):
    monkeypatch.setattr(variance_shift, "BATCH", 7)
    series = VarianceShift(tiny_data, CPU).measure(trained)
    assert list(series) == [f"{part}/bnorm{i}" for i in (1, 2, 3, 4) for part in PARTS]
    with chainer.using_config("train", False):
        inputs = bn_inputs(trained, tiny_data.test.images)
    for i, x in enumerate(inputs, start=1):
        by_channel = np.moveaxis(x.astype(np.float64), 1, 0).reshape(x.shape[1], -1)
        real, moving = by_channel.var(axis=1, ddof=1), trained[f"bnorm{i}"].avg_var
        np.testing.assert_allclose(series[f"real_mean/bnorm{i}"], by_channel.mean(1), atol=1e-5)
        np.testing.assert_allclose(series[f"real_var/bnorm{i}"], real, rtol=1e-4)
        assert np.array_equal(series[f"moving_var/bnorm{i}"], moving)
        ratio = (real + 2e-5) / (moving + 2e-5)  # eps
        expected = np.maximum(ratio, 1 / ratio)
        np.testing.assert_allclose(series[f"shift/bnorm{i}"], expected, rtol=1e-3)
        assert (series[f"shift/bnorm{i}"] >= 1).all()


def test_with_kernels_it_is_the_same(trained, tiny_data):
    before = VarianceShift(tiny_data, CPU).measure(trained)
    if kernels.install() == kernels.STOCK:
        pytest.skip(kernels.why_not())
    for key, array in VarianceShift(tiny_data, CPU).measure(trained).items():
        np.testing.assert_allclose(array, before[key], rtol=1e-3, atol=1e-4, err_msg=key)


def test_the_network_and_the_random_numbers_stay_as_they_were(trained, tiny_data):
    before, state = trained.copy("copy"), np.random.get_state(legacy=False)["state"]["pos"]
    VarianceShift(tiny_data, CPU).measure(trained)
    assert np.random.get_state(legacy=False)["state"]["pos"] == state
    for name in ("bnorm1", "bnorm4"):
        assert np.array_equal(trained[name].avg_var, before[name].avg_var)


class Nested(chainer.Chain):
    """Of colour images; its links are not named in the order in which they are used."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.last = L.BatchNormalization(4)
            self.block = chainer.ChainList(L.Convolution2D(3, 4, 3), L.BatchNormalization(4))
            self.unused = L.BatchNormalization(2)

    def forward(self, x):
        conv, bn = self.block
        return self.last(x=F.relu(bn(conv(x))))


def test_layers_of_any_network_stand_in_the_order_of_use():
    x = np.random.RandomState(0).rand(6, 3, 8, 8)
    series = VarianceShift(dataset_of(x), CPU).measure(Nested())
    assert [key for key in series if key.startswith("shift/")] == ["shift/block/1", "shift/last"]


@pytest.mark.parametrize(
    ("size", "axis", "over"),
    [
        (4, None, (0, 2, 3)),
        ((4, 5, 6), None, 0),
        (None, (0, 2, 3), (0, 2, 3)),
        (None, 0, 0),
        (None, (0, 1), (0, 1)),
    ],
)
def test_axes_are_those_of_the_layer(size, axis, over):
    class Alone(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.bn = L.BatchNormalization(size, axis=axis)

        def forward(self, x):
            return self.bn(x)

    x = np.random.RandomState(0).rand(9, 4, 5, 6).astype(np.float32)
    network = Alone()
    network(x)
    series = VarianceShift(dataset_of(x), CPU).measure(network)
    expected = x.astype(np.float64).var(axis=over, ddof=1)
    np.testing.assert_allclose(series["real_var/bn"], expected.ravel(), rtol=1e-6)
    assert np.array_equal(series["moving_var/bn"], network.bn.avg_var.ravel())


def test_a_network_that_uses_no_bn_is_one_line(tiny_data):
    network = models.create("ReluMLP")
    network.add_link("spare", L.BatchNormalization(3))
    with pytest.raises(UserError, match=r"^--observe variance-shift: ReluMLP uses none of its BN"):
        VarianceShift(tiny_data, CPU).measure(network)


def test_of_a_layer_that_is_used_twice_all_inputs_count():
    class Twice(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.bn = L.BatchNormalization(3)

        def forward(self, x):
            self.bn(x)
            return self.bn(2 * x)

    x = np.random.RandomState(0).rand(300, 3)
    series = VarianceShift(dataset_of(x), CPU).measure(Twice())
    expected = np.concatenate([x, 2 * x]).var(axis=0, ddof=1)
    np.testing.assert_allclose(series["real_var/bn"], expected, rtol=1e-5)


def test_shift_of_two_variances():
    real, moving = np.array([2.0, 1.0, 3.0]), np.array([1.0, 2.0, 3.0])
    assert shift(real, moving).tolist() == [2, 2, 1]
    # Constant in both: BN divides both by the root of eps.
    assert shift(np.zeros(1), np.zeros(1), 2e-5).tolist() == [1]
    assert np.isnan(shift(np.array([np.nan]), np.ones(1)))


@pytest.mark.parametrize("observer", ["variance-shift", "reestimated-bn"])
def test_a_network_without_bn_is_one_line(tiny_data, tmp_path, observer):
    config = RunConfig(model="ReluMLP", epoch=1, batchsize=20, out=str(tmp_path), observe=observer)
    with pytest.raises(UserError, match=rf"^--observe {observer}: expected .*; ReluMLP has none$"):
        training.train(prepare(config))
