"""Observers that try things on one minibatch, with a copy of the network."""

from __future__ import annotations

from abc import abstractmethod
from copy import deepcopy

import chainer
import chainer.functions as F
import numpy as np

from mnist_bn.devices import NdArray
from mnist_bn.errors import UserError
from mnist_bn.observers.arrays import Values
from mnist_bn.observers.base import Observer, fixed_random_state

IMAGES = 128
WHEN = "one minibatch, in train mode"  # in the words of a figure
DEPTH = 110  # layers of the network of "Understanding Batch Normalization"


class MinibatchObserver(Observer):
    """An observer of the network as initialised, on the same IMAGES training images in every run.

    It may do with its copy of the network what it likes. Train mode: BN takes the minibatch's own
    statistics. What is random in the network, such as dropout, is the same at every measurement.
    """

    at: tuple[int, ...] | None = (0,)
    shows_first_seed = False  # in the figure of several seeds, and none of the others

    @abstractmethod
    def observe(self, network: chainer.Chain, x: NdArray, t: NdArray) -> Values:
        """Returns the arrays of now; see `measure`.

        Args:
            network: a copy.
            x, t: the minibatch, images and labels, on the device.
        """

    def measure(self, network: chainer.Chain) -> Values:
        for path, parameter in sorted(network.namedparams()):
            if not parameter.is_initialized:  # a copy would draw weights of its own
                raise UserError(
                    f"--observe {self.name}: {path[1:]} of {type(network).__name__} gets its shape "
                    "from the first minibatch only; make the layer with its number of inputs"
                )
        train = self.dataset.train
        chosen = np.random.RandomState(0).permutation(len(train.labels))[:IMAGES]
        x, t = (self.device.send(array) for array in train.part(chosen))
        with fixed_random_state(self.device), chainer.using_config("train", True):
            # Not Link.copy, which makes of any Sequential a plain one. Of a view of the images each
            # call of the network gets a copy of its own to write to.
            return self.observe(deepcopy(network), x[...], t)


def loss(network: chainer.Chain, x, t) -> chainer.Variable:
    """Returns the cross-entropy of the minibatch, as training has it."""
    return F.softmax_cross_entropy(network(x), t)


def backpropagate(network: chainer.Chain, x, t) -> float:
    """Sets the parameters' gradients to those of the minibatch's loss, which it returns.

    They are 0 if the loss does not depend on a parameter.
    """
    network.cleargrads()
    value = loss(network, x, t)
    value.backward()
    for parameter in network.params():
        if parameter.grad is None:
            parameter.grad = parameter.xp.zeros_like(parameter.array)
    return float(value.array)


def layer_at(layer: int, layers: int) -> int:
    """Returns which of so many layers is as deep as the paper's `layer` of 110; the first is 1."""
    return max(1, round(layer * layers / DEPTH))
