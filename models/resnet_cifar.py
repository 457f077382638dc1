"""The residual networks for CIFAR-10 of He et al. 2016 (arXiv 1512.03385, section 4.2).

Depth 6n + 2: a convolution, three stages of n blocks of two convolutions each, and a linear layer.
Layers are counted from the input as "Understanding Batch Normalization" (Bjorck et al. 2018, arXiv
1806.02375) counts them: conv1 to conv109 and l110 in the network of depth 110, and bnorm44 is the
BN of conv44. Weights are drawn as Glorot and Bengio's (2010) normalized initialization, "Xavier",
as Bjorck et al. did; He et al. drew them wider.

A training step of ResNet-110 on a batch of 128 took a process to 1.2 GiB with BN and to 0.7 GiB
without (peak of its resident memory, on a CPU with the compiled kernels).
"""

import chainer
import chainer.functions as F
import chainer.links as L

CHANNELS = (16, 32, 64)  # of the three stages


class ResNetCIFAR(chainer.Chain):
    """ResNet of 6n + 2 layers for CIFAR-10, with BN, without, or with BN at the end only.

    Convolutions are 3x3. The first block of the second and the third stage halves the image.
    Shortcuts have no parameters (option A): if a block halves the image, its shortcut takes
    every second pixel, and zeros are the channels that it lacks.

    A convolution has a bias if no BN follows it, whose beta is one. Parameters at depths 20,
    32, 44, 56 and 110 are 269,722, 464,154, 658,586, 853,018 and 1,727,962 with BN (table 6 of He
    et al.), 269,034, 463,018, 657,002, 850,986 and 1,723,914 without, and 128 more with BN at the
    end.

    Args:
        depth: number of layers with weights, 6n + 2.
        bn: True puts BN between each convolution and its ReLU or sum; False has none; "end" only
            normalizes what the last residual block returns, after its ReLU (Bjorck et al., section
            3.2: "the output of the last residual block but no intermediate activation").

    Raises:
        ValueError: there is no network of that depth, or no such `bn`.
    """

    def __init__(self, depth=110, bn=True):
        super().__init__()
        if type(depth) is not int or depth < 8 or depth % 6 != 2:
            raise ValueError(f"depth {depth}: expected 6n + 2, such as 20, 56 or 110")
        if not (type(bn) is bool or bn == "end"):
            raise ValueError(f'bn {bn}: expected True, False or "end"')
        self.depth = depth
        self.bn = bn
        self.add_persistent("mean", self.xp.zeros((3, 1, 1), "float32"))
        self.add_persistent("std", self.xp.ones((3, 1, 1), "float32"))
        xavier = {"initialW": chainer.initializers.GlorotUniform()}
        widths = [3, CHANNELS[0]]
        for channels in CHANNELS:
            widths += [channels] * ((depth - 2) // 3)
        with self.init_scope():
            for i in range(1, depth):
                stride = 2 if i > 1 and widths[i] > widths[i - 1] else 1
                conv = L.Convolution2D(*widths[i - 1 : i + 1], 3, stride, 1, bn is True, **xavier)
                setattr(self, f"conv{i}", conv)
                if bn is True:
                    setattr(self, f"bnorm{i}", L.BatchNormalization(widths[i]))
            if bn == "end":
                self.bnorm_end = L.BatchNormalization(widths[-1])
            setattr(self, f"l{depth}", L.Linear(widths[-1], 10, **xavier))

    def fit_input(self, images):
        """Learns the mean and standard deviation of each channel of the images.

        Args:
            images: float32 `(N, 3, 32, 32)`.
        """
        for c in range(3):
            self.mean[c] = images[:, c].mean(dtype="float64")
            self.std[c] = images[:, c].std(dtype="float64") or 1  # one colour needs no scale

    def forward(self, x):
        """Returns the logits, float32 `(N, 10)`.

        Args:
            x: images, float32 `(N, 3, 32, 32)`, standardized here as `fit_input` has learned.
        """
        h = (x - self.mean) / self.std
        h = F.relu(self.convolve(1, h))
        for i in range(2, self.depth, 2):
            h = self.block(i, h)
        if self.bn == "end":
            h = self.bnorm_end(h)
        h = F.average_pooling_2d(h, h.shape[2:])
        return self[f"l{self.depth}"](h)

    def block(self, i, x):
        """Returns the sum of `x` and layers i and i + 1 of it, after a ReLU."""
        h = F.relu(self.convolve(i, x))
        h = self.convolve(i + 1, h)
        return F.relu(h + self.shortcut(x, h.shape))

    def convolve(self, i, x):
        """Returns layer i of `x`: the convolution, and its BN if there is one."""
        h = self[f"conv{i}"](x)
        return self[f"bnorm{i}"](h) if self.bn is True else h

    @staticmethod
    def shortcut(x, shape):
        """Returns `x` if it has the shape, else every second pixel of it and new zero channels.

        Args:
            shape: what is wanted, `(N, C, H, W)`.
        """
        if x.shape == shape:
            return x
        x = F.average_pooling_2d(x, 1, 2)  # of one pixel in 2x2
        return F.pad(x, ((0, 0), (0, shape[1] - x.shape[1]), (0, 0), (0, 0)), "constant")
