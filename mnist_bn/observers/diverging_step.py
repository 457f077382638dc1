"""`--observe diverging-step`: what activations do in the course of one large step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import chainer
import numpy as np

from mnist_bn import plotting
from mnist_bn.kernels import convolution
from mnist_bn.observers.activation_moments import channel_moments
from mnist_bn.observers.arrays import Array, Values
from mnist_bn.observers.measured import Measured
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
    LIMIT times what it was, and if none does, as with BN, at the largest.
    """

    name = "diverging-step"
    title = "Channel moments in the course of one step"
    to_see = (
        "Read upwards: see whether the moments grow while the step is taken, most in the last "
        "layers. Each map has its own scale."
    )
    arrays: ClassVar = {
        "lr": Array("float64"),
        "fraction": Array("float64", ("fractions",)),  # of the step
        "loss": Array("float64", ("fractions",)),
        "mean/*": Array("float64", ("fractions", None)),  # "mean/8": of the channels of layer 8
        "variance/*": Array("float64", ("fractions", None)),
    }
    shows_first_seed = True

    @convolution.directly()  # so that infinities stand where they belong
    def observe(self, network: chainer.Chain, x, t) -> Values:
        before = backpropagate(network, x, t)
        step = Step(network)
        diverging = (lr for lr in LEARNING_RATES if not step.loss(lr, x, t) <= LIMIT * before)
        lr = next(diverging, LEARNING_RATES[-1])
        losses, moments = [], []
        for fraction in FRACTIONS:
            with Layers(lambda _, __, y: channel_moments(y)) as layers:
                losses.append(step.loss(fraction * lr, x, t))
            moments.append(layers.seen)
        series: dict[str, np.ndarray | np.number] = {
            "lr": np.float64(lr),
            "fraction": FRACTIONS,
            "loss": np.array(losses),
        }
        for number in dict.fromkeys(layer_at(layer, len(layers.seen)) for layer in LAYERS):
            series[f"mean/{number}"] = np.array([seen[number - 1][0] for seen in moments])
            series[f"variance/{number}"] = np.array([seen[number - 1][1] for seen in moments])
        return series

    @classmethod
    def figure(cls, groups: Sequence[Measured], title: str, subtitle: str) -> plotting.Figure:
        """Mean and variance of channels against the fraction of the step; of the first seeds.

        A row of maps for each network and moment, a column for each layer.
        """
        rows = []
        for group in groups:
            series = group.seeds[0]
            lr, first, last = series["lr"][0], series["loss"][0, 0], series["loss"][0, -1]
            step = f"{plotting.notation.decimal(lr)}; loss {first:.3g} → {last:.3g}"
            for moment, shown in (("mean", "|mean|"), ("variance", "variance")):
                row: list[plotting.heat_maps.HeatMap] = []
                for key in (name for name in group.names if name.startswith(f"{moment}/")):
                    with np.errstate(divide="ignore"):
                        values = np.log10(np.abs(series[key][0]))
                    row.append(
                        plotting.heat_maps.HeatMap(
                            f"{group.label}, layer {key.partition('/')[2]}: log10 {shown}",
                            values,
                            "Channel",
                            f"% of the step ({step})" if not row else "",
                            (0.5, values.shape[1] + 0.5, 0, 100),
                        )
                    )
                rows.append(row)
        return plotting.heat_maps.heat_maps(rows, title, subtitle)
