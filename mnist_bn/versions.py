"""The versions that this project runs on, checked before anything is imported."""

from __future__ import annotations

import importlib.metadata
import re
import sys

# Chainer 7.8.1 with the mends of chainer-build/mends.py; the label counts them.
CHAINER = "7.8.1+mended.2"
SUPPORTED = f"Python 3.11-3.13, NumPy 2.0-2.5, Chainer {CHAINER} and at most one CuPy, 13 or 14"

# The names under which CuPy can be had for Python 3.11 and later; all install the same module.
CUPY_DISTRIBUTIONS = (
    "cupy",
    "cupy-cuda102",
    "cupy-cuda110",
    "cupy-cuda111",
    "cupy-cuda11x",
    "cupy-cuda12x",
    "cupy-cuda13x",
    "cupy-rocm-4-3",
    "cupy-rocm-5-0",
    "cupy-rocm-7-0",
)


class UnsupportedVersions(ImportError):
    """The project cannot run on the versions installed; one line says what to do."""


def check() -> None:
    """Checks the versions installed, without importing anything.

    Raises:
        UnsupportedVersions: one of them is not supported.
    """
    python = sys.version_info[:3]
    numpy, chainer = _installed_version("numpy"), _installed_version("chainer")
    cupys = {name: _installed_version(name) for name in CUPY_DISTRIBUTIONS}
    cupys = {name: version for name, version in cupys.items() if version}
    if not (3, 11) <= python[:2] <= (3, 13):
        remedy = "make a virtual environment with Python 3.11, 3.12 or 3.13"
    elif not (2, 0) <= _major_minor(numpy) <= (2, 5) or chainer != CHAINER:
        remedy = "run `pip install -r requirements.txt` in the project's folder"
    elif len(cupys) > 1 or any(_major_minor(v)[0] not in (13, 14) for v in cupys.values()):
        remedy = (
            f"run `pip uninstall {' '.join(cupys)}`, then "
            "`pip install -r requirements-cuda12.txt` or `-r requirements-cuda13.txt`"
        )
    else:
        return
    versions = {"Python": ".".join(map(str, python)), "NumPy": numpy, "Chainer": chainer, **cupys}
    found = [f"{name} {version}" if version else f"no {name}" for name, version in versions.items()]
    raise UnsupportedVersions(f"found {', '.join(found)}, but needed is {SUPPORTED}: {remedy}")


def _installed_version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _major_minor(version: str | None) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", version or "")
    return (int(match[1]), int(match[2])) if match else (0, 0)
