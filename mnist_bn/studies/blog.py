"""The blog's experiment: BN before or after the ReLU in a MNIST CNN, under many optimizers.

"Batch Normalization", hirotaka_hachiya's Hatena blog, August 2016. Its figures compare the learning
curves of several optimizers, one figure a network. Which optimizers it used, and for how many
epochs, is not known: the full preset takes all nine that Chainer had.
"""

from __future__ import annotations

from mnist_bn import optimizers
from mnist_bn.plotting import comparison

NETWORKS = ["MnistCNN", "MnistCNN_BN_before", "MnistCNN_BN_after", "MnistCNN_BN_linear_before"]

PRESETS = {
    "quick": {"model": NETWORKS, "optimizer": ["SGD", "Adam"], "seed": [0], "epoch": 5},
    "full": {
        "model": NETWORKS,
        "optimizer": list(optimizers.OF_2016),
        "seed": [0, 1, 2],
        "epoch": 20,
    },
}

figures = comparison.of_runs
