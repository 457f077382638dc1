"""What `arm.py` runs inside the emulated machine: kernels beside stock Chainer in float64."""

from __future__ import annotations

import sys

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np

import models
from mnist_bn import kernels
from mnist_bn.kernels import build, convolution, threads

NETWORKS = ("MnistCNN", "MnistCNN_BN_before", "MnistCNN_BN_after", "MnistCNN_BN_linear_before")
IMAGES = np.random.RandomState(1).rand(20, 784)
LABELS = np.random.RandomState(2).randint(0, 10, 20).astype(np.int32)


def passes(name: str, mode: str, dtype: type) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Returns the gradients, and the logits in test mode."""
    kernels.install(mode)
    chainer.global_config.dtype = dtype
    np.random.seed(0)
    classifier = L.Classifier(models.create(name))
    images = IMAGES.astype(dtype)
    np.random.seed(3)  # dropout's masks
    loss = classifier(images, LABELS)
    classifier.cleargrads()
    loss.backward()
    gradients = {path: p.grad.copy() for path, p in classifier.namedparams()}
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        logits = classifier.predictor(images).array
    return gradients, logits


def relative(found: np.ndarray, exact: np.ndarray) -> float:
    """Returns the largest difference over the largest number."""
    return float(np.abs(found - exact).max() / np.abs(exact).max())


def check_networks() -> int:
    """Prints the errors of all four networks; returns how many are too large."""
    failed = 0
    for name in NETWORKS:
        exact = passes(name, "off", np.float64)
        found = passes(name, "on", np.float32)
        # Of some parameters before BN the gradient is zero in theory.
        real = [path for path, g in exact[0].items() if np.abs(g).max() > 1e-9]
        error = max(relative(found[0][path], exact[0][path]) for path in real)
        logits = relative(found[1], exact[1])
        is_bad = not (error < 1e-4 and logits < 1e-5)
        failed += is_bad
        print(f"{name}: gradients {error:.1e}, logits {logits:.1e}{' BAD' * is_bad}", flush=True)
    return failed


def check_winograd() -> int:
    """Prints the error of Winograd's convolution; returns 1 if it is too large."""
    kernels.install("on")
    convolution.use("winograd")
    rng = np.random.RandomState(0)
    x, w = (rng.randn(*shape).astype(np.float32) for shape in ((4, 32, 14, 13), (48, 32, 3, 3)))
    found = F.convolution_2d(x, w, pad=1).array
    kernels.install("off")
    exact = F.convolution_2d(x.astype(np.float64), w.astype(np.float64), pad=1).array
    error = relative(found, exact)
    print(f"Winograd: {error:.1e}", flush=True)
    return int(not error < 1e-5)


def check_threads() -> int:
    """Prints whether one thread and three have the same bits; returns 1 if not."""
    seen = []
    for count in (1, 3):
        kernels.install("on")
        threads.set_count(count)
        gradients, logits = passes("MnistCNN_BN_before", "on", np.float32)
        seen.append([*(g.tobytes() for g in gradients.values()), logits.tobytes()])
    print(f"threads: {'the same bits' if seen[0] == seen[1] else 'BAD'}", flush=True)
    return int(seen[0] != seen[1])


if __name__ == "__main__":
    print(f"kernels: {build.instruction_set()}", flush=True)
    sys.exit(min(1, check_networks() + check_winograd() + check_threads()))
