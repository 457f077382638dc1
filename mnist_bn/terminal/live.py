"""What a terminal shows while a sweep is going on: a line a running run, and one for the whole.

It is redrawn on standard error. Without a terminal there, nothing is shown but the lines of the
runs that end, on standard output.
"""

from __future__ import annotations

import contextlib
import datetime
import math
import sys
import time
from collections.abc import Iterator, Sequence

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mnist_bn.config import RunConfig
from mnist_bn.terminal import redrawn, wording
from mnist_bn.terminal.board import Board, Position
from mnist_bn.trainer import schedule

REDRAWN_A_SECOND = 2
_BAR_COLUMNS, _OTHER_COLUMNS = 10, 48  # all but the run's name


class Display:
    """The runs of a sweep as they go on.

    Args:
        names: of the runs, by their place on the board.
    """

    def __init__(self, configs: Sequence[RunConfig], names: Sequence[str], board: Board) -> None:
        self._configs, self._names, self._board = configs, names, board
        self._over: set[int] = set()
        self._ended: set[int] = set()  # those that were stopped among them
        self._first_share: dict[int, float] = {}  # of a run that goes on from a snapshot
        self._start = time.monotonic()
        self._first_step: float | None = None  # when a run was first seen at work

    def end(self, run: int, line: str, is_over: bool) -> None:
        """Says how a run ended, above the runs that go on.

        Args:
            run: its place on the board.
            is_over: nothing is left to do for it.
        """
        self._ended.add(run)
        if is_over:
            self._over.add(run)
        redrawn.say_above(wording.fitted(line, sys.stdout))

    def __rich__(self) -> Group:
        positions = self._board.read()
        running = [
            (run, position)
            for run, position in enumerate(positions)
            if position is not None and run not in self._ended
        ]
        table = Table.grid(padding=(0, 1))
        for justify in ("left", "left", "left", "right", "right"):
            table.add_column(justify=justify, no_wrap=True)
        for run, position in running:
            table.add_row(*self._row(run, position))
        return Group(table, Text(self._whole(running), no_wrap=True, overflow="ellipsis"))

    def _row(self, run: int, position: Position) -> tuple:
        config = self._configs[run]
        number, unit = schedule.length(config)
        done = position.iteration if unit == "iteration" else math.floor(position.epochs) + 1
        accuracy, rate = position.accuracy, position.images_per_second
        return (
            Text(_shortened(self._names[run], self._name_columns())),
            ProgressBar(total=1, completed=position.share, width=_BAR_COLUMNS),
            Text(f"{unit if unit == 'epoch' else 'step'} {min(done, number)}/{number}"),
            Text("" if math.isnan(accuracy) else f"{accuracy:.4f}"),
            Text("" if math.isnan(rate) else f"{rate:,.0f} images/s"),
        )

    def _name_columns(self) -> int:
        return max(12, wording.columns(sys.stderr) - _OTHER_COLUMNS)

    def _whole(self, running: Sequence[tuple[int, Position]]) -> str:
        total, seconds = len(self._configs), time.monotonic() - self._start
        if running and self._first_step is None:  # to start and to compile is no part of its speed
            self._first_step = time.monotonic()
        for run, position in running:
            self._first_share.setdefault(run, position.share)
        done = len(self._over) + sum(position.share for _, position in running)
        here = done - sum(self._first_share.values())  # the rest was done before
        text = f"{len(self._over)}/{wording.count(total, 'run')}, {_clock(seconds)}"
        working = 0.0 if self._first_step is None else time.monotonic() - self._first_step
        if here > 0 and working > 5:
            text += f", about {_clock(working * (total - done) / here)} left"
        return text


def _clock(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds)))


def _shortened(name: str, columns: int) -> str:
    """The name, without its middle if it is too long."""
    if len(name) <= columns:
        return name
    kept = columns - 1
    return f"{name[: kept - kept // 2]}…{name[len(name) - kept // 2 :]}"


@contextlib.contextmanager
def shown(configs: Sequence[RunConfig], names: Sequence[str], board: Board) -> Iterator[Display]:
    """Shows the runs on a terminal until the block ends; its clock goes on while no run does."""
    display = Display(configs, names, board)
    redrawn.begin(display, REDRAWN_A_SECOND)
    try:
        yield display
    finally:
        redrawn.end()
