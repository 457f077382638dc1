"""Linear layers and what stands between them, as one node: BN, activations, dropout, reshape.

Each function computes as it does alone, so the numbers are the same to the bit. Such layers are
small, and Chainer's bookkeeping for a function takes longer than its arithmetic; here it is done
once for all.
"""

from __future__ import annotations

import functools

import numpy as np
from chainer.configuration import config
from chainer.functions.activation.leaky_relu import LeakyReLU, _LeakyReLUGrad
from chainer.functions.activation.relu import ReLUGrad2
from chainer.functions.activation.sigmoid import Sigmoid, SigmoidGrad
from chainer.functions.connection.linear import LinearFunction
from chainer.functions.noise.dropout import Dropout, DropoutGrad
from chainer.functions.normalization.batch_normalization import (
    BatchNormalizationGrad,
    FixedBatchNormalization,
)

from mnist_bn.kernels import linear
from mnist_bn.kernels.fused import Fused, Part
from mnist_bn.kernels.waiting import function as waits
from mnist_bn.kernels.waiting import fusion as fuses

# Elements of an array that others may have: a larger one takes longer to copy than one node saves.
_CHEAP_TO_COPY = 100_000


def _begins_a_chain(node, inputs, _) -> bool:
    return len(inputs) == 3 and inputs[0].size <= _CHEAP_TO_COPY


@waits("l", LinearFunction, starts=_begins_a_chain)
def _linear(node, inputs):
    x, w = inputs[0].shape, inputs[1].shape
    if not (
        len(x) == len(w) == 2 and x[1] == w[1] and (len(inputs) == 2 or inputs[2].shape == w[:1])
    ):
        return None
    return x[0], w[0]


def _is_dense(node, inputs, _) -> bool:
    return inputs[0].ndim == 2


@waits("g", Sigmoid, starts=_is_dense)
def _sigmoid(node, inputs):
    return inputs[0].shape


@waits("k", LeakyReLU)
def _leaky_relu(node, inputs):
    # By a negative slope it keeps its input, and a slope may be anything that NumPy multiplies by.
    return inputs[0].shape if type(node.slope) in (int, float) and node.slope >= 0 else None


@waits("d", Dropout)
def _dropout(node, inputs):
    if node.mask is not None or node.return_mask:  # others have the mask, and may change it
        return None
    shape = inputs[0].shape
    node.forward_cpu((_ones(shape),))  # draws, in the program's order
    return shape


@functools.lru_cache(maxsize=4)
def _ones(shape: tuple[int, ...]) -> np.ndarray:
    return np.ones(shape, np.float32)


# --- Gradients: (node, inputs' indexes, inputs, output, its gradient) -> those of these inputs ---


def _linear_gradients(node, indexes, inputs, y, gy):
    return linear.gradients(indexes, inputs[0], inputs[1], gy)


def _bn_gradients(node, indexes, inputs, y, gy):
    x, gamma, _ = inputs
    grad = BatchNormalizationGrad(
        *(node.eps, node.expander, node.axis, node.mean, node.var, node.inv_std),
        *(node.key_axis, node._impl, node.forward_data),
    )
    grad._input_layouts = (None,) * 3
    gradients = grad.forward((x, gamma, gy))
    return [gradients[i] for i in indexes]


_GRADIENTS = {
    "l": _linear_gradients,
    "b": _bn_gradients,
    "r": lambda node, indexes, inputs, y, gy: ReLUGrad2(y).forward_cpu((gy,)),
    "k": lambda node, indexes, inputs, y, gy: _LeakyReLUGrad(y, node.slope).forward_cpu((gy,)),
    "g": lambda node, indexes, inputs, y, gy: SigmoidGrad((None,)).forward_cpu((y, gy)),
    "d": lambda node, indexes, inputs, y, gy: DropoutGrad(node.mask).forward((gy,)),
    "s": lambda node, indexes, inputs, y, gy: (gy.reshape(inputs[0].shape),),
}
_NAMES = {"l": "linear", "b": "BN", "r": "ReLU", "k": "leaky ReLU", "g": "sigmoid", "d": "dropout"}


@fuses("[lbrkgds]{2,}")
class DenseLayers(Fused):
    """Inputs: x `(N, C)`, or of any shape if it is reshaped first, and the layers' parameters."""

    @classmethod
    def covers(cls, parts: list[Part], inputs: list, arrays: list[np.ndarray]) -> bool:
        """Returns whether each function takes the one before as its first input, of two axes."""
        if arrays[0].ndim != 2 and not isinstance(parts[1][0], LinearFunction):
            return False
        if config.enable_backprop and any(
            [type(node) is FixedBatchNormalization for node, _, _ in parts]
        ):
            return False  # its gradients are not among those above
        return all([position == 0 for _, _, position in parts[1:]])

    @property
    def label(self) -> str:
        """What the node is called."""
        names = ", ".join(_NAMES[letter] for letter in self.pattern if letter in _NAMES)
        return names[:1].upper() + names[1:]

    def forward(self, inputs):
        """Returns the output."""
        values = []  # of each part, inputs and output
        rest, y = iter(inputs), None
        for node, count, position in self.parts:
            own = [y if i == position else next(rest) for i in range(count)]
            node._input_layouts = (None,) * count
            (y,) = node.forward(own)
            values.append((own, y))
        if config.enable_backprop:
            self._values = values
            self.retain_inputs(tuple(range(len(inputs))))
        return (y,)

    def gradients(self, indexes: tuple[int, ...], inputs: list[np.ndarray], gy: np.ndarray):
        """Returns the gradients of the inputs that `indexes` has."""
        found: dict[int, np.ndarray] = {}
        end = len(inputs)
        parts = [*zip(self.pattern, self.parts, self._values, strict=True)]
        for letter, (node, count, position), (own, y) in reversed(parts):
            begin = end - count
            joins = position is not None  # its first input is the part before
            own_indexes = [i for i in range(joins, count) if begin + i in indexes]
            if joins and indexes[0] <= begin:
                own_indexes.insert(0, 0)
            gradients = _GRADIENTS[letter](node, own_indexes, own, y, gy)
            for i, gradient in zip(own_indexes, gradients, strict=True):
                if joins and i == 0:
                    gy = gradient
                else:
                    found[begin + i] = gradient
            if len(found) == len(indexes):
                break
            end = begin + joins
        return [found[i] for i in indexes]
