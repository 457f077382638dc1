"""`--observe variance-shift`: how far the variance that BN keeps is from the one it meets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import chainer
import chainer.links as L
import numpy as np
from chainer.backends import cuda

from mnist_bn import plotting
from mnist_bn.errors import UsageError, UserError
from mnist_bn.observers.arrays import Array
from mnist_bn.observers.base import Observer
from mnist_bn.observers.measured import Measured
from mnist_bn.observers.moments import Moments

BATCH = 100


def shift(real: np.ndarray, moving: np.ndarray, eps: float = 0.0) -> np.ndarray:
    """Returns max(real / moving, moving / real) of two variances, 1 if they are the same.

    Li et al., arXiv 1801.05134, figure 1.

    Args:
        real: of BN's input in test mode, any shape.
        moving: that BN divides by in test mode, of the same shape.
        eps: added to both, as BN adds it: a channel that is constant in both has no shift.
    """
    with np.errstate(all="ignore"):  # what diverged is not a number, here too
        ratio = (real + eps) / (moving + eps)
        return np.maximum(ratio, 1 / ratio)


class BNObserver(Observer):
    """An observer of BN layers."""

    def check(self, network: chainer.Chain) -> None:
        """Checks that there is one."""
        if not any(isinstance(link, L.BatchNormalization) for link in network.links()):
            raise UsageError(
                f"--observe {self.name}: expected a network with L.BatchNormalization links; "
                f"{type(network).__name__} has none"
            )


class VarianceShift(BNObserver):
    """The variance shift of every BN layer, channel by channel, over the test images in test mode.

    Of a layer that the network uses several times, all its inputs together are the real ones.

    The layers are in the order of the forward pass, by their paths, as in "shift/bnorm1".
    """

    name = "variance-shift"
    title = "Variance shift"
    to_see = (
        "At 1 BN meets in the test the variance of training. See whether the shift grows from "
        "layer to layer."
    )
    arrays: ClassVar = {
        "shift/*": Array("float64", (None,)),  # of the variances, eps added to both
        "real_mean/*": Array("float64", (None,)),  # of the layer's input
        "real_var/*": Array("float64", (None,)),
        "moving_mean/*": Array("float64", (None,)),  # the layer's running statistics
        "moving_var/*": Array("float64", (None,)),
    }

    def measure(self, network: chainer.Chain) -> dict[str, np.ndarray]:
        series: dict[str, np.ndarray] = {}
        for path, (link, moments) in self._inputs(network).items():
            real, moving = cuda.to_cpu(moments.variance), cuda.to_cpu(link.avg_var).astype("d")
            measured = {
                "shift": shift(real, moving, link.eps),
                "real_mean": cuda.to_cpu(moments.mean),
                "real_var": real,
                "moving_mean": cuda.to_cpu(link.avg_mean).astype("d"),
                "moving_var": moving,
            }
            series |= {f"{part}/{path}": array.ravel() for part, array in measured.items()}
        return series

    def _inputs(self, network: chainer.Chain) -> dict[str, tuple[L.BatchNormalization, Moments]]:
        """Returns each BN layer in use and the moments of its input, by its path.

        Raises:
            UserError: none is in use.
        """
        hook = _BNInputs(network)
        test = self.dataset.test
        with chainer.using_config("train", False), chainer.no_backprop_mode(), hook:
            for start in range(0, len(test.labels), BATCH):
                batch = test.part(slice(start, start + BATCH))
                network(self.device.send(batch.images))
        if not hook.found:
            raise UserError(
                f"--observe {self.name}: {type(network).__name__} uses none of its BN links"
            )
        return hook.found

    @classmethod
    def x_axis(cls, group: Measured) -> dict:
        """BN layers, by their names."""
        return {"x_label": "BN layer", "x_ticks": layer_ticks(list(shifts(group.seeds[0])))}

    @classmethod
    def panels(cls, group: Measured) -> list[plotting.panels.Panel]:
        """The shift against the BN layer, averaged over channels; a line for some of the times."""
        keys = [name for name in group.names if name.startswith("shift/")]
        by_layer = [group.over_time(key, lambda array: array.mean(axis=1)) for key in keys]
        times, mean = by_layer[0][0], np.stack([values for _, values in by_layer], axis=2)
        layers, colours = np.arange(1, len(keys) + 1), plotting.appearance.LINE_COLOURS
        some = sorted(set(np.linspace(0, len(times) - 1, len(colours)).astype(int)))
        lines = [
            plotting.panels.of_seeds(
                layers, mean[:, i], f"{group.unit} {times[i]}", colour, marker="o"
            )
            for i, colour in zip(some, colours, strict=False)
        ]
        heading = (
            f"max(real / moving, moving / real) variance{test_mode(group.runs)}, mean over channels"
        )
        # A ratio: logarithmic, but for one so near 1 that the axis would have no tick.
        return [plotting.panels.Panel(heading, lines, log_y=mean.max() > 3)]


def shifts(series: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the shift of each BN layer, `(T, channels)`, in their order."""
    return {
        key.removeprefix("shift/"): array
        for key, array in series.items()
        if key.startswith("shift/")
    }


def layer_ticks(layers: Sequence[str]) -> dict[float, str]:
    """Returns where on an x axis the layers are, from 1 on: their names, or numbers for many."""
    are_few = len(layers) <= plotting.panels.MAX_TICKS
    return {i: name if are_few else str(i) for i, name in enumerate(layers, start=1)}


def test_mode(runs: Sequence[plotting.results.Run]) -> str:
    """Returns " in test mode" for observers that measure so, of runs evaluated in train mode."""
    return " in test mode" * any(run.semantics == "2016" for run in runs)


class _BNInputs(chainer.LinkHook):
    """Adds up what arrives at each BN layer; under any link hook no block is fused."""

    name = "inputs of BN"

    def __init__(self, network: chainer.Chain) -> None:
        self._paths = {id(link): path.lstrip("/") for path, link in network.namedlinks()}
        self.found: dict[str, tuple[L.BatchNormalization, Moments]] = {}

    def forward_preprocess(self, args) -> None:
        link, path = args.link, self._paths.get(id(args.link))
        if path is None or not isinstance(link, L.BatchNormalization):
            return
        x = chainer.as_array(args.args[0] if args.args else args.kwargs["x"])
        # Chainer's: without axes of their own, the channels begin at the second.
        axis = link.axis or (0, *range(link.avg_var.ndim + 1, x.ndim))
        _, moments = self.found.setdefault(path, (link, Moments()))
        moments.add(x, axis)
