"""Faster CPU kernels behind Chainer's own functions; everything works without them.

`install()` replaces methods of Chainer's function nodes and update rules by ones that call compiled
kernels if they cover the case, and Chainer's originals otherwise. Any Chain gains.
"""

from __future__ import annotations

import os

from mnist_bn.errors import UserError
from mnist_bn.kernels import (
    backprop,
    blocks,
    build,
    convolution,
    dense,  # noqa: F401  # it declares functions that wait
    depthwise,
    graph,
    invisible,
    layers,
    linear,
    pooling,
    residual,
    seam,
    threads,
    updates,
    waiting,
)

MODES = ("auto", "on", "off")
STOCK = "off"

_active = STOCK


class AccelerationUnavailable(UserError):
    """Acceleration was asked for by name and is not to be had."""


def install(mode: str = "auto") -> str:
    """Switches the kernels on, or off; a second call with the same mode changes nothing.

    Args:
        mode: "auto" takes them if they can be had, unless MNIST_BN_ACCELERATE=off; "on" insists;
            "off" is stock Chainer. MNIST_BN_CONVOLUTION says how they convolve; see
            `convolution.method_asked_for`.

    Returns:
        The instruction set that the kernels use, or "off".

    Raises:
        AccelerationUnavailable: mode is "on" and there are none.
        UsageError: MNIST_BN_CONVOLUTION or MNIST_BN_ISA names nothing that there is.
    """
    method = convolution.method_asked_for()
    if mode == "off" or (mode == "auto" and os.environ.get("MNIST_BN_ACCELERATE") == "off"):
        uninstall()
        return STOCK
    try:
        library = build.load()
    except build.Unavailable as reason:
        uninstall()
        if mode == "on":
            raise AccelerationUnavailable(f"--accelerate on: {reason}") from None
        return STOCK
    if _active == STOCK:
        seam.install(
            convolution.replacements(library)
            | layers.replacements(library)
            | pooling.replacements(library)
            | residual.replacements(library)
            | updates.replacements(library)
            | graph.replacements()
            | backprop.replacements()
        )
        depthwise.use(library)
        blocks.use(library)
        linear.use(library)
        threads.use(library)
        waiting.remember_methods()
        seam.install(invisible.replacements())  # around those
        _set_active(build.instruction_set())
    convolution.use(method)
    return _active


def uninstall() -> None:
    """Restores stock Chainer."""
    waiting.compute_all()
    seam.uninstall()
    _set_active(STOCK)


def active() -> str:
    """Returns the instruction set of the kernels in use, or "off"."""
    return _active


def convolution_method() -> str:
    """Returns how convolutions are computed, one of `convolution.METHODS`: stock's are direct."""
    return "direct" if _active == STOCK else convolution.method_in_use()


def why_not() -> str | None:
    """Returns one line on why there are no kernels and how to get them, None if there are."""
    try:
        build.load()
    except build.Unavailable as reason:
        return str(reason)
    return None


def _set_active(value: str) -> None:
    global _active
    _active = value
