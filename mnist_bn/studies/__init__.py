"""The studies: which runs each needs and which figures it draws, one module a study.

A study's module has `PRESETS` (the names that `--preset` takes), `configs(preset, given)` (its
runs; `given` are the settings from the command line, which go before the preset's) and
`draw(runs, out, formats)` (its figures). It may name in `OBSERVED` the observers that these show,
and have `measure(out)`, which measures what needs no run and writes it to the folder `out`.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
import re
from types import ModuleType

from mnist_bn.config import RunConfig, grid
from mnist_bn.errors import UsageError
from mnist_bn.names.suggestions import suggestion


def names() -> list[str]:
    """Returns the names that `--study` takes."""
    modules = [module.name for module in pkgutil.iter_modules(__path__)]
    return [name.replace("_", "-") for name in modules if not name.startswith("_")]


def runs(preset: dict, given: dict) -> list[RunConfig]:
    """Returns the runs of a preset's settings, where those given on the command line go before.

    Epochs or iterations that are given take the place of either, and where iterations are given the
    learning rate drops at no epochs of the preset's; observers that are given join the preset's.
    """
    lengths = {"epoch", "iteration"}
    if lengths & given.keys():
        lost = {*lengths, "lr_drop"} if "iteration" in given else lengths
        preset = {key: value for key, value in preset.items() if key not in lost}
    observed = [settings["observe"] for settings in (preset, given) if settings.get("observe")]
    return grid({**preset, **given, "observe": ",".join(observed) or None})


def argument(network: str, name: str) -> str | None:
    """Returns an argument in a network's name, as in `Net(depth=20, bn='end')`; None: not there.

    As it is written, without quotes.
    """
    found = re.search(rf"\b{name}\s*=\s*['\"]?([\w.+-]+)", network)
    return found[1] if found else None


def number(network: str, name: str) -> float | None:
    """Returns an argument in a network's name that is a finite number; None: there is none."""
    try:
        value = float(argument(network, name) or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def without_argument(network: str, argument: str) -> str:
    """Returns a network's name without one argument: `Net(hidden=50, ratio=0)` -> `Net(hidden=50)`.

    Runs over values of that argument are of one network, in a figure over these values.
    """
    network = re.sub(rf"\b{argument}=[^,()]*(,\s*)?", "", network)
    return re.sub(r",\s*\)$", ")", network).removesuffix("()")


def get(name: str) -> ModuleType:
    """Returns the module of the study called `name`.

    Raises:
        UsageError: there is no such study.
    """
    if name not in names():
        raise UsageError(
            f"no study named {name!r}: choose one of {', '.join(names())}"
            f"{suggestion(name, names())}"
        )
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
