"""Runs any Chainer script with the compiled kernels: `python -m mnist_bn SCRIPT ARGUMENTS`."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Sequence

USAGE = "usage: python -m mnist_bn SCRIPT [ARGUMENT ...]"


def main(argv: Sequence[str]) -> int:
    """Runs the script `argv[0]` as Python would, with the kernels on; returns the exit status."""
    if not argv or argv[0] in ("-h", "--help"):
        print(f"{USAGE}\n\nRuns a Chainer script with the compiled CPU kernels of mnist_bn.")
        return 0 if argv else 2
    script = argv[0]
    if not os.path.isfile(script):
        print(f"mnist_bn: {script}: there is no such file; {USAGE}", file=sys.stderr)
        return 2
    from mnist_bn import kernels

    if kernels.install("auto") == kernels.STOCK:
        reason = kernels.why_not()
        print(f"mnist_bn: no kernels, stock Chainer runs ({reason})", file=sys.stderr)
    sys.argv[:] = argv
    sys.path[0] = os.path.dirname(os.path.abspath(script))
    runpy.run_path(script, run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
