"""The fully connected networks of CS231n, assignment 2, without BN and with it.

Stanford's course CS231n, "Convolutional Neural Networks for Visual Recognition", assignment 2,
BatchNormalization and FullyConnectedNet: affine (→ BN) → ReLU on every hidden layer, bare affine
output; the pixels are on the scale of 0 to 255, less the mean image, and not divided by anything.
All map images, float32 `(N, 3, 32, 32)` or `(N, 3072)` in [0, 1], to logits, float32 `(N, 10)`.
"""

from itertools import pairwise

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np

from models.small_mlp import _BiasedBN


class _FullyConnectedNet(chainer.Chain):
    """The assignment's FullyConnectedNet.

    Args:
        sizes: units of the input, of each hidden layer, of the output.
        weight_scale: standard deviation of the initial weights, which are Gaussian; biases are 0.
        bn: BN on every hidden layer.
    """

    def __init__(self, sizes, weight_scale, bn=False):
        super().__init__()
        self.hidden_layers = len(sizes) - 2
        self.bn = bn
        gaussian = chainer.initializers.Normal(weight_scale)
        with self.init_scope():
            for i, (inputs, outputs) in enumerate(pairwise(sizes), start=1):
                setattr(self, f"l{i}", L.Linear(inputs, outputs, initialW=gaussian))
            for i, units in enumerate(sizes[1:-1] if bn else (), start=1):
                # The assignment's own: its eps, and running statistics that start at 0.
                bnorm = _BiasedBN(units, decay=0.9, eps=1e-5, initial_avg_var=0)
                setattr(self, f"bnorm{i}", bnorm)
        self.add_persistent("mean_image", np.zeros(sizes[0], chainer.get_dtype()))

    def fit_input(self, images):
        """Keeps the mean image of the training images, `(N, ...)` in [0, 1]."""
        mean = images.reshape(len(images), -1).mean(axis=0, dtype=np.float64)
        self.mean_image[...] = 255 * mean

    def forward(self, x):
        h = 255 * F.reshape(x, (len(x), -1)) - self.mean_image
        for i in range(1, self.hidden_layers + 1):
            h = self[f"l{i}"](h)
            if self.bn:
                h = self[f"bnorm{i}"](h)
            h = F.relu(h)
        return self[f"l{self.hidden_layers + 1}"](h)


def _sizes(hidden, layers):
    """Units of a network's input, of its hidden layers, which are alike, and of its output."""
    if layers < 1:
        raise ValueError(f"layers {layers}: expected 1 or more")
    return [3072, *[hidden] * (layers - 1), 10]


class CS231nMLP(_FullyConnectedNet):
    """3072-100-100-100-100-100-10, ReLU, CIFAR-10: CS231n's assignment 2, without BN.

    Args:
        hidden: units of a hidden layer.
        layers: affine layers, the output's among them.
        weight_scale: standard deviation of the initial weights, which are Gaussian.
    """

    has_bn = False

    def __init__(self, hidden=100, layers=6, weight_scale=2e-2):
        super().__init__(_sizes(hidden, layers), weight_scale, self.has_bn)


class CS231nMLP_BN(CS231nMLP):
    """3072-100-100-100-100-100-10, ReLU, CIFAR-10: CS231n's, with BN before each ReLU."""

    has_bn = True
