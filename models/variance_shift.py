"""The CNN of the variance-shift study, with dropout in three places.

Li, Chen, Hu & Yang, "Understanding the Disharmony between Dropout and Batch Normalization by
Variance Shift" (arXiv 1801.05134): dropout directly before BN (their case a), before the layer
whose output BN normalizes (case b; the blog's `MnistCNN_BN_linear_before` is one), and after the
last BN, the remedy. The network is the blog's `MnistCNN_BN_before` with a BN after `l1` too. The
first convolution and its BN are left alone: case b would drop pixels there.
"""

import chainer.functions as F
import chainer.links as L

from models.mnist_cnn import MnistCNN_BN_before


class _FourBN(MnistCNN_BN_before):
    """`MnistCNN_BN_before` with a fourth BN, bnorm4, between `l1` and its ReLU.

    Args:
        ratio: how many of the units dropout drops in training, `0 <= ratio < 1`.

    Raises:
        ValueError: the ratio is out of its range.
    """

    def __init__(self, ratio=0.5):
        if not 0 <= ratio < 1:
            raise ValueError(f"ratio {ratio}: expected 0 <= ratio < 1")
        super().__init__()
        self.ratio = ratio
        with self.init_scope():
            self.bnorm4 = L.BatchNormalization(self.l1.out_size)


class MnistCNN_dropout_BN(_FourBN):
    """Dropout directly before BN, from the second layer on: conv -> dropout -> BN -> ReLU."""

    def forward(self, x):
        h = self.as_images(x)
        h = F.max_pooling_2d(F.relu(self.bnorm1(self.conv1(h))), 2)
        h = self.dropout_bn_relu(self.conv2(h), self.bnorm2)
        h = self.dropout_bn_relu(self.conv3(F.max_pooling_2d(h, 2)), self.bnorm3)
        h = self.dropout_bn_relu(self.l1(F.max_pooling_2d(h, 2)), self.bnorm4)
        return self.l2(h)

    def dropout_bn_relu(self, x, bnorm):
        """Dropout -> BN -> ReLU."""
        return F.relu(bnorm(F.dropout(x, self.ratio)))


class MnistCNN_dropout_conv_BN(_FourBN):
    """Dropout before a layer with BN, from the second on: dropout -> conv -> BN -> ReLU."""

    def forward(self, x):
        h = self.as_images(x)
        h = F.max_pooling_2d(F.relu(self.bnorm1(self.conv1(h))), 2)
        h = F.max_pooling_2d(F.relu(self.bnorm2(self.conv2(F.dropout(h, self.ratio)))), 2)
        h = F.max_pooling_2d(F.relu(self.bnorm3(self.conv3(F.dropout(h, self.ratio)))), 2)
        h = F.relu(self.bnorm4(self.l1(F.dropout(h, self.ratio))))
        return self.l2(h)


class MnistCNN_BN_dropout(_FourBN):
    """Dropout after the last BN alone: l1 -> BN -> ReLU -> dropout -> l2."""

    def forward(self, x):
        h = self.as_images(x)
        h = F.max_pooling_2d(F.relu(self.bnorm1(self.conv1(h))), 2)
        h = F.max_pooling_2d(F.relu(self.bnorm2(self.conv2(h))), 2)
        h = F.max_pooling_2d(F.relu(self.bnorm3(self.conv3(h))), 2)
        h = F.dropout(F.relu(self.bnorm4(self.l1(h))), self.ratio)
        return self.l2(h)
