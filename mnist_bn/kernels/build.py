"""Compiling the kernels on first use, with the C++ compiler that is there, into a cache folder."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib.util
import os
import platform
import shlex
import shutil
import sys
import tempfile
import time
from pathlib import Path

import platformdirs

from mnist_bn.errors import UsageError
from mnist_bn.kernels import build_folders, compiler, trust

# As mnist_bn_kernels_version() of the source answers.
KERNELS_VERSION = 1
MAX_BYTES = 2**26  # of a library
# Compiling takes a few seconds. What computes much longer, or waits so long for something, hangs,
# and the next compiler is tried.
COMPILE_SECONDS = 60
VERSION_SECONDS = 15
TOTAL_SECONDS = 120  # after which no other compiler is tried

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
    # Clang links C++'s library, which a machine with Clang alone may lack, though nothing is of it.
    *(["-Wl,--as-needed"] if sys.platform == "linux" else []),
]
_MEND = "install a C++ compiler (`pip install ziglang` brings one) to train several times faster"
_SOURCE_FOLDER = Path(__file__).parent
_FAILED = "MNIST_BN_KERNELS_FAILED"


class Unavailable(Exception):
    """There are no kernels; the message is one line: why, and how to get them."""


def load() -> ctypes.CDLL:
    """Returns the kernels for this CPU, compiled now or taken from the cache folder.

    The cache folder is `kernels` in MNIST_BN_CACHE or in the user's cache folder; if it cannot be
    written, or others can write to it, the kernels are compiled anew in every process.
    MNIST_BN_ISA forces a narrower instruction set.

    Raises:
        Unavailable: no compiler is found, or none of them compiles the kernels.
        UsageError: MNIST_BN_ISA names no instruction set of this CPU.
        signals.Stopped: a signal asked the training run to stop.
    """
    found = _load(instruction_set(), os.environ.get("CXX", ""), _cache_folder())
    if isinstance(found, str):
        raise Unavailable(found)
    return found


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


def _cache_folder() -> Path | None:
    named = os.environ.get("MNIST_BN_CACHE")
    folder = Path(named or platformdirs.user_cache_dir("mnist-bn")) / "kernels"
    # It is "~/..." for a user without a home.
    return folder if named or folder.is_absolute() else None


@functools.cache
def _load(instruction_set: str, cxx: str, cache: Path | None) -> ctypes.CDLL | str:
    """Returns the kernels, or in one line why there are none."""
    # Processes that this one starts need not wait for the same compilers once more.
    wanted = ascii((instruction_set, cxx, str(cache))).replace(" ", "_")
    before, _, reason = os.environ.get(_FAILED, "").partition(" ")
    if before == wanted:
        return reason
    with compiler.ending_before_signals():
        found = _try_compilers(instruction_set, cxx, cache)
    if isinstance(found, str):
        os.environ[_FAILED] = f"{wanted} {found}"
    return found


def _try_compilers(instruction_set: str, cxx: str, cache: Path | None) -> ctypes.CDLL | str:
    """Returns the kernels of the first compiler that makes them; if none does, why."""
    compilers = _compilers(cxx)
    if not compilers:
        return f"no C++ compiler found (CXX, c++, g++, clang++, ziglang): {_MEND}"
    end = time.monotonic() + TOTAL_SECONDS
    reasons, hanging = [], set()
    for command in compilers:
        program = os.path.realpath(shutil.which(command[0]) or command[0])
        if program in hanging or time.monotonic() > end:
            continue
        try:
            flags = [*_FLAGS, *INSTRUCTION_SETS[instruction_set]]
            return _cached_or_compiled(command, flags, cache)
        except (OSError, compiler.CompilerError) as error:
            reasons.append(f"{compiler.one_line(command[0])}: {compiler.one_line(str(error))}")
            if isinstance(error, compiler.CompilerHangs):
                hanging.add(program)
                _say(f"{reasons[-1]}: given up")
    return f"the kernels do not compile ({'; '.join(reasons)}): {_MEND}"


def _compilers(cxx: str) -> list[list[str]]:
    """Returns the commands to try, best first; CXX may carry arguments."""
    commands = [["c++"], ["g++"], ["clang++"]]
    if cxx.strip():
        try:
            commands.insert(0, shlex.split(cxx))
        except ValueError as error:  # a quotation without an end
            _say(f"CXX={compiler.one_line(cxx)}: {error}; trying other compilers")
    found = [command for command in commands if command and shutil.which(command[0])]
    if importlib.util.find_spec("ziglang"):
        # As `c++` it would compile a C++ library first, which takes minutes and is not needed.
        found.append([sys.executable, "-m", "ziglang", "cc", "-x", "c++"])
    return found


def _cached_or_compiled(cxx: list[str], flags: list[str], cache: Path | None) -> ctypes.CDLL:
    command = [*cxx, *flags]
    name = f"kernels-{_key(cxx, command)}.so"
    if cache is not None and _is_usable(cache):
        build_folders.remove_stale(cache, "build-")
        with contextlib.suppress(OSError):  # none, or damaged, or for another machine
            return _open_kept(cache / name)
        try:
            with build_folders.make(cache, "build-") as folder:
                library = _compile(command, folder / name)
                _keep(folder / name, cache / name)
                return library
        except compiler.CompilerHangs:
            raise
        except (OSError, compiler.CompilerError):
            pass  # perhaps the folder is read-only or full, or nothing may be executed there
    temporary, prefix = Path(tempfile.gettempdir()), "mnist-bn-build-"
    build_folders.remove_stale(temporary, prefix)
    with build_folders.make(temporary, prefix) as folder:  # an open library outlives its file
        return _compile(command, folder / name)


def _is_usable(cache: Path) -> bool:
    """Makes the cache folder if need be; tells whether it is there, and the user's alone."""
    try:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        reason = trust.why_not(cache)
    except OSError:
        return False
    if reason is not None:
        _say(f"{reason}: kernels kept there are not used; name another folder with MNIST_BN_CACHE")
    return reason is None


def _key(cxx: list[str], command: list[str]) -> str:
    """Returns what tells one build from another: source, flags, compiler and its version."""
    digest = hashlib.sha256(compiler.run([*cxx, "--version"], VERSION_SECONDS))
    digest.update("\0".join(["", *command]).encode(errors="surrogateescape"))
    for source in _sources("*.cpp", "*.h"):
        digest.update(b"\0" + source.read_bytes())
    return digest.hexdigest()[:32]


def _compile(command: list[str], path: Path) -> ctypes.CDLL:
    _say(f"compiling the kernels with {compiler.one_line(command[0])}, once ...")
    sources = map(str, _sources("*.cpp"))
    compiler.run([*command, "-o", str(path), *sources], COMPILE_SECONDS)
    return _open(path)


def _sources(*patterns: str) -> list[Path]:
    return sorted(path for pattern in patterns for path in _SOURCE_FOLDER.glob(pattern))


def _open(path: Path) -> ctypes.CDLL:
    """Opens a library of kernels; OSError if it is none or another version's."""
    library = ctypes.CDLL(str(path.absolute()))  # without a folder, it would be looked for
    version = getattr(library, "mnist_bn_kernels_version", None)
    if version is None or version() != KERNELS_VERSION:
        raise OSError(f"{path}: not a library of these kernels")
    return library


def _keep(built: Path, path: Path) -> None:
    """Moves a library to `path`, whole, its checksum beside it."""
    checksum = built.with_suffix(".sha256")
    checksum.write_text(hashlib.sha256(built.read_bytes()).hexdigest())
    with contextlib.suppress(OSError):  # a folder in its place, say: it is compiled anew next time
        for file, mode in ((built, 0o755), (checksum, 0o644)):
            os.chmod(file, mode)  # whatever the umask is
            os.replace(file, path.with_suffix(file.suffix))


def _open_kept(path: Path) -> ctypes.CDLL:
    """Opens what `_keep` moved to `path`; OSError if that is not there, or damaged."""
    # Opening a library that was cut short can kill the process, so its checksum comes first.
    checksum = trust.read(path.with_suffix(".sha256"), 64)
    if checksum != hashlib.sha256(trust.read(path, MAX_BYTES)).hexdigest().encode():
        raise OSError(f"{path}: damaged")
    return _open(path)


def _say(line: str) -> None:
    """Says on a terminal what the user waits for."""
    if sys.stderr is not None and sys.stderr.isatty():
        print(f"Kernels: {line}", file=sys.stderr)
