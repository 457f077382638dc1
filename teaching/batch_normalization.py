"""Batch Normalization written out in NumPy: forward, backward and running statistics.

Ioffe & Szegedy 2015, algorithm 1 (forward) and section 3 (its gradients, by the chain rule), as the
functions of Stanford's course CS231n, assignment 2, and as the layer of the BN exercise that is
made of them. No other module uses it; the tests hold it against Chainer and numerical gradients.
"""

from __future__ import annotations

import numpy as np

# What the backward passes need of the forward one: x - mean, its deviation, their quotient, gamma.
Cache = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def batchnorm_forward(
    x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, bn_param: dict
) -> tuple[np.ndarray, Cache | None]:
    """Normalizes each of D features over a batch, then scales by gamma and shifts by beta.

    Args:
        x: `(N, D)`.
        gamma, beta: scale and shift, `(D,)`.
        bn_param: "mode", "train" or "test", and if they are given "eps" (added to the variance, so
            that a constant feature divides by no 0; 1e-5) and "momentum" (what is kept of the
            running statistics at each batch; 0.9). Training updates "running_mean" and
            "running_var", `(D,)`, which start at 0 and average the batches' mean and variance (the
            biased one, of the batch itself).

    Returns:
        y, `(N, D)`, and what the backward passes need, None in test mode.

    Raises:
        ValueError: the mode is neither.
    """
    mode, eps, keep = bn_param["mode"], bn_param.get("eps", 1e-5), bn_param.get("momentum", 0.9)
    running_mean = bn_param.setdefault("running_mean", np.zeros(x.shape[1], x.dtype))
    running_var = bn_param.setdefault("running_var", np.zeros(x.shape[1], x.dtype))
    if mode == "test":
        return gamma * (x - running_mean) / np.sqrt(running_var + eps) + beta, None
    if mode != "train":
        raise ValueError(f"mode {mode!r}: expected 'train' or 'test'")
    mean = x.mean(axis=0)
    centred = x - mean
    var = (centred**2).mean(axis=0)
    std = np.sqrt(var + eps)
    x_hat = centred / std
    bn_param["running_mean"] = keep * running_mean + (1 - keep) * mean
    bn_param["running_var"] = keep * running_var + (1 - keep) * var
    return gamma * x_hat + beta, (centred, std, x_hat, gamma)


def batchnorm_backward(dout: np.ndarray, cache: Cache) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns dx, `(N, D)`, dgamma and dbeta, `(D,)`, for dout, `(N, D)`: back through each step.

    If a value went two ways in the forward pass, its gradients are added.
    """
    centred, std, x_hat, gamma = cache
    n = len(dout)
    # y = gamma * x_hat + beta
    dbeta = dout.sum(axis=0)
    dgamma = (dout * x_hat).sum(axis=0)
    dx_hat = dout * gamma
    # x_hat = centred / std
    dstd = -(dx_hat * centred).sum(axis=0) / std**2
    # std = sqrt(var + eps)
    dvar = dstd / (2 * std)
    # centred went into x_hat, and into var = mean(centred ** 2)
    dcentred = dx_hat / std + dvar * 2 * centred / n
    # x went into centred = x - mean, and into mean
    dmean = -dcentred.sum(axis=0)
    return dcentred + dmean / n, dgamma, dbeta


def batchnorm_backward_alt(
    dout: np.ndarray, cache: Cache
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns what `batchnorm_backward` does, by the formula that is left when it is simplified.

    Over a batch x - mean adds up to 0, so nothing of the variance's gradient reaches the mean.
    What mean and variance do to the gradient is then: they take out of it its own mean, and what
    of it lies along x_hat.
    """
    _, std, x_hat, gamma = cache
    dx_hat = dout * gamma
    along = (dx_hat * x_hat).mean(axis=0)
    dx = (dx_hat - dx_hat.mean(axis=0) - x_hat * along) / std
    return dx, (dout * x_hat).sum(axis=0), dout.sum(axis=0)


class BatchNormalization:
    """The layer of the BN exercise: the functions above, with what they keep between batches.

    Args:
        size: features, D.
        momentum: what is kept of the running statistics at each batch.
        eps: added to the variance.

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
        """Returns y of the shape of `x`, `(N, D)`; in training, moves the running statistics."""
        bn_param = {
            "mode": "train" if train else "test",
            "eps": self.eps,
            "momentum": self.momentum,
            "running_mean": self.running_mean,
            "running_var": self.running_var,
        }
        y, self._cache = batchnorm_forward(x, self.gamma, self.beta, bn_param)
        self.running_mean, self.running_var = bn_param["running_mean"], bn_param["running_var"]
        return y

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """Returns dx for dy, both `(N, D)`, of the last forward pass, which was in training."""
        dx, self.dgamma, self.dbeta = batchnorm_backward_alt(dy, self._cache)
        return dx
