"""The fully connected networks of three studies, each without BN and with it.

- Exercise: 784-40-20-10, sigmoid, the "BN exercise" that trains for 1000 iterations.
- Relu: 784-256-10, the study of dying ReLU units.
- Sigmoid: 784-100-100-100-10, the MNIST experiment of the original paper (Ioffe & Szegedy 2015,
  section 4.1).

BN stands between the linear layer and the nonlinearity, as in the original paper. All map images,
float32 `(N, 784)` in [0, 1], to logits, float32 `(N, 10)`. Weights are drawn with a standard
deviation of sqrt(1 / inputs), Chainer's default, unless said otherwise.
"""

import chainer
import chainer.functions as F
import chainer.links as L


class _BiasedBN(L.BatchNormalization):
    """BN whose running variance averages the batches' own variance.

    Chainer's averages it times m / (m - 1), the unbiased estimate from m values.
    """

    def forward(self, x):
        faded = self.decay * self.avg_var
        y = super().forward(x)
        if chainer.config.train:
            m = x.size // self.avg_var.size
            self.avg_var[...] = faded + (self.avg_var - faded) * ((m - 1) / m)
        return y


class ExerciseMLP(chainer.Chain):
    """784-40-20-10, sigmoid: the BN exercise, without BN."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.l1 = L.Linear(784, 40)
            self.l2 = L.Linear(40, 20)
            self.l3 = L.Linear(20, 10)

    def forward(self, x):
        h = F.sigmoid(self.l1(x))
        h = F.sigmoid(self.l2(h))
        return self.l3(h)


class ExerciseMLP_BN(ExerciseMLP):
    """784-40-20-10, sigmoid: the BN exercise, with BN on both hidden layers.

    Args:
        trained: train gamma and beta; the exercise leaves them at 1 and 0.
    """

    def __init__(self, trained=False):
        super().__init__()
        # The exercise's own: running statistics that start at 0, and its epsilon, "10e-7".
        bn = {
            "decay": 0.9,
            "eps": 1e-6,
            "initial_avg_var": 0,
            "use_gamma": trained,
            "use_beta": trained,
        }
        with self.init_scope():
            self.bnorm1 = _BiasedBN(40, **bn)
            self.bnorm2 = _BiasedBN(20, **bn)

    def forward(self, x):
        h = F.sigmoid(self.bnorm1(self.l1(x)))
        h = F.sigmoid(self.bnorm2(self.l2(h)))
        return self.l3(h)


class ReluMLP(chainer.Chain):
    """784-256-10, ReLU: the dying-ReLU study, without BN.

    Args:
        slope: of the ReLU below 0; above 0 it is a LeakyReLU.
    """

    def __init__(self, slope=0.0):
        super().__init__()
        self.slope = float(slope)
        with self.init_scope():
            self.l1 = L.Linear(784, 256)
            self.l2 = L.Linear(256, 10)
            self.add_bn()

    def add_bn(self):
        """Adds the BatchNormalization link of a network that has one."""

    def forward(self, x):
        return self.l2(self.relu(self.l1(x)))

    def relu(self, x):
        """ReLU, or LeakyReLU if the slope is not 0."""
        return F.leaky_relu(x, self.slope) if self.slope else F.relu(x)


class ReluMLP_BN(ReluMLP):
    """784-256-10, ReLU: the dying-ReLU study, with BN before the ReLU."""

    def add_bn(self):
        self.bnorm1 = L.BatchNormalization(256)

    def forward(self, x):
        return self.l2(self.relu(self.bnorm1(self.l1(x))))


class SigmoidMLP(chainer.Chain):
    """784-100-100-100-10, sigmoid, binary images: the original paper's, without BN.

    The paper gives neither number below.

    Args:
        std: standard deviation of the initial weights, which are Gaussian.
        threshold: a pixel above it is 1, any other 0.
    """

    def __init__(self, std=0.1, threshold=0.5):
        super().__init__()
        self.threshold = float(threshold)
        small = chainer.initializers.Normal(std)
        with self.init_scope():
            self.l1 = L.Linear(784, 100, initialW=small)
            self.l2 = L.Linear(100, 100, initialW=small)
            self.l3 = L.Linear(100, 100, initialW=small)
            self.l4 = L.Linear(100, 10, initialW=small)
            self.add_bn()

    def add_bn(self):
        """Adds the BatchNormalization links of a network that has them."""

    def forward(self, x):
        h = F.sigmoid(self.l1(self.binary(x)))
        h = F.sigmoid(self.l2(h))
        h = F.sigmoid(self.l3(h))
        return self.l4(h)

    def binary(self, x):
        """Returns the image in black and white: an array of 0 and 1, of the shape of `x`."""
        x = chainer.as_array(x)
        return (x > self.threshold).astype(x.dtype)


class SigmoidMLP_BN(SigmoidMLP):
    """784-100-100-100-10, sigmoid, binary images: the original paper's, with BN."""

    def add_bn(self):
        self.bnorm1 = L.BatchNormalization(100)
        self.bnorm2 = L.BatchNormalization(100)
        self.bnorm3 = L.BatchNormalization(100)

    def forward(self, x):
        h = F.sigmoid(self.bnorm1(self.l1(self.binary(x))))
        h = F.sigmoid(self.bnorm2(self.l2(h)))
        h = F.sigmoid(self.bnorm3(self.l3(h)))
        return self.l4(h)
