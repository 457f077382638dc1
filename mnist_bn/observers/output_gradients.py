"""`--observe output-gradients`: what each image of a minibatch wants of each class."""

from __future__ import annotations

import chainer
import chainer.functions as F
import numpy as np
from chainer.backends import cuda

from mnist_bn.observers.minibatch import MinibatchObserver


class OutputGradients(MinibatchObserver):
    """The gradient of the minibatch's loss with respect to the network's output.

    Bjorck et al. 2018, figure 5. Series: "gradient", float32 `(T, N, classes)`, and "label", int32
    `(T, N)`.
    """

    name = "output-gradients"

    def observe(self, network: chainer.Chain, x, t) -> dict[str, np.ndarray]:
        with chainer.no_backprop_mode():
            output = chainer.Variable(network(x).array)
        F.softmax_cross_entropy(output, t).backward()
        return {"gradient": cuda.to_cpu(output.grad), "label": cuda.to_cpu(t)}
