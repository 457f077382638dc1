"""Every layer but convolution and pooling: Chainer's function nodes with kernels inside.

A replacement takes float32 arrays whose memory is C-contiguous or NHWC, copies what else it can use
(`arrays.nhwc`), and hands any case that no kernel covers to Chainer's original.
"""

from __future__ import annotations

import ctypes
import math

import chainer
import numpy as np
from chainer.configuration import config
from chainer.functions.activation.leaky_relu import LeakyReLU, _LeakyReLUGrad
from chainer.functions.activation.relu import ReLU, ReLUGrad2
from chainer.functions.connection.linear import LinearFunction
from chainer.functions.evaluation.accuracy import Accuracy
from chainer.functions.loss.softmax_cross_entropy import (
    SoftmaxCrossEntropy,
    _SoftmaxCrossEntropyGrad_NoDoubleBackprop,
)
from chainer.functions.noise.dropout import Dropout
from chainer.functions.normalization import batch_normalization as bn

from mnist_bn.kernels import linear
from mnist_bn.kernels.arrays import (
    are_writable,
    is_float32,
    is_nhwc,
    nchw,
    nhwc,
    pointer,
    pointers,
)
from mnist_bn.kernels.graph import variable
from mnist_bn.kernels.registry import Registry
from mnist_bn.kernels.seam import Replacements

_GENERAL_BN = bn.GeneralBatchNormalizationImpl()
# ndim of x -> the axes that BatchNormalization averages over, and what makes (C,) broadcast with x
_BN_AXES = {2: (0,), 4: (0, 2, 3)}
_BN_EXPANDERS = {2: (None, slice(None)), 4: (None, slice(None), None, None)}
_WORKSPACE = 25  # doubles a channel: the most that a kernel of layers.cpp asks for
# Beyond such sizes stock Chainer is as fast or faster. Of a single channel the kernels use one lane
# of a vector, and scores they take one by one; NumPy takes both by whole vectors. The limits were
# measured, and are of shapes only, so that a seed gives the same bits.
LARGEST_SINGLE_CHANNEL = 4096  # elements
_FEW_CLASSES = 32
_LARGEST_SCORES = {"loss": 20_000, "accuracy": 50_000}  # elements, of more than a few classes

replaces = Registry()


def replacements(library: ctypes.CDLL) -> Replacements:
    """Returns what replaces the methods of Chainer's function nodes."""
    return replaces.replacements(library)


def _as_rows(x: np.ndarray) -> np.ndarray:
    """Returns `(N, C)` or `(N, C, H, W)` as C-contiguous memory with the channels last.

    It may be a copy: keep it in a variable while a kernel has its address.
    """
    return nhwc(x) if x.ndim == 4 else np.ascontiguousarray(x)


def _as_shaped(rows: np.ndarray) -> np.ndarray:
    """Returns what `_as_rows` took."""
    return nchw(rows) if rows.ndim == 4 else rows


def _in_memory_order(x: np.ndarray) -> np.ndarray | None:
    """Returns a C-contiguous view of all of x's memory, None if x is neither C nor NHWC."""
    if x.flags.c_contiguous:
        return x
    return nhwc(x) if x.ndim == 4 and is_nhwc(x) else None


# --- Batch Normalization (Ioffe and Szegedy, 2015): y = gamma * (x - mean) / sqrt(var + eps) + beta


def bn_covers(node, x, channel_arrays, gy=None) -> bool:
    """Whether x is normalized over all but the channels, and all is float32 and as it must be.

    Args:
        x, gy: `(N, C)` or `(N, C, H, W)`.
        channel_arrays: each `(C,)`, dense.
    """
    return (
        (gy is None or (gy.shape == x.shape and is_float32((gy,))))
        and x.ndim in _BN_AXES
        and not is_single_channel(x)
        and node.axis in (None, _BN_AXES[x.ndim])
        and x.size > x.shape[1]  # otherwise Chainer warns
        and is_float32((x, *channel_arrays))
        and all(a.shape == x.shape[1:2] and a.flags.c_contiguous for a in channel_arrays)
    )


def is_single_channel(x) -> bool:
    """Returns whether there is one channel only, and so much of it that NumPy is faster."""
    return x.shape[1] == 1 and x.size > LARGEST_SINGLE_CHANNEL


def is_not_worth_a_copy(x) -> bool:
    """Whether `(N, C, H, W)`, not NHWC, has so few channels that fixed statistics do not pay."""
    return x.ndim == 4 and x.shape[1] < 4 and x.size > LARGEST_SINGLE_CHANNEL and not is_nhwc(x)


def _set_axes(node, ndim) -> None:
    node.axis = _BN_AXES[ndim]
    node.key_axis = (1,)
    node.expander = _BN_EXPANDERS[ndim]


BN_FORWARD = "bn_forward", "pllppddppppppipp"
BN_BACKWARD = "bn_backward", "pppllppppppp"
BN_FIXED_FORWARD = "bn_fixed_forward", "pllppppdpppipp"


@replaces(bn.BatchNormalization, "forward", *BN_FORWARD)
def _bn_forward(node, inputs, kernel):
    """With the minibatch's own mean and var: algorithm 1."""
    x, gamma, beta = inputs
    running = node.running_mean, node.running_var
    given = running if running[0] is not None else ()
    if (
        node._impl_selector is not bn._impl_selector
        or node.input_layouts[0] is not None
        or not bn_covers(node, x, (gamma, beta, *given))
        or not are_writable(given)
    ):
        return NotImplemented
    node.retain_inputs((0, 1))
    node._impl = _GENERAL_BN
    node.output_layouts = (None,)
    return (normalize(node, inputs, kernel),)


def normalize(node, inputs, kernel, added=None, with_relu=False) -> np.ndarray:
    """Returns BN's output by the minibatch's statistics, which move the node's running ones.

    Args:
        added: float32 `(N, H, W, C)`, C-contiguous, added to BN's output if a ReLU follows.
        with_relu: whether a ReLU follows.
    """
    x, gamma, beta = inputs
    given = node.running_mean, node.running_var
    _set_axes(node, x.ndim)
    rows = _as_rows(x)
    channels = gamma.size
    y, workspace = np.empty_like(rows), np.empty(_WORKSPACE * channels)
    statistics = np.empty((3, channels), np.float32)
    node.mean, node.var, node.inv_std = statistics
    at, step = pointer(statistics), 4 * channels
    kernel(
        *(pointer(rows), x.size // channels, channels, pointer(gamma), pointer(beta)),
        *(node.eps, node.decay, *pointers(*given), at, at + step, at + 2 * step),
        *(*pointers(added), with_relu, pointer(y), pointer(workspace)),
    )
    return _as_shaped(y)


@replaces(bn.BatchNormalizationGrad, "forward", *BN_BACKWARD)
def _bn_backward(node, inputs, kernel):
    x, gamma, gy = inputs
    if (
        node._impl is not _GENERAL_BN
        or node.input_layouts[0] is not None
        or not bn_covers(node, x, (gamma, node.mean, node.inv_std), gy)
    ):
        return NotImplemented
    node.output_layouts = (None, None, None)
    node.retain_inputs((0, 1, 2))
    node.retain_outputs((0, 1))
    return bn_gradients(x, gamma, node.mean, node.inv_std, gy, kernel, (None,))


@replaces(bn.FixedBatchNormalization, "forward", *BN_FIXED_FORWARD)
def _bn_fixed_forward(node, inputs, kernel):
    """With the running averages as mean and var: algorithm 2."""
    x, *channel_arrays = inputs
    if not bn_covers(node, x, channel_arrays) or is_not_worth_a_copy(x):
        return NotImplemented
    node.retain_inputs((0, 1, 3, 4))
    return (normalize_fixed(node, inputs, kernel),)


def normalize_fixed(node, inputs, kernel, added=None, with_relu=False) -> np.ndarray:
    """Returns BN's output by fixed statistics; for the rest see `normalize`."""
    x, *channel_arrays = inputs
    _set_axes(node, x.ndim)
    rows = _as_rows(x)
    channels = x.shape[1]
    y, workspace = np.empty_like(rows), np.empty(channels)
    node.inv_var, node.inv_std = np.empty((2, channels), np.float32)
    kernel(
        *(pointer(rows), x.size // channels, channels, *map(pointer, channel_arrays)),
        *(node.eps, pointer(node.inv_var), pointer(node.inv_std), *pointers(added), with_relu),
        *(pointer(y), pointer(workspace)),
    )
    return _as_shaped(y)


@replaces(bn.FixedBatchNormalizationGrad, "forward", "bn_fixed_backward", "ppllppppppp")
def _bn_fixed_backward(node, inputs, kernel):
    x, gamma, mean, var, gy = inputs
    if (
        node.inv_std is None
        or node.inv_var is None
        or not bn_covers(node, x, (gamma, mean, var, node.inv_std, node.inv_var), gy)
        or is_not_worth_a_copy(x)
    ):
        return NotImplemented
    gx, ggamma, gbeta = bn_gradients(x, gamma, mean, node.inv_std, gy, kernel)
    node.gamma_over_std = gamma * node.inv_std
    gmean = -node.gamma_over_std * gbeta
    gvar = -0.5 * node.inv_var * (gamma * ggamma)
    node.retain_inputs((0, 1, 2, 4))
    node.retain_outputs((0, 1, 2, 3, 4))
    return gx, ggamma, gbeta, gmean, gvar


def bn_gradients(x, gamma, mean, inv_std, gy, kernel, outputs=()) -> tuple[np.ndarray, ...]:
    """Returns gx, ggamma and gbeta.

    Args:
        outputs: the address of the output of a ReLU that followed, as NHWC memory, to which gy then
            belongs, or None. With fixed statistics there is no such argument.
    """
    rows, gradient = _as_rows(x), _as_rows(gy)
    channels = gamma.size
    gx, workspace = np.empty_like(rows), np.empty(_WORKSPACE * channels)
    ggamma, gbeta = np.empty((2, channels), np.float32)
    kernel(
        *(pointer(rows), pointer(gradient), *outputs, x.size // channels, channels),
        *(pointer(gamma), pointer(mean), pointer(inv_std)),
        *(pointer(gx), pointer(ggamma), pointer(gbeta), pointer(workspace)),
    )
    return _as_shaped(gx), ggamma, gbeta


# --- Linear ---


@replaces(LinearFunction, "forward")
def _linear_forward(node, inputs):
    x, w = inputs[:2]
    # A static graph records what Chainer's own calls.
    if config.schedule_func is not None or not is_float32(inputs) or not x.flags.c_contiguous:
        return NotImplemented
    node._config_use_ideep = config.use_ideep
    node.retain_inputs((0, 1))
    return (linear.forward(x, w, inputs[2] if len(inputs) == 3 else None),)


@replaces(LinearFunction, "backward")
def _linear_backward(node, indexes, grad_outputs):
    # The gradient is to have a gradient, a static graph is being recorded, or a hook is to see the
    # functions that Chainer's own calls.
    if config.enable_backprop or config.schedule_func is not None or chainer.get_function_hooks():
        return NotImplemented
    x, w, gy = [v.array for v in (*node.get_retained_inputs(), *grad_outputs)]
    if not is_float32((x, w, gy)) or not (x.flags.c_contiguous and gy.flags.c_contiguous):
        return NotImplemented
    return tuple([variable(gradient) for gradient in linear.gradients(indexes, x, w, gy)])


# --- ReLU and leaky ReLU ---


@replaces(ReLU, "forward_cpu", "relu_forward", "plp")
def _relu_forward(node, inputs, kernel):
    (x,) = inputs
    memory = _in_memory_order(x) if is_float32(inputs) else None
    if memory is None:
        return NotImplemented
    y = np.empty_like(memory)
    kernel(pointer(memory), x.size, pointer(y))
    node.retain_outputs((0,))
    return (y if memory is x else nchw(y),)


@replaces(ReLUGrad2, "forward_cpu", "relu_backward", "pplp")
def _relu_backward(node, inputs, kernel):
    (gy,) = inputs
    y = node.b
    memory = _in_memory_order(y) if is_float32((y, gy)) else None
    if memory is None or y.shape != gy.shape:
        return NotImplemented
    as_y = memory is y
    gradient = np.ascontiguousarray(gy) if as_y else nhwc(gy)
    gx = np.empty_like(memory)
    kernel(pointer(memory), pointer(gradient), y.size, pointer(gx))
    return (gx if as_y else nchw(gx),)


@replaces(LeakyReLU, "forward_cpu", "leaky_relu", "pplfp")
def _leaky_relu_forward(node, inputs, kernel):
    (x,) = inputs
    y = _leaky(x, x, node.slope, kernel)
    if y is None:
        return NotImplemented
    if node.slope >= 0:
        node.retain_outputs((0,))
    else:
        node.retain_inputs((0,))
    return (y,)


@replaces(_LeakyReLUGrad, "forward_cpu", "leaky_relu", "pplfp")
def _leaky_relu_backward(node, inputs, kernel):
    gx = _leaky(node.cond, inputs[0], node.slope, kernel)
    return NotImplemented if gx is None else (gx,)


def _leaky(condition, x, slope, kernel) -> np.ndarray | None:
    """Returns x, times the slope where the condition, of its shape, is not above zero."""
    if not is_float32((condition, x)) or type(slope) not in (int, float):
        return None
    memory = _in_memory_order(condition)
    if memory is None or condition.shape != x.shape:
        return None
    as_it_is = memory is condition
    values = np.ascontiguousarray(x) if as_it_is else nhwc(x)
    y = np.empty_like(memory)
    kernel(pointer(memory), pointer(values), x.size, slope, pointer(y))
    return y if as_it_is else nchw(y)


# --- Dropout ---


@replaces(Dropout, "forward_cpu", "dropout_forward", "ppllllfpp")
def _dropout_forward(node, inputs, kernel):
    (x,) = inputs
    memory = _in_memory_order(x) if is_float32(inputs) and node.mask is None else None
    if memory is None:
        return NotImplemented
    generator = np.random.get_bit_generator()
    state = _mt19937_address(generator)
    if state is None:
        return NotImplemented
    ratio, is_in_order = node.dropout_ratio, memory is x
    mask, y = np.empty_like(memory), np.empty_like(memory)
    n, channels = (1, 1) if is_in_order else x.shape[:2]
    with generator.lock:
        kernel(
            *(state, pointer(memory), n, channels, x.size // max(n * channels, 1)),
            *(math.ceil(ratio * 2**53), 1 / (1 - ratio), pointer(mask), pointer(y)),
        )
    node.mask = mask if is_in_order else nchw(mask)
    return (y if is_in_order else nchw(y),)


_checked_generator: tuple[object, int | None] = (None, None)


def _mt19937_address(generator) -> int | None:
    """Returns where NumPy keeps the generator's state: 624 words and a position.

    None if it is another generator, or NumPy keeps it in another way.
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


@replaces(
    SoftmaxCrossEntropy, "forward_cpu", "softmax_cross_entropy_forward", "ppllllpp", ctypes.c_int64
)
def _softmax_cross_entropy_forward(node, inputs, kernel):
    x, t = inputs
    if (
        node.class_weight is not None
        or node.reduce != "mean"
        or not node.cache_score
        or not _covers_scores(x, t)
        or _is_large(x, "loss")
    ):
        return NotImplemented
    softmax, loss = np.empty(x.shape, np.float32), np.empty((), np.float32)
    x, t = np.ascontiguousarray(x), np.ascontiguousarray(t)
    count = kernel(
        *(pointer(x), pointer(t), *x.shape, node.ignore_label, bool(node.normalize)),
        *(pointer(softmax), pointer(loss)),
    )
    if count < 0:  # labels that are none
        return NotImplemented
    node.retain_inputs((0, 1))
    node.y = softmax
    node._coeff = 1.0 / max(count, 1)
    return (loss,)


@replaces(
    _SoftmaxCrossEntropyGrad_NoDoubleBackprop,
    "forward_cpu",
    "softmax_cross_entropy_backward",
    "ppllldp",
    ctypes.c_int,
)
def _softmax_cross_entropy_backward(node, inputs, kernel):
    x, t, gloss = inputs
    if (
        node.y is None
        or node.coeff is None
        or node.class_weight is not None
        or gloss.shape != ()
        or not _covers_scores(node.y, t)
        or not node.y.flags.c_contiguous
    ):
        return NotImplemented
    gx, t = np.empty(x.shape, np.float32), np.ascontiguousarray(t)
    failed = kernel(
        *(pointer(node.y), pointer(t), *x.shape, node.ignore_label),
        *(float(gloss) * node.coeff, pointer(gx)),
    )
    return NotImplemented if failed else (gx,)


@replaces(Accuracy, "forward_cpu", "accuracy", "ppllp")
def _accuracy(node, inputs, kernel):
    y, t = inputs
    if node.ignore_label is not None or not _covers_scores(y, t) or _is_large(y, "accuracy"):
        return NotImplemented
    share = np.empty((), np.float32)
    y, t = np.ascontiguousarray(y), np.ascontiguousarray(t)
    kernel(pointer(y), pointer(t), *y.shape, pointer(share))
    return (share,)
