"""`--observe kernel-gradients`: how far the parts of a convolution's gradient cancel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import chainer
import chainer.links as L
import numpy as np

from mnist_bn import plotting
from mnist_bn.devices import NdArray
from mnist_bn.errors import UserError
from mnist_bn.observers.arrays import Array
from mnist_bn.observers.measured import Measured
from mnist_bn.observers.minibatch import MinibatchObserver, layer_at, loss
from mnist_bn.observers.probe import Layers

LAYERS = tuple(range(6, 110, 12))  # of 110; 18, 54 and 90 are those of the paper's table 1
CHUNK = 32  # images


class KernelGradients(MinibatchObserver):
    """Sums over images and positions of what makes up the gradient of a kernel's weight.

    Bjorck et al. 2018, equation 4 and table 1: the gradient of the weight from input channel i to
    output channel o at offset (u, v) is the sum over images b and positions (x, y) of

        d = gradient of output[b, o, x, y] * input[b, i, x + u, y + v].

    Both sums are averaged over the weights of the layer.
    """

    name = "kernel-gradients"
    title = "Summands of a kernel's gradient, at initialisation"
    to_see = "See how far the parts of a gradient cancel: if the ratio is 1 they do not."
    arrays: ClassVar = {
        "layer": Array("int64", ("chosen",), "a layer"),  # each a convolution
        "sum_of_absolute": Array("float64", ("chosen",)),  # of |d|
        "absolute_of_sum": Array("float64", ("chosen",)),  # |sum of d|
    }

    def observe(self, network: chainer.Chain, x, t) -> dict[str, np.ndarray]:
        with Layers(lambda *layer: layer) as layers:
            value = loss(network, x, t)
        places = dict.fromkeys(layer_at(layer, len(layers.seen)) for layer in LAYERS)
        numbers = [i for i in places if isinstance(layers.seen[i - 1][0], L.Convolution2D)]
        if not numbers:
            raise UserError(
                f"--observe {self.name}: expected a network with L.Convolution2D links among its "
                f"layers; {type(network).__name__} has none"
            )
        chosen = [layers.seen[i - 1] for i in numbers]
        gradients = chainer.grad([value], [y for _, _, y in chosen])
        sums = []
        for (link, received, y), gradient in zip(chosen, gradients, strict=True):
            # None: the loss does not depend on the layer.
            gy = y.xp.zeros_like(y.array) if gradient is None else gradient.array
            sums.append(summands(link, received.array, gy))
        return {
            "layer": np.array(numbers, np.int64),
            "sum_of_absolute": np.array([float(absolute.mean()) for absolute, _ in sums]),
            "absolute_of_sum": np.array([float(abs(plain).mean()) for _, plain in sums]),
        }

    @classmethod
    def figure(cls, groups: Sequence[Measured], title: str, subtitle: str) -> plotting.Figure:
        """Sum of absolute summands against absolute sum, and their ratio, against the layer."""
        panels, dashed = plotting.panels, plotting.appearance.DASHES[1]
        sums, ratios = [], []
        for group in groups:
            layers, look = group.first("layer")[0], (group.label, group.colour)
            absolute, plain = group.first("sum_of_absolute"), group.first("absolute_of_sum")
            sums.append(panels.geometric(layers, absolute, *look, marker="o"))
            sums.append(panels.geometric(layers, plain, "", group.colour, dashed, "o"))
            ratios.append(panels.geometric(layers, absolute / plain, *look, marker="o"))
        heading = "Sum of absolute values; absolute value of the sum, dashed"
        shown = [
            panels.Panel(heading, sums, log_y=True),
            panels.Panel("Their ratio", ratios, log_y=True),
        ]
        return panels.stacked(shown, title, subtitle, "Layer")


def summands(link: L.Convolution2D, x, gy) -> tuple[NdArray, NdArray]:
    """Returns the sum of |d| and the sum of d for every weight, float64 as `link.W`.

    The absolute value of a product is the product of the absolute values, so that the summands
    themselves, images x positions as many as weights, need never be there at once.

    Args:
        x: the convolution's input, `(N, I, H, W)`.
        gy: the gradient of its output, `(N, O, H', W')`.
    """
    xp = chainer.backend.get_array_module(x)
    (kh, kw), (sy, sx), (ph, pw) = link.W.shape[2:], link.stride, link.pad
    dy, dx = link.dilate
    absolute, plain = xp.zeros((2, *link.W.shape))
    outputs, inputs = (channels // link.groups for channels in (gy.shape[1], x.shape[1]))
    groups = [
        (slice(i * outputs, (i + 1) * outputs), slice(i * inputs, (i + 1) * inputs))
        for i in range(link.groups)
    ]
    for start in range(0, len(x), CHUNK):
        image = x[start : start + CHUNK].astype(np.float64)
        image = xp.pad(image, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
        gradient = gy[start : start + CHUNK].astype(np.float64)
        height, width = gradient.shape[2:]
        for u in range(kh):
            for v in range(kw):
                rows = slice(u * dy, u * dy + sy * height, sy)
                columns = slice(v * dx, v * dx + sx * width, sx)
                for o, i in groups:
                    got, seen = gradient[:, o], image[:, i, rows, columns]
                    over = ((0, 2, 3), (0, 2, 3))
                    plain[o, :, u, v] += xp.tensordot(got, seen, over)
                    absolute[o, :, u, v] += xp.tensordot(abs(got), abs(seen), over)
    return absolute, plain
