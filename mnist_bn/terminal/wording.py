"""Messages: lines that fit the terminal, numbers of things, and commands to be typed."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

_ROOT = Path(__file__).resolve().parents[2]
_INDENT = "  "
# The commands' names where the package is installed.
_INSTALLED = {"train_mnist.py": "mnist-bn-train", "plot_results.py": "mnist-bn-plot"}


def say(line: str, command: str = "", file: TextIO | None = None) -> None:
    """Prints a line, and a command that belongs to it, on standard output or `file`.

    On a terminal the command gets a line of its own, unbroken, so that it can be copied.
    """
    file = file or sys.stdout
    between = f"\n{_INDENT}" if file.isatty() else " "
    print(fitted(line, file) + (between + command if command else ""), file=file)


def note(program: str, line: str) -> None:
    """Prints a line on standard error as a note of a program, called by its script's name."""
    say(f"{named(program)}: note: {line}", file=sys.stderr)


def fitted(line: str, file: TextIO, indent: str = _INDENT) -> str:
    """Returns a line broken between words if it is for a terminal that is too narrow for it.

    Args:
        indent: what the other parts begin with.
    """
    if not file.isatty():
        return line
    return textwrap.fill(
        line,
        max(columns(file) - 1, 20),
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def columns(terminal: TextIO) -> int:
    """Returns how wide the terminal is, in characters."""
    try:
        return os.get_terminal_size(terminal.fileno()).columns or 80
    except OSError:
        return 80


def count(number: int, noun: str) -> str:
    """Returns the number with the noun, such as "1 run", "2 runs" or "3 entries"."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def command(script: str, *arguments: str | Path) -> str:
    """Returns the command line of another script of the project, for the shell that started us.

    The interpreter and the script's folder are those that were typed, and what the shell would take
    for something else is quoted: `.venv/bin/python /x/plot_results.py 'my results'`.

    Args:
        script: its file's name.
        arguments: folders and files, of which none is taken for a flag.
    """
    interpreter, typed = split_typed(sys.orig_argv, len(sys.argv))
    if Path(typed[0]).stem in _INSTALLED.values():
        interpreter, other = [], _as_typed(Path(typed[0]).with_name(_INSTALLED[script]))
    elif interpreter[-1:] == ["-m"]:
        other = script.removesuffix(".py")
    else:
        other = str(Path(typed[0]).with_name(script))
    paths = (str(path) for path in arguments)
    return shlex.join([*interpreter, other, *(_no_flag(path) for path in paths)])


def named(text: str) -> str:
    """Returns a text with the commands' names as they were called.

    Those of the scripts, unless the command was called by its installed name: then `python
    train_mnist.py` and `train_mnist.py` are `mnist-bn-train`.
    """
    if Path(sys.argv[0]).stem in _INSTALLED.values():
        for script, installed in _INSTALLED.items():
            text = text.replace(f"python {script}", installed).replace(script, installed)
    return text


def _as_typed(program: Path) -> str:
    """Returns the program's name if the shell finds it by that, otherwise its path."""
    found = shutil.which(program.name)
    return program.name if found and Path(found).parent == program.parent else str(program)


def pip_install(requirements: str) -> str:
    """Returns the command that installs a requirements file of the project where we run.

    `pip` alone is another environment's if ours is not active.
    """
    pip = shutil.which("pip")
    is_ours = pip is not None and Path(pip).parent == Path(sys.executable).parent
    words = ["pip"] if is_ours else [sys.orig_argv[0], "-m", "pip"]
    file = requirements if Path.cwd() == _ROOT else str(_ROOT / requirements)
    return shlex.join([*words, "install", "-r", file])


def split_typed(words: Sequence[str], script_words: int) -> tuple[list[str], list[str]]:
    """Returns a command line's interpreter with its options, and the script with its arguments.

    Args:
        words: the command line, as `sys.orig_argv`.
        script_words: how many of them are the script and its arguments, the length of `sys.argv`.
    """
    start = len(words) - script_words
    return list(words[:start]), list(words[start:])


def _no_flag(path: str) -> str:
    return os.path.join(".", path) if path.startswith("-") else path
