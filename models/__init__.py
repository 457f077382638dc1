"""The networks, chosen by class name: `models.create("MnistCNN_BN_before")`.

Every public `chainer.Link` class defined in a module of this package, a Chain say, is a network of
that name; adding one is writing its class.
"""

import importlib
import pkgutil

import chainer

from mnist_bn.errors import UsageError
from mnist_bn.names.specs import in_any_case
from mnist_bn.names.suggestions import suggestion


def networks() -> dict[str, type[chainer.Link]]:
    """Returns the network classes by name, in the order they are defined."""
    found = {}
    for module_info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        found.update(links_of(module))
    return found


def links_of(module) -> dict[str, type[chainer.Link]]:
    """Returns the public `chainer.Link` classes that `module` itself defines, by name."""
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, chainer.Link)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    }


def names() -> list[str]:
    """Returns the names that `create` takes."""
    return list(networks())


def canonical(name: str) -> str:
    """Returns the name as the class has it, of one in any case.

    Raises:
        UsageError: there is no network of that name.
    """
    known = names()
    found = in_any_case(name, known)
    if found is not None:
        return found
    if nearest := suggestion(name, known):
        raise UsageError(f"no model named {name!r}{nearest} --list-models prints all names")
    raise UsageError(
        f"no model named {name!r}: choose one of {', '.join(known)}, "
        "or your own as path/to/file.py:ClassName"
    )


def create(name: str, **kwargs) -> chainer.Link:
    """Makes the network called `name`, in any case; `kwargs` go to its constructor.

    Raises:
        UsageError: there is no network of that name.
    """
    return networks()[canonical(name)](**kwargs)
