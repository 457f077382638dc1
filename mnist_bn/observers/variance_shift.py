"""`--observe variance-shift`: how far the variance that BN keeps is from the one it meets."""

from __future__ import annotations

import chainer
import chainer.links as L
import numpy as np
from chainer.backends import cuda
from chainer.training import Trainer

from mnist_bn.errors import UserError
from mnist_bn.observers.base import Observer
from mnist_bn.observers.moments import Moments

BATCH = 100


def shift(real: np.ndarray, moving: np.ndarray, eps: float = 0.0) -> np.ndarray:
    """Returns max(real / moving, moving / real) of two variances, 1 where they are the same.

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

    def initialize(self, trainer: Trainer) -> None:
        """Checks that there is one.

        Raises:
            UserError: there is none.
        """
        super().initialize(trainer)
        network = trainer.updater.get_optimizer("main").target.predictor
        if not any(isinstance(link, L.BatchNormalization) for link in network.links()):
            raise UserError(
                f"--observe {self.name}: expected a network with L.BatchNormalization links; "
                f"{type(network).__name__} has none"
            )


class VarianceShift(BNObserver):
    """The variance shift of every BN layer, channel by channel, over the test images in test mode.

    Of a layer that the network uses several times, all its inputs together are the real ones.

    Series, float64 `(T, channels)`, for each layer in the order of the forward pass by its path:

    - "shift/bnorm1": max(real / moving, moving / real) variance, eps added to both;
    - "real_mean/bnorm1", "real_var/bnorm1": of the layer's input;
    - "moving_mean/bnorm1", "moving_var/bnorm1": the layer's running statistics.
    """

    name = "variance-shift"

    def measure(self, network: chainer.Chain) -> dict[str, np.ndarray]:
        series = {}
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
        images = self.dataset.test.images
        with chainer.using_config("train", False), chainer.no_backprop_mode(), hook:
            for start in range(0, len(images), BATCH):
                network(self.device.send(images[start : start + BATCH]))
        if not hook.found:
            raise UserError(
                f"--observe {self.name}: {type(network).__name__} uses none of its BN links"
            )
        return hook.found


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
