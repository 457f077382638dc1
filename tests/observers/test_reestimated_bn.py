"""BN's statistics re-estimated, against NumPy and against statistics that were made wrong."""

import json

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest

import models
from mnist_bn import kernels
from mnist_bn.data import Split
from mnist_bn.observers.reestimated_bn import ReestimatedBN, reestimated

CPU = chainer.get_device("@numpy")


def split(images):
    return Split(images, np.zeros(len(images), np.int32))


class Listed(chainer.Chain):
    """Dropout -> BN -> linear -> BN; keeps its links in a list besides."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.first = L.BatchNormalization(3)
            self.linear = L.Linear(3, 2)
            self.second = L.BatchNormalization(2)
        self.layers = [self.first, self.linear, self.second]

    def forward(self, x):
        h = F.dropout(x, 0.5)
        for layer in self.layers:
            h = layer(h)
        return h


def random_state():
    """NumPy's, as text: its words change only once in 624 numbers, so the position counts too."""
    return json.dumps(np.random.get_state(legacy=False), default=np.ndarray.tolist)


def running(network):
    return {
        path: (link.avg_mean.copy(), link.avg_var.copy(), link.decay)
        for path, link in network.namedlinks()
        if isinstance(link, L.BatchNormalization)
    }


def test_statistics_are_the_averages_over_batches_without_dropout():
    network = Listed()
    x = np.random.RandomState(0).randn(300, 3).astype(np.float32) * [1, 2, 3] + [0, 1, 5]
    x = x.astype(np.float32)
    first = reestimated(network, split(x), CPU).first
    batches = np.split(x, 3)
    np.testing.assert_allclose(first.avg_mean, x.mean(axis=0), rtol=1e-4, atol=1e-5)
    unbiased = np.mean([batch.var(axis=0, ddof=1) for batch in batches], axis=0)
    np.testing.assert_allclose(first.avg_var, unbiased, rtol=1e-4)


def test_later_layers_get_what_is_normalized_by_the_batch():
    network = Listed()
    network.linear.W.array[:] = np.eye(2, 3)
    x = np.random.RandomState(0).randn(200, 3).astype(np.float32) * 7
    second = reestimated(network, split(x), CPU).second
    np.testing.assert_allclose(second.avg_var, 100 / 99, rtol=1e-3)


def test_of_a_layer_that_is_used_twice_all_uses_count():
    class Twice(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.bn = L.BatchNormalization(3)

        def forward(self, x):
            return self.bn(self.bn(x) + 4)

    x = np.random.RandomState(0).randn(200, 3).astype(np.float32)
    bn = reestimated(Twice(), split(x), CPU).bn
    # The first use receives x, the second what has a mean of 4 and a variance of 1.
    np.testing.assert_allclose(bn.avg_mean, (x.mean(axis=0) + 4) / 2, rtol=1e-4)
    unbiased = np.mean([batch.var(axis=0, ddof=1) for batch in np.split(x, 2)], axis=0)
    np.testing.assert_allclose(bn.avg_var, (unbiased + 100 / 99) / 2, rtol=1e-3)


def test_statistics_that_are_no_numbers_are_estimated_anew():
    network = Listed()
    network.first.avg_mean[:], network.first.avg_var[:] = np.nan, np.inf
    first = reestimated(network, split(np.eye(3, dtype=np.float32)), CPU).first
    np.testing.assert_allclose(first.avg_mean, 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(first.avg_var, 1 / 3, rtol=1e-6)


def test_what_the_network_has_in_train_mode_when_tested_stays_so():
    class Always(chainer.Chain):
        """Dropout after BN, in test mode too."""

        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.first, self.second = L.BatchNormalization(3), L.BatchNormalization(3)

        def forward(self, x):
            with chainer.using_config("train", True):
                return self.second(F.dropout(self.first(x), 0.5))

    x = np.random.RandomState(0).randn(200, 3).astype(np.float32)
    np.testing.assert_allclose(reestimated(Always(), split(x), CPU).second.avg_var, 2, rtol=0.4)


def test_the_network_and_the_random_numbers_stay_as_they_were():
    network = Listed()
    network(np.random.RandomState(1).rand(9, 3).astype(np.float32))
    before, state = running(network), random_state()
    reestimated(network, split(np.random.RandomState(0).rand(150, 3).astype(np.float32)), CPU)
    assert random_state() == state
    assert chainer.config.train
    for path, (mean, variance, decay) in running(network).items():
        assert np.array_equal(mean, before[path][0]), path
        assert np.array_equal(variance, before[path][1]), path
        assert decay == before[path][2]


@pytest.mark.parametrize("name", ["MnistCNN_dropout_BN", "MnistCNN_BN_after"])
def test_wrong_statistics_cost_accuracy_that_new_ones_give_back(tiny_data, name):
    kernels.install()
    np.random.seed(0)
    classifier = L.Classifier(models.create(name))
    optimizer = chainer.optimizers.Adam().setup(classifier)
    for _ in range(20):
        optimizer.update(classifier, *tiny_data.train)
    network = classifier.predictor
    network.bnorm1.avg_var *= 1e4
    network.bnorm2.avg_mean += 1e3

    def accuracy():
        with chainer.using_config("train", False):
            return float(F.accuracy(network(tiny_data.test.images), tiny_data.test.labels).array)

    wrong = accuracy()
    anew = ReestimatedBN(tiny_data, CPU).measure(network)["accuracy"]
    assert accuracy() == wrong < 0.5
    assert anew > 0.9
