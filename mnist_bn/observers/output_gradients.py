"""`--observe output-gradients`: what each image of a minibatch wants of each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import chainer
import chainer.functions as F
import numpy as np
from chainer.backends import cuda

from mnist_bn import plotting
from mnist_bn.observers.arrays import Array
from mnist_bn.observers.measured import Measured
from mnist_bn.observers.minibatch import MinibatchObserver


class OutputGradients(MinibatchObserver):
    """The gradient of the minibatch's loss with respect to the network's output.

    Bjorck et al. 2018, figure 5.
    """

    name = "output-gradients"
    title = "Gradient of the loss in the output, at initialisation"
    to_see = "See whether one class is pushed down alike for every image: a column of one colour."
    arrays: ClassVar = {
        "gradient": Array("float32", ("images", None)),  # of each class
        "label": Array("int32", ("images",)),
    }
    shows_first_seed = True

    def observe(self, network: chainer.Chain, x, t) -> dict[str, np.ndarray]:
        with chainer.no_backprop_mode():
            output = chainer.Variable(network(x).array)
        F.softmax_cross_entropy(output, t).backward()
        return {"gradient": cuda.to_cpu(output.grad), "label": cuda.to_cpu(t)}

    @classmethod
    def figure(cls, groups: Sequence[Measured], title: str, subtitle: str) -> plotting.Figure:
        """The gradient of the loss by image and class; of each network's first seed."""
        row: list[plotting.heat_maps.HeatMap] = []
        for group in groups:
            gradient = group.first("gradient")[0]
            images, classes = gradient.shape
            words = f"{group.label} (first seed)", gradient, "Class", "" if row else "Image"
            extent = (-0.5, classes - 0.5, 0.5, images + 0.5)
            row.append(plotting.heat_maps.HeatMap(*words, extent, is_signed=True))
        return plotting.heat_maps.heat_maps([row], title, subtitle)


def dependence_on_input(gradients: np.ndarray) -> np.ndarray:
    """Returns how much the gradient of the class that is pushed down most differs by image.

    The standard deviation over the mean of what is positive in the column whose sum is largest,
    `(seeds,)`: 0 if every image of another class has the same gradient.

    Args:
        gradients: of the output, `(seeds, N, classes)`.
    """
    found = []
    for one in gradients.astype(np.float64):
        column = one[:, np.maximum(one, 0).sum(axis=0).argmax()]
        positive = column[column > 0]
        found.append(positive.std() / positive.mean() if positive.size else np.nan)
    return np.array(found)


def same_sign(gradients: np.ndarray) -> np.ndarray:
    """Returns the fraction of images of one sign in the column where it is largest, `(seeds,)`.

    The gradient is softmax less 1 for the image's class and 0 for the others: it is positive in a
    column for every image of another class, whatever the network.

    Args:
        gradients: of the output, `(seeds, N, classes)`.
    """
    positive, negative = (gradients > 0).mean(axis=1), (gradients < 0).mean(axis=1)
    return np.maximum(positive, negative).max(axis=1)
