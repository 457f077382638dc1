"""`--observe relative-loss`: the loss of a minibatch along its gradient."""

from __future__ import annotations

import chainer
import numpy as np

from mnist_bn.observers.base import fixed_random_state
from mnist_bn.observers.minibatch import MinibatchObserver, backpropagate, loss

STEP_SIZES = np.geomspace(1e-5, 0.2, 25)


class RelativeLoss(MinibatchObserver):
    """L(w - a g) / L(w) of a minibatch, g its gradient, over step sizes a.

    Bjorck et al. 2018, figure 3, at the first, fourth and seventh minibatch of training. Series:
    "step_size" and "relative_loss", float64 `(T, steps)`, and "loss", L(w), float64 `(T,)`.
    """

    name = "relative-loss"
    at = (0, 3, 6)

    def observe(self, network: chainer.Chain, x, t) -> dict[str, np.ndarray]:
        before = backpropagate(network, x, t)
        step = Step(network)
        losses = [step.loss(size, x, t) for size in STEP_SIZES]
        return {
            "step_size": STEP_SIZES,
            "relative_loss": np.array(losses) / before,
            "loss": np.float64(before),
        }


class Step:
    """A step of gradient descent that is taken from the same weights again and again.

    Args:
        network: with its gradients; its weights change.
    """

    def __init__(self, network: chainer.Chain) -> None:
        self.network = network
        self._start = [
            (parameter, parameter.array.copy(), parameter.grad.copy())
            for parameter in network.params()
        ]

    def take(self, size: float) -> None:
        """Sets the weights to those at the start, less `size` times the gradient."""
        for parameter, weights, gradient in self._start:
            parameter.array[...] = weights - size * gradient

    def loss(self, size: float, x, t) -> float:
        """Returns the loss of the minibatch after a step of that size.

        What is random in the network is as it was for the gradient.
        """
        self.take(size)
        device = chainer.backend.get_device_from_array(x)
        with fixed_random_state(device), chainer.no_backprop_mode():
            return float(loss(self.network, x, t).array)
