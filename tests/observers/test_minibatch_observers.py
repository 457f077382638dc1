"""What observers try on one minibatch, against closed forms and sums written out in NumPy."""

import random
import types

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import models
from mnist_bn import data, kernels, observers
from mnist_bn.errors import UserError
from mnist_bn.kernels import convolution
from mnist_bn.observers import gradient_noise, minibatch
from mnist_bn.observers.activation_moments import ActivationMoments, channel_moments
from mnist_bn.observers.base import fixed_random_state
from mnist_bn.observers.channel_gradients import ChannelGradients
from mnist_bn.observers.diverging_step import LEARNING_RATES, DivergingStep
from mnist_bn.observers.gradient_histogram import BINS, GradientHistogram, kurtosis
from mnist_bn.observers.gradient_noise import GradientNoise
from mnist_bn.observers.kernel_gradients import KernelGradients, summands
from mnist_bn.observers.minibatch import MinibatchObserver, backpropagate, layer_at
from mnist_bn.observers.output_gradients import OutputGradients
from mnist_bn.observers.probe import Layers
from mnist_bn.observers.relative_loss import RelativeLoss, Step
from mnist_bn.trainer.divergence import LIMIT

CPU = chainer.get_device("@numpy")
EVERY = [c for c in observers.observers().values() if issubclass(c, MinibatchObserver)]


class Softmax(chainer.Chain):
    """One linear layer: its loss and gradients have closed forms."""

    def __init__(self, inputs=12, dropout=0.0):
        super().__init__()
        self.dropout = dropout
        with self.init_scope():
            self.l1 = L.Linear(inputs, 10, initialW=chainer.initializers.Normal(0.5))

    def forward(self, x):
        x = F.reshape(x, (len(x), -1))[:, :12]
        return self.l1(F.dropout(x, self.dropout) if self.dropout else x)


@pytest.fixture(autouse=True)
def fast(stock_chainer, monkeypatch):
    """One thread and the compiled kernels, as in a run; few batches of noise."""
    monkeypatch.setattr(gradient_noise, "DRAWS", 2)
    kernels.install("auto")
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def colours():
    """Forty training images of noise, smaller than CIFAR-10's."""
    random = np.random.RandomState(0)
    images = random.rand(40, 3, 8, 8).astype(np.float32)
    split = data.Split(images, np.arange(40, dtype=np.int32) % 10)
    return data.Dataset("cifar10", split, split, {}, "a test", "")


@pytest.fixture
def softmax():
    np.random.seed(1)
    return Softmax()


@pytest.fixture(scope="module")
def resnet():
    np.random.seed(2)
    return models.create("ResNetCIFAR", depth=8)


def batch(dataset):
    """The images, flat and in float64, and the labels in the order that observers take them in."""
    order = np.random.RandomState(0).permutation(len(dataset.train.labels))
    images, labels = (array[order] for array in dataset.train)
    return images.reshape(len(images), -1)[:, :12].astype(np.float64), labels


def probabilities(x, w, b):
    z = x @ w.T + b
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def cross_entropy(x, t, w, b):
    return -np.log(probabilities(x, w, b)[np.arange(len(t)), t]).mean()


def in_float64(network):
    return network.l1.W.array.astype(np.float64), network.l1.b.array.astype(np.float64)


def output_gradient(x, t, w, b):
    return (probabilities(x, w, b) - np.eye(10)[t]) / len(t)


def test_there_are_eight_of_them():
    assert sorted(c.name for c in EVERY) == [
        "activation-moments",
        "channel-gradients",
        "diverging-step",
        "gradient-histogram",
        "gradient-noise",
        "kernel-gradients",
        "output-gradients",
        "relative-loss",
    ]


@pytest.mark.parametrize("observer", EVERY, ids=lambda c: c.name)
def test_the_network_and_the_random_numbers_stay_as_they_were(
    colours, resnet, observer, monkeypatch
):
    monkeypatch.setattr(gradient_noise, "ALL", 4)
    resnet.cleargrads()
    before = everything(resnet)
    state = np.random.get_state()[1].copy()
    with chainer.using_config("train", False):  # it is not for the caller to set
        series = observer(colours, CPU).measure(resnet)
    assert before.keys() == everything(resnet).keys() > {"bnorm1/avg_var", "/mean", "/conv1/W"}
    assert all(np.array_equal(before[key], array) for key, array in everything(resnet).items())
    assert all(parameter.grad is None for parameter in resnet.params())
    assert np.array_equal(np.random.get_state()[1], state)
    assert series
    assert all(np.isfinite(array).all() for array in series.values())


def everything(network):
    """Copies of the parameters, and of what a snapshot holds besides."""
    arrays = {path: parameter.array.copy() for path, parameter in network.namedparams()}
    for link in network.links():
        for key in link._persistent:
            arrays[f"{link.name or ''}/{key}"] = np.copy(getattr(link, key))
    return arrays


def test_what_is_random_in_a_network_is_the_same_each_time(colours):
    observer = OutputGradients(colours, CPU)
    network = Softmax(dropout=0.5)
    np.random.seed(3)
    first = observer.measure(network)["gradient"]
    np.random.seed(4)
    assert np.array_equal(observer.measure(network)["gradient"], first)
    random = np.random.rand()
    np.random.seed(4)
    assert np.random.rand() == random
    network.dropout = 0.0
    assert not np.array_equal(observer.measure(network)["gradient"], first)


@pytest.mark.parametrize(("layer", "of", "is_"), [(55, 110, 55), (45, 110, 45), (8, 110, 8)])
def test_layers_of_the_paper(layer, of, is_):
    assert layer_at(layer, of) == is_


def test_a_shorter_network_has_them_at_the_same_depth():
    assert [layer_at(layer, 20) for layer in (1, 55, 110)] == [1, 10, 20]


def test_layers_come_in_the_order_of_the_forward_pass(resnet):
    with Layers(lambda link, x, y: (link.name, x.shape, y.shape)) as layers:
        resnet(np.zeros((2, 3, 8, 8), np.float32))
    assert [name for name, *_ in layers.seen] == [f"conv{i}" for i in range(1, 8)] + ["l8"]
    assert layers.seen[3][1:] == ((2, 16, 8, 8), (2, 32, 4, 4))


class Odd(chainer.Chain):
    """What a network of the user's own may be, by name."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        with self.init_scope():
            self.l1 = L.Linear(None if kind == "shapeless" else 192, 10)
            self.conv1 = L.Convolution2D(3, 4, 3)
            self.W = chainer.Parameter(chainer.initializers.Normal(0.1), (10, 192))

    def forward(self, x):
        if self.kind == "with a layer that the loss does not depend on":
            self.conv1(x)
        x = F.reshape(x, (len(x), -1))
        return F.linear(x, self.W) if self.kind == "without layers" else self.l1(x)


@pytest.mark.parametrize("observer", EVERY, ids=lambda c: c.name)
def test_a_copy_draws_no_weights_of_its_own(colours, observer):
    with pytest.raises(UserError, match=rf"--observe {observer.name}: l1/W of Odd gets its shape"):
        observer(colours, CPU).measure(Odd("shapeless"))


@pytest.mark.parametrize("observer", EVERY, ids=lambda c: c.name)
def test_a_network_without_layers_is_one_line(colours, observer):
    if observer.name in ("gradient-noise", "output-gradients", "relative-loss"):
        assert observer(colours, CPU).measure(Odd("without layers"))
        return
    with pytest.raises(UserError, match=r"expected a network with .*L\.Convolution2D"):
        observer(colours, CPU).measure(Odd("without layers"))


def test_a_network_without_convolutions_has_no_kernels(colours, softmax):
    with pytest.raises(UserError, match=r"--observe kernel-gradients: .* Softmax has none"):
        KernelGradients(colours, CPU).measure(softmax)


@pytest.mark.parametrize("observer", EVERY, ids=lambda c: c.name)
def test_what_the_loss_does_not_depend_on_has_gradient_zero(colours, observer):
    network = Odd("with a layer that the loss does not depend on")
    with np.errstate(all="ignore"):  # as in a run: the kurtosis of zeros is not a number
        series = observer(colours, CPU).measure(network)
    if observer is GradientHistogram:
        assert series["std"][0] == 0 < series["std"][1]
    if observer is KernelGradients:
        assert series["layer"].tolist() == [1]
        assert series["sum_of_absolute"].tolist() == [0]


@pytest.mark.parametrize("is_on_gpu", [False, True])
def test_no_random_numbers_of_the_run_are_used(is_on_gpu):
    """With a GPU, in place of which a module stands here, a network may draw NumPy's too."""
    xp = types.SimpleNamespace(random=FakeRandom()) if is_on_gpu else np
    random.seed(1)
    np.random.seed(1)
    expected = random.random(), np.random.rand()
    random.seed(1)
    np.random.seed(1)
    drawn = []
    for _ in range(2):
        with fixed_random_state(types.SimpleNamespace(xp=xp)):
            drawn.append((random.random(), np.random.rand()))
            assert not is_on_gpu or xp.random.state == 0
    assert drawn[0] == drawn[1] != expected
    assert (random.random(), np.random.rand()) == expected
    assert not is_on_gpu or xp.random.state == "of the run"


class FakeRandom:
    """What of cupy.random is needed."""

    state = "of the run"
    RandomState = staticmethod(lambda seed: seed)

    def get_random_state(self):
        return self.state

    def set_random_state(self, state):
        self.state = state


def test_dropout_is_the_same_all_along_the_gradient(colours):
    network = Softmax(dropout=0.5)
    series = RelativeLoss(colours, CPU).measure(network)
    # A small step falls by the square of the gradient's norm; another mask would change more.
    with fixed_random_state(CPU), chainer.using_config("train", True):
        backpropagate(network, *minibatch_of(colours))
    slope = sum(float((p.grad.astype(np.float64) ** 2).sum()) for p in network.params())
    expected = 1 - series["step_size"][0] * slope / series["loss"]
    assert series["relative_loss"][0] == pytest.approx(expected, abs=1e-6)
    assert DivergingStep(colours, CPU).measure(network)["loss"][0] == series["loss"]


def test_gradient_histogram(colours, softmax):
    x, t = batch(colours)
    gradient = output_gradient(x, t, *in_float64(softmax)).T @ x
    series = GradientHistogram(colours, CPU).measure(softmax)
    assert series["std"] == pytest.approx(gradient.std(), rel=1e-4)
    assert series["minimum"] == pytest.approx(gradient.min(), rel=1e-4)
    assert series["maximum"] == pytest.approx(gradient.max(), rel=1e-4)
    centred = gradient - gradient.mean()
    assert series["kurtosis"] == pytest.approx((centred**4).mean() / gradient.var() ** 2, rel=1e-4)
    assert series["counts"].sum() == gradient.size
    assert series["counts"].shape == (BINS,)
    assert series["limit"] == pytest.approx(np.abs(gradient).max(), rel=1e-4)
    assert series["layer"] == 1


def test_kurtosis_of_known_distributions():
    random = np.random.RandomState(0)
    assert kurtosis(np.array([-1.0, 1.0])) == 1
    assert kurtosis(random.uniform(size=10**5)) == pytest.approx(1.8, rel=0.02)
    assert kurtosis(random.normal(size=10**5)) == pytest.approx(3, rel=0.05)
    assert kurtosis(random.laplace(size=10**5)) == pytest.approx(6, rel=0.1)


def test_relative_loss(colours, softmax):
    x, t = batch(colours)
    w, b = in_float64(softmax)
    gradient = output_gradient(x, t, w, b)
    series = RelativeLoss(colours, CPU).measure(softmax)
    assert series["loss"] == pytest.approx(cross_entropy(x, t, w, b), rel=1e-5)
    assert series["step_size"][[0, -1]] == pytest.approx([1e-5, 0.2])
    expected = [
        cross_entropy(x, t, w - a * gradient.T @ x, b - a * gradient.sum(axis=0)) / series["loss"]
        for a in series["step_size"]
    ]
    np.testing.assert_allclose(series["relative_loss"], expected, rtol=1e-5)
    assert RelativeLoss.at == (0, 3, 6)


def test_activation_moments(colours, resnet):
    series = ActivationMoments(colours, CPU).measure(resnet)
    order = np.random.RandomState(0).permutation(40)
    y = resnet.conv1((colours.train.images[order] - resnet.mean) / resnet.std).array
    means = y.astype(np.float64).mean(axis=(0, 2, 3))
    assert series["mean"].shape == (8,)
    assert series["mean"][0] == pytest.approx(np.abs(means).mean(), rel=1e-5)
    assert series["std"][0] == pytest.approx(means.std(), rel=1e-5)
    variances = [y[:, c].astype(np.float64).var() for c in range(16)]
    assert series["variance"][0] == pytest.approx(np.mean(variances), rel=1e-5)


def test_moments_of_what_would_overflow():
    y = np.zeros((2, 3, 4, 4), np.float32)
    y[0, 1] = 1e30
    mean, variance = channel_moments(chainer.Variable(y))
    assert mean.tolist() == pytest.approx([0, 5e29, 0])
    assert variance.tolist() == pytest.approx([0, 2.5e59, 0])


def test_a_diverging_step_begins_and_ends_where_it_should(colours):
    np.random.seed(5)
    network = models.create("ResNetCIFAR", depth=8, bn=False)
    for parameter in network.params():
        parameter.array *= 3
    series = DivergingStep(colours, CPU).measure(network)
    x, t = minibatch_of(colours)
    with convolution.directly():  # as the observer: far up the loss has the rounding of a gradient
        step = after_gradient(network, x, t)
        at = np.flatnonzero(series["lr"] == LEARNING_RATES)[0]
        before = step.loss(0, x, t)
        beyond = [step.loss(lr, x, t) > LIMIT * before for lr in LEARNING_RATES[: at + 1]]
        assert beyond == [False] * at + [True]
        assert series["loss"][[0, -1]] == pytest.approx([before, step.loss(series["lr"], x, t)])
    assert {key for key in series if "/" in key} == {
        f"{moment}/{layer}" for moment in ("mean", "variance") for layer in (1, 3, 6)
    }
    step.take(series["lr"])
    y = network.conv1((x - network.mean) / network.std).array.astype(np.float64)
    np.testing.assert_allclose(series["mean/1"][-1], y.mean(axis=(0, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(series["variance/1"][-1], y.var(axis=(0, 2, 3)), rtol=1e-4)


def minibatch_of(dataset):
    order = np.random.RandomState(0).permutation(len(dataset.train.labels))
    return dataset.train.images[order], dataset.train.labels[order]


def after_gradient(network, x, t):
    backpropagate(network, x, t)
    return Step(network)


def test_where_no_step_diverges_it_is_the_largest(colours, softmax):
    assert DivergingStep(colours, CPU).measure(softmax)["lr"] == pytest.approx(0.1)


def test_output_gradients(colours, softmax):
    x, t = batch(colours)
    series = OutputGradients(colours, CPU).measure(softmax)
    expected = output_gradient(x, t, *in_float64(softmax))
    np.testing.assert_allclose(series["gradient"], expected, rtol=1e-4, atol=1e-7)
    assert np.array_equal(series["label"], t)


@pytest.mark.parametrize(
    ("stride", "pad", "dilate", "groups"),
    [(1, 1, 1, 1), (2, 1, 1, 1), (1, 0, 1, 1), (1, 1, 2, 1), (2, 0, 1, 2)],
)
def test_summands_of_a_kernel_written_out(stride, pad, dilate, groups, monkeypatch):
    monkeypatch.setattr("mnist_bn.observers.kernel_gradients.CHUNK", 2)
    noise = np.random.RandomState(6)
    link = L.Convolution2D(2, 4, 3, stride, pad, dilate=dilate, groups=groups)
    x = chainer.Variable(noise.randn(3, 2, 7, 7).astype(np.float32))
    y = link(x)
    gradient = noise.randn(*y.shape).astype(np.float32)
    link.cleargrads()
    y.grad = gradient
    y.backward()
    padded = np.pad(x.array, ((0, 0), (0, 0), (pad, pad), (pad, pad))).astype(np.float64)
    parts = np.zeros((*link.W.shape, *y.shape[:1], *y.shape[2:]))
    for o, i, u, v, n, row, column in np.ndindex(*parts.shape):
        channel = i + (o // 2 if groups == 2 else 0)
        pixel = padded[n, channel, stride * row + dilate * u, stride * column + dilate * v]
        parts[o, i, u, v, n, row, column] = pixel * gradient[n, o, row, column]
    absolute, plain = summands(link, x.array, gradient)
    np.testing.assert_allclose(absolute, np.abs(parts).sum(axis=(4, 5, 6)), rtol=1e-10)
    np.testing.assert_allclose(plain, parts.sum(axis=(4, 5, 6)), rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(plain, link.W.grad, rtol=1e-4, atol=1e-5)


def test_kernel_gradients_are_those_of_backpropagation(colours, resnet):
    series = KernelGradients(colours, CPU).measure(resnet)
    network = resnet.copy(mode="copy")
    backpropagate(network, *minibatch_of(colours))
    assert series["layer"].tolist() == [1, 2, 3, 4, 5, 6, 7]
    for layer, plain in zip(series["layer"], series["absolute_of_sum"], strict=True):
        assert plain == pytest.approx(np.abs(network[f"conv{layer}"].W.grad).mean(), rel=1e-3)
    assert (series["sum_of_absolute"] > series["absolute_of_sum"]).all()


def test_channel_gradients(colours, resnet):
    series = ChannelGradients(colours, CPU).measure(resnet)
    network = resnet.copy(mode="copy")
    backpropagate(network, *minibatch_of(colours))
    assert series["layer"] == 3
    expected = np.abs(network.conv3.W.grad).mean(axis=(2, 3))
    np.testing.assert_allclose(series["gradient"], expected, rtol=1e-4, atol=1e-8)


def test_gradient_noise_is_the_constant_over_the_batch_size(colours, softmax, monkeypatch):
    monkeypatch.setattr(gradient_noise, "DRAWS", 400)
    series = GradientNoise(colours, CPU).measure(softmax)
    x, t = batch(colours)
    w, b = in_float64(softmax)
    parts = output_gradient(x, t, w, b) * len(t)
    each = np.hstack([(parts[:, :, None] * x[:, None]).reshape(len(t), -1), parts])
    constant = ((each - each.mean(axis=0)) ** 2).sum(axis=1).mean()
    assert series["constant"] == pytest.approx(constant, rel=1e-4)
    assert series["batch_size"].tolist() == [2, 4, 8, 16, 32]
    np.testing.assert_allclose(series["noise"] * series["batch_size"], constant, rtol=0.15)


def test_gradient_noise_with_bn_after_a_linear_layer_warns_of_nothing(colours):
    network = chainer.Sequential(L.Linear(192, 10), L.BatchNormalization(10))
    series = GradientNoise(colours, CPU).measure(network)  # pytest makes errors of warnings
    assert np.isfinite(series["constant"])


def test_no_more_images_than_there_are(colours):
    assert len(colours.train.labels) < minibatch.IMAGES
    assert len(OutputGradients(colours, CPU).measure(Softmax())["label"]) == 40


@pytest.mark.parametrize("observer", [DivergingStep, RelativeLoss])
def test_large_steps_are_convolved_directly(colours, resnet, observer):
    """So infinities stand where they belong."""
    if kernels.active() == "off":
        pytest.skip("stock Chainer's convolution is direct")
    found = []
    for method in ("direct", "winograd"):
        convolution.use(method)
        found.append(observer(colours, CPU).measure(resnet))
    convolution.use("auto")
    for name, expected in found[0].items():
        np.testing.assert_array_equal(found[1][name], expected)
