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
    from collections.abc import Sequence

    from mnist_bn import studies
    from mnist_bn.plotting.words import printable
    from mnist_bn.terminal import command_line, wording
    from mnist_bn.terminal.command_line import ListAction, Parser, one_of

FORMATS = ("png", "svg", "pdf")
ENDING = {
    "program": "plot_results.py",
    "if_interrupted": "the figures written so far are whole",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return command_line.status_of(lambda: _draw(_parser().parse_args(argv)), **ENDING)


def _draw(arguments: argparse.Namespace) -> None:
    # Only now: it takes a second to import.
    with door.importing(__name__):
        from mnist_bn.redraw import redraw
    redraw(**vars(arguments), studies=studies, note=_note)


def _note(line: str) -> None:
    wording.note(ENDING["program"], printable(line))


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
        dest="formats",
        action=ListAction,
        of=one_of(FORMATS),
        default=["png"],
        metavar="FORMAT",
        help="of the figures, one or more of png, svg and pdf (default: png)",
    )
    parser.add_argument(
        "--paste",
        dest="pages",
        nargs="+",
        default=(),
        metavar="FILE",
        help="Markdown files to put the tables into, each between the lines `<!-- begin"
        " exercise/claims.md -->` and `<!-- end exercise/claims.md -->`",
    )
    parser.add_argument(
        "--page",
        nargs="?",
        const="",
        metavar="FILE",
        help="also write a page to look around in: one HTML file (default: page.html beside the"
        " figures; needs Plotly)",
    )
    parser.add_argument("--semantics", help="only runs evaluated so: today or 2016")
    parser.add_argument(
        "--dataset", help="only runs on this dataset, such as mnist or cifar10-unverified"
    )
    return parser


if __name__ == "__main__":
    command_line.run(main, **ENDING)
