"""What arrives at a network's nonlinearities and layers, without changing anything in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import chainer
import chainer.links as L
import numpy as np

from mnist_bn.devices import NdArray
from mnist_bn.errors import UserError

# Chainer's labels of the functions whose inputs are looked at.
NONLINEARITIES = ("ReLU", "LeakyReLU", "Sigmoid", "Tanh", "ELU", "ClippedReLU", "Softplus")


def nonlinearity_inputs(
    network: chainer.Chain, images: np.ndarray, device: chainer.backend.Device
) -> dict[str, NdArray]:
    """Returns the input of each nonlinearity for `images`, in test mode.

    Args:
        images: float32 `(N, ...)`, as the dataset has them.
        device: where the network is.

    Returns:
        Name, such as "sigmoid2" for the second nonlinearity -> array of the device, `(N, units)` or
        `(N, channels, H, W)`, in the order of the forward pass.
    """
    inputs = _Inputs()
    # Under a function hook no functions are fused: it sees each.
    with chainer.using_config("train", False), chainer.no_backprop_mode(), inputs:
        network(device.send(images))
    return inputs.found


class _Inputs(chainer.FunctionHook):
    name = "nonlinearity inputs"

    def __init__(self) -> None:
        self.found: dict[str, NdArray] = {}

    def forward_preprocess(self, function: chainer.FunctionNode, in_data: tuple) -> None:
        if function.label in NONLINEARITIES:
            self.found[f"{function.label.lower()}{len(self.found) + 1}"] = in_data[0]


class Layers(chainer.LinkHook):
    """Looks at every convolution and linear layer that the network computes inside `with`.

    Args:
        look: called with the layer, what it received and what it returned.

    Attributes:
        seen: what `look` returned of each layer, in the order of the forward pass.

    Raises:
        UserError: `seen` is asked for, and there was no such layer.
    """

    name = "layers"

    def __init__(self, look: Callable[[chainer.Link, chainer.Variable, chainer.Variable], Any]):
        self._look = look
        self._seen: list[Any] = []

    @property
    def seen(self) -> list[Any]:
        if not self._seen:
            raise UserError(
                "expected a network with layers to observe, L.Convolution2D or L.Linear links that "
                "it calls; there is none"
            )
        return self._seen

    def forward_postprocess(self, args) -> None:
        if isinstance(args.link, (L.Convolution2D, L.Linear)):
            self._seen.append(self._look(args.link, chainer.as_variable(args.args[0]), args.out))
