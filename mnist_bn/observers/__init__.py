"""The observers by name, as `--observe` takes them.

Every Observer with a name that is defined in a module of this package is one: to add a measurement
is to write its file, with what it measures, its arrays, and its figure.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Sequence

import chainer

from mnist_bn import data
from mnist_bn.errors import UsageError
from mnist_bn.names.suggestions import suggestion
from mnist_bn.observers.base import Observer


@functools.cache
def observers() -> dict[str, type[Observer]]:
    """Returns the observers' classes by name, in the order of their modules."""
    found = {}
    for module_info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        for value in vars(module).values():
            if (
                isinstance(value, type)
                and issubclass(value, Observer)
                and value.__module__ == module.__name__
                and value.name is not None
            ):
                found[value.name] = value
    return found


def file_names() -> set[str]:
    """Returns the names of the files that observers write into a result folder."""
    return {f"{name}.npz" for name in observers()}


def check(names: Sequence[str]) -> None:
    """Raises UsageError if a name is no observer's."""
    classes = observers()
    for name in names:
        if name not in classes:
            raise UsageError(
                f"--observe {name}: choose from {', '.join(classes)}{suggestion(name, classes)}"
            )


def create(
    names: Sequence[str], dataset: data.Dataset, device: chainer.backend.Device
) -> list[Observer]:
    """Makes the observers called `names`, each once.

    Args:
        dataset: the run's images.
        device: where the network is.

    Raises:
        UsageError: there is no such observer.
    """
    check(names)
    classes = observers()
    return [classes[name](dataset, device) for name in dict.fromkeys(names)]
