"""Reading a `log` as Chainer's LogReport writes it: its text in, the entries of one run out.

Stock Chainer's may be written by epoch or by iteration, may hold NaN, and may have been cut off by
a kill, gone back by a resume, or written by several runs one after the other.
"""

import bisect
import itertools
import json
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from mnist_bn.errors import UserError
from mnist_bn.terminal.wording import count

TRAIN_LOSS, TRAIN_ACCURACY = "main/loss", "main/accuracy"
VALIDATION_LOSS, VALIDATION_ACCURACY = "validation/main/loss", "validation/main/accuracy"
CURVE_KEYS = (TRAIN_LOSS, TRAIN_ACCURACY, VALIDATION_LOSS, VALIDATION_ACCURACY)
UNITS = ("epoch", "iteration")

Entry = dict[str, Any]

_MAX_POSITION = 100_000_000
_MAX_NUMBER = float(np.finfo(np.float32).max)
_BEGIN, _NOT_BETWEEN = re.compile(r"\s*\["), re.compile(r"[^\s,]")


def parse(text: str, notes: list[str]) -> list[Any]:
    """Returns what the JSON lists in the text hold; adds to `notes` what is odd about them.

    Raises:
        UserError: the text is no such list.
    """
    entries, lists, is_whole = _parse(text)
    if lists == 0 or not (is_whole or entries):
        raise UserError("log is not the JSON list that LogReport writes")
    if not is_whole:
        notes.append(f"log is cut off or damaged after {count(len(entries), 'complete entry')}")
    if lists > 1:
        notes.append(f"log has {lists} JSON lists, one after the other")
    return entries


def _parse(text: str) -> tuple[list[Any], int, bool]:
    """Returns the complete entries of all lists, how many lists, and whether that is all."""
    decoder = json.JSONDecoder()
    entries: list[Any] = []
    lists = position = 0
    while begin := _BEGIN.match(text, position):
        lists, position = lists + 1, _next(text, begin.end())
        while not text.startswith("]", position):
            try:
                entry, position = decoder.raw_decode(text, position)
            except (ValueError, RecursionError):
                return entries, lists, False
            entries.append(entry)
            position = _next(text, position)
        position += 1
    return entries, lists, not text[position:].strip()


def _next(text: str, position: int) -> int:
    """Returns where the next entry, or the list's end, is."""
    found = _NOT_BETWEEN.search(text, position)
    return found.start() if found else len(text)


def unit_of(entries: Sequence[Any], args: dict[str, Any]) -> str:
    """Returns what the entries are to be counted in: "epoch" or "iteration".

    As the run's settings say. Of a log without such settings, as stock Chainer's, by what it holds.
    """
    if args.get("iteration") or args.get("evaluate_every"):
        unit = "iteration"
    elif "evaluate_every" in args:
        unit = "epoch"
    else:
        unit = "iteration" if _is_by_iteration(entries) else "epoch"
    there = [one for one in UNITS if any(position(entry, one) is not None for entry in entries)]
    return unit if unit in there or not there else there[0]


def _is_by_iteration(entries: Sequence[Any]) -> bool:
    """Tells whether a log was written every so many iterations, not at the ends of epochs.

    Then an epoch has several entries, of ascending iterations; or there are as many iterations from
    entry to entry, and now one epoch and now two.
    """
    found = [tuple(position(entry, unit) for unit in UNITS) for entry in entries]
    at = [(epoch, step) for epoch, step in found if epoch is not None and step is not None]
    steps = {
        (after[0] - before[0], after[1] - before[1]) for before, after in itertools.pairwise(at)
    }
    epochs, iterations = ({step[i] for step in steps} for i in (0, 1))
    is_even = len(iterations) == 1 and min(iterations) > 0 and len(epochs) > 1
    return is_even or any(epochs == 0 and iterations > 0 for epochs, iterations in steps)


def one_run(entries: Sequence[Any], unit: str, notes: list[str]) -> tuple[Entry, ...]:
    """Returns the entries of the last run in the log, ascending in `unit`, one for each.

    If the log goes back, a run was resumed from before: what it then did counts, and what it had
    done from there on does not. If it goes back to the beginning, another run was appended.
    """
    usable = [(at, entry) for entry in entries if (at := position(entry, unit)) is not None]
    kept: list[Entry] = []
    runs, gone = 1, 0
    for i, (at, entry) in enumerate(usable):
        if kept and at <= kept[-1][unit]:
            before = bisect.bisect_left(kept, at, key=lambda one: one[unit])
            following = usable[i + 1][0] if i + 1 < len(usable) else None
            # The first of a run: nothing is before it, or from there on it counts from 0 in other
            # steps, as 100, 200, 300 and then 200, 400.
            if not before or following == 2 * at:
                runs, gone, kept = runs + 1, 0, []
            else:
                gone += len(kept) - before
                del kept[before:]
        kept.append(entry | {unit: at})
    if len(usable) < len(entries):
        left_out = count(len(entries) - len(usable), "entry")
        notes.append(f"{left_out} without a usable {unit} left out")
    if runs > 1:
        part = f"{len(kept)} of {count(len(usable), 'entry')}"
        notes.append(f"log is of {runs} runs, one after the other: only the last counts, {part}")
    if gone:
        notes.append(f"{count(gone, 'entry')} from before a resume left out, the later ones kept")
    odd = sum(math.isnan(number(one[key])) for one in kept for key in CURVE_KEYS if key in one)
    if odd:
        notes.append(f"{count(odd, 'value')} that should be a number left out")
    return tuple(kept)


def position(entry: Any, unit: str) -> int | None:
    """Returns the epoch or the iteration of an entry; None: it has no usable one."""
    at = number(entry.get(unit, "")) if isinstance(entry, dict) else math.nan
    return int(at) if 0 <= at <= _MAX_POSITION and at == int(at) else None


def number(value: Any) -> float:
    """A JSON value as a number: inf for one that is not finite (null, NaN, ±Infinity, beyond
    float32, which no loss can be), NaN for what is no number at all."""
    if value is None:
        return math.inf
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value) if abs(value) <= _MAX_NUMBER else math.inf
