"""PlotReport that draws from the log, and no more often than someone can look."""

from __future__ import annotations

import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

import chainer
from chainer.training import extension

from mnist_bn.storage import files

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SECONDS_BEFORE = 2.0  # from the start to the first drawing: whoever trains for less sees the last
SECONDS_BETWEEN = 10.0
LETTERS_A_LINE, INCHES_A_LINE = 70, 0.2  # of the title


class PlotReport(extension.Extension):
    """Plots keys of the log against the epoch or iteration, as Chainer's PlotReport does.

    Chainer's draws after every epoch, which takes longer than a short epoch itself. This one begins
    after SECONDS_BEFORE and draws again only after SECONDS_BETWEEN, and once more when `draw` is
    called at the end of training.

    Args:
        keys: keys of the log, one curve each.
        filename: PNG file in the result folder.
        unit: key of the log for the x axis, "epoch" or "iteration".
    """

    trigger = (1, "epoch")
    # After LogReport, whose newest entry it draws.
    priority = extension.PRIORITY_READER - 1

    def __init__(self, keys: list[str], filename: str, unit: str = "epoch") -> None:
        self.keys = keys
        self.filename = filename
        self.unit = unit
        self.name = f"PlotReport {filename}"
        self._next_time = time.monotonic() + SECONDS_BEFORE

    def __call__(self, trainer: chainer.training.Trainer) -> None:
        if time.monotonic() >= self._next_time:
            self.draw(trainer)
            self._next_time = time.monotonic() + SECONDS_BETWEEN

    def draw(self, trainer: chainer.training.Trainer) -> None:
        """Draws the log as it is now."""
        figure = self.figure(trainer)
        with files.replacing(Path(trainer.out) / self.filename) as file:
            figure.savefig(file, format="png")

    def figure(self, trainer: chainer.training.Trainer) -> Figure:
        """Returns the figure of the log as it is now."""
        # Only here: it takes a quarter of a second that the first step need not wait for.
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator

        log = trainer.get_extension("LogReport").log
        figure = Figure()
        axes = figure.add_subplot()
        for key in self.keys:
            entries = [entry for entry in log if key in entry]
            axes.plot(
                [entry[self.unit] for entry in entries],
                [entry[key] for entry in entries],
                marker="x",
                label=key,
            )
        for entry in log:
            if "diverged_at" in entry:
                where = f"diverged at iteration {entry['diverged_at']['iteration']}"
                axes.axvline(entry[self.unit], color="black", linestyle=":", label=where)
        # The folder's name says which run this is; a `$` in it is no formula.
        lines = textwrap.wrap(Path(trainer.out).name, LETTERS_A_LINE)
        # Matplotlib could find the place of the title and the edges itself, in twice the time.
        axes.set_title("\n".join(lines), fontsize="medium", parse_math=False, y=1.0)
        above = 0.25 + INCHES_A_LINE * len(lines)
        figure.subplots_adjust(top=1 - above / figure.get_figheight())
        of = "its minibatches" if self.unit == "epoch" else "the minibatches since the point before"
        axes.set_xlabel(f"{self.unit} (main/…: mean over {of}, in train mode)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid()
        axes.legend()
        return figure
