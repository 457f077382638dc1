"""What every dataset is: images, their labels, and where they came from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import chainer
import numpy as np

if TYPE_CHECKING:
    from mnist_bn.devices import NdArray

# Not a division by 255: it rounds differently from Chainer's multiplication.
SCALE = np.float32(1.0 / 255.0)


class Split:
    """Images, float32 in [0, 1], and labels, int32 (N,) from 0 to 9; iterates over these two.

    Grey images of 28x28 are (N, 784), colour images (N, 3, height, width).

    Attributes:
        pixels: what the images are kept as, uint8 of a fourth of the size, or they themselves.
        labels: the labels.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.pixels, self.labels = images, labels

    @classmethod
    def from_bytes(cls, images: np.ndarray, labels: np.ndarray) -> Split:
        """Takes images, uint8 (N, ...), and labels, uint8 (N,), to be as Chainer's datasets are."""
        return cls(images, labels.astype(np.int32))

    @property
    def images(self) -> np.ndarray:
        """All images, float32 (N, ...): a new array for each look if they are kept as bytes."""
        return scaled(self.pixels)

    @property
    def shape(self) -> tuple[int, ...]:
        """The images' shape."""
        return self.pixels.shape

    def part(self, index: slice | np.ndarray) -> Split:
        """Returns the examples that an index of arrays chooses, kept as these are."""
        return Split(self.pixels[index], self.labels[index])

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter((self.images, self.labels))


def scaled(pixels: NdArray) -> NdArray:
    """Returns the images of pixels: bytes scaled to float32 in [0, 1], others as they are."""
    if pixels.dtype != np.uint8:
        return pixels
    xp = chainer.backend.get_array_module(pixels)
    return xp.multiply(pixels, SCALE, dtype=np.float32)


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
