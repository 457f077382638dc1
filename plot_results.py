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
    from collections.abc import Sequence
    from pathlib import Path

    from mnist_bn import drawing, studies
    from mnist_bn.errors import UserError
    from mnist_bn.plotting import claims, partition, pasting, tables
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
    parts = partition.parts(runs, studies.has_preset)
    files.make_folder(out)
    made = {}  # by part
    if len(parts) == 1:
        drawn = _drawn(parts[0], out, arguments.format)
        made[parts[0].name] = drawn.files
        count = f"Read {wording.count(read, 'run')}" + f", drew {drawn.runs}" * (drawn.runs != read)
        wording.say(f"{count}. Written to {printable(out)}: {', '.join(drawn.names)}")
    else:
        differences = partition.differences(parts)
        groups = f"drawn in {len(parts)} groups: they differ in {differences}"
        wording.say(f"Read {wording.count(read, 'run')}, {groups}.")
        if (out / "summary.csv").exists():
            _note(f"{out}: the figures and tables right in it are of an earlier call")
    for part in parts if len(parts) > 1 else ():
        folder = out / part.name
        print()
        try:
            drawn = _drawn(part, folder, arguments.format)
        except UserError as error:
            _note(f"{part.name}: not drawn ({error})")
        else:
            made[part.name] = drawn.files
            written = f"written to {printable(folder)}: {', '.join(drawn.names)}"
            wording.say(f"{wording.count(drawn.runs, 'run')}, {written}")
    if arguments.paste:
        texts = pasting.texts(made)
        pasted = pasting.paste(texts, Path(arguments.paste))
        wording.say(f"Pasted into {printable(arguments.paste)}: {', '.join(pasted)}")
    if failed := len(parts) - len(made):
        raise UserError(f"{failed} of {len(parts)} groups could not be drawn; see above")


def _drawn(part: partition.Part, out: Path, formats: Sequence[str]) -> drawing.Drawn:
    """Draws runs that share figures, and prints their table and what their study claims."""
    name = part.kind.study
    study = studies.get(name) if name and name in studies.names() else None
    drawn = drawing.draw(part, study, out, formats, _note)
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


def _note(line: str) -> None:
    program = wording.named(ENDING["program"])
    wording.say(f"{program}: note: {printable(line)}", file=sys.stderr)


def _parser() -> Parser:
    parser = Parser(
        prog=wording.named(ENDING["program"]),
        description="Draw the figures that compare result folders.",
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
    parser.add_argument(
        "--paste",
        metavar="FILE",
        help="a Markdown file to put the tables into, each between the lines `<!-- begin"
        " exercise/claims.md -->` and `<!-- end exercise/claims.md -->`",
    )
    parser.add_argument("--semantics", help="only runs evaluated so: today or 2016")
    parser.add_argument(
        "--dataset", help="only runs on this dataset, such as mnist or cifar10-unverified"
    )
    return parser


if __name__ == "__main__":
    command_line.run(main, **ENDING)
