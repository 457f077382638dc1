"""Evaluation as each stack did it: the same parameters, two validation results."""

import chainer.links as L
import numpy as np
import pytest
from chainer.datasets import TupleDataset
from chainer.iterators import SerialIterator

import models
from mnist_bn.trainer import semantics

BN_NETWORKS = ["MnistCNN_BN_before", "MnistCNN_BN_after", "MnistCNN_BN_linear_before"]


def evaluate(classifier, batch, which, batchsize=100):
    iterator = SerialIterator(TupleDataset(*batch), batchsize, repeat=False, shuffle=False)
    result = semantics.EVALUATORS[which](iterator, classifier)()
    return result["main/loss"], result["main/accuracy"]


@pytest.fixture(params=["MnistCNN", *BN_NETWORKS])
def name(request):
    return request.param


def test_2016_is_what_chainer_1_12_computed(name, golden, golden_batch, golden_classifier):
    classifier = golden_classifier(name)
    np.random.seed(100)  # the dropout mask of the golden numbers
    loss, accuracy = evaluate(classifier, golden_batch, "2016")
    assert loss == pytest.approx(golden[f"{name}/losses"][0], abs=1e-5)
    right = golden[f"{name}/logits"].argmax(axis=1) == golden["t"]
    assert accuracy == pytest.approx(right.mean())


def test_today_is_the_networks_formula_in_test_mode(name, golden_batch, golden_classifier):
    classifier = golden_classifier(name)
    rng = np.random.RandomState(1)
    for link in classifier.links():
        if isinstance(link, L.BatchNormalization):
            link.avg_mean[...] = rng.randn(*link.avg_mean.shape) * 0.1
            link.avg_var[...] = 0.5 + rng.rand(*link.avg_var.shape)
    images, labels = golden_batch
    logits = numpy_forward(classifier.predictor, name, images)
    log_softmax = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    loss, accuracy = evaluate(classifier, golden_batch, "today", batchsize=50)

    assert loss == pytest.approx(-log_softmax[np.arange(100), labels].mean(), abs=1e-5)
    assert accuracy == pytest.approx((logits.argmax(axis=1) == labels).mean())


def numpy_forward(network, name, images):
    """The network in test mode, in float64 NumPy from the definitions alone."""

    def normalize(link, h):
        axes = (1, -1, 1, 1) if h.ndim == 4 else (1, -1)
        mean, var, gamma, beta = (
            a.astype(np.float64).reshape(axes)
            for a in (link.avg_mean, link.avg_var, link.gamma.array, link.beta.array)
        )
        return gamma * (h - mean) / np.sqrt(var + link.eps) + beta

    def convolve(link, h):
        windows = np.lib.stride_tricks.sliding_window_view(h, (3, 3), axis=(2, 3))
        y = np.einsum("nchwyx,ocyx->nohw", windows, link.W.array.astype(np.float64), optimize=True)
        return y + link.b.array.reshape(1, -1, 1, 1)

    def pool(h):
        n, c, height, width = h.shape
        padded = np.full((n, c, height + height % 2, width + width % 2), -np.inf)
        padded[:, :, :height, :width] = h
        return padded.reshape(n, c, padded.shape[2] // 2, 2, -1, 2).max(axis=(3, 5))

    h = images.astype(np.float64).reshape(-1, 1, 28, 28)
    for i in (1, 2, 3):
        h = convolve(network[f"conv{i}"], h)
        if name in ("MnistCNN_BN_before", "MnistCNN_BN_linear_before"):
            h = normalize(network[f"bnorm{i}"], h)
        h = np.maximum(h, 0)
        if name == "MnistCNN_BN_after":
            h = normalize(network[f"bnorm{i}"], h)
        h = pool(h)
    h = h.reshape(len(h), -1) @ network.l1.W.array.T.astype(np.float64) + network.l1.b.array
    if name == "MnistCNN_BN_linear_before":
        h = normalize(network.bnorm4, h)
    h = np.maximum(h, 0) @ network.l2.W.array.T.astype(np.float64) + network.l2.b.array
    return normalize(network.bnorm5, h) if name == "MnistCNN_BN_linear_before" else h


@pytest.mark.parametrize("name", BN_NETWORKS)
def test_only_2016_updates_running_averages_while_evaluating(name, golden_batch, golden_classifier):
    classifier = golden_classifier(name)
    bnorm = classifier.predictor.bnorm1
    mean = bnorm.avg_mean.copy()
    evaluate(classifier, golden_batch, "today")
    assert np.array_equal(bnorm.avg_mean, mean)
    evaluate(classifier, golden_batch, "2016")
    assert not np.array_equal(bnorm.avg_mean, mean)


@pytest.mark.parametrize("name", BN_NETWORKS)
def test_only_2016_depends_on_the_evaluation_batch(
    name, golden_batch, golden_classifier, monkeypatch
):
    classifier = golden_classifier(name)
    # Without dropout, BN alone is what makes the difference.
    monkeypatch.setattr(models.mnist_cnn.F, "dropout", lambda h, ratio: h)
    today = [evaluate(classifier, golden_batch, "today", size)[0] for size in (100, 10)]
    in_2016 = [evaluate(classifier, golden_batch, "2016", size)[0] for size in (100, 10)]
    assert today[0] == pytest.approx(today[1], rel=1e-5)
    assert abs(in_2016[0] - in_2016[1]) > 0.001


@pytest.mark.parametrize(("which", "eps"), [("today", 2e-5), ("2016", 1e-5)])
def test_eps(which, eps):
    network = models.create("MnistCNN_BN_linear_before")
    semantics.prepare(network, which)
    assert [network[f"bnorm{i}"].eps for i in range(1, 6)] == [eps] * 5
