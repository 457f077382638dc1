"""The table of final accuracies, for people (Markdown), and one row a run, for programs (CSV)."""

import csv
import io
import itertools
import math
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mnist_bn.config import IDENTITY, LENGTHS, RATES
from mnist_bn.errors import UserError
from mnist_bn.plotting import logs
from mnist_bn.plotting.comparison import conditions
from mnist_bn.plotting.groups import NETWORKS, OPTIMIZERS, SeedGroup, in_order, rank
from mnist_bn.plotting.notation import by_number
from mnist_bn.plotting.results import CURVE_KEYS, VALIDATION_ACCURACY, Run
from mnist_bn.plotting.words import printable
from mnist_bn.storage.files import replacing

NOT_RECORDED = "network not recorded"
MAX_NETWORKS = 10  # as columns
_FIRST, _LAST = ("folder", "model", "optimizer"), ("seed", "dataset", "semantics", "study")
_DONE = ("unit", "epochs", "iterations")  # in place of how long the run was to be
_SETTINGS = tuple(name for name in IDENTITY if name not in (*_FIRST, *_LAST, *LENGTHS))
_SETTINGS += ("model_sha256",)
_COLUMNS = (*_FIRST, *_SETTINGS, *_LAST, *_DONE, *CURVE_KEYS, "elapsed_time", "diverged_at")

_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?")
# What begins a formula in a spreadsheet, the wide ones of East Asian keyboards among them.
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def table(curves: Sequence[SeedGroup]) -> str:
    """Markdown: a row an optimizer (and its settings), a column a network, the accuracy at the end.

    Rows and columns change places if there are more than MAX_NETWORKS networks.
    A cell says its seeds and epochs if they are not the table's usual ones.
    """
    caption, said, lines = _content(curves)
    return f"{caption}\n{escaped(said)}\n\n{markdown(lines)}\n"


def on_terminal(curves: Sequence[SeedGroup], columns: int) -> str:
    """The same for a terminal of so many columns: if the table is too wide, a line a cell."""
    caption, said, lines = _content(curves)
    table = markdown(lines)
    if len(table.partition("\n")[0]) > columns:
        table = _listed(lines)
    said = "\n".join(
        textwrap.fill(line, max(columns, 20), subsequent_indent="  ") for line in (caption, said)
    )
    return f"{said}\n\n{table}\n"


def _listed(lines: Sequence[Sequence[str]]) -> str:
    """Plain text: each row's name, and below it the columns that have something for it."""
    (_, *names), *rows = lines
    width = max(map(len, names))
    return "\n".join(
        "\n".join(
            [
                row,
                *(
                    f"  {name:{width}}  {cell}"
                    for name, cell in zip(names, cells, strict=True)
                    if cell
                ),
            ]
        )
        for row, *cells in rows
    )


def _content(curves: Sequence[SeedGroup]) -> tuple[str, str, list[list[str]]]:
    """The caption, the conditions, and the table's lines of cells, its head first."""
    columns = in_order((curve.model or NOT_RECORDED for curve in curves), NETWORKS)
    cells: dict[str, dict[str, SeedGroup]] = {}
    order = sorted(curves, key=lambda c: (rank(c.optimizer, OPTIMIZERS), by_number(c.variant)))
    for curve in order:
        row = _row(curve)
        column = curve.model or NOT_RECORDED
        if column in cells.get(row, {}):
            row = f"{row}, {curve.name}"
        cells.setdefault(row, {})[column] = curve
    sizes = [_size(curve) for curve in curves if curve.survivors and _is_recorded(curve)]
    usual = max(sorted(set(sizes), reverse=True), key=sizes.count, default=None)
    corner = "Optimizer" if any(curve.optimizer for curve in curves) else "Folder"
    corner = corner if len(columns) <= MAX_NETWORKS else "Network"
    lines = [[corner, *columns]] + [
        [row, *(_cell(by_network.get(column), usual) for column in columns)]
        for row, by_network in cells.items()
    ]
    if len(columns) > MAX_NETWORKS:
        lines = [list(line) for line in zip(*lines, strict=True)]
    return _caption(usual, curves[0].unit), f"{conditions(curves)}.", lines


def _row(curve: SeedGroup) -> str:
    """The optimizer with its learning rate and momentum, and the other settings that differ."""
    parts = [curve.optimizer or curve.name]
    if curve.optimizer:
        rates = (f"{key} {curve.settings[key]}" for key in RATES if key in curve.settings)
        parts += [rate for rate in rates if rate not in curve.variant.split(", ")]
    return ", ".join(filter(None, [*parts, curve.variant]))


def summary(runs: Sequence[Run]) -> str:
    """CSV: one row a run; the log's columns are its last entry's numbers, empty if none is.

    `unit` is what the log is written by, and `diverged_at` counts. A cell that a spreadsheet would
    take for a formula begins with an apostrophe.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for run in runs:
        settings = [_scalar(run.args.get(name)) for name in _SETTINGS]
        reached = (logs.position(run.log[-1], unit) for unit in logs.UNITS)
        last = (run.values(key)[-1] for key in (*CURVE_KEYS, "elapsed_time"))
        last = (None if math.isnan(value) else value for value in last)
        cells = itertools.chain(
            (run.folder, run.model, run.optimizer, *settings, run.seed, run.dataset),
            (run.semantics, run.study, run.unit, *reached, *last, run.diverged_at),
        )
        writer.writerow(map(_spreadsheet_cell, cells))
    return text.getvalue()


def _spreadsheet_cell(value: object) -> object:
    """A cell that no spreadsheet takes for a formula; numbers stay numbers."""
    if not isinstance(value, str | Path):
        return value
    text = printable(value)
    if text.strip().startswith(_FORMULA) and not _NUMBER.fullmatch(text):
        return f"'{text}"
    return text


def write(text: str, path: Path) -> Path:
    """Write a table, whole or not at all; raises UserError when it cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(text.encode("utf-8", errors="replace"))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None
    return path


def _caption(usual: tuple[int, int] | None, unit: str) -> str:
    if usual is None:
        return "No run has a final validation accuracy."
    seeds, epochs = usual
    spread = ", mean ± standard deviation" if seeds > 1 else ""
    return (
        f"Final validation accuracy{spread} of {_many(seeds, 'seed')}"
        f" after {_many(epochs, unit)} unless said otherwise."
    )


def _cell(curve: SeedGroup | None, usual: tuple[int, int] | None) -> str:
    if curve is None:
        return ""
    usual_seeds, usual_epochs = usual or (1, None)
    if not curve.survivors:
        seeds = len(curve.runs)
        return "diverged" if seeds == usual_seeds else f"diverged ({_many(seeds, 'seed')})"
    if not _is_recorded(curve):
        return "not recorded"
    _, values = curve.values(VALIDATION_ACCURACY)
    final = values[:, -1]
    text = f"{final.mean():.4f}"
    if len(final) > 1:
        text += f" ± {np.std(final, ddof=1):.4f}"
    seeds, epochs = _size(curve)
    if curve.unfinished:
        remarks = [f"{seeds} of {_many(len(curve.runs), 'seed')}"]
    else:
        remarks = [_many(seeds, "seed")] * (seeds != usual_seeds)
    remarks += [_many(epochs, curve.unit)] * (epochs != usual_epochs)
    remarks += [f"{len(curve.diverged)} diverged"] * bool(curve.diverged)
    return text + (f" ({', '.join(remarks)})" if remarks else "")


def _size(curve: SeedGroup) -> tuple[int, int]:
    """Seeds and epochs behind the final accuracy of a curve that has one."""
    epochs, values = curve.values(VALIDATION_ACCURACY)
    return len(values), int(epochs[-1])


def _is_recorded(curve: SeedGroup) -> bool:
    return curve.values(VALIDATION_ACCURACY)[1].shape[1] > 0


def _many(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table of cells, which are plain text; the first line is its head."""
    lines = [[escaped(cell) for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


def escaped(text: str) -> str:
    """Returns text that Markdown shows as it is: no HTML, no link, no formula, no second cell."""
    text = printable(text).replace("&", "&amp;").replace("<", "&lt;")
    text = re.sub(r"([\\`*\[\]|~$#])", r"\\\1", text)
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)  # within a word it is none of Markdown's


def _scalar(value: object) -> object:
    return value if isinstance(value, str | int | float) else None
