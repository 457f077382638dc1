"""MNIST: found in the user's folder or in a cache, or downloaded, and always checked.

The checksums are of the four files that http://yann.lecun.com/exdb/mnist/ published, uncompressed:
mirrors and users compress them anew.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mnist_bn.data import cache, idx, layout
from mnist_bn.data.dataset import Dataset, Split
from mnist_bn.errors import UserError
from mnist_bn.storage import archives, files

TITLE = "MNIST"
SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
PAIRS = (
    ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
)
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
# Where they may be in the folder that is named; torchvision keeps them in MNIST/raw.
_FOLDERS = ("MNIST/raw", "raw", "MNIST", "mnist")

# The contents of the four files: file name -> uint8, (N, 28, 28) images or (N,) labels.
Arrays = dict[str, np.ndarray]


class NotAvailableError(UserError):
    """There is no MNIST at hand and none to be downloaded.

    Attributes:
        tried: where it was looked for and why it was not had there, a line each.
    """

    def __init__(self, tried: Sequence[str]) -> None:
        super().__init__(
            f"no MNIST: {'; '.join(tried)}; name a folder of its four files with --data-dir, copy "
            f"{cache_folder()} from a machine that has a network, or use --dataset digits"
        )
        self.tried = tuple(tried)


def load(data_dir: Path | None = None) -> Dataset:
    """Loads MNIST from `data_dir`, Chainer's cache, our cache or a mirror: the first that has it.

    Raises:
        NotAvailableError: no source has it.
        UserError: some of its files are in `data_dir`, but not all, or a bad one.
    """
    tried = []
    if data_dir is not None:
        folder, paths = _find(data_dir)
        if paths:
            return _dataset(_read_all(folder, paths), str(folder))
        tried.append(f"{data_dir} has none of its files{_instead(data_dir)}")
    for source in (_from_chainer_cache, _from_cache_or_mirrors):
        try:
            return _dataset(*source())
        except UserError as error:
            tried.append(str(error))
    raise NotAvailableError(tried)


def cache_folder() -> Path:
    """Returns the folder that downloaded files are kept in."""
    return cache.folder("mnist")


def _dataset(arrays: Arrays, origin: str) -> Dataset:
    train, test = (
        Split.from_bytes(arrays[images].reshape(-1, 784), arrays[labels])
        for images, labels in PAIRS
    )
    return Dataset("mnist", train, test, dict(SHA256), origin)


def _kind(name: str) -> idx.Kind:
    return idx.IMAGES if "images" in name else idx.LABELS


def _checked(name: str, array: np.ndarray, source: str) -> np.ndarray:
    found = idx.sha256(array)
    if found != SHA256[name]:
        raise UserError(
            f"{source}: not MNIST's published bytes: expected SHA-256 {SHA256[name]} (uncompressed)"
            f", found {found}; get the file again"
        )
    return array


def _find(data_dir: Path) -> tuple[Path, dict[str, Path]]:
    """Returns the folder with the files, and the files that it has by their usual names.

    The folder is `data_dir`, or one usual in it: the first that has all four, or else the most.
    """
    found = []
    for name in ("", *_FOLDERS):
        folder = data_dir / name
        if not name or os.path.isdir(folder):
            found.append((folder, _files_in(folder)))
            if len(found[-1][1]) == len(SHA256):
                return found[-1]
    return max(found, key=lambda one: len(one[1]))


def _files_in(folder: Path) -> dict[str, Path]:
    paths = {}
    for name in SHA256:
        dotted = name.replace("-idx", ".idx")
        path = layout.first_file(folder, (name, f"{name}.gz", dotted, f"{dotted}.gz"))
        if path is not None:
            paths[name] = path
    return paths


def _instead(folder: Path) -> str:
    """Returns in words which files are expected of a folder without them."""
    expected = f" (expected {', '.join(SHA256)}, gzipped or not)"
    if "mnist.npz" in layout.names(folder):
        return f"{expected}, and Keras's mnist.npz is not read"
    return expected


def _read_all(folder: Path, paths: dict[str, Path]) -> Arrays:
    missing = [name for name in SHA256 if name not in paths]
    if missing:
        raise UserError(
            f"{folder}: expected MNIST's four files, found {len(paths)}; add {', '.join(missing)}"
        )
    arrays = {name: idx.read(path, _kind(name)) for name, path in paths.items()}
    for images, labels in PAIRS:
        if len(arrays[images]) != len(arrays[labels]):
            raise UserError(
                f"{paths[labels]}: expected {len(arrays[images]):,} labels, as many as there are "
                f"images in {paths[images].name}, found {len(arrays[labels]):,}; get both again"
            )
    return {name: _checked(name, array, str(paths[name])) for name, array in arrays.items()}


def _from_chainer_cache() -> tuple[Arrays, str]:
    # chainer.dataset.download.get_dataset_root(), which only an import of Chainer could tell.
    root = os.environ.get("CHAINER_DATASET_ROOT") or os.path.expanduser("~/.chainer/dataset")
    folder = Path(root) / "pfnet" / "chainer" / "mnist"
    arrays = {}
    for file_name, (images, labels) in zip(("train.npz", "test.npz"), PAIRS, strict=True):
        path = folder / file_name
        if not os.path.isfile(path):
            raise UserError(f"Chainer's cache {folder} has no {file_name}")
        x, y = _read_npz(path)
        arrays[images] = _checked(images, x.reshape(-1, 28, 28), str(path))
        arrays[labels] = _checked(labels, y, str(path))
    return arrays, f"Chainer's cache ({folder})"


def _read_npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads `x`, uint8 (N, 784), and `y`, uint8 (N,), as chainer.datasets.get_mnist wrote them."""
    try:
        content = files.read_bytes(path, idx.MAX_FILE_BYTES)
        arrays = archives.decode(content, checksum_required=False, max_bytes=idx.MAX_FILE_BYTES)
        x, y = arrays["x"], arrays["y"]
        if x.dtype != np.uint8 or y.dtype != np.uint8 or x.shape != (len(y), 784):
            raise ValueError(f"found x {x.dtype} {x.shape}, y {y.dtype} {y.shape}")
        return x, y
    except Exception as error:
        # A damaged archive can raise almost anything; whatever it is, the cache is passed over.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"Chainer's cache {path} is bad ({reason})") from error


def _from_cache_or_mirrors() -> tuple[Arrays, str]:
    folder = cache_folder()
    arrays = {}
    origin = f"the cache ({folder})"
    for name in SHA256:
        path = folder / f"{name}.gz"
        try:
            arrays[name] = _checked(name, idx.read(path, _kind(name)), str(path))
        except UserError:
            arrays[name], mirror = _download(name, path)
            origin = f"downloaded from {mirror}"
    return arrays, origin


def _download(name: str, path: Path) -> tuple[np.ndarray, str]:
    def read(content: bytes, url: str) -> np.ndarray:
        return _checked(name, idx.decode(io.BytesIO(content), url, _kind(name)), url)

    return cache.fetch(path, MIRRORS, read)
