"""The CNNs of the blog's MNIST experiment: without BN, and with BN before or after the ReLU.

Three times convolution (3x3, no padding) and max pooling, then two fully connected layers
(hirotaka_hachiya's Hatena blog, August 2016, Chainer 1.12). Pooling covers all of its input
(`cover_all=True`, Chainer's default), so the maps shrink 28 -> 26 -> 13 -> 11 -> 6 -> 4 -> 2 and
`l1` receives c3 * 2 * 2 = f1 = 256 numbers. Link names are the blog's: parameters saved under its
paths load here.
"""

import chainer
import chainer.functions as F
import chainer.links as L

from mnist_bn.kernels.blocks import conv_bn_relu_pool, conv_relu_bn_pool, conv_relu_pool
from mnist_bn.kernels.dense import linear_relu_dropout

IMAGE_SIZE = 28


class MnistCNN(chainer.Chain):
    """No normalization: Convolution -> ReLU -> max pooling, three times.

    Args:
        channel: channels of the input image.
        c1, c2, c3: output channels of the convolutions.
        f1, f2: inputs and outputs of the first fully connected layer.
        filter_size1, filter_size2, filter_size3: kernel sizes of the convolutions.
    """

    def __init__(
        self,
        channel=1,
        c1=16,
        c2=32,
        c3=64,
        f1=256,
        f2=512,
        filter_size1=3,
        filter_size2=3,
        filter_size3=3,
    ):
        super().__init__()
        self.channel = channel
        with self.init_scope():
            self.conv1 = L.Convolution2D(channel, c1, filter_size1)
            self.conv2 = L.Convolution2D(c1, c2, filter_size2)
            self.conv3 = L.Convolution2D(c2, c3, filter_size3)
            self.l1 = L.Linear(f1, f2)
            self.l2 = L.Linear(f2, 10)

    def forward(self, x):
        """Returns the logits, float32 `(N, 10)`.

        Args:
            x: images, float32 `(N, 784)` or `(N, 1, 28, 28)`, an array or a Variable.
        """
        h = self.as_images(x)
        h = conv_relu_pool(h, self.conv1)
        h = conv_relu_pool(h, self.conv2)
        h = conv_relu_pool(h, self.conv3)
        h = linear_relu_dropout(h, self.l1, 0.5)
        return self.l2(h)

    def as_images(self, x):
        """Returns `x` as a Variable of shape `(N, channel, 28, 28)`; `x` itself stays as it is."""
        return F.reshape(x, (len(x), self.channel, IMAGE_SIZE, IMAGE_SIZE))


class _ConvBN(MnistCNN):
    """`MnistCNN` with a BatchNormalization link for each convolution: bnorm1 to bnorm3.

    The arguments stand here again, and below: the blog's signatures are part of the contract.
    """

    def __init__(
        self,
        channel=1,
        c1=16,
        c2=32,
        c3=64,
        f1=256,
        f2=512,
        filter_size1=3,
        filter_size2=3,
        filter_size3=3,
    ):
        super().__init__(channel, c1, c2, c3, f1, f2, filter_size1, filter_size2, filter_size3)
        with self.init_scope():
            self.bnorm1 = L.BatchNormalization(c1)
            self.bnorm2 = L.BatchNormalization(c2)
            self.bnorm3 = L.BatchNormalization(c3)


class MnistCNN_BN_before(_ConvBN):
    """BN before the ReLU: Convolution -> BN -> ReLU -> max pooling."""

    def forward(self, x):
        h = self.as_images(x)
        h = conv_bn_relu_pool(h, self.conv1, self.bnorm1)
        h = conv_bn_relu_pool(h, self.conv2, self.bnorm2)
        h = conv_bn_relu_pool(h, self.conv3, self.bnorm3)
        h = linear_relu_dropout(h, self.l1, 0.5)
        return self.l2(h)


class MnistCNN_BN_after(_ConvBN):
    """BN after the ReLU: Convolution -> ReLU -> BN -> max pooling."""

    def forward(self, x):
        h = self.as_images(x)
        h = conv_relu_bn_pool(h, self.conv1, self.bnorm1)
        h = conv_relu_bn_pool(h, self.conv2, self.bnorm2)
        h = conv_relu_bn_pool(h, self.conv3, self.bnorm3)
        h = linear_relu_dropout(h, self.l1, 0.5)
        return self.l2(h)


class MnistCNN_BN_linear_before(_ConvBN):
    """As BN_before, and on the fully connected layers too: l1 -> BN -> ReLU, l2 -> BN."""

    def __init__(
        self,
        channel=1,
        c1=16,
        c2=32,
        c3=64,
        f1=256,
        f2=512,
        filter_size1=3,
        filter_size2=3,
        filter_size3=3,
    ):
        super().__init__(channel, c1, c2, c3, f1, f2, filter_size1, filter_size2, filter_size3)
        with self.init_scope():
            self.bnorm4 = L.BatchNormalization(f2)
            self.bnorm5 = L.BatchNormalization(10)

    def forward(self, x):
        h = self.as_images(x)
        h = conv_bn_relu_pool(h, self.conv1, self.bnorm1)
        h = conv_bn_relu_pool(h, self.conv2, self.bnorm2)
        h = conv_bn_relu_pool(h, self.conv3, self.bnorm3)
        h = F.dropout(F.relu(self.bnorm4(self.l1(h))), 0.5)
        return self.bnorm5(self.l2(h))
