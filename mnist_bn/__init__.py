"""Batch Normalization, reproduced on Chainer."""

from mnist_bn import versions

versions.check()
