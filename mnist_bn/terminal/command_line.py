"""What the commands share: their parser, and how they end."""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn

import door
from mnist_bn.errors import UsageError, UserError
from mnist_bn.names.suggestions import suggestion
from mnist_bn.terminal import streams, wording

_OPENING, _CLOSING = "([{", ")]}"


def run(main: Callable[[], int], program: str, if_interrupted: str) -> NoReturn:
    """Carries out a command and ends the process with its exit status; see `status_of`."""
    streams.guard()
    status = status_of(main, program, if_interrupted)
    door.end_at_ctrl_c()
    sys.exit(status)


def check(parse: Callable[[], object], program: str, if_interrupted: str) -> None:
    """Ends the process here if its arguments are wrong or ask for help; see `status_of`."""
    streams.guard()

    def action() -> None:
        parse()

    if status := status_of(action, program, if_interrupted):
        door.end_at_ctrl_c()
        sys.exit(status)


def status_of(action: Callable[[], int | None], program: str, if_interrupted: str) -> int:
    """Returns the exit status of a command's action; an error of the user's is one line.

    Args:
        action: returns an exit status, or None for 0.
        program: the script's name; messages begin with the name that was called.
        if_interrupted: what to say after a Ctrl-C that the action does not handle itself.
    """
    try:
        return action() or 0
    except UserError as error:
        wording.say(f"{wording.named(program)}: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        wording.say(f"{wording.named(program)}: interrupted; {if_interrupted}", file=sys.stderr)
        return 130


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the description, and a name with hyphens in one piece.

    An action may have a function `text` for its help: its names are of modules that take half a
    second to import, which only those wait for who read them.
    """

    def _expand_help(self, action: argparse.Action) -> str:
        text = vars(action).get("text")
        return super()._expand_help(action) if text is None else text()

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


class Parser(argparse.ArgumentParser):
    """Raises UsageError, one line, instead of printing its usage and exiting as argparse does."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **{"formatter_class": HelpFormatter, **kwargs})
        # In place of argparse's "invalid int value".
        self.register("type", int, _a(int, "a whole number"))
        self.register("type", float, _a(float, "a number"))

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see --help)")

    def parse_args(  # type: ignore[override]  # argparse's hints: one for each kind of namespace
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Parses the arguments; a flag that there is not is refused with the nearest that is."""
        words = sys.argv[1:] if args is None else args
        for word in words:
            flag = word.partition("=")[0]
            # It would be the short flag -m with the value "odel".
            is_short = flag.startswith("-") and not flag.startswith("--")
            if is_short and f"-{flag}" in self._option_string_actions:
                self.error(f"there is no flag {flag}; did you mean '-{flag}'?")
        arguments, unknown = self.parse_known_args(args, namespace)
        if unknown:
            if full := self._flag_of_one_value(words, unknown[0]):
                further = itertools.takewhile(lambda word: not word.startswith("-"), unknown)
                self.error(f"{full} takes one value, found also: {' '.join(further)}")
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self._near(unknown)}")
        return arguments

    def _flag_of_one_value(self, words: Sequence[str], unknown: str) -> str | None:
        """Returns the flag that a value too many stands behind, None if it stands elsewhere."""
        if unknown.startswith("-") or unknown not in words:
            return None
        before = words[: len(words) - 1 - words[::-1].index(unknown)]
        flag = next((word for word in reversed(before) if word.startswith("-")), "")
        action = self._option_string_actions.get(flag)
        return flag if action is not None and action.nargs is None else None

    def _near(self, unknown: Sequence[str]) -> str:
        """The nearest flag to the first of the words that looks like one, or how flags are used."""
        flags = [word.partition("=")[0] for word in unknown if word.startswith("-")]
        if not flags:
            usage = " ".join(self.format_usage().removeprefix("usage:").split())
            return f"; a value follows its flag, as in {usage}"
        # Without the hyphens, in which all are alike.
        known = [flag.removeprefix("--") for flag in self._option_string_actions]
        return suggestion(flags[0].lstrip("-"), known).replace("'", "'--", 1)

    def print_help(self, file=None) -> None:
        """Prints the help; if it cannot be written, that is a failure."""
        super().print_help(file)
        if streams.has_failed():
            self.exit(1)


class ListAction(argparse.Action):
    """Collects several values, with spaces or commas between or of the flag given again, each once.

    Args:
        of: makes a value of a word, and raises ValueError if it is none.
        expected: the kind of the values, for error messages, such as "whole numbers".
    """

    def __init__(
        self, *, of: Callable[[str], object] = str, expected: str = "names", **kwargs
    ) -> None:
        super().__init__(nargs="+", **kwargs)
        self._of, self._expected = of, expected

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        given = getattr(namespace, self.dest, None)
        before = [] if given is None or given is self.default else given
        new = [self._value(word) for word in self._words(values)]
        setattr(namespace, self.dest, list(dict.fromkeys([*before, *new])))

    def _words(self, values: Sequence[str]) -> list[str]:
        words = []
        for i, text in enumerate(values):
            # As in `0, 1 ,2`: between two words the comma may stand on either side.
            text = text if i == len(values) - 1 else text.removesuffix(",")
            text = text if i == 0 else text.removeprefix(",")
            words += [text] if _names_a_file(text) else split(text)
        if "" in words:
            raise self._wrong(" ".join(values), "nothing stands before or after a comma; ")
        return words

    def _value(self, word: str) -> object:
        try:
            return self._of(word)
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentError(self, str(error)) from None
        except ValueError:
            raise self._wrong(word) from None

    def _wrong(self, text: str, problem: str = "") -> argparse.ArgumentError:
        expected = f"expected {self._expected}, with spaces or commas between"
        return argparse.ArgumentError(self, f"{text!r}: {problem}{expected}")


def _names_a_file(text: str) -> bool:
    """Tells whether it is `path/to/file.py:Name`, whose path may have commas."""
    path, found, _ = text.partition(".py:")
    return bool(found) and os.path.isfile(f"{path}.py")


def split(text: str) -> list[str]:
    """Splits at commas outside of brackets, and at spaces: `A(x=1, y=2),B C` is three words.

    Spaces part no arguments in brackets and no path to a Python file.
    """
    words, depth = [""], 0
    for character in text:
        depth += (character in _OPENING) - (character in _CLOSING)
        if character == "," and depth <= 0:
            words.append("")
        else:
            words[-1] += character
    return [part for word in words for part in _split_at_spaces(word.strip())]


def _split_at_spaces(text: str) -> list[str]:
    if ".py" in text or any(bracket in text for bracket in _OPENING + _CLOSING):
        return [text]
    return text.split() or [text]


def _a(of: Callable[[str], object], expected: str) -> Callable[[str], object]:
    """Returns the `type` of an argument that is a number."""

    def parse(text: str) -> object:
        try:
            return of(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r}: expected {expected}") from None

    return parse


def one_of(names: Iterable[str]) -> Callable[[str], str]:
    """Returns the `type` of an argument that is one of `names`."""
    known = list(names)

    def parse(text: str) -> str:
        if text not in known:
            expected = f"{', '.join(known[:-1])} or {known[-1]}"
            raise argparse.ArgumentTypeError(
                f"invalid choice: {text!r} (expected {expected}){suggestion(text, known)}"
            )
        return text

    return parse
