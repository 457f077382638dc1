"""Compiles the kernels for Windows, macOS and musl with Zig's compiler: do they, and export all?

pip install ziglang
python tests/campaigns/cross.py

The libraries are read, not run.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mnist_bn.kernels import build

TARGETS = {
    "x86_64-windows-gnu": "avx2",
    "aarch64-macos": "neon",
    "x86_64-linux-musl": "avx2",
    "aarch64-linux-musl": "neon",
}


def kernels() -> set[str]:
    """Returns the names of the functions that Python calls."""
    folder = Path(build.__file__).parent
    named = {
        name for path in folder.glob("*.py") for name in re.findall(r'"(\w+)"', path.read_text())
    }
    defined = {
        name
        for path in folder.glob("*.cpp")
        for name in re.findall(r"^(?:extern \"C\" )?\w+ (\w+)\(", path.read_text(), re.MULTILINE)
    }
    return (named & defined) | {"mnist_bn_kernels_version"}


def main() -> int:
    """Returns 1 if one does not compile, or lacks a function."""
    names, failed = kernels(), 0
    flags = [flag for flag in build._FLAGS if not flag.startswith("-Wl,")]
    with tempfile.TemporaryDirectory() as folder:
        for target, instruction_set in TARGETS.items():
            library = Path(folder) / target
            command = [
                *(sys.executable, "-m", "ziglang", "c++", "-target", target, *flags),
                *build.INSTRUCTION_SETS[instruction_set],
                *("-o", str(library), *map(str, build._sources("*.cpp"))),
            ]
            done = subprocess.run(command, check=False)
            content = library.read_bytes() if done.returncode == 0 else b""
            # The tables of exports are lists of names that a zero ends; macOS' begin with "_".
            lacks = [n for n in sorted(names) if not re.search(rb"\0_?%b\0" % n.encode(), content)]
            failed += bool(lacks)
            said = f"lacks {', '.join(lacks)}" if lacks else f"exports all {len(names)} functions"
            print(f"{target}, {instruction_set}: {said if content else 'does not compile'}")
    return min(failed, 1)


if __name__ == "__main__":
    raise SystemExit(main())
