"""`--observe channel-gradients`: how much each pair of input and output channel learns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import chainer
import numpy as np
from chainer.backends import cuda

from mnist_bn import plotting
from mnist_bn.observers.arrays import Array, Values
from mnist_bn.observers.measured import Measured
from mnist_bn.observers.minibatch import MinibatchObserver, backpropagate, layer_at
from mnist_bn.observers.probe import Layers

LAYER = 45  # of 110: Bjorck et al. 2018, figure 6


class ChannelGradients(MinibatchObserver):
    """Mean absolute gradient of the weights between each input and output channel of one layer."""

    name = "channel-gradients"
    title = "Mean absolute gradient between channels, at initialisation"
    to_see = "See whether a few channels, bright rows or columns, have most of the gradient."
    arrays: ClassVar = {
        "gradient": Array("float32", (None, None)),  # output channels, input channels
        "layer": Array("int64", (), "a layer"),
    }
    shows_first_seed = True

    def observe(self, network: chainer.Chain, x, t) -> Values:
        with Layers(lambda link, *_: link.W) as layers:
            backpropagate(network, x, t)
        layer = layer_at(LAYER, len(layers.seen))
        gradient = np.abs(cuda.to_cpu(layers.seen[layer - 1].grad))
        return {
            "gradient": gradient.reshape(*gradient.shape[:2], -1).mean(axis=2),
            "layer": np.int64(layer),
        }

    @classmethod
    def figure(cls, groups: Sequence[Measured], title: str, subtitle: str) -> plotting.Figure:
        """A heat map for each network, of its first seed."""
        row: list[plotting.heat_maps.HeatMap] = []
        for group in groups:
            heading = f"{group.label}, layer {group.first('layer')[0]} (first seed)"
            y_label = "" if row else "Output channel"
            gradient = group.first("gradient")[0]
            row.append(plotting.heat_maps.HeatMap(heading, gradient, "Input channel", y_label))
        return plotting.heat_maps.heat_maps([row], title, subtitle)
