"""The film of weight updates."""

import sys

import numpy as np
import pytest
from PIL import Image

from mnist_bn.plotting import film


def test_a_film_has_a_frame_an_epoch_and_a_tile_a_unit(tmp_path):
    tiles = np.zeros((3, 70, 28, 28), np.uint8)
    tiles[1, 0] = 255
    series = {"epoch": np.arange(1, 4), "iteration": np.arange(3), "l1": tiles}
    short = {key: array[:2] for key, array in series.items()}
    assert film._grid(tiles[0]).shape == (8 * 58, 8 * 58)  # the first 64, twice 28 and a gap of 2
    (path,) = [
        p
        for p in film.save(film.Film({"a": series}, "epoch"), tmp_path, "film")
        if p.suffix == ".gif"
    ]
    with Image.open(path) as gif:
        assert gif.n_frames == 3
        levels = []
        for i in range(3):
            gif.seek(i)
            pixel = np.asarray(gif.convert("L"))[film.HEAD + 20, film.MARGIN + 20]
            levels.append(int(pixel))
    assert levels == [0, 255, 0]
    film.save(film.Film({"a": series, "b": short}, "epoch"), tmp_path, "two")
    with Image.open(tmp_path / "two.gif") as gif:
        assert gif.n_frames == 2


def test_the_mp4_is_left_out_without_ffmpeg(tmp_path, monkeypatch):
    monkeypatch.setattr(film.shutil, "which", lambda name: None)
    tiles = np.zeros((2, 3, 28, 28), np.uint8)
    series = {"epoch": np.arange(2), "iteration": np.arange(2), "l1": tiles}
    assert [
        path.name for path in film.save(film.Film({"a": series}, "epoch"), tmp_path, "film")
    ] == ["film.gif"]


def test_ffmpeg_gets_every_pixel_of_the_film(tmp_path, monkeypatch):
    """A stand-in for ffmpeg that gives back what it was given."""
    ffmpeg = tmp_path / "ffmpeg"
    ffmpeg.write_text(
        f"#!{sys.executable}\n"
        "import pathlib, shutil, sys\n"
        "arguments = pathlib.Path(sys.argv[0]).with_name('arguments')\n"
        "arguments.write_text(' '.join(sys.argv[1:]))\n"
        "shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)\n"
    )
    ffmpeg.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    tiles = np.zeros((2, 3, 28, 28), np.uint8)
    series = {"epoch": np.arange(2), "iteration": np.arange(2), "l1": tiles}
    paths = film.save(film.Film({"a": series}, "epoch"), tmp_path, "film")
    assert [path.name for path in paths] == ["film.gif", "film.mp4"]
    with Image.open(paths[0]) as gif:
        width, height = gif.size
    assert (width % 2, height % 2) == (0, 0)  # as video wants it
    assert paths[1].stat().st_size == 2 * width * height
    assert f"-s {width}x{height}" in (tmp_path / "arguments").read_text()


@pytest.mark.parametrize(
    "does", ["#!/bin/sh\nexit 1\n", "#!/bin/sh\n", "#!/bin/sh\nsleep 5\n", "#!/no/shell\n"]
)
def test_an_ffmpeg_that_cannot_costs_only_the_mp4(tmp_path, monkeypatch, does):
    """It fails, writes nothing, is slow, or cannot be started."""
    (tmp_path / "ffmpeg").write_text(does)
    (tmp_path / "ffmpeg").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(film, "SECONDS_FOR_FFMPEG", 0.3)
    tiles = np.zeros((2, 3, 28, 28), np.uint8)
    series = {"epoch": np.arange(2), "iteration": np.arange(2), "l1": tiles}
    paths = film.save(film.Film({"a": series}, "epoch"), tmp_path, "film")
    assert [path.name for path in paths] == ["film.gif"]


@pytest.mark.skipif(film.shutil.which("ffmpeg") is None, reason="no ffmpeg")
def test_ffmpeg_makes_a_video(tmp_path):
    tiles = np.zeros((2, 3, 28, 28), np.uint8)
    series = {"epoch": np.arange(2), "iteration": np.arange(2), "l1": tiles}
    _, video = film.save(film.Film({"a": series}, "epoch"), tmp_path, "film")
    assert video.read_bytes()[4:8] == b"ftyp"


def test_a_film_of_small_kernels_is_magnified_and_as_wide_as_its_head():
    random = np.random.RandomState(0)
    tiles = random.randint(256, size=(2, 16, 3, 3)).astype(np.uint8)
    assert film._grid(tiles[0]).shape == (2 * 32, 8 * 32)  # ten times 3, and a gap of 2
    name = "MnistCNN_BN_before-SGD-digits-lr0.05-b100-crop-flip-s0"
    clock = np.arange(1, 3)
    frame = film.frames({name: {"epoch": clock, "iteration": clock, "conv1": tiles}}, "epoch")[0]
    pixels = np.asarray(frame)[: film.HEAD]
    dark = np.flatnonzero((pixels < 128).any(axis=0))
    assert frame.width - dark[-1] > film.MARGIN // 2  # the head is not cut
    assert frame.width > 8 * 32 + 2 * film.MARGIN
