"""What a fair measurement needs before NumPy and PyTorch load, and what it was made on.

Imports neither: their libraries read the environment's variables once, while loading.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# MALLOC_ARENA_MAX: Chainer's Trainers run in threads of their own here, and memory of glibc's
# other arenas goes back to the system more eagerly than that of the main one.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
}
# What keeps each library to an instruction set: our kernels, NumPy's OpenBLAS, PyTorch's own
# kernels, its oneDNN and its MKL.
RESTRICTIONS = {
    None: {},
    "avx2": {
        "MNIST_BN_ISA": "avx2",
        "OPENBLAS_CORETYPE": "Haswell",
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    },
}


def restart_with(variables: dict[str, str]) -> None:
    """Starts this Python process anew with `variables` set, unless they are set already."""
    if any(os.environ.get(name) != value for name, value in variables.items()):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **variables})


def pin_to(cpu: int) -> None:
    """Keeps this process and its children on one CPU, if the system can (Linux)."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {cpu})


def describe() -> dict:
    """Returns date, machine and versions, for JSON."""
    packages = ("numpy", "chainer", "torch", "jax", "flax")
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": {**_cpu(), "system": platform.system(), "cpus": os.cpu_count()},
        "versions": {
            "python": platform.python_version(),
            **{package: _version(package) for package in packages},
            "compiler": _compiler(),
        },
    }


def _cpu() -> dict:
    """Returns the CPU's name and which wide instruction sets it has, as Linux tells them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return {"cpu": platform.processor() or platform.machine(), "flags": []}
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    flags = fields.get("flags", fields.get("Features", "")).split()
    wide = [flag for flag in flags if flag.startswith(("avx", "fma", "asimd", "sve"))]
    return {"cpu": fields.get("model name", platform.machine()), "flags": wide}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _compiler() -> str | None:
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        return None
    output = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False)
    return next(iter(output.stdout.splitlines()), None)
