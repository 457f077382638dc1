"""`--observe gradient-noise`: how far SGD's gradient is from that of all images."""

from __future__ import annotations

import warnings

import chainer
import numpy as np

from mnist_bn.observers.minibatch import MinibatchObserver, backpropagate

ALL = 64  # images
BATCH_SIZES = (2, 4, 8, 16, 32)
DRAWS = 8


class GradientNoise(MinibatchObserver):
    """Squared distance of a batch's gradient to that of ALL images, over batch sizes.

    Bjorck et al. 2018, equation 3: for a step of size a, E |a g - a g_B|^2 <= a^2 C / |B|. Batches
    are drawn with replacement; then, where an image's loss does not depend on the rest of its
    batch (without BN), the two sides are equal, with C the mean over the images of |g - g_i|^2,
    g_i the gradient of a batch of that image alone.

    Series: "batch_size", int64 `(T, B)`, "noise", E |g - g_B|^2, float64 `(T, B)`, a mean over
    DRAWS batches, and "constant", C, float64 `(T,)`.
    """

    name = "gradient-noise"

    def observe(self, network: chainer.Chain, x, t) -> dict[str, np.ndarray]:
        x, t = x[:ALL], t[:ALL]
        of_all = self._gradient(network, x, t)
        images = np.arange(len(t))
        random = np.random.RandomState(0)
        sizes = [size for size in BATCH_SIZES if size <= len(t)]

        def noise(batches) -> float:
            squares = []
            for batch in batches:
                of_batch = self._gradient(network, x[batch], t[batch])
                differences = (a - b for a, b in zip(of_all, of_batch, strict=True))
                squares.append(sum(float((d.astype(np.float64) ** 2).sum()) for d in differences))
            return float(np.mean(squares))

        with warnings.catch_warnings():
            # BN after a linear layer makes zeros of an image on its own, and Chainer says so.
            warnings.filterwarnings("ignore", "A batch with no more than one sample")
            constant = noise(images[:, None])
        return {
            "batch_size": np.array(sizes, np.int64),
            "noise": np.array([noise(random.choice(images, (DRAWS, size))) for size in sizes]),
            "constant": np.float64(constant),
        }

    def _gradient(self, network: chainer.Chain, x, t) -> list[chainer.types.NdArray]:
        backpropagate(network, x, t)
        return [parameter.grad for parameter in network.params()]
