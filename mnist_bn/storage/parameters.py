"""The parameters of a network as a file: `model.npz` of a result folder."""

from __future__ import annotations

from pathlib import Path

import chainer
import numpy as np
from chainer.serializers import DictionarySerializer, NpzDeserializer

from mnist_bn.errors import UserError
from mnist_bn.storage import archives, snapshots

_KINDS = {"f": "float", "i": "int"}  # float16 and float32 are as good


def save(path: Path, network: chainer.Link) -> None:
    """Writes the parameters and running statistics; Chainer's `load_npz` reads the file.

    Raises:
        CannotWriteError: the file cannot be written.
    """
    # Chainer keeps a link's parameters in a set, whose order differs from process to process.
    arrays = sorted(_serialize(network).items())
    archives.write(path, {k: v for k, v in arrays if not _has_no_shape_yet(v)})


def load(path: Path, network: chainer.Link) -> None:
    """Reads parameters and running statistics into the network; nothing is ever unpickled.

    Args:
        path: an NPZ file of `save`, whose checksum is verified, or of Chainer's `save_npz`.

    Raises:
        UserError: the file is damaged, or of another network; the line says what differs.
    """
    expected = _serialize(network)

    def check(kinds: archives.Kinds) -> None:
        if snapshots.is_snapshot(kinds):
            raise UserError(
                f"{path}: a snapshot, which --resume goes on from; --init expects a network's "
                "parameters, such as model.npz"
            )
        _check_kinds(path, type(network).__name__, expected, kinds)

    arrays = archives.read(path, checksum_required=False, check=check)
    # All that must be there is there; what has no shape yet may be missing.
    NpzDeserializer(arrays, strict=False).load(network)


def _check_kinds(
    path: Path, network: str, expected: dict[str, np.ndarray], kinds: archives.Kinds
) -> None:
    for name in sorted({*expected, *kinds}):
        array = expected.get(name)
        if _has_no_shape_yet(array):
            continue
        wanted = "nothing" if array is None else _describe(array.shape, array.dtype)
        there = "nothing" if name not in kinds else _describe(*kinds[name])
        if wanted != there:
            raise UserError(
                f"{path}: not the parameters of {network}: "
                f"expected {name} {wanted}, found {there}; give a file of that network's"
            )


def _serialize(network: chainer.Link) -> dict[str, np.ndarray]:
    serializer = DictionarySerializer()
    serializer.save(network)
    return {name: np.asarray(value) for name, value in serializer.target.items()}


def _has_no_shape_yet(array: np.ndarray | None) -> bool:
    """Tells whether it is a parameter that gets its shape by the first batch, as of Linear(10)."""
    return array is not None and array.dtype == object


def _describe(shape: tuple[int, ...], dtype: np.dtype) -> str:
    return f"{_KINDS.get(dtype.kind, dtype)} {shape}"
