"""`--observe relative-loss`: the loss of a minibatch along its gradient."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import ClassVar

import chainer
import numpy as np

from mnist_bn import plotting
from mnist_bn.kernels import convolution
from mnist_bn.observers.arrays import Array, Values
from mnist_bn.observers.base import fixed_random_state
from mnist_bn.observers.measured import Measured
from mnist_bn.observers.minibatch import MinibatchObserver, backpropagate, loss

STEP_SIZES = np.geomspace(1e-5, 0.2, 25)
LIMITS = (1e-3, 1e4)  # of the relative loss that is drawn


class RelativeLoss(MinibatchObserver):
    """L(w - a g) / L(w) of a minibatch, g its gradient, over step sizes a.

    Bjorck et al. 2018, figure 3, at the first, fourth and seventh minibatch of training.
    """

    name = "relative-loss"
    title = "Loss along the gradient"
    to_see = (
        "A line a seed. See how large a step can be before the loss grows: above 1 it has grown."
    )
    arrays: ClassVar = {
        "step_size": Array("float64", ("steps",), "above 0"),
        "relative_loss": Array("float64", ("steps",)),
        "loss": Array("float64"),  # L(w)
    }
    at = (0, 3, 6)

    @convolution.directly()  # so that infinities stand where they belong
    def observe(self, network: chainer.Chain, x, t) -> Values:
        before = backpropagate(network, x, t)
        step = Step(network)
        losses = [step.loss(size, x, t) for size in STEP_SIZES]
        return {
            "step_size": STEP_SIZES,
            "relative_loss": np.array(losses) / before,
            "loss": np.float64(before),
        }

    @classmethod
    def figure(cls, groups: Sequence[Measured], title: str, subtitle: str) -> plotting.Figure:
        """The relative loss against the step size, a panel for each network, every seed a line."""
        (low, high), colours = LIMITS, plotting.appearance.LINE_COLOURS[:3]
        shown = []
        for group in groups:
            lines = []
            every = sorted({int(i) for series in group.seeds for i in series["iteration"]})
            colour = dict(zip(every, itertools.cycle(colours), strict=False))
            unnamed = set(every)
            for series in group.seeds:
                for i, iteration in enumerate(series["iteration"].tolist()):
                    # What overflowed is above the axis.
                    y = np.nan_to_num(series["relative_loss"][i], nan=np.inf)
                    y = np.clip(y, low / 10, high * 10)
                    label = f"minibatch {iteration + 1}" if iteration in unnamed else ""
                    unnamed.discard(iteration)
                    x = series["step_size"][i]
                    lines.append(plotting.panels.Series(x, y, label, colour[iteration]))
            heading = f"{group.label}: loss after the step, over loss before"
            shown.append(plotting.panels.Panel(heading, lines, LIMITS, log_y=True))
        return plotting.panels.stacked(shown, title, subtitle, "Step size", log_x=True)


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
