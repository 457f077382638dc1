"""`--observe diverging-step`: what activations do in the course of one large step."""

from __future__ import annotations

import chainer
import numpy as np

from mnist_bn.observers.activation_moments import channel_moments
from mnist_bn.observers.minibatch import MinibatchObserver, backpropagate, layer_at
from mnist_bn.observers.probe import Layers
from mnist_bn.observers.relative_loss import Step
from mnist_bn.trainer.divergence import LIMIT

LAYERS = (8, 44, 80)  # of 110: Bjorck et al. 2018, figure 3
LEARNING_RATES = np.geomspace(1e-5, 0.1, 9)
FRACTIONS = np.linspace(0, 1, 17)


class DivergingStep(MinibatchObserver):
    """Mean and variance of channels while the first step of gradient descent is under way.

    The step is at the smallest of LEARNING_RATES at which it makes the minibatch's loss more than
    LIMIT times what it was, and where none does, as with BN, at the largest. Series, float64:
    "lr", `(T,)`; "fraction", of the step, and "loss", `(T, F)`; "mean/8" and "variance/8" and so
    on, of the channels of layer 8, `(T, F, channels)`.
    """

    name = "diverging-step"

    def observe(self, network: chainer.Chain, x, t) -> dict[str, np.ndarray]:
        before = backpropagate(network, x, t)
        step = Step(network)
        diverging = (lr for lr in LEARNING_RATES if not step.loss(lr, x, t) <= LIMIT * before)
        lr = next(diverging, LEARNING_RATES[-1])
        losses, moments = [], []
        for fraction in FRACTIONS:
            with Layers(lambda _, __, y: channel_moments(y)) as layers:
                losses.append(step.loss(fraction * lr, x, t))
            moments.append(layers.seen)
        series = {"lr": np.float64(lr), "fraction": FRACTIONS, "loss": np.array(losses)}
        for number in dict.fromkeys(layer_at(layer, len(layers.seen)) for layer in LAYERS):
            series[f"mean/{number}"] = np.array([seen[number - 1][0] for seen in moments])
            series[f"variance/{number}"] = np.array([seen[number - 1][1] for seen in moments])
        return series
