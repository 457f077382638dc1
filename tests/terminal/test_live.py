"""What a terminal shows of a sweep: a line a running run, one for the whole, in 80 columns."""

import io
import math
import os
import re
import sys
import threading
import time
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from mnist_bn.config import grid
from mnist_bn.terminal import board, live, redrawn

POSITION = board.Position(30, 120, 0.25, 0.9123, 5150.4)


@given(
    st.lists(
        st.builds(
            board.Position,
            st.integers(0, 10**12),
            st.integers(1, 10**12),
            st.floats(0, 1e9),
            st.floats(0, 1) | st.just(math.nan),
            st.floats(0, 1e9) | st.just(math.nan),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_what_is_written_is_read(positions):
    with board.create(len(positions) + 1) as shared:
        assert shared.read() == [None] * (len(positions) + 1)
        for run, position in enumerate(positions):
            shared.line(run).write(board.Position(1, 2, 0.5, 0.1, 1e9))
            shared.line(run).write(position)
        *found, untouched = shared.read()
        assert untouched is None
        for was, now in zip(positions, found, strict=True):
            assert (now.iteration, now.steps) == (was.iteration, was.steps)
            for a, b in zip(was[2:], now[2:], strict=True):
                assert b == pytest.approx(a, rel=1e-5, nan_ok=True)


def test_a_line_that_is_half_written_or_gone_is_no_position():
    with board.create(2) as shared:
        shared.line(0).write(POSITION)
        path = shared.line(0).path
        path.write_bytes(path.read_bytes()[:7])
        assert shared.read() == [None, None]
    assert shared.read() == [None, None]
    shared.line(0).write(POSITION)  # the sweep has ended
    assert not path.exists()


def test_a_watch_writes_twice_a_second(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(board.time, "monotonic", lambda: now[0])
    log = types.SimpleNamespace(log=[])
    updater = types.SimpleNamespace(iteration=0, epoch_detail=0.0)
    trainer = types.SimpleNamespace(updater=updater, get_extension=lambda name: log)
    with board.create(1) as shared:
        watch = board.Watch(shared.line(0), steps=1200, batchsize=100)
        for _ in range(10):
            updater.iteration += 1
            updater.epoch_detail += 1 / 600
            watch(trainer)
            now[0] += 0.2
            if updater.iteration == 5:
                log.log.append({"validation/main/accuracy": 0.5})
        (position,) = shared.read()
        # Written at 0, 0.6, 1.2 and 1.8 s: steps 1, 4, 7 and 10, of 100 images each.
        assert position.iteration == 10 and position.steps == 1200
        assert position.accuracy == 0.5
        assert position.images_per_second == pytest.approx(500)


def drawn(display, columns=80):
    terminal = io.StringIO()
    Console(file=terminal, width=columns, color_system=None).print(display)
    return terminal.getvalue().splitlines()


@pytest.fixture
def configs():
    return grid({"dataset": "mnist", "optimizer": ["SGD", "Adam"], "seed": [0, 1], "epoch": 4})


def test_a_line_a_running_run_and_one_for_the_whole(configs, monkeypatch, capsys):
    monkeypatch.setattr(live.time, "monotonic", lambda: 1000.0)
    names = ["SGD seed 0", "SGD seed 1", "a network of a very long name " * 5, "Adam seed 1"]
    with board.create(4) as shared:
        display = live.Display(configs, names, shared)
        assert drawn(display) == ["0/4 runs, 0:00:00"]
        # The processes start for 20 s: that says nothing of how long the runs will take.
        monkeypatch.setattr(live.time, "monotonic", lambda: 1020.0)
        shared.line(0).write(board.Position(1, 120, 0.01, math.nan, math.nan))
        shared.line(2).write(POSITION)
        drawn(display)  # of what is done by now nothing says how long it took
        shared.line(0).write(board.Position(121, 120, 4.0, 0.98, 8000.0))
        shared.line(2).write(POSITION._replace(iteration=60, epochs=1.99))
        monkeypatch.setattr(live.time, "monotonic", lambda: 1080.0)
        first, second, whole = drawn(display)
        assert re.fullmatch(r"SGD seed 0 +━+ epoch 4/4 0\.9800 8,000 images/s", first)
        assert re.fullmatch(r"a netw.*….*name +[━╸╺ ]+ epoch 2/4 0\.9123 5,150 images/s", second)
        assert max(map(len, (first, second))) <= 80
        # 0.99 + 0.25 runs took 60 s, and 4 - 1.5 are left.
        assert whole == "0/4 runs, 0:01:20, about 0:02:01 left"
        display.end(0, "SGD seed 0: done", is_over=True)
        display.end(2, "stopped", is_over=False)
        assert drawn(display)[0].startswith("1/4 runs, 0:01:20")
        assert capsys.readouterr().out == "SGD seed 0: done\nstopped\n"


def test_the_clock_goes_on_while_no_run_ends(configs, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    before = threading.active_count()
    with board.create(4) as shared, live.shown(configs, ["a"] * 4, shared):
        deadline = time.monotonic() + 20
        while "0/4 runs, 0:00:01" not in terminal.getvalue():
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert threading.active_count() == before


def test_nothing_is_drawn_without_a_terminal(configs, capsys):
    with board.create(4) as shared, live.shown(configs, ["a"] * 4, shared) as display:
        shared.line(1).write(POSITION)
        display.end(0, "a: done", is_over=True)
        redrawn.draw()
    assert capsys.readouterr() == ("a: done\n", "")


def test_the_board_is_its_owners_alone():
    with board.create(1) as shared:
        assert os.stat(shared.line(0).path).st_mode & 0o077 == 0
