"""A class by name as the command line has it: `ReluMLP(slope=0.1)`, `path/to/net.py:MyNet`."""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from mnist_bn.errors import UsageError
from mnist_bn.names.suggestions import suggestion


class Spec(NamedTuple):
    """A class, and the arguments to make it with.

    Attributes:
        path: the user's own file that it is in; None for a class of ours or of Chainer's.
        class_name: as it was typed.
        call: class name and arguments, as they were typed.
    """

    path: Path | None
    class_name: str
    call: str
    arguments: dict[str, float | str]


def parse(text: str, flag: str, example: str) -> Spec:
    """Returns what `text` names.

    Args:
        flag: of the command line, for the line that refuses it.
        example: of a call, for that line too, such as "ReluMLP(slope=0.1)".

    Raises:
        UsageError: it is neither a name nor a call with plain arguments.
    """
    if text.endswith(".py"):
        raise UsageError(f"{flag} {text}: say which class of it, as {text}:ClassName")
    call = text.rpartition(":")[2]
    class_name, bracket, _ = call.partition("(")
    if not class_name.isidentifier():
        raise UsageError(
            f"{flag} {text!r}: expected a class's name, as {example}, or path/to/file.py:ClassName"
        )
    arguments = _arguments(text, class_name, call, flag, example) if bracket else {}
    return Spec(path_of(text), class_name, call, arguments)


def path_of(text: str) -> Path | None:
    """Returns the user's own file that a class named so is in, None for one of ours."""
    path = text.rpartition(":")[0]
    return Path(path) if path else None


def in_any_case(name: str, names: Iterable[str]) -> str | None:
    """Returns which of `names` is meant by `name`, None for none or several."""
    known = list(names)
    alike = [one for one in known if one.lower() == name.lower()]
    if name in known:
        return name
    return alike[0] if len(alike) == 1 else None


def nearest_argument(made: type, given: Iterable[str], error: BaseException) -> str:
    """Returns "; did you mean 'beta1'?" if a class refused an argument whose name is near one.

    Args:
        made: the class.
        given: the names of the arguments that it was called with.
        error: what came of it.
    """
    if not isinstance(error, TypeError) or "Did you mean" in str(error):  # since Python 3.13
        return ""
    try:
        known = list(inspect.signature(made).parameters)
    except (TypeError, ValueError):
        return ""
    wrong = [name for name in given if f"unexpected keyword argument '{name}'" in str(error)]
    return suggestion(wrong[0], known) if wrong else ""


def _arguments(
    text: str, class_name: str, call: str, flag: str, example: str
) -> dict[str, float | str]:
    """Returns the numbers and words in a call such as `ReluMLP(slope=0.1)`."""
    try:
        # Python would read on behind the bracket: a comment, say, which may hold anything.
        if not call.endswith(")") or "#" in call or not call.isprintable():
            raise ValueError
        node = ast.parse(call, mode="eval").body
        values = {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords}
        is_call = isinstance(node.func, ast.Name) and node.func.id == class_name and not node.args
        is_twice = len(values) < len(node.keywords)
        if not is_call or is_twice or None in values or not all(map(_is_plain, values.values())):
            raise ValueError
    # OverflowError: an integer beyond any float. The last two: nested too deep for the parser.
    except (SyntaxError, ValueError, AttributeError, OverflowError, RecursionError, MemoryError):
        raise UsageError(
            f"{flag} {text}: expected numbers, or words in quotes, by their names in the "
            f"brackets, as in {example}"
        ) from None
    return values


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        return value.isascii() and value.isidentifier()
    return type(value) in (bool, int, float) and math.isfinite(value)
