"""Runs the kernels under GCC's or Clang's sanitizers: memory, undefined behaviour, threads.

python tests/campaigns/sanitize.py
python tests/campaigns/sanitize.py --rounds 400 --isa sse42
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mnist_bn.kernels import build

DRIVER = Path(__file__).with_suffix(".cpp")
SANITIZERS = {
    "address and undefined behaviour": ["-fsanitize=address,undefined", "-fno-sanitize=vptr"],
    "threads": ["-fsanitize=thread"],
}


def main() -> int:
    """Compiles and runs; returns 1 if a sanitizer complains."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100, help="of random shapes (default 100)")
    parser.add_argument("--isa", choices=build.INSTRUCTION_SETS, default=build.instruction_set())
    arguments = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, flags in SANITIZERS.items():
            program = Path(folder) / "kernels"
            command = [
                *(os.environ.get("CXX", "c++"), "-std=c++17", "-O1", "-g", "-pthread"),
                *("-ffp-contract=fast", "-Wno-psabi", "-fno-sanitize-recover=all", *flags),
                *build.INSTRUCTION_SETS[arguments.isa],
                *("-o", str(program), str(DRIVER), *map(str, build._sources("*.cpp"))),
            ]
            subprocess.run(command, check=True)
            result = subprocess.run([program, str(arguments.rounds)], check=False)
            failed += result.returncode != 0
            print(f"{name}: {'failed' if result.returncode else 'clean'}")
    return min(failed, 1)


if __name__ == "__main__":
    raise SystemExit(main())
