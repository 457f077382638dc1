"""The residual networks for CIFAR-10, against the paper's numbers and a computation in NumPy."""

import chainer
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

import models
from mnist_bn import networks
from mnist_bn.errors import UsageError
from models.resnet_cifar import ResNetCIFAR

X = np.random.RandomState(0).rand(4, 3, 32, 32).astype(np.float32)


@pytest.mark.parametrize(
    ("depth", "millions", "parameters"),
    [  # He et al. 2016, table 6
        (20, 0.27, 269_722),
        (32, 0.46, 464_154),
        (44, 0.66, 658_586),
        (56, 0.85, 853_018),
        (110, 1.7, 1_727_962),
    ],
)
def test_parameters_are_the_papers(depth, millions, parameters):
    count = ResNetCIFAR(depth).count_params()
    assert count == parameters
    assert round(count / 1e6, 1 if depth == 110 else 2) == millions
    # Each of the channels has gamma and beta with BN, and a bias without.
    channels = 16 + (depth - 2) // 3 * (16 + 32 + 64)
    assert ResNetCIFAR(depth, bn=False).count_params() == parameters - channels
    assert ResNetCIFAR(depth, bn="end").count_params() == parameters - channels + 2 * 64


def test_layers_are_counted_from_the_input():
    network = ResNetCIFAR(110)
    assert network.conv1.W.shape == (16, 3, 3, 3)
    assert network.conv37.W.shape == (16, 16, 3, 3)
    assert network.conv38.W.shape == (32, 16, 3, 3)
    assert network.conv74.W.shape == (64, 32, 3, 3)
    assert network.conv109.W.shape == network.conv75.W.shape == (64, 64, 3, 3)
    assert network.bnorm44.gamma.shape == (32,)
    assert network.l110.W.shape == (10, 64)
    assert [i for i in range(1, 110) if network[f"conv{i}"].stride == (2, 2)] == [38, 74]


def test_weights_have_glorots_variance():
    weights = ResNetCIFAR(20, bn=False).conv18.W.array
    std = (2 / (64 * 9 + 64 * 9)) ** 0.5
    assert weights.std() == pytest.approx(std, rel=0.02)
    assert np.abs(weights).max() <= 3**0.5 * std


def convolution(link, x):
    """Each 3x3 window of the padded image times each kernel; then the pixels of the stride."""
    windows = sliding_window_view(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), (2, 3))
    y = np.einsum("nchwij,ocij->nohw", windows, link.W.array.astype(np.float64), optimize=True)
    y = y[:, :, :: link.stride[0], :: link.stride[1]]
    return y if link.b is None else y + link.b.array[:, None, None]


def normalized(link, x):
    mean = x.mean(axis=(0, 2, 3), keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=(0, 2, 3), keepdims=True)
    return (x - mean) / np.sqrt(variance + link.eps)


def logits(network, x):
    """ResNet-8 in NumPy, in float64, in train mode with gamma 1 and beta 0."""

    def layer(i, h):
        h = convolution(network[f"conv{i}"], h)
        return normalized(network[f"bnorm{i}"], h) if network.bn is True else h

    h = np.maximum(layer(1, (x.astype(np.float64) - network.mean) / network.std), 0)
    for i, channels in ((2, 16), (4, 32), (6, 64)):
        shortcut = np.zeros((len(h), channels, *np.array(h.shape[2:]) // (1 if i == 2 else 2)))
        shortcut[:, : h.shape[1]] = h if i == 2 else h[:, :, ::2, ::2]
        h = np.maximum(shortcut + layer(i + 1, np.maximum(layer(i, h), 0)), 0)
    if network.bn == "end":
        h = normalized(network.bnorm_end, h)
    return h.mean(axis=(2, 3)) @ network.l8.W.array.T + network.l8.b.array


@pytest.mark.parametrize("bn", [True, False, "end"])
def test_forward_is_that_of_numpy(bn):
    np.random.seed(1)
    network = models.create("ResNetCIFAR", depth=8, bn=bn)
    for _, parameter in sorted(network.namedparams()):
        if parameter.name == "b":
            parameter.array[...] = np.random.randn(*parameter.shape)
    network.fit_input(X)
    y = network(X)
    assert y.shape == (4, 10)
    np.testing.assert_allclose(y.array, logits(network, X), rtol=1e-4, atol=1e-5)


def test_shortcut_takes_every_second_pixel_and_adds_zeros():
    x = chainer.Variable(np.random.RandomState(2).randn(2, 16, 6, 6).astype(np.float32))
    y = ResNetCIFAR.shortcut(x, (2, 32, 3, 3))
    assert np.array_equal(y.array[:, :16], x.array[:, :, ::2, ::2])
    assert not y.array[:, 16:].any()
    y.grad = np.ones_like(y.array)
    y.backward()
    assert x.grad.sum() == 2 * 16 * 9
    assert (x.grad[:, :, ::2, ::2] == 1).all()
    assert ResNetCIFAR.shortcut(x, x.shape) is x


def test_a_block_whose_weights_are_zero_is_its_shortcut():
    network = ResNetCIFAR(8, bn=False)
    for i in (3, 5):
        network[f"conv{i}"].W.array[...] = 0
    x = np.random.RandomState(3).rand(2, 16, 8, 8).astype(np.float32)
    assert np.array_equal(network.block(2, x).array, x)
    halved = network.block(4, x).array
    assert np.array_equal(halved[:, :16], x[:, :, ::2, ::2])
    assert not halved[:, 16:].any()


def test_input_is_standardized_by_channel(tmp_path):
    images = X * np.array([1, 2, 3], np.float32)[:, None, None] - 5
    images[:, 2] = 0.5
    network = ResNetCIFAR(8)
    network.fit_input(images)
    standardized = (images - network.mean) / network.std
    np.testing.assert_allclose(standardized.mean(axis=(0, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(standardized.std(axis=(0, 2, 3)), [1, 1, 0], atol=1e-4)
    chainer.serializers.save_npz(tmp_path / "net.npz", network)
    other = ResNetCIFAR(8)
    chainer.serializers.load_npz(tmp_path / "net.npz", other)
    assert np.array_equal(other.mean, network.mean)
    assert np.array_equal(other.std, network.std)


def test_the_input_has_a_gradient():
    x = chainer.Variable(X)
    chainer.functions.sum(ResNetCIFAR(8)(x)).backward()
    assert x.grad.shape == X.shape


@pytest.mark.parametrize("arguments", ["depth=109", "depth=2", "depth=20.0", "depth=-4"])
def test_a_depth_that_is_none_is_one_line(arguments):
    with pytest.raises(UsageError, match=r"ValueError: depth .* expected 6n \+ 2, such as 20"):
        networks.create(f"ResNetCIFAR({arguments})")


@pytest.mark.parametrize("bn", ["1", "'start'", "0.5"])
def test_a_bn_that_is_none_is_one_line(bn):
    with pytest.raises(UsageError, match=r'bn .*: expected True, False or "end"'):
        networks.create(f"ResNetCIFAR(bn={bn})")
