"""Reading IDX files: what is right, and one clear line for each thing that can be wrong."""

import gzip
import hashlib
import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_bn.data import idx
from mnist_bn.errors import UserError

PIXELS = np.random.RandomState(0).randint(0, 256, (3, 28, 28)).astype(np.uint8)
IMAGES = struct.pack(">4I", 2051, 3, 28, 28) + PIXELS.tobytes()
LABELS = struct.pack(">2I", 2049, 4) + bytes([7, 0, 9, 1])
GZIPPED = gzip.compress(LABELS)


@pytest.mark.parametrize("name", ["plain", "gzipped.gz", "gzipped-without-the-name"])
def test_reads_images_and_labels_gzipped_or_not(tmp_path, name):
    pack = gzip.compress if "gzipped" in name else bytes
    (tmp_path / f"i-{name}").write_bytes(pack(IMAGES))
    (tmp_path / f"l-{name}").write_bytes(pack(LABELS))

    images = idx.read(tmp_path / f"i-{name}", idx.IMAGES)
    labels = idx.read(tmp_path / f"l-{name}", idx.LABELS)

    assert images.dtype == labels.dtype == np.uint8
    np.testing.assert_array_equal(images, PIXELS)
    np.testing.assert_array_equal(labels, [7, 0, 9, 1])


def test_sha256_is_that_of_the_uncompressed_file(tmp_path):
    for content, kind in ((IMAGES, idx.IMAGES), (LABELS, idx.LABELS)):
        path = tmp_path / kind.name
        path.write_bytes(gzip.compress(content))
        assert idx.sha256(idx.read(path, kind)) == hashlib.sha256(content).hexdigest()


BAD = {
    "empty": (b"", "labels", "an IDX header of 8 bytes, found 0 bytes"),
    "half a header": (IMAGES[:15], "images", "an IDX header of 16 bytes, found 15 bytes"),
    "labels for images": (
        LABELS + bytes(16),
        "images",
        "magic number 2051 (images), found 2049",
    ),
    "a picture": (b"\x89PNG\r\n\x1a\n", "labels", "magic number 2049 (labels), found 2303741511"),
    "image size": (
        struct.pack(">4I", 2051, 1, 32, 30) + bytes(960),
        "images",
        "images of 28x28 pixels, found 32x30 pixels",
    ),
    "no image": (
        struct.pack(">4I", 2051, 0, 28, 28),
        "images",
        "1 to 60,000 images, found a header that says 0",
    ),
    "4 billion images": (
        struct.pack(">4I", 2051, 2**32 - 1, 28, 28),
        "images",
        "1 to 60,000 images, found a header that says 4,294,967,295",
    ),
    "truncated": (
        IMAGES[:-1],
        "images",
        "3 images in 2,352 bytes after the header, found 2,351",
    ),
    "trailing": (LABELS + b"\0", "labels", "4 labels in 4 bytes after the header, found more"),
    "label 10": (LABELS[:-1] + b"\x0a", "labels", "labels from 0 to 9, found 10"),
    "not gzip.gz": (LABELS, "labels", "gzip data, as the name says, found other data"),
    "empty.gz": (b"", "labels", "gzip data, as the name says, found an empty file"),
    "truncated.gz": (
        GZIPPED[:-9],
        "labels",
        "intact gzip data, found damage (Compressed file ended before the end-of-stream marker"
        " was reached)",
    ),
    "gzip method.gz": (
        GZIPPED[:2] + b"\x07" + GZIPPED[3:],
        "labels",
        "intact gzip data, found damage (Unknown compression method)",
    ),
    "nothing in.gz": (
        gzip.compress(b""),
        "labels",
        "an IDX header of 8 bytes, found 0 bytes",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_line_that_names_it(tmp_path, name):
    content, kind, complaint = BAD[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        idx.read(path, {"images": idx.IMAGES, "labels": idx.LABELS}[kind])
    assert str(caught.value) == f"{path}: expected {complaint}; get the file again"


def test_gzip_checksum_is_checked(tmp_path):
    path = tmp_path / "labels.gz"
    path.write_bytes(GZIPPED[:-8] + bytes(4) + GZIPPED[-4:])
    with pytest.raises(UserError, match=r"expected intact gzip data, found damage \(CRC check"):
        idx.read(path, idx.LABELS)


def test_a_gzip_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "labels.gz"
    path.write_bytes(gzip.compress(LABELS + bytes(200_000_000), compresslevel=1))
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="found more"):
            idx.read(path, idx.LABELS)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_a_huge_file_is_not_read(tmp_path):
    path = tmp_path / "labels"
    path.touch()
    os.truncate(path, 10**12)
    with pytest.raises(UserError) as caught:
        idx.read(path, idx.LABELS)
    assert str(caught.value) == (
        f"{path}: expected at most 67,108,864 bytes, found 1,000,000,000,000; get the file again"
    )


def test_what_is_not_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    for path, complaint in (
        (tmp_path, "expected a file of labels, found a folder; get the file again"),
        (
            tmp_path / "pipe",
            "expected a file of labels, found a device or pipe; get the file again",
        ),
        (tmp_path / "broken", "cannot be read: No such file or directory"),
    ):
        with pytest.raises(UserError) as caught:
            idx.read(path, idx.LABELS)
        assert str(caught.value) == f"{path}: {complaint}"


def test_no_permission(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "labels"
    path.write_bytes(LABELS)
    monkeypatch.setattr(Path, "open", refuse)  # chmod does not stop root
    with pytest.raises(UserError) as caught:
        idx.read(path, idx.LABELS)
    assert str(caught.value) == f"{path}: cannot be read: Permission denied"


HEADERS = st.builds(
    lambda magic, count, sizes: struct.pack(f">{2 + len(sizes)}I", magic, count, *sizes),
    st.sampled_from([2049, 2051, 0]),
    st.sampled_from([0, 1, 2, 60_000, 60_001, 2**32 - 1]),
    st.sampled_from([(), (28, 28), (28, 2**32 - 1)]),
)
PLAIN = st.one_of(
    st.binary(max_size=64),
    st.builds(bytes.__add__, HEADERS, st.binary(max_size=2000)),
    st.integers(0, len(LABELS)).map(lambda cut: LABELS[:cut]),
)


@st.composite
def damaged(draw, intact):
    content = bytearray(intact)
    for _ in range(draw(st.integers(0, 3))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content[: draw(st.integers(0, len(content)))]) + draw(st.binary(max_size=20))


ANY = st.one_of(
    PLAIN,
    PLAIN.map(gzip.compress),
    damaged(GZIPPED),
    damaged(gzip.compress(IMAGES)),
    st.binary(max_size=50).map(lambda tail: b"\x1f\x8b\x08" + tail),
)


@given(content=ANY, name=st.sampled_from(["f", "f.gz"]), kind=st.sampled_from(["IMAGES", "LABELS"]))
def test_any_bytes_give_an_array_or_one_line(tmp_path_factory, content, name, kind):
    kind = getattr(idx, kind)
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(content)
    try:
        array = idx.read(path, kind)
    except UserError as error:
        assert str(error).startswith(f"{path}: ")
        assert "\n" not in str(error)
    else:
        assert array.dtype == np.uint8
        assert array.shape[1:] == kind.item_shape
        assert 1 <= len(array) <= idx.MAX_COUNT
        assert array.max() <= kind.max_value
