"""What follows a convolution in a residual network: BN, a sum with the shortcut if any, and ReLU.

BN's kernels do all of it while they have the numbers, which then go to memory and back less often.
It covers float32 maps on the CPU.
"""

from __future__ import annotations

import ctypes

import numpy as np
from chainer.configuration import config
from chainer.functions.activation.relu import ReLUGrad2
from chainer.functions.math.basic_math import Add
from chainer.functions.normalization.batch_normalization import FixedBatchNormalization

from mnist_bn.kernels import layers
from mnist_bn.kernels.arrays import (
    as_float32_nhwc,
    function,
    is_float32,
    is_nhwc,
    nchw,
    nhwc,
    pointer,
)
from mnist_bn.kernels.fused import Fused, Part
from mnist_bn.kernels.registry import Registry
from mnist_bn.kernels.seam import Replacements
from mnist_bn.kernels.waiting import function as waits
from mnist_bn.kernels.waiting import fusion as fuses

_kernels: dict = {}
_replaces = Registry()


def replacements(library: ctypes.CDLL) -> Replacements:
    """Returns what replaces the sum, and sets the kernels."""
    for kernel in (layers.BN_FORWARD, layers.BN_FIXED_FORWARD, layers.BN_BACKWARD):
        _kernels[kernel[0]] = function(library, *kernel)
    return _replaces.replacements(library)


@_replaces(Add, "forward")
def _add_forward(node, inputs):
    """Of maps of which one is NHWC: so is the sum. NumPy's is not, and each layer would copy it."""
    a, b = inputs
    if not is_float32(inputs) or a.ndim != 4 or a.shape != b.shape or is_nhwc(a) == is_nhwc(b):
        return NotImplemented
    return (nchw(nhwc(a) + nhwc(b)),)


@waits("a", Add)
def _sum(node, inputs):
    a, b = inputs[0].shape, inputs[1].shape
    return a if a == b and len(a) == 4 else None


@fuses("BA?R")
class NormalizedSum(Fused):
    """Inputs: x, gamma, beta; mean and var if they are fixed; and what is added, if anything is."""

    @classmethod
    def covers(cls, parts: list[Part], inputs: list, arrays: list[np.ndarray]) -> bool:
        """Returns whether the kernels can do it."""
        norm, count, _ = parts[0]
        x, *channel_arrays = arrays[:count]
        if type(norm) is FixedBatchNormalization:
            if config.enable_backprop or layers.is_not_worth_a_copy(x):
                return False  # the gradients are not here
        elif norm.running_mean is not None:
            channel_arrays += [norm.running_mean, norm.running_var]
        return layers.bn_covers(norm, x, channel_arrays)

    @property
    def label(self) -> str:
        """What the node is called."""
        return "BN, sum, ReLU" if len(self.parts) == 3 else "BN, ReLU"

    def forward(self, inputs):
        """Returns the output."""
        norm, count, _ = self.parts[0]
        added = nhwc(inputs[count]) if len(self.parts) == 3 else None
        if type(norm) is FixedBatchNormalization:
            kernel = _kernels["bn_fixed_forward"]
            return (layers.normalize_fixed(norm, inputs[:count], kernel, added, True),)
        y = layers.normalize(norm, inputs[:count], _kernels["bn_forward"], added, True)
        if config.enable_backprop:
            self._y = y
            self.retain_inputs(tuple(range(len(inputs))))
        return (y,)

    def gradients(self, indexes, inputs, gy):
        """Returns the gradients of the inputs that `indexes` has."""
        norm = self.parts[0][0]
        gsum, y = nchw(as_float32_nhwc(gy)), None
        if len(self.parts) == 3:  # the shortcut is to have this gradient, too
            (gsum,) = ReLUGrad2(self._y).forward_cpu((gsum,))
        else:
            y = pointer(nhwc(self._y))
        found = [None, None, None, gsum]
        if indexes[0] < 3:
            found[:3] = layers.bn_gradients(
                *(inputs[0], inputs[1], norm.mean, norm.inv_std, gsum),
                *(_kernels["bn_backward"], (y,)),
            )
        return [found[i] for i in indexes]
