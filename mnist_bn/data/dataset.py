"""What every dataset is: images, their labels, and where they came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

# Not a division by 255: it rounds differently from Chainer's multiplication.
SCALE = np.float32(1.0 / 255.0)


class Split(NamedTuple):
    """Images, float32 in [0, 1], and labels, int32 (N,) from 0 to 9.

    Grey images of 28x28 are (N, 784), colour images (N, 3, height, width).
    """

    images: np.ndarray
    labels: np.ndarray

    @classmethod
    def from_bytes(cls, images: np.ndarray, labels: np.ndarray) -> Split:
        """Scales images, uint8 (N, ...), and takes labels, uint8 (N,), as Chainer's datasets do."""
        scaled = images.astype(np.float32)
        scaled *= SCALE
        return cls(scaled, labels.astype(np.int32))

    def to_bytes(self) -> np.ndarray | None:
        """Returns the bytes, uint8 (N, ...), that `from_bytes` made the images of.

        None if the images are not exactly scaled bytes.
        """
        if self.images.dtype != np.float32:
            return None
        # NaN and numbers out of range become some byte or other, which the comparison finds.
        with np.errstate(invalid="ignore"):
            as_bytes = np.rint(self.images * 255).astype(np.uint8)
        # Compared as integers: -0.0 equals 0.0 as a number, and has other bits.
        scaled, images = (array.view(np.uint32) for array in (as_bytes * SCALE, self.images))
        return as_bytes if np.array_equal(scaled, images) else None


@dataclass(frozen=True, eq=False)
class Dataset:
    """A dataset in memory.

    Attributes:
        name: "mnist", "digits", "cifar10" or "cifar10-unverified": what was really loaded.
        train: the images that networks learn from.
        test: the images that networks are measured on.
        sha256: file name -> SHA-256 of the file, an IDX file or an extracted one of CIFAR-10
            uncompressed, that these images or labels are of.
        origin: where they came from, in plain words.
        note: what else must be said of it, in one line.
        tried: of digits that stand in for MNIST, where that was looked for, a line each.
    """

    name: str
    train: Split
    test: Split
    sha256: dict[str, str]
    origin: str
    note: str = ""
    tried: tuple[str, ...] = ()

    @property
    def is_unverified(self) -> bool:
        """Whether no checksum says that these are the official images."""
        return self.name == "cifar10-unverified"
