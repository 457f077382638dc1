"""Batch Normalization, reproduced on Chainer.

from mnist_bn import load_run
logits = load_run("result/MnistCNN_BN_before-SGD-s0")(images)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mnist_bn import versions

if TYPE_CHECKING:
    from mnist_bn.data.own_images import digit_image
    from mnist_bn.trained import load_run

__all__ = ["digit_image", "load_run"]

versions.check()


def __getattr__(name: str) -> Any:
    # Chainer comes with them, and takes half a second.
    if name == "load_run":
        from mnist_bn.trained import load_run

        return load_run
    if name == "digit_image":
        from mnist_bn.data.own_images import digit_image

        return digit_image
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
