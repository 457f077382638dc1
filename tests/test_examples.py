"""The examples, run as a reader runs them."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples/chainermn_bn.py"
FAILING = f"""
import runpy, sys
from mpi4py import MPI
import chainer.functions as F
if MPI.COMM_WORLD.rank == 1:
    F.softmax_cross_entropy = lambda *_: 1 / 0
runpy.run_path({str(EXAMPLE)!r}, run_name="__main__")
"""


def mpiexec(*words):
    program = shutil.which("mpiexec") or shutil.which("mpiexec", path=Path(sys.executable).parent)
    if program is None or importlib.util.find_spec("mpi4py") is None:
        pytest.skip("there is no MPI here: pip install mpi4py mpich")
    line = [program, "-n", "2", sys.executable, *words]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_bn_of_all_processes_has_the_gradients_of_one():
    done = mpiexec(str(EXAMPLE))
    assert done.returncode == 0, done.stderr
    errors = re.findall(r"own statistics (\S+), of all processes (\S+)\n", done.stdout)
    assert len(errors) == 4  # three steps, and the accuracies
    for own, of_all in errors[:3]:
        assert float(own) > 0.05
        assert float(of_all) < 1e-13


def test_an_error_on_one_process_ends_all():
    done = mpiexec("-c", FAILING)
    assert done.returncode != 0
    assert "ZeroDivisionError" in done.stderr
