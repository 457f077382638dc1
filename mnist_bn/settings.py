"""How a setting is declared, once: as a field of `config.RunConfig`.

Flags, `--help`, checks, folder names, what two runs are compared by, the columns of tables, the
words of figures and docs/settings.md follow from the declaration.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import itertools
import math
import numbers
import re
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from mnist_bn.errors import UsageError

# The groups of `--help`.
WHAT = "what to train (several values, with spaces or commas: each combination)"
HOW = "how to train"
IMAGES = "the images"
WHERE = "where to run, and what to keep"
GROUPS = (WHAT, HOW, IMAGES, WHERE)


class Check(NamedTuple):
    """Which values a setting takes, and that in words."""

    holds: Callable[[Any], bool]
    expected: str
    choices: tuple[str, ...] = ()


def one_of(*names: str, found: Iterable[str] = ()) -> Check:
    """Takes the names, and those in `found`, which are not asked for but put in their place."""
    return Check(lambda name: name in (*names, *found), " or ".join(names), names)


def _is_ascending(text: str) -> bool:
    if not re.fullmatch(r"[1-9][0-9]{0,17}(,[1-9][0-9]{0,17})*", text):
        return False
    counts = [int(number) for number in text.split(",")]
    return all(a < b for a, b in itertools.pairwise(counts))


COUNT = Check(lambda n: n >= 1, "1 or more")
RATE = Check(lambda x: math.isfinite(x) and x > 0, "a number above 0")
FRACTION = Check(lambda x: 0 <= x < 1, "0 <= momentum < 1")
SEED = Check(lambda n: 0 <= n < 2**32, "0 to 4294967295")
PERIOD = Check(lambda n: n == -1 or n >= 1, "-1 or >= 1")
ASCENDING = Check(_is_ascending, "ascending numbers above 0 with commas between, as in 82,123")
PATH = Check(lambda path: "\0" not in path, "a path")

THREADS = Check(
    lambda text: text == "auto" or bool(re.fullmatch(r"[1-9][0-9]?", text)), "auto, or 1 to 99"
)

_KINDS = {int: numbers.Integral, float: numbers.Real, str: str, bool: bool}


@dataclass(frozen=True)
class Setting:
    """All that the program knows of a setting.

    Attributes:
        name, kind, default: of the field that declares it.
        help: the text below the field; `{names}` stands for what `names` returns.
        group: of `--help`.
        check: which values it takes; None: the module that uses the value checks it.
        prefix: stands before a value that is not the default in the name of the run's folder, and
            says that the run's numbers depend on the setting.
        label: what a figure calls it; None: runs that differ in it alone are no two curves.
        shared: says in words, around a value in `{}`, what all runs of a figure have in common.
        short: the flag of one letter.
        metavar: what stands for the value in `--help`.
        unset: the default in words, if that is None.
        names: returns the names that it takes.
        instead_of: the setting that cannot be given beside it.
        axis: takes several values, each a run of its own.
        several: takes several values, which are one with commas between.
        file: names a file, on whose contents the run's numbers depend.
        length: is how long the run is. Its numbers depend on that, the name of its folder does not.
    """

    name: str
    kind: type
    default: Any
    help: str
    group: str
    check: Check | None = None
    prefix: str | None = None
    label: str | None = None
    shared: str | None = None
    short: str | None = None
    metavar: str | None = None
    unset: str | None = None
    names: Callable[[], Iterable[str]] | None = None
    instead_of: str | None = None
    axis: bool = False
    several: bool = False
    file: bool = False
    length: bool = False

    @property
    def numbers(self) -> bool:
        """Whether the run's numbers depend on it: two runs that differ in it are two."""
        return self.prefix is not None or self.length

    @property
    def flag(self) -> str:
        """Its long flag."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def key(self) -> str:
        """What two runs are compared by: its name, or that of the checksum of its file."""
        return f"{self.name}_sha256" if self.file else self.name

    @property
    def usual(self) -> str:
        """The default in words; nothing if the help says it."""
        if self.default is None:
            return self.unset or ""
        return "" if self.kind is bool else str(self.default)

    @property
    def text(self) -> str:
        """Its help, with the names that it takes."""
        return self.help.format(names=", ".join(self.names()) if self.names else "")

    def verify(self, value: object) -> None:
        """Checks a value.

        Raises:
            TypeError: it is of another kind.
            UsageError: it is out of range.
        """
        if value is None and self.default is None:
            return
        is_bool = isinstance(value, bool)
        if is_bool != (self.kind is bool) or not isinstance(value, _KINDS[self.kind]):
            raise TypeError(f"{self.name} {value!r:.40}, not {self.kind.__name__}")
        if self.check is not None and not self.check.holds(value):
            raise UsageError(f"{self.flag} {value}: expected {self.check.expected}")


def declare(default: Any, group: str, check: Check | None = None, **about: Any) -> Any:
    """Declares a field of RunConfig; the text below it is its help. See Setting."""
    metadata = {"group": group, "check": check, **about}
    return dataclasses.field(default=default, metadata=metadata)


def settings_of(cls: type) -> dict[str, Setting]:
    """Returns the settings that a dataclass declares, by name."""
    texts, hints = _texts_below_fields(cls), typing.get_type_hints(cls)
    settings = {}
    for field in dataclasses.fields(cls):
        kind = next(iter(typing.get_args(hints[field.name])), hints[field.name])
        about = (field.name, kind, field.default, texts[field.name])
        settings[field.name] = Setting(*about, **field.metadata)
    return settings


def _texts_below_fields(cls: type) -> dict[str, str]:
    (definition,) = ast.parse(inspect.getsource(cls)).body
    texts = {}
    for pair in itertools.pairwise(ast.iter_child_nodes(definition)):
        match pair:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                texts[name] = " ".join(text.split())
    return texts


def names_in(module: str, function: str = "names") -> Callable[[], Iterable[str]]:
    """Returns a function that asks a module for its names; it is imported only then."""
    return lambda: getattr(importlib.import_module(module), function)()
