"""Draws the figures and tables that compare result folders.

python plot_results.py                      # everything under result/
python plot_results.py result/blog -o figures --format png svg
"""

try:
    import door  # first: from here on Ctrl-C costs no traceback
except KeyboardInterrupt:
    raise SystemExit(130) from None
except ImportError as error:  # as with `python -P`, which leaves this folder out
    raise SystemExit(f"plot_results.py: {error}; its folder must be on PYTHONPATH") from None

with door.importing(__name__):
    import argparse
    import os
    import sys
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from mnist_bn import observations, studies
    from mnist_bn.errors import UserError
    from mnist_bn.plotting import comparison, partition, saving, tables
    from mnist_bn.plotting.groups import group_runs
    from mnist_bn.plotting.results import read_runs
    from mnist_bn.plotting.words import printable
    from mnist_bn.storage import files
    from mnist_bn.terminal import command_line, wording
    from mnist_bn.terminal.command_line import ListAction, Parser, one_of

FORMATS = ("png", "svg", "pdf")
ENDING = {
    "program": "plot_results.py",
    "if_interrupted": "the figures written so far are whole",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return command_line.status_of(lambda: plot(_parser().parse_args(argv)), **ENDING)


def plot(arguments: argparse.Namespace) -> None:
    """Read the folders, draw the figures of each part of the runs, write and print their tables.

    Raises:
        UserError: there is nothing to draw, or a part could not be drawn; the others are.
    """
    folders = [Path(folder) for folder in arguments.folders]
    runs = read_runs(folders, _note)
    if not runs:
        raise UserError(
            f"nothing to draw in {', '.join(arguments.folders)}: no folder with a `log` that has"
            " a finished epoch; train_mnist.py makes one"
        )
    out = Path(arguments.out) if arguments.out else _common(folders) / "figures"
    read = len(runs)
    runs = partition.select(runs, arguments.semantics, arguments.dataset)
    parts = partition.parts(runs)
    files.make_folder(out)
    if len(parts) == 1:
        drawn, names = draw_part(parts[0], out, arguments.format)
        count = f"Read {wording.count(read, 'run')}" + f", drew {drawn}" * (drawn != read)
        wording.say(f"{count}. Written to {printable(out)}: {', '.join(names)}")
        return
    differences = partition.differences(parts)
    groups = f"drawn in {len(parts)} groups: they differ in {differences}"
    wording.say(f"Read {wording.count(read, 'run')}, {groups}.")
    if (out / "summary.csv").exists():
        _note(f"{out}: the figures and tables right in it are of an earlier call")
    failed = 0
    for part in parts:
        folder = out / part.name
        print()
        try:
            drawn, names = draw_part(part, folder, arguments.format)
        except UserError as error:
            failed += 1
            _note(f"{part.name}: not drawn ({error})")
        else:
            written = f"written to {printable(folder)}: {', '.join(names)}"
            wording.say(f"{wording.count(drawn, 'run')}, {written}")
    if failed:
        raise UserError(f"{failed} of {len(parts)} groups could not be drawn; see above")


def draw_part(part: partition.Part, out: Path, formats: Sequence[str]) -> tuple[int, list[str]]:
    """Draw runs that share figures: their study's if they are of one, and their observers'.

    Returns how many runs are drawn, and the names of the files.

    Raises:
        UserError: a figure cannot be drawn or written.
    """
    of_a_study = part.kind.study in studies.names()
    study = studies.get(part.kind.study) if of_a_study else None
    curves = group_runs(part.runs, _note)
    runs = observations.without_bad_files(part.runs, curves, _note)
    drawn = comparison.of_runs(runs) if study is None else study.figures(runs)
    figures = _drawn(f"the figures of {part.name}", saving.save, drawn, out, formats)
    if study is not None and not any(path.suffix != ".md" for path in figures or []):
        if figures is not None:
            _note(f"{part.name}: what the study's figures show is not there; drawn as any runs")
        drawn = comparison.of_runs(runs)
        others = _drawn(f"the curves of {part.name}", saving.save, drawn, out, formats)
        figures = [*(figures or []), *(others or [])]
    drawn = observations.figures(runs, leave_out=getattr(study, "OBSERVED", ()))
    observed = _drawn(f"the measurements of {part.name}", saving.save, drawn, out, formats)
    figures = (figures or []) + (observed or [])
    table = tables.table(curves)
    tables.write(table, out / "table.md")
    tables.write(tables.summary(runs), out / "summary.csv")
    print(tables.on_terminal(curves, wording.columns(sys.stdout)) if sys.stdout.isatty() else table)
    drawn = sum(len(curve.runs) - len(curve.unfinished) for curve in curves)
    return drawn, [path.name for path in figures] + ["table.md", "summary.csv"]


def _drawn(what: str, draw: Callable[..., list[Path]], *arguments: object) -> list[Path] | None:
    """What `draw` has written; None, with a note, if it cannot make a figure of these runs.

    Whatever it raises: the runs' files may hold any numbers, and the other figures are to be drawn.

    Raises:
        CannotWriteError: a figure cannot be written.
    """
    try:
        return draw(*arguments)
    except files.CannotWriteError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        reason = reason if isinstance(error, UserError) else f"{type(error).__name__}: {reason}"
        _note(f"{what} are not drawn ({reason})")
    return None


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


def _note(line: str) -> None:
    wording.say(f"plot_results.py: note: {printable(line)}", file=sys.stderr)


def _parser() -> Parser:
    parser = Parser(
        prog="plot_results.py", description="Draw the figures that compare result folders."
    )
    parser.add_argument(
        "folders",
        nargs="*",
        default=["result"],
        metavar="FOLDER",
        help="result folders, or folders of them (default: result)",
    )
    parser.add_argument(
        "-o", "--out", metavar="DIR", help="where to write (default: FOLDER/figures)"
    )
    parser.add_argument(
        "--format",
        action=ListAction,
        of=one_of(FORMATS),
        default=["png"],
        metavar="FORMAT",
        help="of the figures, one or more of png, svg and pdf (default: png)",
    )
    parser.add_argument("--semantics", help="only runs evaluated so: today or 2016")
    parser.add_argument(
        "--dataset", help="only runs on this dataset, such as mnist or cifar10-unverified"
    )
    return parser


if __name__ == "__main__":
    command_line.run(main, **ENDING)
