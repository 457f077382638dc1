"""From result folders to figures and tables: reads, draws each part of the runs, and says so."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType

from mnist_bn import drawing
from mnist_bn import page as interactive
from mnist_bn.errors import UserError
from mnist_bn.plotting import claims, partition, pasting, tables
from mnist_bn.plotting.results import read_runs
from mnist_bn.plotting.words import printable
from mnist_bn.storage import files
from mnist_bn.terminal import wording

SUMMARY = "claims.md"  # of all studies

Note = Callable[[str], None]
Draw = Callable[[partition.Part, Path], drawing.Drawn]


def redraw(
    folders: Sequence[str],
    studies: ModuleType,
    note: Note,
    out: str | None = None,
    formats: Sequence[str] = ("png",),
    semantics: str | None = None,
    dataset: str | None = None,
    pages: Sequence[str] = (),
    page: str | None = None,
) -> None:
    """Reads the folders, draws the figures of each part of the runs, and prints their tables.

    Args:
        folders: result folders, or folders of them.
        studies: the package that has them by name.
        note: is told in a line what was left out.
        out: the folder to write to; None for `figures` in their common folder.
        formats: of the figures.
        semantics, dataset: only runs with these; None takes all.
        page: an HTML file to look around in; "" for one beside the figures. See `mnist_bn.page`.
        pages: Markdown files to paste the tables into; see `pasting`.

    Raises:
        UserError: there is nothing to draw, or a part could not be drawn; the others are.
    """
    if page is not None:
        interactive.check()
    sources = [Path(folder) for folder in folders]
    every = read_runs(sources, note)
    if not every:
        raise UserError(
            f"nothing to draw in {', '.join(folders)}: no folder with a `log` that has"
            " a finished epoch; train_mnist.py makes one"
        )
    target = Path(out) if out else _common(sources) / "figures"
    parts = partition.parts(partition.select(every, semantics, dataset), studies.has_preset)
    files.make_folder(target)
    draw = partial(_drawn, formats=formats, studies=studies, note=note)
    if len(parts) == 1:
        drawn = {parts[0].name: _draw_only(len(every), parts[0], target, draw)}
    else:
        drawn = _draw_each(len(every), parts, target, draw, note)
    texts = pasting.texts({name: one.files for name, one in drawn.items()})
    findings = {name: one.findings for name, one in drawn.items() if one.findings}
    if len(findings) > 1:
        texts[SUMMARY] = claims.summary(findings)
        tables.write(texts[SUMMARY], target / SUMMARY)
        wording.say(f"\nThe claims of all studies: {printable(target / SUMMARY)}")
    for paste_into in pages:
        pasted = pasting.paste(texts, Path(paste_into))
        wording.say(f"Pasted into {printable(paste_into)}: {', '.join(pasted)}")
    if page is not None:
        path = Path(page) if page else target / interactive.NAME
        interactive.write([part for part in parts if part.name in drawn], findings, path, note)
        wording.say(f"To look around in: {printable(path)}")
    if failed := len(parts) - len(drawn):
        raise UserError(f"{failed} of {len(parts)} groups could not be drawn; see above")


def _draw_only(read: int, part: partition.Part, out: Path, draw: Draw) -> drawing.Drawn:
    """Draws the only part of the runs read."""
    drawn = draw(part, out)
    count = f"Read {wording.count(read, 'run')}"
    count += f", drew {drawn.runs}" * (drawn.runs != read)
    wording.say(f"{count}. Written to {printable(out)}: {', '.join(drawn.names)}")
    return drawn


def _draw_each(
    read: int, parts: Sequence[partition.Part], out: Path, draw: Draw, note: Note
) -> dict[str, drawing.Drawn]:
    """Draws each part in a folder of its own; returns what was drawn by the part's name."""
    differences = partition.differences(parts)
    groups = f"drawn in {len(parts)} groups: they differ in {differences}"
    wording.say(f"Read {wording.count(read, 'run')}, {groups}.")
    if (out / "summary.csv").exists():
        note(f"{out}: the figures and tables right in it are of an earlier call")
    made = {}
    for part in parts:
        folder = out / part.name
        print()
        try:
            drawn = draw(part, folder)
        except UserError as error:
            note(f"{part.name}: not drawn ({error})")
        else:
            made[part.name] = drawn
            written = f"written to {printable(folder)}: {', '.join(drawn.names)}"
            wording.say(f"{wording.count(drawn.runs, 'run')}, {written}")
    return made


def _drawn(
    part: partition.Part, out: Path, *, formats: Sequence[str], studies: ModuleType, note: Note
) -> drawing.Drawn:
    """Draws runs that share figures, and prints their table and what their study claims."""
    name = part.kind.study
    study = studies.get(name) if name and name in studies.names() else None
    drawn = drawing.draw(part, study, out, formats, note)
    if sys.stdout.isatty():
        print(tables.on_terminal(drawn.curves, wording.columns(sys.stdout)))
    else:
        print(tables.table(drawn.curves))
    if drawn.findings:
        for line in claims.in_lines(drawn.findings):
            wording.say(line)
        print()
    return drawn


def _common(folders: Sequence[Path]) -> Path:
    """The folder itself, or of several the one that all of them are in."""
    there = [folder for folder in folders if folder.is_dir()]
    if len(there) == 1:
        return there[0]
    try:
        common = os.path.commonpath([folder.absolute() for folder in there])
    except ValueError:  # on several drives
        return there[0]
    return Path(common if there[0].is_absolute() else os.path.relpath(common))
