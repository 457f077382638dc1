"""The blog's networks in its own style, that of Chainer 1: a user's own file as any other.

Links are given to `Chain`, the forward pass is `__call__`, and each map has the name `h`.
"""

import chainer
import chainer.functions as F
import chainer.links as L


class MnistCNN(chainer.Chain):
    """Without BN."""

    def __init__(self, channel=1, c1=16, c2=32, c3=64, f1=256, f2=512, filter_size=3):
        super().__init__(
            conv1=L.Convolution2D(channel, c1, filter_size),
            conv2=L.Convolution2D(c1, c2, filter_size),
            conv3=L.Convolution2D(c2, c3, filter_size),
            l1=L.Linear(f1, f2),
            l2=L.Linear(f2, 10),
        )

    def __call__(self, x):
        x.data = x.data.reshape((len(x.data), 1, 28, 28))
        h = F.relu(self.conv1(x))
        h = F.max_pooling_2d(h, 2)
        h = F.relu(self.conv2(h))
        h = F.max_pooling_2d(h, 2)
        h = F.relu(self.conv3(h))
        h = F.max_pooling_2d(h, 2)
        h = F.dropout(F.relu(self.l1(h)))
        return self.l2(h)


class MnistCNN_BN_before(chainer.Chain):
    """BN before the ReLU."""

    def __init__(self, channel=1, c1=16, c2=32, c3=64, f1=256, f2=512, filter_size=3):
        super().__init__(
            conv1=L.Convolution2D(channel, c1, filter_size),
            conv2=L.Convolution2D(c1, c2, filter_size),
            conv3=L.Convolution2D(c2, c3, filter_size),
            l1=L.Linear(f1, f2),
            l2=L.Linear(f2, 10),
            bnorm1=L.BatchNormalization(c1),
            bnorm2=L.BatchNormalization(c2),
            bnorm3=L.BatchNormalization(c3),
        )

    def __call__(self, x):
        x.data = x.data.reshape((len(x.data), 1, 28, 28))
        h = F.relu(self.bnorm1(self.conv1(x)))
        h = F.max_pooling_2d(h, 2)
        h = F.relu(self.bnorm2(self.conv2(h)))
        h = F.max_pooling_2d(h, 2)
        h = F.relu(self.bnorm3(self.conv3(h)))
        h = F.max_pooling_2d(h, 2)
        h = F.dropout(F.relu(self.l1(h)))
        return self.l2(h)


class MnistCNN_BN_after(MnistCNN_BN_before):
    """BN after the ReLU."""

    def __call__(self, x):
        x.data = x.data.reshape((len(x.data), 1, 28, 28))
        h = self.bnorm1(F.relu(self.conv1(x)))
        h = F.max_pooling_2d(h, 2)
        h = self.bnorm2(F.relu(self.conv2(h)))
        h = F.max_pooling_2d(h, 2)
        h = self.bnorm3(F.relu(self.conv3(h)))
        h = F.max_pooling_2d(h, 2)
        h = F.dropout(F.relu(self.l1(h)))
        return self.l2(h)


class MnistCNN_BN_linear_before(MnistCNN_BN_before):
    """BN before the ReLU, and on the fully connected layers."""

    def __init__(self, channel=1, c1=16, c2=32, c3=64, f1=256, f2=512, filter_size=3):
        super().__init__(channel, c1, c2, c3, f1, f2, filter_size)
        self.add_link("bnorm4", L.BatchNormalization(f2))
        self.add_link("bnorm5", L.BatchNormalization(10))

    def __call__(self, x):
        x.data = x.data.reshape((len(x.data), 1, 28, 28))
        h = F.relu(self.bnorm1(self.conv1(x)))
        h = F.max_pooling_2d(h, 2)
        h = F.relu(self.bnorm2(self.conv2(h)))
        h = F.max_pooling_2d(h, 2)
        h = F.relu(self.bnorm3(self.conv3(h)))
        h = F.max_pooling_2d(h, 2)
        h = F.dropout(F.relu(self.bnorm4(self.l1(h))))
        return self.bnorm5(self.l2(h))
