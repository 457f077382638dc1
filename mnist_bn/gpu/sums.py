"""Loss and accuracy, added up on the device within the step."""

from __future__ import annotations

from collections.abc import Mapping

import chainer
import cupy
import numpy as np
from chainer.backends import cuda
from chainer.reporter import Summary

QUANTITIES = ("main/loss", "main/accuracy")


class Sums:
    """What LogReport adds up of every step: each quantity and its square, float32 as Chainer's."""

    def __init__(self) -> None:
        self._sums = cupy.zeros((len(QUANTITIES), 2), np.float32)

    def add(self, classifier: chainer.links.Classifier) -> None:
        """Adds the classifier's loss and accuracy of now."""
        cuda.elementwise(
            "float32 loss, float32 accuracy",
            "raw float32 sums",
            "sums[0] += loss; sums[1] += loss * loss;"
            "sums[2] += accuracy; sums[3] += accuracy * accuracy;",
            "add_up",
        )(classifier.loss.array, classifier.accuracy.array, self._sums)

    def summaries(self, so_far: Mapping[str, Summary] | None = None) -> dict[str, _Summary]:
        """Begins with the sums so far, or with 0.

        Returns:
            Chainer's Summary of each quantity, which reads the sums here.
        """
        found = {}
        for name, row in zip(QUANTITIES, self._sums, strict=True):
            before = Summary() if so_far is None else so_far[name]
            row[0], row[1] = (cupy.asarray(x, np.float32) for x in (before._x, before._x2))
            found[name] = _Summary(row[0], row[1], before._n)
        return found


class _Summary(Summary):
    """A Summary to which the step itself adds: here the steps are counted."""

    def __init__(self, x: cupy.ndarray, x2: cupy.ndarray, n: int) -> None:
        super().__init__()
        self._x, self._x2, self._n = x, x2, n

    def add(self, value, weight=1) -> None:
        self._n += weight
