"""Softmax cross-entropy and accuracy on a GPU: a launch each."""

from __future__ import annotations

import cupy
import numpy as np
from chainer.functions.evaluation.accuracy import Accuracy
from chainer.functions.loss.softmax_cross_entropy import SoftmaxCrossEntropy

from mnist_bn.gpu.raw import are_float32, launch
from mnist_bn.kernels.seam import Replacements

# A block does a batch, and a thread a row: of more than that, Chainer's many kernels are faster.
_MOST_ROWS, _MOST_CLASSES = 4096, 64


def replacements() -> Replacements:
    """Returns what has Chainer's loss and accuracy compute here, on a GPU."""
    return {
        (SoftmaxCrossEntropy, "forward_gpu"): _softmax_cross_entropy,
        (Accuracy, "forward_gpu"): _accuracy,
    }


def _softmax_cross_entropy(original):
    def forward_gpu(self, inputs):
        x, t = inputs
        if (
            self.class_weight is not None
            or self.reduce != "mean"
            or not self.cache_score
            or not _covers(x, t)
        ):
            return original(self, inputs)
        self.retain_inputs((0, 1))
        self.y = cupy.empty(x.shape, np.float32)
        self._coeff, loss = cupy.empty((), np.float32), cupy.empty((), np.float32)
        outputs = self.y, self._coeff, loss
        _launch("softmax_cross_entropy", x, t, *outputs, len(x), self.ignore_label,
                int(bool(self.normalize)))  # fmt: skip
        return (loss,)

    return forward_gpu


def _accuracy(original):
    def forward_gpu(self, inputs):
        y, t = inputs
        if self.ignore_label is not None or not _covers(y, t):
            return original(self, inputs)
        share = cupy.empty((), np.float32)
        _launch("accuracy", y, t, share, len(y))
        return (share,)

    return forward_gpu


def _covers(x: cupy.ndarray, t: cupy.ndarray) -> bool:
    """Whether x is float32 `(N, classes)`, t int32 `(N,)`, and both are small."""
    return (
        are_float32((x,))
        and x.ndim == 2
        and t.shape == x.shape[:1]
        and t.dtype == np.int32
        and x.shape[0] <= _MOST_ROWS
        and x.shape[1] <= _MOST_CLASSES
    )


def _launch(name: str, x: cupy.ndarray, t: cupy.ndarray, *arguments) -> None:
    x, t = cupy.ascontiguousarray(x), cupy.ascontiguousarray(t)
    launch(("block_sum", "losses"), name, (("CLASSES", x.shape[1]),), (1,), x, t, *arguments)
