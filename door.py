"""The first thing that both commands do: from here on neither Ctrl-C nor a missing package, nor a
standard stream that is closed, costs a traceback.

It stands outside of the package, whose own import already takes a moment, and imports next to
nothing.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import signal
import sys
from collections.abc import Iterator

ROOT = os.path.dirname(os.path.abspath(__file__))
VENV = os.path.join(ROOT, ".venv")


def train() -> None:
    """The command mnist-bn-train: train_mnist.py, from any folder."""
    runpy.run_module("train_mnist", run_name="__main__")


def plot() -> None:
    """The command mnist-bn-plot: plot_results.py, from any folder."""
    runpy.run_module("plot_results", run_name="__main__")


@contextlib.contextmanager
def importing(name: str) -> Iterator[None]:
    """Surrounds what a command's module imports; `name` is the module's `__name__`.

    It changes nothing for a module that is imported, by a test say, and not run as a command.
    """
    if name != "__main__":
        yield
        return
    _open_closed_streams()
    end_at_ctrl_c()
    try:
        yield
    except ImportError as error:
        print(f"{os.path.basename(sys.argv[0])}: {_what_is_missing(error)}", file=sys.stderr)
        sys.exit(1)
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def end_at_ctrl_c() -> None:
    """Has Ctrl-C end the process at once, with status 130 and nothing on the terminal.

    A KeyboardInterrupt while modules are imported, or while Python shuts down, ends in a traceback
    or in a library's `except`. A Ctrl-C that the process was started to ignore stays ignored.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def _end(signum: int, _frame: object) -> None:
    os._exit(128 + signum)


def _open_closed_streams() -> None:
    """Has a closed standard stream (`>&-`) lead to nowhere.

    Otherwise its number goes to the next file that is opened, which then gets what is printed.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # It gets the lowest number that is free: this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


def _what_is_missing(error: ImportError) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if isinstance(error, ModuleNotFoundError):
        line += ": run `pip install -r requirements.txt` in the project's folder"
    if (python := venv_python()) and os.path.realpath(sys.prefix) != os.path.realpath(VENV):
        line += f", or run it with {python}"
    return line


def venv_python() -> str | None:
    """Returns the Python of the project's own `.venv`, as a path from here; None: there is none."""
    for folders in (("bin", "python"), ("Scripts", "python.exe")):
        python = os.path.join(VENV, *folders)
        if os.path.exists(python):
            return os.path.relpath(python) if os.getcwd() == ROOT else python
    return None
