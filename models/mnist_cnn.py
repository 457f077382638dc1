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
            self.add_bn()

    def add_bn(self):
        """Adds the BatchNormalization links of a network that has them."""

    def forward(self, x):
        """Returns the logits, float32 `(N, 10)`.

        Args:
            x: images, float32 `(N, 784)` or `(N, 1, 28, 28)`, an array or a Variable.
        """
        h = self.as_images(x)
        h = F.max_pooling_2d(F.relu(self.conv1(h)), 2)
        h = F.max_pooling_2d(F.relu(self.conv2(h)), 2)
        h = F.max_pooling_2d(F.relu(self.conv3(h)), 2)
        h = F.dropout(F.relu(self.l1(h)), 0.5)
        return self.l2(h)

    def as_images(self, x):
        """Returns `x` as a Variable of shape `(N, channel, 28, 28)`; `x` itself stays as it is."""
        return F.reshape(x, (len(x), self.channel, IMAGE_SIZE, IMAGE_SIZE))


class _ConvBN(MnistCNN):
    """`MnistCNN` with a BatchNormalization link for each convolution: bnorm1 to bnorm3."""

    def add_bn(self):
        self.bnorm1 = L.BatchNormalization(self.conv1.out_channels)
        self.bnorm2 = L.BatchNormalization(self.conv2.out_channels)
        self.bnorm3 = L.BatchNormalization(self.conv3.out_channels)


class MnistCNN_BN_before(_ConvBN):
    """BN before the ReLU: Convolution -> BN -> ReLU -> max pooling."""

    def forward(self, x):
        h = self.as_images(x)
        h = F.max_pooling_2d(F.relu(self.bnorm1(self.conv1(h))), 2)
        h = F.max_pooling_2d(F.relu(self.bnorm2(self.conv2(h))), 2)
        h = F.max_pooling_2d(F.relu(self.bnorm3(self.conv3(h))), 2)
        h = F.dropout(F.relu(self.l1(h)), 0.5)
        return self.l2(h)


class MnistCNN_BN_after(_ConvBN):
    """BN after the ReLU: Convolution -> ReLU -> BN -> max pooling."""

    def forward(self, x):
        h = self.as_images(x)
        h = F.max_pooling_2d(self.bnorm1(F.relu(self.conv1(h))), 2)
        h = F.max_pooling_2d(self.bnorm2(F.relu(self.conv2(h))), 2)
        h = F.max_pooling_2d(self.bnorm3(F.relu(self.conv3(h))), 2)
        h = F.dropout(F.relu(self.l1(h)), 0.5)
        return self.l2(h)


class MnistCNN_BN_linear_before(_ConvBN):
    """As BN_before, and on the fully connected layers too: l1 -> BN -> ReLU, l2 -> BN."""

    def add_bn(self):
        super().add_bn()
        self.bnorm4 = L.BatchNormalization(self.l1.out_size)
        self.bnorm5 = L.BatchNormalization(self.l2.out_size)

    def forward(self, x):
        h = self.as_images(x)
        h = F.max_pooling_2d(F.relu(self.bnorm1(self.conv1(h))), 2)
        h = F.max_pooling_2d(F.relu(self.bnorm2(self.conv2(h))), 2)
        h = F.max_pooling_2d(F.relu(self.bnorm3(self.conv3(h))), 2)
        h = F.dropout(F.relu(self.bnorm4(self.l1(h))), 0.5)
        return self.bnorm5(self.l2(h))
