"""Every layer but convolution: Chainer's function nodes with kernels inside.

A replacement takes float32 arrays whose memory is C-contiguous or NHWC, copies what else it can use
(`arrays.nhwc`), and hands any case that no kernel covers to Chainer's original.
"""

from __future__ import annotations

import ctypes
import math

import chainer
import numpy as np
from chainer.configuration import config
from chainer.functions.activation.relu import ReLU, ReLUGrad2
from chainer.functions.connection.linear import LinearFunction
from chainer.functions.evaluation.accuracy import Accuracy
from chainer.functions.loss import softmax_cross_entropy
from chainer.functions.noise.dropout import Dropout
from chainer.functions.normalization import batch_normalization as bn
from chainer.functions.pooling.average_pooling_2d import AveragePooling2D, AveragePooling2DGrad
from chainer.functions.pooling.max_pooling_nd import MaxPoolingND, MaxPoolingNDGrad

from mnist_bn.kernels.arrays import (
    are_writable,
    function,
    is_float32,
    is_nhwc,
    nchw,
    nhwc,
    pointer,
)
from mnist_bn.kernels.graph import variable
from mnist_bn.kernels.seam import Replacements, leaving_out_subclasses

_GENERAL_BN = bn.GeneralBatchNormalizationImpl()
# ndim of x -> the axes that BatchNormalization averages over, and what makes (C,) broadcast with x
_BN_AXES = {2: (0,), 4: (0, 2, 3)}
# Beyond such sizes stock Chainer is as fast or faster. Of a single channel the kernels use one lane
# of a vector, and scores they take one by one; NumPy takes both by whole vectors. The limits were
# measured, and are of shapes only, so that a seed gives the same bits.
_LARGEST_SINGLE_CHANNEL = 4096  # elements
_FEW_CLASSES = 32
_LARGEST_SCORES = {"loss": 20_000, "accuracy": 50_000}  # elements, of more than a few classes
_BN_EXPANDERS = {2: (None, slice(None)), 4: (None, slice(None), None, None)}


def replacements(library: ctypes.CDLL) -> Replacements:
    """Returns what replaces the methods of Chainer's function nodes."""
    softmax = softmax_cross_entropy.SoftmaxCrossEntropy
    softmax_grad = softmax_cross_entropy._SoftmaxCrossEntropyGrad_NoDoubleBackprop
    methods = {
        (bn.BatchNormalization, "forward"): _bn_forward(library),
        (bn.BatchNormalizationGrad, "forward"): _bn_backward(library),
        (bn.FixedBatchNormalization, "forward"): _bn_fixed_forward(library),
        (bn.FixedBatchNormalizationGrad, "forward"): _bn_fixed_backward(library),
        (LinearFunction, "forward"): _linear_forward,
        (LinearFunction, "backward"): _linear_backward,
        (ReLU, "forward_cpu"): _relu_forward(library),
        (ReLUGrad2, "forward_cpu"): _relu_backward(library),
        (MaxPoolingND, "forward_cpu"): _max_pool_forward(library),
        (MaxPoolingNDGrad, "forward_cpu"): _max_pool_backward(library),
        (AveragePooling2D, "forward_cpu"): _average_pool_forward(library),
        (AveragePooling2DGrad, "forward_cpu"): _average_pool_backward(library),
        (Dropout, "forward_cpu"): _dropout_forward(library),
        (softmax, "forward_cpu"): _softmax_cross_entropy_forward(library),
        (softmax_grad, "forward_cpu"): _softmax_cross_entropy_backward(library),
        (Accuracy, "forward_cpu"): _accuracy(library),
    }
    return leaving_out_subclasses(methods) | {(MaxPoolingND, "indexes"): _max_pool_indexes}


def _as_rows(x: np.ndarray) -> np.ndarray:
    """Returns `(N, C)` or `(N, C, H, W)` as C-contiguous memory with the channels last.

    It may be a copy: keep it in a variable while a kernel has its address.
    """
    return nhwc(x) if x.ndim == 4 else np.ascontiguousarray(x)


def _as_shaped(rows: np.ndarray) -> np.ndarray:
    """Returns what `_as_rows` took."""
    return nchw(rows) if rows.ndim == 4 else rows


def _in_memory_order(x: np.ndarray) -> np.ndarray | None:
    """Returns a C-contiguous view of all of x's memory, None where x is neither C nor NHWC."""
    if x.flags.c_contiguous:
        return x
    if x.ndim == 4:
        view = x.transpose(0, 2, 3, 1)
        if view.flags.c_contiguous:
            return view
    return None


# --- Batch Normalization ---


def _bn_covers(node, x, channel_arrays) -> bool:
    """Whether x is normalized over all but the channels, and all else is `(C,)`, float32, dense."""
    return (
        x.ndim in _BN_AXES
        and not _is_single_channel(x)
        and node.axis in (None, _BN_AXES[x.ndim])
        and x.size > x.shape[1]  # otherwise Chainer warns
        and is_float32((x, *channel_arrays))
        and all(a.shape == x.shape[1:2] and a.flags.c_contiguous for a in channel_arrays)
    )


def _is_single_channel(x) -> bool:
    return x.shape[1] == 1 and x.size > _LARGEST_SINGLE_CHANNEL


def _is_not_worth_a_copy(x) -> bool:
    """Whether `(N, C, H, W)`, not NHWC, has so few channels that fixed statistics do not pay."""
    return x.ndim == 4 and x.shape[1] < 4 and x.size > _LARGEST_SINGLE_CHANNEL and not is_nhwc(x)


def _set_axes(node, ndim) -> None:
    node.axis = _BN_AXES[ndim]
    node.key_axis = (1,)
    node.expander = _BN_EXPANDERS[ndim]


def _bn_forward(library):
    kernel = function(library, "bn_forward", "pllppddppppppp")

    def wrap(original):
        def forward(self, inputs):
            x, gamma, beta = inputs
            running = self.running_mean, self.running_var
            given = running if running[0] is not None else ()
            if (
                self._impl_selector is not bn._impl_selector
                or self.input_layouts[0] is not None
                or not _bn_covers(self, x, (gamma, beta, *given))
                or not are_writable(given)
            ):
                return original(self, inputs)
            self.retain_inputs((0, 1))
            _set_axes(self, x.ndim)
            self._impl = _GENERAL_BN
            rows = _as_rows(x)
            channels = gamma.size
            y, workspace = np.empty_like(rows), np.empty(4 * channels)
            statistics = np.empty((3, channels), np.float32)
            self.mean, self.var, self.inv_std = statistics
            at, step = pointer(statistics), 4 * channels
            kernel(
                *(pointer(rows), x.size // channels, channels, pointer(gamma), pointer(beta)),
                *(self.eps, self.decay, *(map(pointer, given) if given else (None, None))),
                *(at, at + step, at + 2 * step, pointer(y), pointer(workspace)),
            )
            self.output_layouts = (None,)
            return (_as_shaped(y),)

        return forward

    return wrap


def _bn_backward(library):
    kernel = function(library, "bn_backward", "ppllppppppp")

    def wrap(original):
        def forward(self, inputs):
            x, gamma, gy = inputs
            if (
                self._impl is not _GENERAL_BN
                or self.input_layouts[0] is not None
                or gy.shape != x.shape
                or not is_float32((gy,))
                or not _bn_covers(self, x, (gamma, self.mean, self.inv_std))
            ):
                return original(self, inputs)
            rows, gradient = _as_rows(x), _as_rows(gy)
            channels = gamma.size
            gx, workspace = np.empty_like(rows), np.empty(4 * channels)
            ggamma, gbeta = np.empty((2, channels), np.float32)
            kernel(
                *(pointer(rows), pointer(gradient), x.size // channels, channels),
                *(pointer(gamma), pointer(self.mean), pointer(self.inv_std)),
                *(pointer(gx), pointer(ggamma), pointer(gbeta), pointer(workspace)),
            )
            self.output_layouts = (None, None, None)
            self.retain_inputs((0, 1, 2))
            self.retain_outputs((0, 1))
            return _as_shaped(gx), ggamma, gbeta

        return forward

    return wrap


def _bn_fixed_forward(library):
    kernel = function(library, "bn_fixed_forward", "pllppppdpppp")

    def wrap(original):
        def forward(self, inputs):
            x, *channel_arrays = inputs
            if not _bn_covers(self, x, channel_arrays) or _is_not_worth_a_copy(x):
                return original(self, inputs)
            self.retain_inputs((0, 1, 3, 4))
            _set_axes(self, x.ndim)
            rows = _as_rows(x)
            channels = x.shape[1]
            y, workspace = np.empty_like(rows), np.empty(channels)
            self.inv_var, self.inv_std = np.empty((2, channels), np.float32)
            kernel(
                *(pointer(rows), x.size // channels, channels, *map(pointer, channel_arrays)),
                *(self.eps, pointer(self.inv_var), pointer(self.inv_std), pointer(y)),
                pointer(workspace),
            )
            return (_as_shaped(y),)

        return forward

    return wrap


def _bn_fixed_backward(library):
    kernel = function(library, "bn_fixed_backward", "ppllppppppp")

    def wrap(original):
        def forward(self, inputs):
            x, gamma, mean, var, gy = inputs
            if (
                self.inv_std is None
                or self.inv_var is None
                or gy.shape != x.shape
                or not is_float32((gy,))
                or not _bn_covers(self, x, (gamma, mean, var, self.inv_std, self.inv_var))
                or _is_not_worth_a_copy(x)
            ):
                return original(self, inputs)
            rows, gradient = _as_rows(x), _as_rows(gy)
            channels = gamma.size
            gx, workspace = np.empty_like(rows), np.empty(4 * channels)
            ggamma, gbeta = np.empty((2, channels), np.float32)
            kernel(
                *(pointer(rows), pointer(gradient), x.size // channels, channels),
                *(pointer(gamma), pointer(mean), pointer(self.inv_std)),
                *(pointer(gx), pointer(ggamma), pointer(gbeta), pointer(workspace)),
            )
            self.gamma_over_std = gamma * self.inv_std
            gmean = -self.gamma_over_std * gbeta
            gvar = -0.5 * self.inv_var * (gamma * ggamma)
            self.retain_inputs((0, 1, 2, 4))
            self.retain_outputs((0, 1, 2, 3, 4))
            return _as_shaped(gx), ggamma, gbeta, gmean, gvar

        return forward

    return wrap


# --- Linear: the matrix products are the BLAS library's, which no kernel of ours outran ---


def _linear_forward(original):
    def forward(self, inputs):
        x, w = inputs[:2]
        # A static graph records what Chainer's own calls.
        if config.schedule_func is not None or not is_float32(inputs) or not x.flags.c_contiguous:
            return original(self, inputs)
        self._config_use_ideep = config.use_ideep
        y = x.dot(w.T)
        if len(inputs) == 3:
            y += inputs[2]
        self.retain_inputs((0, 1))
        return (y,)

    return forward


def _linear_backward(original):
    def backward(self, indexes, grad_outputs):
        # The gradient is to have a gradient, a static graph is being recorded, or a hook is to see
        # the functions that Chainer's own calls.
        if (
            config.enable_backprop
            or config.schedule_func is not None
            or chainer.get_function_hooks()
        ):
            return original(self, indexes, grad_outputs)
        x, w, gy = [v.array for v in (*self.get_retained_inputs(), *grad_outputs)]
        if not is_float32((x, w, gy)) or not (x.flags.c_contiguous and gy.flags.c_contiguous):
            return original(self, indexes, grad_outputs)
        return tuple([variable(gradient) for gradient in linear_gradients(indexes, x, w, gy)])

    return backward


def linear_gradients(
    indexes: tuple[int, ...], x: np.ndarray, w: np.ndarray, gy: np.ndarray
) -> list[np.ndarray]:
    """Returns those of a linear layer's gradients that `indexes` asks for: of x, W, b.

    Args:
        x, w, gy: `(N, in_size)`, `(out_size, in_size)`, `(N, out_size)`.
    """
    gradients = (lambda: gy.dot(w), lambda: gy.T.dot(x), lambda: gy.sum(axis=0))
    return [gradients[i]() for i in indexes]


# --- ReLU ---


def _relu_forward(library):
    kernel = function(library, "relu_forward", "plp")

    def wrap(original):
        def forward_cpu(self, inputs):
            (x,) = inputs
            memory = _in_memory_order(x) if is_float32(inputs) else None
            if memory is None:
                return original(self, inputs)
            y = np.empty_like(memory)
            kernel(pointer(memory), x.size, pointer(y))
            self.retain_outputs((0,))
            return (y if memory is x else nchw(y),)

        return forward_cpu

    return wrap


def _relu_backward(library):
    kernel = function(library, "relu_backward", "pplp")

    def wrap(original):
        def forward_cpu(self, inputs):
            (gy,) = inputs
            y = self.b
            memory = _in_memory_order(y) if is_float32((y, gy)) else None
            if memory is None or y.shape != gy.shape:
                return original(self, inputs)
            as_y = memory is y
            gradient = np.ascontiguousarray(gy) if as_y else nhwc(gy)
            gx = np.empty_like(memory)
            kernel(pointer(memory), pointer(gradient), y.size, pointer(gx))
            return (gx if as_y else nchw(gx),)

        return forward_cpu

    return wrap


# --- Pooling ---


def _max_pool_forward(library):
    kernel = function(library, "max_pool_forward", "pllllllpp")

    def wrap(original):
        def forward_cpu(self, inputs):
            (x,) = inputs
            if (
                self.ksize != (2, 2)
                or self.stride != (2, 2)
                or self.pad != (0, 0)
                or self.return_indices  # promised as int64
                or not is_float32(inputs)
                or x.size == 0
                or _is_single_channel(x)
            ):
                return original(self, inputs)
            n, c, h, w = x.shape
            out_h, out_w = (h + self.cover_all) // 2, (w + self.cover_all) // 2
            if out_h == 0 or out_w == 0:
                return original(self, inputs)
            y = np.empty((n, out_h, out_w, c), np.float32)
            indexes = np.empty(y.shape, np.uint8)
            rows = nhwc(x)
            kernel(pointer(rows), n, h, w, c, out_h, out_w, pointer(y), pointer(indexes))
            self._in_shape = x.shape
            self._in_dtype = x.dtype
            self.indexes = nchw(indexes)
            return (nchw(y),)

        return forward_cpu

    return wrap


def _max_pool_backward(library):
    kernel = function(library, "max_pool_backward", "ppllllllp")

    def wrap(original):
        def forward_cpu(self, inputs):
            (gy,) = inputs
            func = self.func
            indexes = vars(func).get("indexes")  # as the kernel left them, or Chainer's int64
            if (
                type(indexes) is not np.ndarray
                or indexes.dtype != np.uint8
                or not is_float32(inputs)
                or gy.shape != indexes.shape
            ):
                return original(self, inputs)
            n, c, h, w = func._in_shape
            gx = np.empty((n, h, w, c), np.float32)
            gradient, positions = nhwc(gy), nhwc(indexes)
            kernel(
                *(pointer(gradient), pointer(positions), n, h, w, c, *gy.shape[2:]),
                pointer(gx),
            )
            return (nchw(gx),)

        return forward_cpu

    return wrap


def _max_pool_indexes(original: None) -> property:
    """What is seen of `indexes`: the kernel's bytes become int64, as Chainer's, when looked at.

    From then on they are Chainer's array, which may be written to.
    """

    def get(self):
        indexes = vars(self).get("indexes")
        if indexes is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute 'indexes'")
        if indexes.dtype == np.uint8:
            indexes = vars(self)["indexes"] = np.ascontiguousarray(indexes, np.intp)
        return indexes

    def set_(self, indexes):
        vars(self)["indexes"] = indexes

    def delete(self):
        del vars(self)["indexes"]

    return property(get, set_, delete)


def _pools_whole_map(node, in_shape) -> bool:
    return (node.kh, node.kw) == in_shape[2:] and (node.ph, node.pw) == (0, 0)


def _average_pool_forward(library):
    kernel = function(library, "average_pool_forward", "plllp")

    def wrap(original):
        def forward_cpu(self, inputs):
            (x,) = inputs
            if not is_float32(inputs) or not _pools_whole_map(self, x.shape) or x.size == 0:
                return original(self, inputs)
            n, c, h, w = x.shape
            y = np.empty((n, c, 1, 1), np.float32)
            rows = nhwc(x)
            kernel(pointer(rows), n, h * w, c, pointer(y))
            self._in_shape = x.shape
            self._in_dtype = x.dtype
            return (y,)

        return forward_cpu

    return wrap


def _average_pool_backward(library):
    kernel = function(library, "average_pool_backward", "plllp")

    def wrap(original):
        def forward_cpu(self, inputs):
            (gy,) = inputs
            n, c, h, w = self._in_shape
            if (
                not is_float32(inputs)
                or not _pools_whole_map(self, self._in_shape)
                or gy.shape != (n, c, 1, 1)
                or gy.size == 0
            ):
                return original(self, inputs)
            gx = np.empty((n, h, w, c), np.float32)
            gradient = np.ascontiguousarray(gy)
            kernel(pointer(gradient), n, h * w, c, pointer(gx))
            return (nchw(gx),)

        return forward_cpu

    return wrap


# --- Dropout ---


def _dropout_forward(library):
    kernel = function(library, "dropout_forward", "ppllfpp")

    def wrap(original):
        def forward_cpu(self, inputs):
            (x,) = inputs
            if self.mask is not None or not is_float32(inputs) or not x.flags.c_contiguous:
                return original(self, inputs)
            generator = np.random.get_bit_generator()
            state = _mt19937_address(generator)
            if state is None:
                return original(self, inputs)
            ratio = self.dropout_ratio
            self.mask, y = np.empty_like(x), np.empty_like(x)
            with generator.lock:
                kernel(
                    *(state, pointer(x), x.size, math.ceil(ratio * 2**53), 1 / (1 - ratio)),
                    *(pointer(self.mask), pointer(y)),
                )
            return (y,)

        return forward_cpu

    return wrap


_checked_generator: tuple[object, int | None] = (None, None)


def _mt19937_address(generator) -> int | None:
    """Returns where NumPy keeps the generator's state: 624 words and a position.

    None where it is another generator, or NumPy keeps it in another way.
    """
    global _checked_generator
    if _checked_generator[0] is not generator:
        address = None
        if type(generator) is np.random.MT19937:
            known = generator.state["state"]
            address = generator.ctypes.state_address
            words = np.ctypeslib.as_array((ctypes.c_uint32 * 625).from_address(address))
            if words.tolist() != [*known["key"].tolist(), known["pos"]]:
                address = None
        _checked_generator = generator, address
    return _checked_generator[1]


# --- Softmax cross-entropy and accuracy ---


def _is_large(x, use: str) -> bool:
    """Whether `(N, classes)` is for Chainer's own, which is faster."""
    return x.shape[1] > _FEW_CLASSES and x.size > _LARGEST_SCORES[use]


def _covers_scores(x, t) -> bool:
    """Whether x is float32 `(N, classes)` and t int32 `(N,)`."""
    return (
        x.ndim == 2
        and t.shape == x.shape[:1]
        and x.size > 0
        and t.dtype == np.int32
        and type(t) is np.ndarray
        and is_float32((x,))
    )


def _softmax_cross_entropy_forward(library):
    kernel = function(library, "softmax_cross_entropy_forward", "ppllllpp", ctypes.c_int64)

    def wrap(original):
        def forward_cpu(self, inputs):
            x, t = inputs
            if (
                self.class_weight is not None
                or self.reduce != "mean"
                or not self.cache_score
                or not _covers_scores(x, t)
                or _is_large(x, "loss")
            ):
                return original(self, inputs)
            softmax, loss = np.empty(x.shape, np.float32), np.empty((), np.float32)
            x, t = np.ascontiguousarray(x), np.ascontiguousarray(t)
            count = kernel(
                *(pointer(x), pointer(t), *x.shape, self.ignore_label, bool(self.normalize)),
                *(pointer(softmax), pointer(loss)),
            )
            if count < 0:  # labels that are none
                return original(self, inputs)
            self.retain_inputs((0, 1))
            self.y = softmax
            self._coeff = 1.0 / max(count, 1)
            return (loss,)

        return forward_cpu

    return wrap


def _softmax_cross_entropy_backward(library):
    kernel = function(library, "softmax_cross_entropy_backward", "ppllldp", ctypes.c_int)

    def wrap(original):
        def forward_cpu(self, inputs):
            x, t, gloss = inputs
            if (
                self.y is None
                or self.coeff is None
                or self.class_weight is not None
                or gloss.shape != ()
                or not _covers_scores(self.y, t)
                or not self.y.flags.c_contiguous
            ):
                return original(self, inputs)
            gx, t = np.empty(x.shape, np.float32), np.ascontiguousarray(t)
            failed = kernel(
                *(pointer(self.y), pointer(t), *x.shape, self.ignore_label),
                *(float(gloss) * self.coeff, pointer(gx)),
            )
            return original(self, inputs) if failed else (gx,)

        return forward_cpu

    return wrap


def _accuracy(library):
    kernel = function(library, "accuracy", "ppllp")

    def wrap(original):
        def forward_cpu(self, inputs):
            y, t = inputs
            if (
                self.ignore_label is not None
                or not _covers_scores(y, t)
                or _is_large(y, "accuracy")
            ):
                return original(self, inputs)
            share = np.empty((), np.float32)
            y, t = np.ascontiguousarray(y), np.ascontiguousarray(t)
            kernel(pointer(y), pointer(t), *y.shape, pointer(share))
            return (share,)

        return forward_cpu

    return wrap
