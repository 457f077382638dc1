"""CIFAR-10 in its binary version: found in the user's folder or our cache, or downloaded.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. Each of six files holds
10,000 records: a label byte, then the red, green and blue plane of 32x32 bytes, row by row
(https://www.cs.toronto.edu/~kriz/cifar.html). The Python version is pickled, and never opened.

The checksum is that of the archive as it is published. None is known of the files in it, so that
extracted ones are read only if the user says so, under another name.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, cast

import numpy as np

from mnist_bn.data import cache, layout, reading
from mnist_bn.data.dataset import Dataset, Split
from mnist_bn.errors import UsageError, UserError
from mnist_bn.storage import files
from mnist_bn.terminal import wording

TITLE = "CIFAR-10"
ARCHIVE = "cifar-10-binary.tar.gz"
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
MIRRORS = ("https://www.cs.toronto.edu/~kriz/",)
FOLDER = "cifar-10-batches-bin"  # in the archive
TRAIN_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST_FILE = "test_batch.bin"

RECORDS = 10_000  # in an official file
IMAGE_SHAPE = (3, 32, 32)
RECORD_BYTES = 1 + 3 * 32 * 32

# The bounds keep a bad file from taking the memory or the day.
MAX_RECORDS = 60_000
MAX_BYTES = 256 * 2**20

_PYTHON_VERSION = ("cifar-10-python.tar.gz", "cifar-10-batches-py", "data_batch_1", "batches.meta")

# The contents of files: file name -> uint8 (N, 3073), a label and an image in a row.
Records = dict[str, np.ndarray]


def load(
    data_dir: Path | None = None, *, is_asked: bool = True, unverified: bool = False
) -> Dataset:
    """Loads CIFAR-10 from `data_dir`, our cache or the network: the first that has it.

    Args:
        data_dir: a folder with the official archive, or with extracted files.
        is_asked: False passes over a `data_dir` that has nothing of CIFAR-10.
        unverified: if `data_dir` has no archive, take extracted files, as many as there are. The
            dataset is then called "cifar10-unverified".

    Returns:
        Its images are float32 (N, 3, 32, 32) in [0, 1].

    Raises:
        UsageError: `data_dir` has nothing of it.
        UserError: no source has it, or what `data_dir` has of it is bad, or not verified.
    """
    tried = []
    if data_dir is not None:
        dataset = _from_folder(data_dir, unverified)
        if dataset is not None:
            return dataset
        tried.append(f"{data_dir} has {_what_instead(data_dir)}")
        if is_asked:
            raise UsageError(f"--data-dir: {tried[0]}; expected {_expected()}")
    try:
        return _official(*_from_cache_or_mirrors())
    except UserError as error:
        tried.append(str(error))
    raise UserError(
        f"no CIFAR-10: {'; '.join(tried)}; put {_expected()} in a folder and name it with "
        f"--data-dir, or copy {cache_folder()} from a machine that has a network"
    )


def cache_folder() -> Path:
    """Returns the folder that the downloaded archive is kept in."""
    return cache.folder("cifar10")


def _expected() -> str:
    return f"{ARCHIVE} (from {MIRRORS[0]}{ARCHIVE})"


def _what_instead(folder: Path) -> str:
    """Returns in words what a folder without CIFAR-10's binary version has."""
    if set(_PYTHON_VERSION).intersection(layout.names(folder)):
        return "only CIFAR-10's Python version, whose pickles are not opened"
    return "none of CIFAR-10's files"


def _from_folder(folder: Path, unverified: bool) -> Dataset | None:
    """Returns the dataset of the user's folder, None if there is nothing of it."""
    path = layout.first_file(folder, (ARCHIVE,))
    if path is not None:
        return _official(_read_archive(files.read_bytes(path, MAX_BYTES), str(path)), str(folder))
    paths = _extracted(folder)
    if not paths and os.path.isdir(folder / FOLDER):
        paths = _extracted(folder / FOLDER)
    if not paths:
        return None
    if not unverified:
        raise UserError(
            f"{folder}: extracted files, which no checksum is known of: put {_expected()} there, "
            "or take them as they are with --unverified-data, and every result is labelled so"
        )
    return _unverified(folder, paths)


def _extracted(folder: Path) -> dict[str, Path]:
    """Returns file name -> path, of the extracted files in a folder, gzipped or not."""
    found = {
        name: layout.first_file(folder, (name, f"{name}.gz")) for name in (*TRAIN_FILES, TEST_FILE)
    }
    return {name: path for name, path in found.items() if path is not None}


def _unverified(folder: Path, paths: dict[str, Path]) -> Dataset:
    train = [name for name in TRAIN_FILES if name in paths]
    if not train or TEST_FILE not in paths:
        missing = TEST_FILE if train else f"one or more of {TRAIN_FILES[0]} to {TRAIN_FILES[-1]}"
        raise UserError(
            f"{folder}: expected training and test images, found {', '.join(paths)}; add {missing}"
        )
    records = {
        name: reading.read(path, "CIFAR-10's records", MAX_BYTES, _read_records)
        for name, path in paths.items()
    }
    return Dataset(
        "cifar10-unverified",
        _split([records[name] for name in train]),
        _split([records[TEST_FILE]]),
        {name: hashlib.sha256(rows.data).hexdigest() for name, rows in records.items()},
        str(folder),
        "not verified to be the official images: every result is labelled so",
    )


def _official(records: Records, origin: str) -> Dataset:
    train = _split([records[name] for name in TRAIN_FILES])
    return Dataset("cifar10", train, _split([records[TEST_FILE]]), {ARCHIVE: SHA256}, origin)


def _split(parts: Sequence[np.ndarray]) -> Split:
    images = np.concatenate([rows[:, 1:] for rows in parts])
    return Split.from_bytes(
        images.reshape(-1, *IMAGE_SHAPE), np.concatenate([rows[:, 0] for rows in parts])
    )


def _read_records(file: reading.Readable, source: str) -> np.ndarray:
    """Reads records, uint8 (N, 3073), to the end of the file."""
    # One byte more than there may be. Of gzip data this finds the end, where its checksum is.
    body = file.read(MAX_RECORDS * RECORD_BYTES + 1)
    if len(body) > MAX_RECORDS * RECORD_BYTES:
        raise reading.bad(source, f"at most {MAX_RECORDS:,} records", "more")
    if not body or len(body) % RECORD_BYTES:
        expected = f"one record or more, each a label and 3 planes of 32x32, {RECORD_BYTES:,} bytes"
        raise reading.bad(source, expected, wording.count(len(body), "byte"))
    records: np.ndarray = np.frombuffer(body, np.uint8).reshape(-1, RECORD_BYTES)
    if records[:, 0].max() > 9:
        raise reading.bad(source, "labels from 0 to 9", f"{records[:, 0].max()}")
    return records


def _read_archive(content: bytes, source: str) -> Records:
    """Reads the official archive, in memory; nothing of another one is looked at."""
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise UserError(
            f"{source}: not the official archive: expected SHA-256 {SHA256}, found {found}; get the"
            " file again"
        )
    wanted = {f"{FOLDER}/{name}": name for name in (*TRAIN_FILES, TEST_FILE)}
    records = {}
    with tarfile.open(fileobj=io.BytesIO(content), mode="r|gz") as archive:
        for member in archive:
            if member.name in wanted and member.isfile():
                if member.size != RECORDS * RECORD_BYTES:
                    raise reading.bad(
                        f"{source}, {member.name}",
                        f"{RECORDS * RECORD_BYTES:,} bytes",
                        f"{member.size:,}",
                    )
                file = cast(IO[bytes], archive.extractfile(member))  # a file, no folder
                records[wanted[member.name]] = _read_records(file, f"{source}, {member.name}")
    return records


def _from_cache_or_mirrors() -> tuple[Records, str]:
    path = cache_folder() / ARCHIVE
    try:
        return _read_archive(files.read_bytes(path, MAX_BYTES), str(path)), f"the cache ({path})"
    except UserError:
        records, mirror = cache.fetch(path, MIRRORS, _read_archive)
        return records, f"downloaded from {mirror}"
