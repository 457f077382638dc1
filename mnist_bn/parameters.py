"""The parameters of a network as a file: `model.npz` of a result folder."""

from __future__ import annotations

from pathlib import Path

import chainer
import numpy as np
from chainer.serializers import DictionarySerializer, NpzDeserializer

from mnist_bn import archives, snapshots
from mnist_bn.errors import UserError

_KINDS = {"f": "float", "i": "int"}  # float16 and float32 are as good


def save(path: Path, network: chainer.Link) -> None:
    """Writes the parameters and running statistics; Chainer's `load_npz` reads the file.

    Raises:
        CannotWriteError: the file cannot be written.
    """
    arrays = _serialize(network)
    archives.write(path, {k: v for k, v in arrays.items() if not _has_no_shape_yet(v)})


def load(path: Path, network: chainer.Link) -> None:
    """Reads parameters and running statistics into the network; nothing is ever unpickled.

    Args:
        path: an NPZ file of `save`, whose checksum is verified, or of Chainer's `save_npz`.

    Raises:
        UserError: the file is damaged, or of another network; the line says what differs.
    """
    arrays = archives.read(path, checksum_required=False)
    if snapshots.is_snapshot(arrays):
        raise UserError(
            f"{path}: a snapshot, which --resume goes on from; --init expects a network's "
            "parameters, such as model.npz"
        )
    expected = _serialize(network)
    for name in sorted({*expected, *arrays}):
        if _has_no_shape_yet(expected.get(name)):
            continue
        wanted, there = (_describe(part.get(name)) for part in (expected, arrays))
        if wanted != there:
            raise UserError(
                f"{path}: not the parameters of {type(network).__name__}: "
                f"expected {name} {wanted}, found {there}; give a file of that network's"
            )
    # All that must be there is there; what has no shape yet may be missing.
    NpzDeserializer(arrays, strict=False).load(network)


def _serialize(network: chainer.Link) -> dict[str, np.ndarray]:
    serializer = DictionarySerializer()
    serializer.save(network)
    return {name: np.asarray(value) for name, value in serializer.target.items()}


def _has_no_shape_yet(array: np.ndarray | None) -> bool:
    """Tells whether it is a parameter that gets its shape by the first batch, as of Linear(10)."""
    return array is not None and array.dtype == object


def _describe(array: np.ndarray | None) -> str:
    if array is None:
        return "nothing"
    return f"{_KINDS.get(array.dtype.kind, array.dtype)} {array.shape}"
