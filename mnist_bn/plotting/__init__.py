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
    from collections.abc import Iterator

    from matplotlib.figure import Figure

    from mnist_bn.plotting import (
        appearance,
        canvas,
        comparison,
        film,
        groups,
        heat_maps,
        notation,
        panels,
        results,
    )

    __all__ = ["Figure", "Figures", "appearance", "canvas", "comparison", "film", "groups"]
    __all__ += ["heat_maps", "notation", "panels", "results"]

    # Each with the name of its file, without the format.
    Figures = Iterator[tuple[str, Figure | film.Film]]


def __getattr__(name: str) -> ModuleType:
    if name.startswith("_") or importlib.util.find_spec(f"{__name__}.{name}") is None:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return importlib.import_module(f"{__name__}.{name}")
