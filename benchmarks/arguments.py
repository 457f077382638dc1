"""What the commands have in common: arguments, and the JSON that they write."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

MODELS = ("MnistCNN", "MnistCNN_BN_before", "MnistCNN_BN_after", "MnistCNN_BN_linear_before")
OF_OTHER_STUDIES = (
    *("ExerciseMLP", "ExerciseMLP_BN", "ReluMLP", "ReluMLP_BN", "SigmoidMLP", "SigmoidMLP_BN"),
    *("CS231nMLP", "CS231nMLP_BN", "ResNetCIFAR(depth=20)", "ResNetCIFAR(depth=110)"),
)
OPTIMIZERS = ("Adam", "SGD")


class Parser(argparse.ArgumentParser):
    """Ends with one line, where argparse would print its usage as well.

    mnist_bn.terminal.command_line has one too, but NumPy would come with it, before the restart.
    """

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see --help)\n")


def make_parser(
    description: str,
    models: Sequence[str],
    batch: list[int],
    repeats: int,
    block: int,
    what: Sequence[str] = ("train", "eval"),
    others: Sequence[str] = (),
) -> Parser:
    """Returns a parser of what every measurement has; the arguments are its defaults.

    Args:
        others: networks besides MODELS.
    """
    parser = Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model",
        nargs="+",
        choices=(*MODELS, *others),
        default=list(models),
        metavar="NAME",
        help=f"of {', '.join((*MODELS, *others))} (default: the blog's four)",
    )
    parser.add_argument("--batch", nargs="+", type=int, default=batch, metavar="N")
    parser.add_argument("--what", nargs="+", choices=what, default=list(what), help="default: all")
    parser.add_argument("--variants", nargs="+", metavar="NAME", help="default: all there are")
    parser.add_argument(
        "--repeats", type=int, default=repeats, metavar="N", help=f"rounds (default {repeats})"
    )
    parser.add_argument(
        "--block", type=int, default=block, metavar="N", help=f"steps a turn (default {block})"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    return parser


def parse(parser: Parser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Returns the arguments, checked; a bad one ends the process with exit status 2."""
    arguments = parser.parse_args(argv)
    if min(arguments.repeats, arguments.block, *arguments.batch) < 1:
        parser.error("--repeats, --block and --batch: expected 1 or more")
    if arguments.json is not None and not arguments.json.parent.is_dir():
        parser.error(f"--json {arguments.json}: there is no folder {arguments.json.parent}")
    return arguments


def refuse(parser: Parser, argv: Sequence[str] | None, names: Sequence[str], cause: str) -> None:
    """Ends with exit status 2 if an option of `names` is given that does nothing.

    Args:
        cause: the option beside which it does nothing.
    """
    # argparse puts a default only if the namespace has no value.
    unset = argparse.Namespace(**dict.fromkeys(names))
    given = vars(parser.parse_args(argv, unset))
    for name in names:
        if given[name] is not None:
            parser.error(f"--{name}: does nothing beside {cause}; leave one of them out")


def available_variants(
    wanted: Sequence[str] | None, variants: Sequence[str], missing: dict[str, str]
) -> list[str]:
    """Returns those of the `wanted` (None: all) that are not `missing`, and prints why these are.

    Raises:
        UserError: a name is wrong, or none is left.
    """
    from mnist_bn.errors import UsageError, UserError

    if unknown := set(wanted or ()) - set(variants):
        raise UsageError(f"--variants {min(unknown)}: choose from {', '.join(variants)}")
    wanted = list(wanted or variants)
    for variant in wanted:
        if variant in missing:
            print(f"{variant}: not available ({missing[variant]})")
    available = [variant for variant in wanted if variant not in missing]
    if not available:
        raise UserError("none of --variants is available here")
    return available


def run(
    program: str, measure: Callable[[argparse.Namespace], None], arguments: argparse.Namespace
) -> int:
    """Measures, and returns the exit status; an error of the user's is one line on stderr."""
    # Not before the restart: NumPy reads the environment when it loads.
    from mnist_bn.errors import UserError

    try:
        measure(arguments)
    except UserError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return error.status
    return 0


def write_json(arguments: argparse.Namespace, about: dict, results: list[dict]) -> None:
    """Writes what was measured, on what and how, to the file that --json names, if it is given."""
    if arguments.json is None:
        return
    settings = {key: value for key, value in vars(arguments).items() if key != "json"}
    text = json.dumps({**about, "settings": settings, "results": results}, indent=1)
    arguments.json.write_text(text + "\n")
