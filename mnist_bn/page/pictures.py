"""Small grey pictures inside the page."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image


def address(pixels: np.ndarray | Image.Image) -> str:
    """Returns a picture as the address of an `<img>`, a PNG.

    Args:
        pixels: uint8 `(height, width)` or `(height, width, 3)`, or a picture.
    """
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def scaled(values: np.ndarray) -> np.ndarray:
    """Returns numbers as uint8: 0 is the middle grey, the largest absolute white or black."""
    largest = float(np.abs(values).max()) or 1.0
    return np.round(127.5 + 127.5 * values / largest).astype(np.uint8)


def grid(tiles: np.ndarray, columns: int, scale: int) -> np.ndarray:
    """Returns uint8 tiles `(N, height, width)` in rows, magnified, with white lines between."""
    tiles = tiles.repeat(scale, axis=1).repeat(scale, axis=2)
    tiles = np.pad(tiles, ((0, -len(tiles) % columns), (0, 2), (0, 2)), constant_values=255)
    rows = tiles.reshape(-1, columns, *tiles.shape[1:])
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
