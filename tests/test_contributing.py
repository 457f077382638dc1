"""The examples of CONTRIBUTING.md, added to a copy of the project, work as they stand there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)
PARTS = ("mnist_bn", "models", "door.py", "train_mnist.py", "plot_results.py")

# "The examples are whole but for imports, which are as in the files beside them."
OF_A_MEASUREMENT = """
from typing import ClassVar

import chainer
import numpy as np
from chainer.backends import cuda

from mnist_bn import plotting
from mnist_bn.observers.arrays import Array, Values
from mnist_bn.observers.base import Observer
from mnist_bn.observers.measured import Measured
"""
OF_A_DATASET = """
from pathlib import Path

import numpy as np

from mnist_bn.data import idx
from mnist_bn.data.dataset import Dataset, Split

TITLE = "stripes"
"""
OF_A_STUDY = """
from mnist_bn.plotting import comparison
from mnist_bn.plotting.claims import Claim, leads
"""


def example(heading: str) -> str:
    """The Python text under a heading."""
    section = (PROJECT / "CONTRIBUTING.md").read_text().split(f"\n## {heading}\n")[1]
    return PYTHON.search(section.split("\n## ")[0])[1]


def insert(path: Path, before: str, text: str) -> None:
    """Writes the text into the file, in front of the line that begins so."""
    old = path.read_text()
    assert old.count(before) == 1
    path.write_text(old.replace(before, text + before))


@pytest.fixture
def copy(tmp_path):
    """A copy of the project's code, without what Python and the compiler made of it."""
    made = shutil.ignore_patterns("__pycache__", "*.so")
    for part in PARTS:
        path = PROJECT / part
        if path.is_dir():
            shutil.copytree(path, tmp_path / part, ignore=made)
        else:
            shutil.copy(path, tmp_path)
    return tmp_path


def command(copy: Path, *arguments: str) -> str:
    process = subprocess.run(
        [sys.executable, *arguments],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy), "MNIST_BN_DATA": ""},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_each_thing_is_added_as_it_says(copy):
    package = copy / "mnist_bn"
    (copy / "models" / "wide_mlp.py").write_text(example("A network"))
    (package / "observers" / "weight_norms.py").write_text(
        OF_A_MEASUREMENT + example("A measurement")
    )
    (package / "data" / "stripes.py").write_text(OF_A_DATASET + example("A dataset"))
    insert(package / "config.py", '"cifar10")\nCIFAR10', '"stripes", ')
    (package / "studies" / "width.py").write_text(OF_A_STUDY + example("A study"))
    declared, used = example("A setting").split("    # in mnist_bn/training.py\n")
    insert(package / "config.py", "    train_images: int", declared.rstrip() + "\n")
    insert(package / "training.py", "    order_sampler =", used)
    insert(
        package / "training.py",
        "from chainer.training import Trainer",
        "from chainer.optimizer_hooks import GradientClipping\n",
    )

    flags = ["--dataset", "stripes", "--clip", "0.5", "--observe", "weight-norms", "--out", "out"]
    printed = command(copy, "train_mnist.py", "--study", "width", "--preset", "quick", *flags)
    assert "Dataset stripes: 1,000 training and 200 test images" in printed
    folders = sorted(path.name for path in (copy / "out").rglob("*clip0.5*"))
    assert len(folders) == 4, printed
    assert all((path / "weight-norms.npz").exists() for path in (copy / "out").rglob("*clip0.5*"))
    assert "--clip" in command(copy, "train_mnist.py", "--help")
    assert "WideMLP" in command(copy, "train_mnist.py", "--list-models")

    drawn = command(copy, "plot_results.py", "out")
    assert "wider is better" in drawn
    assert len(list((copy / "out").rglob("*weight-norms.png"))) == 4, drawn
