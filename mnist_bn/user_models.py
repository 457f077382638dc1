"""A network by name: one of `models`, or a Chain of the user's own from a Python file.

Either name may end in arguments of the class, as in Python: `ReluMLP(slope=0.1)`.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import math
import sys
import traceback
from functools import partial
from pathlib import Path

import chainer
import numpy as np

import models
from mnist_bn.data import Dataset
from mnist_bn.errors import UsageError

CLASSES = 10  # of every dataset


def create(spec: str) -> chainer.Chain:
    """Makes the network that `spec` names: a class name, or `path/to/file.py:ClassName`.

    Raises:
        UsageError: there is no such name, file or class, or it cannot be made with the arguments in
            `spec` alone.
    """
    path, class_name, arguments = _split(spec)
    make = _load_class(path, class_name) if path else partial(models.create, class_name)
    try:
        return make(**arguments)
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(f"{spec}: {_what_failed(error, path)}") from error


def fit_input(network: chainer.Chain, images: np.ndarray) -> None:
    """Calls the network's method `fit_input(images)`, if it has one.

    Args:
        images: float32 `(N, ...)`; the method gets them read-only, as every run shares them.
    """
    if hasattr(network, "fit_input"):
        shared = images.view()
        shared.flags.writeable = False
        network.fit_input(shared)


def check(spec: str, dataset: Dataset, device: chainer.backend.Device) -> None:
    """Checks that the network `spec` names maps images of the dataset to logits, in test mode.

    Tries two, with a network made for that alone, whose `fit_input` sees all, as in a run. Whatever
    random numbers it draws, a run seeds its own.

    Raises:
        UsageError: it cannot; the line says what failed.
    """
    network = create(spec)
    images = dataset.train.images[:2].copy()  # whatever the network does to them
    device.use()
    try:
        fit_input(network, dataset.train.images)
        network.to_device(device)
        with chainer.using_config("train", False), chainer.no_backprop_mode():
            logits = network(device.send(images))
        shape = getattr(logits, "shape", ())
        if len(shape) != 2 or shape[0] != len(images) or shape[1] < CLASSES:
            found = f"shape {shape}" if shape else type(logits).__name__
            raise ValueError(f"expected logits ({len(images)}, {CLASSES}), found {found}")
    except (Exception, SystemExit) as error:
        path, _, _ = _split(spec)
        shape = ", ".join(["N", *map(str, images.shape[1:])])
        raise UsageError(
            f"{spec}: not a network for {dataset.name}, which maps images, {images.dtype} "
            f"({shape}), to logits (N, {CLASSES}): {_what_failed(error, path)}"
        ) from error


def source_sha256(spec: str) -> str | None:
    """Returns the SHA-256 of the file of the user's own network, None for one of `models`."""
    path, _, _ = _split(spec)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path else None


def _split(spec: str) -> tuple[Path | None, str, dict[str, float | str]]:
    """Returns the file, None for one of `models`, the class name and its arguments."""
    if spec.endswith(".py"):
        raise UsageError(f"--model {spec}: say which class of it, as {spec}:ClassName")
    path, _, call = spec.rpartition(":")
    class_name, bracket, _ = call.partition("(")
    arguments = _arguments(spec, class_name, call) if bracket else {}
    return (Path(path) if path else None), class_name, arguments


def _arguments(spec: str, class_name: str, call: str) -> dict[str, float | str]:
    """Returns the numbers and words in a call such as `ReluMLP(slope=0.1)`."""
    try:
        node = ast.parse(call, mode="eval").body
        values = {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords}
        is_call = isinstance(node.func, ast.Name) and node.func.id == class_name and not node.args
        is_twice = len(values) < len(node.keywords)
        if not is_call or is_twice or None in values or not all(map(_is_plain, values.values())):
            raise ValueError
    # OverflowError: an integer beyond any float. The last two: nested too deep for the parser.
    except (SyntaxError, ValueError, AttributeError, OverflowError, RecursionError, MemoryError):
        raise UsageError(
            f"--model {spec}: expected numbers, or words in quotes, by their names in the "
            "brackets, as in ReluMLP(slope=0.1)"
        ) from None
    return values


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        return value.isascii() and value.isidentifier()
    return type(value) in (bool, int, float) and math.isfinite(value)


def _load_class(path: Path, class_name: str) -> type[chainer.Chain]:
    if not path.is_file():
        raise UsageError(f"--model {path}:{class_name}: there is no file {path}")
    module = _load_module(path)
    chains = models.chains_of(module)
    if class_name not in chains:
        found = f"it has {', '.join(chains)}" if chains else "it defines none"
        raise UsageError(f"{path}: no chainer.Chain named {class_name!r}; {found}")
    return chains[class_name]


def _load_module(path: Path):
    name = f"mnist_bn_user_model_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None:
        raise UsageError(f"--model {path}: expected a Python file (*.py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        # The file may import its neighbours; last, so that it shadows nothing.
        sys.path.append(folder)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UsageError(f"{path}: {_what_failed(error, path)}") from error
    return module


def _what_failed(error: BaseException, path: Path | None) -> str:
    """Returns the error in one line, with the line of the user's file, if any, that raised it."""
    if isinstance(error, SyntaxError):
        where = f"line {error.lineno}: " if error.lineno else ""
        return f"{where}SyntaxError: {error.msg}"
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if path is not None and Path(frame.filename).resolve() == path.resolve()
    ]
    where = f"line {lines[-1]}: " if lines else ""
    # Chainer's messages have several lines, the first of them empty.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{where}{type(error).__name__}: {'; '.join(lines[:3])}"
