"""The parameters of a network as a file: `model.npz` of a result folder."""

from __future__ import annotations

from pathlib import Path

import chainer
import numpy as np
from chainer.serializers import DictionarySerializer, NpzDeserializer

from mnist_bn import archives
from mnist_bn.errors import UserError


def save(path: Path, network: chainer.Link) -> None:
    """Writes the parameters and running statistics; Chainer's `load_npz` reads the file.

    Raises:
        CannotWriteError: the file cannot be written.
    """
    archives.write(path, _arrays(network))


def load(path: Path, network: chainer.Link) -> None:
    """Reads parameters and running statistics into the network; nothing is ever unpickled.

    Args:
        path: an NPZ file of `save`, whose checksum is verified, or of Chainer's `save_npz`.

    Raises:
        UserError: the file is damaged, or of another network; the line says what differs.
    """
    arrays = archives.read(path, checksum_required=False)
    expected = _arrays(network)
    for name in sorted({*expected, *arrays}):
        wanted, there = (_describe(part.get(name)) for part in (expected, arrays))
        if wanted != there:
            raise UserError(
                f"{path}: not the parameters of {type(network).__name__}: "
                f"expected {name} {wanted}, found {there}"
            )
    NpzDeserializer(arrays).load(network)


def _arrays(network: chainer.Link) -> dict[str, np.ndarray]:
    serializer = DictionarySerializer()
    serializer.save(network)
    arrays = {name: np.asarray(value) for name, value in serializer.target.items()}
    return {name: array for name, array in arrays.items() if array.dtype != object}


def _describe(array: np.ndarray | None) -> str:
    return "nothing" if array is None else f"{array.dtype.kind}{array.shape}"
