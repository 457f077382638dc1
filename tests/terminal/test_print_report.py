"""The table of a run, and its progress bar, on a terminal of 80 columns."""

import math
import os
import pty
import re
import subprocess
import sys
import termios
import types
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_bn.terminal import print_report
from mnist_bn.terminal.progress_bar import ProgressBar

ROOT = Path(__file__).parents[2]
KEYS = [key for key, _, _ in print_report._COLUMNS]


@given(
    st.dictionaries(st.sampled_from(KEYS), st.floats(min_value=0, width=32) | st.just(math.nan)),
    st.integers(0, 10**9 - 1),
    st.sampled_from(["epoch", "iteration"]),
)
def test_a_row_fits_into_80_columns_and_stands_below_its_heading(entry, position, unit):
    line = print_report.row({**entry, unit: position}, unit)
    heading = print_report.header(unit)[1]
    assert len(line) < 80 and len(heading) < 80
    assert line.split()[0] == str(position)
    starts = [match.start() for match in re.finditer(r"\S+", heading)]
    for start, key in zip(starts[1:], KEYS, strict=True):
        word = line[start:].split("  ")[0].strip()
        assert word == (f"{entry[key]:g}" if key in entry else "")


def trainer(iteration, images, batchsize):
    """What the bar asks of a trainer after so many steps."""
    updater = types.SimpleNamespace(
        iteration=iteration,
        epoch=iteration * batchsize // images,
        epoch_detail=iteration * batchsize / images,
        is_new_epoch=iteration * batchsize % images == 0,
    )
    return types.SimpleNamespace(updater=updater)


@pytest.mark.parametrize(
    ("length", "unit", "images", "batchsize", "steps"),
    [
        (20, "epoch", 60_000, 100, 12_000),
        (3, "epoch", 1497, 100, 45),  # 44.91: the last batch of an epoch reaches into the next
        (1, "epoch", 1497, 1000, 2),
        (7, "iteration", 1497, 100, 7),
    ],
)
def test_the_steps_of_a_run(length, unit, images, batchsize, steps):
    for iteration in (1, 2, steps):
        updater = trainer(iteration, images, batchsize).updater
        bar = ProgressBar(length, unit)
        assert bar._steps(updater.iteration, updater.epoch_detail) == steps


def on_a_terminal(folder, *command):
    """Runs a command in a folder, on a terminal of 80 columns; returns its exit status and text."""
    ours, its = pty.openpty()
    termios.tcsetwinsize(its, (24, 80))
    process = subprocess.Popen(
        [sys.executable, *command],
        stdin=its,
        stdout=its,
        stderr=its,
        cwd=folder,
    )
    os.close(its)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        shown += piece
        if not piece:
            break
    os.close(ours)
    return process.wait(timeout=100), shown.decode()


def test_a_run_on_a_terminal(tmp_path):
    line = "--dataset digits --train-images 500 -b 10 -e 2 -m ReluMLP -o r"
    status, shown = on_a_terminal(tmp_path, ROOT / "train_mnist.py", *line.split())
    assert status == 0
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)  # colours and moves of the cursor
    *lines, command, last = re.split(r"[\r\n]+", shown)
    assert not [line for line in lines if len(line) > 80]
    bars = [line for line in lines if "/100 " in line]
    assert bars and re.search(r"epoch 1/2 [━╸╺ ]+ +\d+/100 ", bars[0])
    assert all(
        re.search(r"/100 ([\d,.]+ steps/s)? \d:\d\d:\d\d (\d:\d\d|-:--)", bar) for bar in bars
    )
    assert [line.split()[0] for line in lines if re.match(r"\d+  ", line)] == ["1", "2"]
    assert lines[-1].endswith(" To draw them:")
    assert command.startswith(f"  {sys.executable} {ROOT / 'plot_results.py'} r/ReluMLP-")
    assert last == ""
