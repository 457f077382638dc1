"""The studies: which runs each needs, which figures it draws, and what it claims; a module each.

A study's module has

- `PRESETS`: by the names that `--preset` takes, settings of runs, or a list of such. Any setting
  may be a list: every combination is a run. A preset with an `out` has a folder of its own;
- `figures(runs)`: yields the names of files, without their format, and figures, or Markdown.

It may have `CLAIMS` (see `claims`), name in `OBSERVED` the observers that its figures show, make
the runs of a preset by a `configs(preset, given)` of its own, and have `measure(out)`, which
measures what needs no run and writes it to the folder `out`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from mnist_bn.config import RunConfig, grid
from mnist_bn.errors import UsageError
from mnist_bn.names.suggestions import suggestion


def names() -> list[str]:
    """Returns the names that `--study` takes."""
    modules = [module.name for module in pkgutil.iter_modules(__path__)]
    return [name.replace("_", "-") for name in modules if not name.startswith("_")]


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


def asked_for(name: str, preset: str | None, given: dict) -> list[RunConfig]:
    """Returns the runs of a study's preset, by default `quick`, in a folder of the study's name.

    Args:
        given: settings from the command line, which go before the preset's.

    Raises:
        UsageError: there is no such study or preset.
    """
    study, preset = get(name), preset or "quick"
    if preset not in study.PRESETS:
        raise UsageError(
            f"--preset {preset}: {name} has {', '.join(study.PRESETS)}"
            f"{suggestion(preset, study.PRESETS)}"
        )
    out = str(Path(given.get("out", RunConfig.out)) / name)
    return configs(study, preset, {**given, "study": name, "out": out})


def has_preset(study: str | None, preset: str) -> bool:
    """Tells whether there is such a study, with a preset of this name."""
    return study in names() and preset in get(study).PRESETS


def configs(study: ModuleType, preset: str, given: dict) -> list[RunConfig]:
    """Returns the runs of a study's preset.

    Args:
        given: settings from the command line, which go before the preset's.
    """
    if hasattr(study, "configs"):
        return study.configs(preset, given)
    settings = study.PRESETS[preset]
    return runs(settings if isinstance(settings, list) else [settings], given)


def runs(preset: Sequence[dict], given: dict) -> list[RunConfig]:
    """Returns the runs of settings in which any list is an axis; of two alike only the first.

    Those given on the command line go before. Epochs or iterations that are given take the place of
    either, and if iterations are given the learning rate drops at no epochs of the preset's;
    observers that are given join the preset's, and its `out` is a folder in the one that is given.
    """
    every: dict[tuple, RunConfig] = {}
    for settings in preset:
        for config in grid(_merged(settings, given)):
            every.setdefault((config.name, config.model, config.optimizer), config)
    return list(every.values())


def _merged(preset: dict, given: dict) -> dict:
    lengths = {"epoch", "iteration"}
    if lengths & given.keys():
        lost = {*lengths, "lr_drop"} if "iteration" in given else lengths
        preset = {key: value for key, value in preset.items() if key not in lost}
    observed = [settings["observe"] for settings in (preset, given) if settings.get("observe")]
    merged = {**preset, **given, "observe": ",".join(observed) or None}
    if "out" in preset:
        merged["out"] = str(Path(given.get("out", RunConfig.out)) / preset["out"])
    return merged
