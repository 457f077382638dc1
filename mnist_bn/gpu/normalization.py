"""Batch Normalization in train mode on a GPU, and sums over all but the channels."""

from __future__ import annotations

import math

import cupy
import numpy as np
from chainer.functions.math.sum import Sum
from chainer.functions.normalization.batch_normalization import GeneralBatchNormalizationImpl

from mnist_bn.gpu.raw import BLOCKS, are_float32, launch, reduced
from mnist_bn.kernels.seam import Replacements

# ndim of x -> all axes but the channels
_AXES = {2: (0,), 4: (0, 2, 3)}
_VALUES_PER_BLOCK = 1024  # at least, so that a block has something to do


def replacements() -> Replacements:
    """Returns what has Chainer's BN, and sums such as a bias's gradient, compute here on a GPU."""
    return {
        (GeneralBatchNormalizationImpl, "forward"): _forward,
        (GeneralBatchNormalizationImpl, "backward"): _backward,
        (Sum, "forward"): _sum,
    }


def _forward(original):
    def forward(self, **given):
        x, gamma, beta = (given[name] for name in ("x", "gamma", "beta"))
        running = given["running_mean"], given["running_var"]
        has_running = running[0] is not None
        if not _is_plain(given["axis"], x, gamma, beta, *(running if has_running else ())):
            return original(self, **given)
        x = cupy.ascontiguousarray(x)
        y = cupy.empty_like(x)
        mean, var, inv_std = cupy.empty((3, x.shape[1]), np.float32)
        partial = cupy.empty((x.shape[1], _parts(x), 2), np.float32)
        _launch("bn_moments", x, partial, len(x))
        _launch("bn_normalize", x, gamma, beta, partial, y, mean, var, inv_std, *running,
                len(x), float(given["eps"]), float(given["decay"]))  # fmt: skip
        return y, given["x_layout"], *running, mean, var, inv_std, None

    return forward


def _backward(original):
    def backward(
        self, axis, gamma, gy, x, x_layout, xp, expander, mean, inv_std, eps, var, forward_data
    ):
        if not _is_plain(axis, x, gy, gamma, mean, inv_std):
            return original(
                self, axis, gamma, gy, x, x_layout, xp, expander, mean, inv_std, eps, var,
                forward_data,
            )  # fmt: skip
        x, gy = cupy.ascontiguousarray(x), cupy.ascontiguousarray(gy)
        gx = cupy.empty_like(x)
        ggamma, gbeta = cupy.empty((2, x.shape[1]), np.float32)
        partial = cupy.empty((x.shape[1], _parts(x), 2), np.float32)
        _launch("bn_gradient_sums", x, gy, mean, inv_std, partial, len(x))
        _launch("bn_gradients", x, gy, gamma, mean, inv_std, partial, gx, ggamma, gbeta, len(x))
        return gx, x_layout, ggamma, gbeta

    return backward


def _sum(original):
    def forward(self, inputs):
        (x,) = inputs
        if (
            not are_float32(inputs)
            or self.keepdims
            or self.axis is None
            or tuple(self.axis) != _AXES.get(x.ndim)
        ):
            return original(self, inputs)
        return (channel_sums(x),)

    return forward


def channel_sums(x: cupy.ndarray) -> cupy.ndarray:
    """Returns the sums over all but the channels, `(C,)`, of float32 `(N, C)` or `(N, C, H, W)`."""
    x = cupy.ascontiguousarray(x)
    sums = cupy.empty((_parts(x), x.shape[1]), np.float32)
    _launch("channel_sums", x, sums, len(x))
    return reduced(sums)


def _is_plain(axis, *arrays) -> bool:
    """Whether the channels are the second axis, of float32 arrays that lie whole in memory."""
    x, *rest = arrays
    return (
        are_float32(arrays)
        and tuple(axis) == _AXES.get(x.ndim)
        and all(a.flags.c_contiguous for a in rest if a.shape != x.shape)
    )


def _parts(x: cupy.ndarray) -> int:
    """Returns among how many blocks a channel of x is split."""
    channels, values = x.shape[1], x.size // x.shape[1]
    return max(1, min(BLOCKS * 2 // channels, values // _VALUES_PER_BLOCK))


def _launch(name: str, x: cupy.ndarray, *arguments) -> None:
    """Launches a kernel over x, `_parts` blocks for each channel."""
    channels = x.shape[1]
    sizes = (("CHANNELS", channels), ("PLACES", math.prod(x.shape[2:])))
    launch(("block_sum", "batch_normalization"), name, sizes, (channels, _parts(x)), x, *arguments)
