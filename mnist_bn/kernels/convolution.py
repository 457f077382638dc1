"""Convolution's forward pass and gradients behind Chainer's own function nodes."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np
from chainer.functions.connection.convolution_2d import Convolution2DFunction, Convolution2DGradW
from chainer.functions.connection.deconvolution_2d import Deconvolution2DFunction
from chainer.functions.math.sum import Sum

from mnist_bn.kernels import costs
from mnist_bn.kernels.arrays import (
    checked,
    empty_nchw,
    function,
    is_float32,
    is_nhwc,
    nhwc,
    pointer,
)
from mnist_bn.kernels.seam import Replacements, leaving_out_subclasses

_GEOMETRY = "iiiiiiiiiiiii"


def replacements(library: ctypes.CDLL) -> Replacements:
    """Returns what replaces which method; see `seam`.

    Covered: float32, any size of kernel, stride and padding, one group, no dilation, wherever
    `costs` finds that it pays. Arrays that are not NHWC are copied.
    """
    methods = {
        (Convolution2DFunction, "forward_cpu"): _forward(library),
        (Deconvolution2DFunction, "forward_cpu"): _input_gradient(library),
        (Convolution2DGradW, "forward_cpu"): _weight_gradient(library),
        (Sum, "forward"): _bias_gradient(library),
    }
    return leaving_out_subclasses(methods)


def _covers(node, arrays: tuple) -> bool:
    return (
        is_float32(arrays)
        and node.groups == 1
        and node.dy == node.dx == 1
        and not getattr(node, "cudnn_fast", False)
        and all(layout is None for layout in node.input_layouts)
        and all(a.size for a in arrays)
    )


def _geometry(node, n: int, x: tuple, w: tuple, y: tuple) -> tuple[int, ...]:
    """Returns the kernels' arguments; x, w and y are shapes without the batch."""
    return (n, x[1], x[2], x[0], *w[:1], *w[2:], node.sy, node.sx, node.ph, node.pw, *y[1:])


def _out_shape(node, x: tuple, w: tuple) -> tuple[int, int, int]:
    return (
        w[0],
        (x[1] + 2 * node.ph - w[2]) // node.sy + 1,
        (x[2] + 2 * node.pw - w[3]) // node.sx + 1,
    )


def _fits(node, x: tuple, w: tuple) -> bool:
    """Returns whether the kernel fits into the padded image, and all the image is under it."""
    return not getattr(node, "cover_all", False) and (
        x[1] + 2 * node.ph >= w[2] and x[2] + 2 * node.pw >= w[3]
    )


def _forward(library: ctypes.CDLL) -> Callable:
    kernel = checked(function(library, "convolution_forward", "pppp" + _GEOMETRY, ctypes.c_int))

    def wrap(original):
        def forward_cpu(self, inputs):
            x, w = inputs[:2]
            if not (_covers(self, inputs) and _fits(self, x.shape[1:], w.shape)):
                return original(self, inputs)
            out = _out_shape(self, x.shape[1:], w.shape)
            geometry = _geometry(self, len(x), x.shape[1:], w.shape, out)
            if not costs.forward_pays(costs.Case(*geometry, is_nhwc(x), True)):
                return original(self, inputs)
            self.retain_inputs((0, 1))
            bias = np.ascontiguousarray(inputs[2]) if len(inputs) == 3 else None
            images, w, y = nhwc(x), np.ascontiguousarray(w), empty_nchw(len(x), *out)
            kernel(
                pointer(images),
                pointer(w),
                None if bias is None else pointer(bias),
                pointer(nhwc(y)),
                *geometry,
            )
            return (y,)

        return forward_cpu

    return wrap


def _input_gradient(library: ctypes.CDLL) -> Callable:
    """Deconvolution without bias, which is how Chainer writes a convolution's input gradient."""
    kernel = checked(
        function(library, "convolution_input_gradient", "ppp" + _GEOMETRY, ctypes.c_int)
    )

    def wrap(original):
        def forward_cpu(self, inputs):
            if len(inputs) != 2 or not _covers(self, inputs):
                return original(self, inputs)
            gy, w = inputs
            if self.outh is None or self.outw is None:
                self._calc_out_size(gy.shape, w.shape)
            x = (w.shape[1], self.outh, self.outw)
            # gy of another size: Chainer takes what cover_all convolutions give, too.
            if not _fits(self, x, w.shape) or _out_shape(self, x, w.shape) != gy.shape[1:]:
                return original(self, inputs)
            geometry = _geometry(self, len(gy), x, w.shape, gy.shape[1:])
            if not costs.input_gradient_pays(costs.Case(*geometry, True, is_nhwc(gy))):
                return original(self, inputs)
            self.retain_inputs((0, 1))
            gradients, w, gx = nhwc(gy), np.ascontiguousarray(w), empty_nchw(len(gy), *x)
            kernel(
                pointer(gradients),
                pointer(w),
                pointer(nhwc(gx)),
                *geometry,
            )
            return (gx,)

        return forward_cpu

    return wrap


def _weight_gradient(library: ctypes.CDLL) -> Callable:
    kernel = checked(
        function(library, "convolution_weight_gradient", "ppp" + _GEOMETRY, ctypes.c_int)
    )

    def wrap(original):
        def forward_cpu(self, inputs):
            x, gy = inputs
            w = self.W_shape
            if not (
                self.W_dtype == np.float32
                and _covers(self, inputs)
                and _fits(self, x.shape[1:], w)
                and _out_shape(self, x.shape[1:], w) == gy.shape[1:]
            ):
                return original(self, inputs)
            geometry = _geometry(self, len(x), x.shape[1:], w, gy.shape[1:])
            if not costs.weight_gradient_pays(costs.Case(*geometry, is_nhwc(x), is_nhwc(gy))):
                return original(self, inputs)
            self.retain_inputs((0, 1))
            images, gradients, gw = nhwc(x), nhwc(gy), np.empty(w, np.float32)
            kernel(
                pointer(images),
                pointer(gradients),
                pointer(gw),
                *geometry,
            )
            return (gw,)

        return forward_cpu

    return wrap


def _bias_gradient(library: ctypes.CDLL) -> Callable:
    """A sum over all but the channels of NHWC memory, which is how Chainer writes it."""
    kernel = checked(function(library, "channel_sums", "plip", ctypes.c_int))

    def wrap(original):
        def forward(self, inputs):
            (x,) = inputs
            if not (
                self.axis == (0, 2, 3)
                and not self.keepdims
                and is_float32(inputs)
                and x.ndim == 4
                and x.size
                and x.shape[1] > 1  # else it is a sum of all, for which NumPy has vectors
                and is_nhwc(x)
            ):
                return original(self, inputs)
            sums = np.empty(x.shape[1], np.float32)
            kernel(pointer(nhwc(x)), x.size // sums.size, sums.size, pointer(sums))
            return (sums,)

        return forward

    return wrap
