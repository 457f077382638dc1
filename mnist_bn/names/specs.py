"""A class by name as the command line has it: `ReluMLP(slope=0.1)`, `path/to/net.py:MyNet`."""

from __future__ import annotations

import ast
import inspect
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mnist_bn.errors import UsageError
from mnist_bn.names.suggestions import suggestion


@dataclass(frozen=True)
class NetworkSpec:
    """A class's name with its arguments and its file, taken apart; an optimizer's, too.

    Whatever is written: a name that a result folder records may be no name of ours. `parse` also
    checks it.

    Attributes:
        text: as it is written, such as "path/to/net.py:MyNet(depth=20)".
    """

    text: str

    @property
    def path(self) -> Path | None:
        """The user's own file that the class is in, None for one of ours or of Chainer's."""
        path = self.text.rpartition(":")[0]
        return Path(path) if path else None

    @property
    def call(self) -> str:
        """Class name and arguments, as they are written."""
        return self.text.rpartition(":")[2]

    @property
    def class_name(self) -> str:
        return self.call.partition("(")[0]

    @property
    def written(self) -> list[str]:
        """Each argument as it is written, such as "depth=20"."""
        inside = self.call.partition("(")[2].removesuffix(")")
        return [word.strip() for word in inside.split(",")] if inside else []

    @property
    def arguments(self) -> dict[str, float | str]:
        """The arguments by name; if they are no plain ones, as text without quotes."""
        plain = _plain_arguments(self)
        if plain is not None:
            return plain
        pairs = (word.partition("=") for word in self.written)
        return {name.strip(): value.strip(" '\"") for name, equals, value in pairs if equals}

    @property
    def label(self) -> str:
        """Class name and values as part of a file's name: `ReluMLP-slope0.1`."""
        arguments = re.sub("[='\"]", "", self.call.partition("(")[2])
        return "-".join([self.class_name, *re.findall(r"[^\s,()]+", arguments)])

    def argument(self, name: str) -> float | str | None:
        """Returns the value of an argument; None: it is not there."""
        return self.arguments.get(name)

    def number(self, name: str) -> float | None:
        """Returns an argument that is a finite number; None: there is none."""
        try:
            value = float(str(self.argument(name)))
        except ValueError:
            return None
        return value if math.isfinite(value) else None

    def without(self, name: str) -> str:
        """Returns the name without one argument: `Net(hidden=50, ratio=0)` -> `Net(hidden=50)`.

        Runs over values of that argument are of one network, in a figure over these values.
        """
        text = re.sub(rf"\b{name}\s*=[^,()]*(,\s*)?", "", self.text)
        return re.sub(r",\s*\)$", ")", text).removesuffix("()")

    @classmethod
    def parse(cls, text: str, flag: str, example: str) -> NetworkSpec:
        """Returns what `text` names.

        Args:
            flag: of the command line, for the line that refuses it.
            example: of a call, for that line too, such as "ReluMLP(slope=0.1)".

        Raises:
            UsageError: it is neither a name nor a call with plain arguments.
        """
        if text.endswith(".py"):
            raise UsageError(f"{flag} {text}: say which class of it, as {text}:ClassName")
        spec = cls(text)
        if not spec.class_name.isidentifier():
            raise UsageError(
                f"{flag} {text!r}: expected a class's name, as {example}, or "
                "path/to/file.py:ClassName"
            )
        if "(" in spec.call and _plain_arguments(spec) is None:
            raise UsageError(
                f"{flag} {text}: expected numbers, or words in quotes, by their names in the "
                f"brackets, as in {example}"
            )
        return spec


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


def _plain_arguments(spec: NetworkSpec) -> dict[str, float | str] | None:
    """Returns the numbers and words in a call such as `ReluMLP(slope=0.1)`; None: it is none."""
    # Python would read on behind the bracket: a comment, say, which may hold anything.
    if not spec.call.endswith(")") or "#" in spec.call or not spec.call.isprintable():
        return None
    try:
        call = ast.parse(spec.call, mode="eval").body
        if not isinstance(call, ast.Call):
            return None
        # One without a name is `**options`.
        values = {one.arg: ast.literal_eval(one.value) for one in call.keywords if one.arg}
        is_of_class = isinstance(call.func, ast.Name) and call.func.id == spec.class_name
        is_named = not call.args and len(values) == len(call.keywords)
        return values if is_of_class and is_named and all(map(_is_plain, values.values())) else None
    # TypeError: a list as a key. OverflowError: an integer beyond any float. The last two: nested
    # too deep for the parser.
    except (SyntaxError, ValueError, TypeError, OverflowError, RecursionError, MemoryError):
        return None


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        return value.isascii() and value.isidentifier()
    return isinstance(value, bool | int | float) and math.isfinite(value)
