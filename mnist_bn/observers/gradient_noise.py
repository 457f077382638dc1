"""`--observe gradient-noise`: how far SGD's gradient is from that of all images."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import ClassVar

import chainer
import numpy as np

from mnist_bn import plotting
from mnist_bn.devices import NdArray
from mnist_bn.observers.arrays import Array, Values
from mnist_bn.observers.measured import Measured, range_of, slope
from mnist_bn.observers.minibatch import MinibatchObserver, backpropagate

ALL = 64  # images
BATCH_SIZES = (2, 4, 8, 16, 32)
DRAWS = 8


class GradientNoise(MinibatchObserver):
    """Squared distance of a batch's gradient to that of ALL images, over batch sizes.

    Bjorck et al. 2018, equation 3: for a step of size a, E |a g - a g_B|^2 <= a^2 C / |B|. Batches
    are drawn with replacement; then, if an image's loss does not depend on the rest of its
    batch (without BN), the two sides are equal, with C the mean over the images of |g - g_i|^2,
    g_i the gradient of a batch of that image alone.
    """

    name = "gradient-noise"
    title = "Noise of SGD's gradient"
    to_see = "See how fast the noise falls as batches grow: by the bound with a slope of minus 1."
    arrays: ClassVar = {
        "batch_size": Array("int64", ("sizes",), "above 0"),
        "noise": Array("float64", ("sizes",)),  # E |g - g_B|^2, a mean over DRAWS batches
        "constant": Array("float64"),  # C
    }

    def observe(self, network: chainer.Chain, x, t) -> Values:
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

    def _gradient(self, network: chainer.Chain, x, t) -> list[NdArray]:
        backpropagate(network, x, t)
        return [parameter.grad for parameter in network.params()]

    @classmethod
    def figure(cls, groups: Sequence[Measured], title: str, subtitle: str) -> plotting.Figure:
        """The noise against the batch size, in units of the bound's constant C."""
        panels, lines = plotting.panels, []
        for group in groups:
            sizes = group.first("batch_size")[0]
            noise = group.first("noise") / group.first("constant")[:, None]
            label = f"{group.label}: slope {range_of(slopes(group))}"
            lines.append(panels.geometric(sizes, noise, label, group.colour, marker="o"))
        sizes = groups[0].first("batch_size")[0]
        look = plotting.appearance.GREY, plotting.appearance.DASHES[1]
        lines.append(panels.Series(sizes, 1 / sizes, "the bound, 1 / |B|", *look))
        heading = "E |g - g_B|², over C (in a step of size a: times a²)"
        panel = panels.Panel(heading, lines, log_y=True)
        return panels.stacked([panel], title, subtitle, "Batch size |B|", log_x=True)


def slopes(group: Measured) -> np.ndarray:
    """Returns the slope of log noise against log batch size, `(seeds,)`; -1 by the bound."""
    sizes = np.log10(group.first("batch_size")[0])
    return np.array([slope(sizes, noise) for noise in group.first("noise")])
