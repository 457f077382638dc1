"""`--observe channel-gradients`: how much each pair of input and output channel learns."""

from __future__ import annotations

import chainer
import numpy as np
from chainer.backends import cuda

from mnist_bn.observers.minibatch import MinibatchObserver, backpropagate, layer_at
from mnist_bn.observers.probe import Layers

LAYER = 45  # of 110: Bjorck et al. 2018, figure 6


class ChannelGradients(MinibatchObserver):
    """Mean absolute gradient of the weights between each input and output channel of one layer.

    Series: "gradient", float32 `(T, output channels, input channels)`, and "layer", int64 `(T,)`.
    """

    name = "channel-gradients"

    def observe(self, network: chainer.Chain, x, t) -> dict[str, np.ndarray]:
        with Layers(lambda link, *_: link.W) as layers:
            backpropagate(network, x, t)
        layer = layer_at(LAYER, len(layers.seen))
        gradient = np.abs(cuda.to_cpu(layers.seen[layer - 1].grad))
        return {
            "gradient": gradient.reshape(*gradient.shape[:2], -1).mean(axis=2),
            "layer": np.int64(layer),
        }
