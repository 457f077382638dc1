"""Installs the project in fresh virtual environments and prints what works as a Markdown table.

One row for each Python, pip and NumPy asked for: `pip install` with an empty cache from the
project's folder, then `import chainer` and one training step. Needs the network; a row
takes about half a minute. For example:

    python tests/campaigns/install_matrix.py --python python3.11 python3.13 --pip 23.3 26.0 newest
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
TESTS = "tests/test_mends.py"

STEP = """
import sys, chainer, numpy
link = chainer.links.Linear(3, 2)
optimizer = chainer.optimizers.Adam().setup(link)
optimizer.update(lambda: chainer.functions.sum(link(numpy.ones((4, 3), "float32"))))
print(".".join(map(str, sys.version_info[:3])), numpy.__version__, chainer.__version__)
"""


def main() -> int:
    """Runs every combination asked for; returns 1 if one of them failed."""
    options = parse_arguments()
    print("| Python | pip | NumPy | Chainer | result |\n| --- | --- | --- | --- | --- |")
    failed = False
    for python, pip, numpy in product(options.python, options.pip, options.numpy):
        try:
            versions = install_and_try(python, pip, numpy, options)
        except subprocess.CalledProcessError as error:
            failed = True
            lines = (error.stdout or "no output").strip().splitlines()
            print(f"| {python} | {pip} | {numpy} | | failed: {lines[-1]} |", flush=True)
            if options.verbose:
                print(error.stdout, file=sys.stderr)
        else:
            print(f"| {' | '.join(versions)} | works |", flush=True)
    return int(failed)


def parse_arguments() -> argparse.Namespace:
    """Returns the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", nargs="+", default=[sys.executable], metavar="EXECUTABLE")
    parser.add_argument("--pip", nargs="+", default=["newest"], metavar="VERSION")
    parser.add_argument(
        "--numpy", nargs="+", default=["any"], metavar="VERSION", help="2.2, or 'any' supported"
    )
    parser.add_argument(
        "--only-chainer", action="store_true", help="install ./chainer-build and NumPy only"
    )
    parser.add_argument("--tests", action="store_true", help=f"run {TESTS} too")
    parser.add_argument("--verbose", action="store_true", help="print the output of what fails")
    return parser.parse_args()


def install_and_try(python: str, pip: str, numpy: str, options: argparse.Namespace) -> list[str]:
    """Makes one environment and tries it; returns the versions of Python, pip, NumPy and Chainer.

    Raises:
        subprocess.CalledProcessError: a step failed; its `stdout` holds the output.
    """
    with tempfile.TemporaryDirectory(prefix="install matrix ") as folder:
        run([python, "-m", "venv", folder])
        executable = str(Path(folder, "bin", "python"))
        install = [executable, "-m", "pip", "install", "--quiet"]
        run([*install, "--upgrade", "pip" if pip == "newest" else f"pip=={pip}"])
        packages = ["./chainer-build"] if options.only_chainer else ["-r", "requirements.txt"]
        packages.append("numpy>=2.0,<2.6" if numpy == "any" else f"numpy=={numpy}.*")
        if options.tests:
            packages += ["pytest", "pytest-timeout", "scipy", "joblib"]
        run([*install, *packages])
        if options.tests:
            run([executable, "-m", "pytest", "-q", "--noconftest", TESTS])
        python_version, *versions = run([executable, "-W", "error", "-c", STEP]).split()[-3:]
        pip_version = run([executable, "-m", "pip", "--version"]).split()[1]
        return [python_version, pip_version, *versions]


def run(command: list[str]) -> str:
    """Runs `command` in the project's folder with pip's cache off; returns its output."""
    return subprocess.run(
        command,
        cwd=PROJECT,
        env={**os.environ, "PIP_NO_CACHE_DIR": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ).stdout


if __name__ == "__main__":
    sys.exit(main())
