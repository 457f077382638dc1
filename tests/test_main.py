"""`python -m mnist_bn SCRIPT`: any Chainer script, with the kernels on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mnist_bn import kernels

PROJECT = Path(__file__).parents[1]

SCRIPT = """
import sys
import chainer, chainer.links as L, numpy
import neighbour
from mnist_bn import kernels
print(__name__, sys.argv[1:], neighbour.NAME, kernels.active())
x = numpy.ones((2, 1, 8, 8), "float32")
print(L.Convolution2D(1, 2, 3)(x).shape)
if sys.argv[1:] == ["--fail"]:
    sys.exit(7)
"""


@pytest.fixture
def run(tmp_path):
    (tmp_path / "neighbour.py").write_text("NAME = 'beside'")
    (tmp_path / "script.py").write_text(SCRIPT)

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "mnist_bn", *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=100,
        )

    return run


def test_script_runs_as_main_with_its_arguments_neighbours_and_the_kernels(run):
    active = kernels.install("auto")
    result = run("script.py", "-a", "b c")
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"__main__ ['-a', 'b c'] beside {active}\n(2, 2, 6, 6)\n"
    assert ("stock Chainer runs" in result.stderr) == (active == kernels.STOCK)


def test_exit_status_is_the_scripts(run):
    assert run("script.py", "--fail").returncode == 7


@pytest.mark.parametrize("arguments", [["missing.py"], []])
def test_wrong_usage_is_one_line(run, arguments):
    result = run(*arguments)
    assert result.returncode == 2
    assert "usage: python -m mnist_bn SCRIPT" in result.stdout + result.stderr
    assert "Traceback" not in result.stderr
