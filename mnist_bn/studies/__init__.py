"""The studies: which runs each needs and which figures it draws, one module a study.

A study's module has `PRESETS` (the names that `--preset` takes), `configs(preset, given)` (its
runs; `given` are the settings from the command line, which go before the preset's) and
`draw(runs, out, formats)` (its figures).
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from mnist_bn.errors import UsageError


def names() -> list[str]:
    """Returns the names that `--study` takes."""
    return [module.name for module in pkgutil.iter_modules(__path__)]


def get(name: str) -> ModuleType:
    """Returns the module of the study called `name`.

    Raises:
        UsageError: there is no such study.
    """
    if name not in names():
        raise UsageError(f"no study named {name!r}: choose one of {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}")
