"""One's own image of a digit, made like those of MNIST."""

from __future__ import annotations

import numpy as np
from PIL import Image

SIZE, BOX = 28, 20


def digit_image(image: Image.Image) -> np.ndarray:
    """Returns an image of one digit as MNIST's are: float32 `(784,)`, from 0 to 1.

    As MNIST's page says of its images: the digit fits into a box of 20x20 with its aspect ratio
    kept, and its centre of mass is the centre of 28x28; it is white on black, so an image whose
    border is mostly bright is inverted.

    Args:
        image: of any size and mode; what is transparent counts as white.

    Raises:
        ValueError: there is nothing on it but its background.
    """
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    pixels = np.asarray(Image.alpha_composite(white, image).convert("L"), np.float32) / 255
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    background = float(np.median(border))
    ink = background - pixels if background > 0.5 else pixels - background
    ink = np.clip(ink, 0, None)
    if ink.max() < 0.1:
        raise ValueError("there is no digit on the image, only its background")
    ink /= ink.max()
    # Noise of paper and camera is no ink.
    rows, columns = (np.flatnonzero((ink > 0.25).any(axis=axis)) for axis in (1, 0))
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = BOX / max(ink.shape)
    height, width = (max(1, round(scale * length)) for length in ink.shape)
    small = Image.fromarray(np.uint8(np.round(255 * ink))).resize(
        (width, height), Image.Resampling.BOX
    )
    digit = np.asarray(small, np.float32) / 255
    centre = [
        round(float((digit.sum(axis=1 - axis) * np.arange(length)).sum() / digit.sum()))
        for axis, length in enumerate(digit.shape)
    ]
    top, left = (
        min(max(0, SIZE // 2 - where), SIZE - length)
        for where, length in zip(centre, digit.shape, strict=True)
    )
    result = np.zeros((SIZE, SIZE), np.float32)
    result[top : top + height, left : left + width] = digit
    return result.reshape(-1)
