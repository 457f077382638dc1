"""Compiling the kernels on first use, with the C++ compiler that is there, into a cache folder."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pooch

from mnist_bn.errors import UsageError

# As mnist_bn_kernels_version() of the source answers.
KERNELS_VERSION = 1
COMPILE_SECONDS = 600

# Compiler flags of an instruction set, widest first. Each set includes those behind it.
INSTRUCTION_SETS = {
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx2", "-mfma"],
    "avx2": ["-mavx2", "-mfma"],
    "sse42": ["-msse4.2"],
    "neon": [],
}
# What NumPy calls the CPU features that a set needs, before and since its version 2.4.
_CPU_FEATURES = {
    "avx512": ("AVX512_SKX", "X86_V4"),
    "avx2": ("AVX2", "X86_V3"),
    "sse42": ("SSE42", "X86_V2"),
    "neon": ("ASIMD",),
}
# No -ffast-math: NaN and infinity come out as stock Chainer's.
_FLAGS = [
    *("-std=c++17", "-O3", "-fPIC", "-shared", "-fvisibility=default"),
    *("-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"),
    *("-fno-exceptions", "-fno-rtti", "-Wno-psabi"),
]
_MEND = "install a C++ compiler (`pip install ziglang` brings one) to train several times faster"
_SOURCE_FOLDER = Path(__file__).parent


class Unavailable(Exception):
    """There are no kernels; the message is one line: why, and how to get them."""


def load() -> ctypes.CDLL:
    """Returns the kernels for this CPU, compiled now or taken from the cache folder.

    The cache folder is `kernels` in MNIST_BN_CACHE or in the user's cache folder; where it cannot
    be written, the kernels are compiled anew in every process. MNIST_BN_ISA forces a narrower
    instruction set.

    Raises:
        Unavailable: no compiler is found, or none of them compiles the kernels.
        UsageError: MNIST_BN_ISA names no instruction set of this CPU.
    """
    return _load(instruction_set(), os.environ.get("CXX", ""), _cache_folder())


def instruction_set() -> str:
    """Returns the widest instruction set of this CPU that the kernels know, or MNIST_BN_ISA's.

    Raises:
        Unavailable: this CPU has none of them.
        UsageError: MNIST_BN_ISA names no instruction set of this CPU.
    """
    supported = _supported_instruction_sets()
    if not supported:
        raise Unavailable(
            f"the kernels know {', '.join(INSTRUCTION_SETS)}, and this CPU "
            f"({platform.machine()}) has none of them: stock Chainer runs"
        )
    forced = os.environ.get("MNIST_BN_ISA")
    if not forced:
        return supported[0]
    if forced not in supported:
        raise UsageError(f"MNIST_BN_ISA={forced}: this CPU has {', '.join(supported)}")
    return forced


@functools.cache
def _supported_instruction_sets() -> tuple[str, ...]:
    # NumPy asked the CPU and the operating system already.
    from numpy._core._multiarray_umath import __cpu_features__ as features

    return tuple(
        name
        for name, needed in _CPU_FEATURES.items()
        if any(features.get(feature) for feature in needed)
    )


def _cache_folder() -> Path:
    folder = os.environ.get("MNIST_BN_CACHE") or pooch.os_cache("mnist-bn")
    return Path(folder) / "kernels"


@functools.cache
def _load(instruction_set: str, cxx: str, cache: Path) -> ctypes.CDLL:
    compilers = _compilers(cxx)
    if not compilers:
        raise Unavailable(f"no C++ compiler found (CXX, c++, g++, clang++, ziglang): {_MEND}")
    reasons = []
    for compiler in compilers:
        try:
            return _cached_or_compiled(compiler, INSTRUCTION_SETS[instruction_set], cache)
        except (OSError, subprocess.SubprocessError) as error:
            reasons.append(f"{compiler[0]}: {_reason(error)}")
    raise Unavailable(f"the kernels do not compile ({'; '.join(reasons)}): {_MEND}")


def _compilers(cxx: str) -> list[list[str]]:
    """Returns the commands to try, best first; CXX may carry arguments."""
    commands = [shlex.split(cxx)] if cxx.strip() else []
    commands += [["c++"], ["g++"], ["clang++"]]
    found = [command for command in commands if shutil.which(command[0])]
    if importlib.util.find_spec("ziglang"):
        # As `c++` it would compile a C++ library first, which takes minutes and is not needed.
        found.append([sys.executable, "-m", "ziglang", "cc", "-x", "c++"])
    return found


def _cached_or_compiled(compiler: list[str], isa_flags: list[str], cache: Path) -> ctypes.CDLL:
    command = [*compiler, *_FLAGS, *isa_flags]
    path = cache / f"kernels-{_key(compiler, command)}.so"
    if _is_whole(path):
        try:
            return _open(path)
        except OSError:
            pass  # for another machine, or damaged: compiled anew
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix="build-") as folder:
            return _compile_into(path, command, Path(folder))
    except (OSError, subprocess.CalledProcessError):
        # Perhaps the folder is read-only or full. An open library outlives its file.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            return _compile(command, Path(folder) / path.name)


def _key(compiler: list[str], command: list[str]) -> str:
    """Returns what tells one build from another: source, flags, compiler and its version."""
    version = _run([*compiler, "--version"])
    digest = hashlib.sha256("\0".join([version, *command]).encode())
    for source in sorted(_SOURCE_FOLDER.glob("kernels*")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:32]


def _compile_into(path: Path, command: list[str], folder: Path) -> ctypes.CDLL:
    """Compiles in `folder` and moves the library to `path`, whole, its checksum beside it."""
    built = folder / path.name
    library = _compile(command, built)
    checksum = folder / "checksum"
    checksum.write_text(_sha256(built))
    os.replace(built, path)
    os.replace(checksum, _checksum_path(path))
    return library


def _compile(command: list[str], path: Path) -> ctypes.CDLL:
    _run([*command, "-o", str(path), str(_SOURCE_FOLDER / "kernels.cpp")])
    return _open(path)


def _run(command: list[str]) -> str:
    return subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=COMPILE_SECONDS
    ).stdout


def _open(path: Path) -> ctypes.CDLL:
    """Opens a library of kernels; OSError if it is none or another version's."""
    library = ctypes.CDLL(str(path))
    version = getattr(library, "mnist_bn_kernels_version", None)
    if version is None or version() != KERNELS_VERSION:
        raise OSError(f"{path}: not a library of these kernels")
    return library


def _is_whole(path: Path) -> bool:
    # Opening a library that was cut short can kill the process, so its checksum comes first.
    try:
        return _checksum_path(path).read_text() == _sha256(path)
    except OSError:
        return False


def _checksum_path(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _reason(error: Exception) -> str:
    """Returns the compiler's first error line, else the exception's."""
    lines = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
    return next((line for line in lines if "error" in line), lines[0] if lines else repr(error))
