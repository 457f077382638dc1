"""Batch Normalization written out in NumPy: forward, backward and running statistics.

Ioffe & Szegedy 2015, algorithm 1 (forward) and section 3 (its gradients, by the chain rule). No
other module uses it; the tests hold it against Chainer's link.
"""

from __future__ import annotations

import numpy as np


class BatchNormalization:
    """Normalizes each of D features over a batch, then scales by gamma and shifts by beta.

    The running statistics start at 0 and average the batches' mean and variance (the biased one,
    of the batch itself), as the BN exercise has it.

    Args:
        size: features, D.
        momentum: what is kept of the running statistics at each batch.
        eps: added to the variance, so that a constant feature divides by no 0.

    Attributes:
        gamma, beta: scale and shift, float64 `(D,)`.
        dgamma, dbeta: the loss's gradients with respect to them, set by `backward`.
        running_mean, running_var: statistics for test mode, float64 `(D,)`.
    """

    def __init__(self, size: int, momentum: float = 0.9, eps: float = 1e-6) -> None:
        self.momentum = momentum
        self.eps = eps
        self.gamma = np.ones(size)
        self.beta = np.zeros(size)
        self.running_mean = np.zeros(size)
        self.running_var = np.zeros(size)

    def forward(self, x: np.ndarray, train: bool = True) -> np.ndarray:
        """Returns y of the shape of `x`, `(N, D)`.

        In training, statistics are the batch's own and move the running ones; in test mode they are
        the running ones.
        """
        if not train:
            x_hat = (x - self.running_mean) / np.sqrt(self.running_var + self.eps)
            return self.gamma * x_hat + self.beta
        mean = x.mean(axis=0)
        var = ((x - mean) ** 2).mean(axis=0)
        self._std = np.sqrt(var + self.eps)
        self._x_hat = (x - mean) / self._std
        keep = self.momentum
        self.running_mean = keep * self.running_mean + (1 - keep) * mean
        self.running_var = keep * self.running_var + (1 - keep) * var
        return self.gamma * self._x_hat + self.beta

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """Returns dx for dy, both `(N, D)`, of the last forward pass in training.

        Mean and variance depend on every x of the batch. That takes out of the gradient its mean
        and what of it lies along x_hat.
        """
        self.dgamma = (dy * self._x_hat).sum(axis=0)
        self.dbeta = dy.sum(axis=0)
        dx_hat = dy * self.gamma
        mean = dx_hat.mean(axis=0)
        along = (dx_hat * self._x_hat).mean(axis=0)
        return (dx_hat - mean - self._x_hat * along) / self._std
