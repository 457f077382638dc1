"""The log as a table that fits into the 80 columns of a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from chainer.training import Trainer, extension

from mnist_bn.terminal import redrawn

# Of each column: its key in the log, the key's words one below the other, and its width.
_COLUMNS = (
    ("main/loss", ("", "main/loss"), 11),
    ("validation/main/loss", ("validation", "main/loss"), 11),
    ("main/accuracy", ("", "main/accuracy"), 13),
    ("validation/main/accuracy", ("validation", "main/accuracy"), 13),
    ("elapsed_time", ("", "elapsed_time"), 12),
)
_POSITION_WIDTH = 9


class PrintReport(extension.Extension):
    """Prints the log as it grows, as Chainer's PrintReport does, in narrower columns.

    Args:
        unit: what the log counts in, "epoch" or "iteration".
    """

    name = "PrintReport"

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._printed = 0

    def __call__(self, trainer: Trainer) -> None:
        """Prints the entries of the log that are new: of a resumed run, at first all of them."""
        log = trainer.get_extension("LogReport").log
        lines = [] if self._printed else header(self._unit)
        lines += [row(entry, self._unit) for entry in log[self._printed :]]
        self._printed = len(log)
        redrawn.say_above("\n".join(lines))


def header(unit: str) -> list[str]:
    """Returns the lines above the table."""
    return [
        _join([(word, _POSITION_WIDTH), *((words[i], width) for _, words, width in _COLUMNS)])
        for i, word in enumerate(("", unit))
    ]


def row(entry: Mapping[str, float], unit: str) -> str:
    """Returns an entry of the log as a line; a number that it lacks is left blank."""
    cells = [(str(entry[unit]), _POSITION_WIDTH)]
    for key, _, width in _COLUMNS:
        value = entry.get(key)
        cells.append(("" if value is None else f"{value:g}", width))
    return _join(cells)


def _join(cells: list[tuple[str, int]]) -> str:
    return "  ".join(f"{text:<{width}}" for text, width in cells).rstrip()
