"""Batch Normalization, reproduced on Chainer."""

from mnist_bn import chainer_compat

chainer_compat.install()
