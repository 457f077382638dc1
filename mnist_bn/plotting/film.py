"""The film of weight updates (`--observe weight-updates`): a tile a unit, a frame an epoch."""

from __future__ import annotations

import io
import math
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mnist_bn.storage.files import make_folder, replacing

UNITS = 64  # of a network, at most: more are too small to see, and too large a file
COLUMNS = 8
SECONDS_FOR_FFMPEG = 60
GREYS = 16  # a GIF of more is several times as large
SCALE = 2  # screen pixels to one of the image, each way, at least
TILE = 30  # screen pixels of a tile, about: those of small kernels are magnified
SECONDS = 0.4  # a frame
HEAD, MARGIN = 34, 12  # pixels above a network's tiles, and around


class Film(NamedTuple):
    """What a film shows.

    Attributes:
        networks: title -> what the observer measured in a run; they stand side by side, up to the
            end of the shortest.
        unit: what its frames are counted in, "epoch" or "iteration".
    """

    networks: Mapping[str, Mapping[str, np.ndarray]]
    unit: str


def save(film: Film, out: Path, name: str) -> list[Path]:
    """Writes the film `<name>.gif`, and `<name>.mp4` if there is ffmpeg.

    Raises:
        UserError: a file cannot be written.
    """
    pictures = frames(*film)
    paths = [_write(out / f"{name}.gif", _gif(pictures))]
    video = _mp4(pictures) if shutil.which("ffmpeg") is not None else None
    return paths if video is None else [*paths, _write(out / f"{name}.mp4", video)]


def frames(networks: Mapping[str, Mapping[str, np.ndarray]], unit: str) -> list[Image.Image]:
    """Returns grey pictures of the same size, one for each measurement."""
    layers = [_first_layer(series) for series in networks.values()]
    length = min(map(len, layers))
    times = next(iter(networks.values()))[unit]
    return [
        _frame([layer[t] for layer in layers], list(networks), f"{unit} {times[t]}")
        for t in range(length)
    ]


def _first_layer(series: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns `(T, units, height, width)` of the first layer that was measured."""
    return next(array for key, array in series.items() if key not in ("epoch", "iteration"))


def _frame(layers: Sequence[np.ndarray], titles: Sequence[str], when: str) -> Image.Image:
    grids = [_grid(tiles) for tiles in layers]
    font = ImageFont.load_default(15)
    heads = [f"{title}, {when}" for title in titles]
    # A convolution's tiles are small: its head may be wider than they are.
    columns = [
        max(grid.shape[1], math.ceil(font.getlength(head)))
        for grid, head in zip(grids, heads, strict=True)
    ]
    width = sum(column + MARGIN for column in columns) + MARGIN
    height = max(grid.shape[0] for grid in grids) + HEAD + MARGIN
    frame = Image.new("L", (width + width % 2, height + height % 2), 255)  # even, for video
    draw, left = ImageDraw.Draw(frame), MARGIN
    for grid, head, column in zip(grids, heads, columns, strict=True):
        frame.paste(Image.fromarray(grid), (left, HEAD))
        draw.text((left, 9), head, fill=0, font=font)
        left += column + MARGIN
    return frame


def _grid(tiles: np.ndarray) -> np.ndarray:
    """Returns the first UNITS of `(units, height, width)` in rows of COLUMNS, in few greys."""
    tiles = tiles[:UNITS] // (256 // GREYS) * (255 // (GREYS - 1))
    scale = max(SCALE, TILE // max(tiles.shape[1:]))
    tiles = tiles.repeat(scale, axis=1).repeat(scale, axis=2)
    tiles = np.pad(tiles, ((0, -len(tiles) % COLUMNS), (0, SCALE), (0, SCALE)), constant_values=255)
    rows = tiles.reshape(-1, COLUMNS, *tiles.shape[1:])
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows])


def _gif(frames: Sequence[Image.Image]) -> bytes:
    palette = [level for grey in range(GREYS) for level in [grey * 255 // (GREYS - 1)] * 3]
    coloured = []
    for frame in frames:
        indexes = np.rint(np.asarray(frame) * ((GREYS - 1) / 255)).astype(np.uint8)
        image = Image.fromarray(indexes, mode="P")
        image.putpalette(palette)
        coloured.append(image)
    file = io.BytesIO()
    coloured[0].save(
        file,
        format="GIF",
        save_all=True,
        append_images=coloured[1:],
        duration=round(1000 * SECONDS),
        loop=0,
    )
    return file.getvalue()


def _mp4(frames: Sequence[Image.Image]) -> bytes | None:
    """Returns the film as H.264 in MP4, None if this ffmpeg cannot make it, or not in time."""
    width, height = frames[0].size
    command = ["ffmpeg", "-v", "error", "-f", "rawvideo", "-pix_fmt", "gray"]
    command += ["-s", f"{width}x{height}", "-r", str(1 / SECONDS), "-i", "-", "-pix_fmt", "yuv420p"]
    # To a pipe, MP4 must be fragmented: ffmpeg cannot go back and write its index in front.
    command += ["-movflags", "frag_keyframe+empty_moov", "-f", "mp4", "-"]
    pixels = b"".join(frame.tobytes() for frame in frames)
    try:
        done = subprocess.run(
            command, input=pixels, capture_output=True, check=True, timeout=SECONDS_FOR_FFMPEG
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout or None


def _write(path: Path, content: bytes) -> Path:
    make_folder(path.parent)
    with replacing(path) as file:
        file.write(content)
    return path
