"""A network by name: one of `models`, or a class of the user's own from a Python file.

Either name may end in arguments of the class, as in Python: `ReluMLP(slope=0.1)`.
"""

from __future__ import annotations

from pathlib import Path

import chainer

import models
from mnist_bn.data import Dataset, Split
from mnist_bn.errors import UsageError
from mnist_bn.inputs import taking_inputs
from mnist_bn.names import user_files
from mnist_bn.names.specs import NetworkSpec, in_any_case, nearest_argument
from mnist_bn.names.suggestions import suggestion

CLASSES = 10  # of every dataset


def create(spec: str) -> chainer.Link:
    """Makes the network that `spec` names: a class name, or `path/to/file.py:ClassName`.

    Called with an array, it gets a Variable: networks of 2016 are written for one.

    Raises:
        UsageError: there is no such name, file or class, or it cannot be made with the arguments in
            `spec` alone.
    """
    named = _parse(spec)
    path = named.path
    if path:
        _, network_class = _load_class(path, named.class_name)
    else:
        network_class = models.networks()[models.canonical(named.class_name)]
    try:
        return taking_inputs(network_class(**named.arguments))
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        failed = user_files.what_failed(error, path)
        nearest = nearest_argument(network_class, named.arguments, error)
        raise UsageError(f"{spec}: {failed}{nearest}") from error


def canonical(spec: str) -> str:
    """Returns the name as the class is written, if its case is another: `mnistcnn`, say.

    Raises:
        UsageError: there is no such name, file or class.
    """
    named = _parse(spec)
    typed, path = named.class_name, named.path
    class_name = _load_class(path, typed)[0] if path else models.canonical(typed)
    return spec.removesuffix(named.call) + class_name + named.call.removeprefix(typed)


def fit_input(network: chainer.Link, train: Split) -> None:
    """Calls the network's method `fit_input(images)`, if it has one.

    The method gets the images, float32 `(N, ...)`, read-only: every run may share them.
    """
    if hasattr(network, "fit_input"):
        shared = train.images.view()
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
    images = dataset.train.part(slice(2)).images.copy()  # whatever the network does to them
    device.use()
    try:
        fit_input(network, dataset.train)
        network.to_device(device)
        with chainer.using_config("train", False), chainer.no_backprop_mode():
            logits = network(device.send(images))
        shape: tuple[int, ...] = getattr(logits, "shape", ())
        if len(shape) != 2 or shape[0] != len(images) or shape[1] < CLASSES:
            found = f"shape {shape}" if shape else type(logits).__name__
            raise ValueError(f"expected logits ({len(images)}, {CLASSES}), found {found}")
    except (Exception, SystemExit) as error:
        expected = ", ".join(["N", *map(str, images.shape[1:])])
        raise UsageError(
            f"{spec}: not a network for {dataset.name}, which maps images, {images.dtype} "
            f"({expected}), to logits (N, {CLASSES}): "
            f"{user_files.what_failed(error, NetworkSpec(spec).path)}"
        ) from error


def checksums(spec: str) -> dict[str, str] | None:
    """Returns those of the user's own file and what it imports, None for one of `models`."""
    path = NetworkSpec(spec).path
    return user_files.checksums(path) if path else None


def _parse(spec: str) -> NetworkSpec:
    return NetworkSpec.parse(spec, "--model", "ReluMLP(slope=0.1)")


def _load_class(path: Path, class_name: str) -> tuple[str, type[chainer.Link]]:
    """Returns the class and its name in the file."""
    module = user_files.load(path, "--model")
    its_own = models.links_of(module)
    name = in_any_case(class_name, its_own) or class_name
    value = vars(module).get(name)
    if isinstance(value, type) and issubclass(value, chainer.Link):
        return name, value
    if value is not None and not isinstance(value, type):
        raise UsageError(
            f"{path}: {name} is no class (its type is {type(value).__name__}): expected the "
            f"network as a class, such as class {name.title()}(chainer.Chain)"
        )
    found = f"it has {', '.join(its_own)}" if its_own else "it defines none"
    raise UsageError(
        f"{path}: no chainer.Link class named {class_name!r}; {found}"
        f"{suggestion(class_name, its_own)}"
    )
