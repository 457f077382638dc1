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
    import sys
    from collections.abc import Sequence
    from pathlib import Path
    from types import ModuleType

    import mnist_bn  # noqa: F401  makes `import chainer` work, so it comes first

    # isort: split
    from mnist_bn import command_line, studies, wording
    from mnist_bn.command_line import ListAction, Parser, one_of
    from mnist_bn.errors import UserError
    from mnist_bn.plotting import comparison, observations, tables
    from mnist_bn.plotting.groups import group_runs
    from mnist_bn.plotting.results import Run, read_runs

FORMATS = ("png", "svg", "pdf")
ENDING = {
    "program": "plot_results.py",
    "if_interrupted": "the figures written so far are whole",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return command_line.status_of(lambda: plot(_parser().parse_args(argv)), **ENDING)


def plot(arguments: argparse.Namespace) -> None:
    """Read the folders, draw the figures, write and print the table."""
    folders = [Path(folder) for folder in arguments.folders]
    out = Path(arguments.out) if arguments.out else folders[0] / "figures"
    runs = read_runs(folders, _note)
    if not runs:
        raise UserError(
            f"nothing to draw in {', '.join(arguments.folders)}: no folder with a `log` that has"
            " a finished epoch; train_mnist.py makes one"
        )
    read = len(runs)
    runs = comparison.select_runs(runs, arguments.semantics, arguments.dataset)
    curves = group_runs(runs, _note)
    study = _study_of(runs)
    figures = (study.draw if study else comparison.draw)(runs, out, arguments.format)
    shown = getattr(study, "OBSERVED", ())
    figures += observations.draw(runs, out, arguments.format, leave_out=shown)
    table = tables.table(curves)
    tables.write(table, out / "table.md")
    tables.write(tables.summary(runs), out / "summary.csv")
    print(table)
    names = [path.name for path in figures] + ["table.md", "summary.csv"]
    drawn = sum(len(curve.runs) - len(curve.unfinished) for curve in curves)
    count = f"Read {read} run{'s' * (read != 1)}" + f", drew {drawn}" * (drawn != read)
    wording.say(f"{count}. Written to {out}: {', '.join(names)}")


def _study_of(runs: Sequence[Run]) -> ModuleType | None:
    """The study that all the runs belong to, if there is one."""
    belongs_to = {run.args.get("study") for run in runs}
    if len(belongs_to) == 1 and (name := belongs_to.pop()) in studies.names():
        return studies.get(name)
    return None


def _note(line: str) -> None:
    wording.say(f"plot_results.py: note: {line}", file=sys.stderr)


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
