"""The networks, chosen by class name: `models.create("MnistCNN_BN_before")`.

Every public `chainer.Chain` defined in a module of this package is a network of that name; adding
one is writing its class.
"""

import importlib
import pkgutil

import mnist_bn  # noqa: F401  makes `import chainer` work, so it comes before Chainer

# isort: split
import chainer

from mnist_bn.errors import UsageError


def networks() -> dict[str, type[chainer.Chain]]:
    """Returns the network classes by name, in the order they are defined."""
    found = {}
    for module_info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        found.update(chains_of(module))
    return found


def chains_of(module) -> dict[str, type[chainer.Chain]]:
    """Returns the public `chainer.Chain` classes that `module` itself defines, by name."""
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, chainer.Chain)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    }


def names() -> list[str]:
    """Returns the names that `create` takes."""
    return list(networks())


def create(name: str, **kwargs) -> chainer.Chain:
    """Makes the network called `name`; `kwargs` go to its constructor.

    Raises:
        UsageError: there is no network of that name.
    """
    classes = networks()
    if name not in classes:
        raise UsageError(
            f"no model named {name!r}: choose one of {', '.join(classes)}, "
            "or your own as path/to/file.py:ClassName"
        )
    return classes[name](**kwargs)
