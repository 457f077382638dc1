"""Figures and tables from result folders.

Drawn from the files in them alone: no data set, no device and no training is needed to redraw.

A module is imported when it is first used, also as `plotting.panels`: what only may draw, such as
the observers of a run, does not load Matplotlib.
"""

import importlib
import importlib.util
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mnist_bn.plotting import (
        appearance,
        canvas,
        comparison,
        film,
        heat_maps,
        notation,
        panels,
        results,
    )

    __all__ = ["appearance", "canvas", "comparison", "film", "heat_maps", "notation", "panels"]
    __all__ += ["results"]


def __getattr__(name: str) -> ModuleType:
    if name.startswith("_") or importlib.util.find_spec(f"{__name__}.{name}") is None:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return importlib.import_module(f"{__name__}.{name}")
