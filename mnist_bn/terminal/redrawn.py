"""The lines at the bottom of a terminal that are drawn anew as training goes on.

They are on standard error, so that standard output has results only.
"""

from __future__ import annotations

import sys

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from mnist_bn.trainer import signals

_live: Live | None = None


def begin(lines: RenderableType, a_second: float | None = None) -> None:
    """Shows lines until `end()`, if standard error is a terminal.

    Args:
        a_second: how often they are drawn anew by themselves; None: at each `draw()` only.
    """
    global _live
    if not sys.stderr.isatty():
        return
    _live = Live(
        lines,
        console=Console(file=sys.stderr, highlight=False),
        auto_refresh=a_second is not None,
        refresh_per_second=a_second or 1,
        transient=True,
        # A command's own lines come through `say_above`; others are to go where they are sent.
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with signals.blocked():  # they are for the main thread, not for the one that redraws
        _live.start()


def draw() -> None:
    """Draws the lines anew, if there are any."""
    if _live is not None:
        _live.refresh()


def end() -> None:
    """Takes the lines away."""
    global _live
    if _live is not None:
        _live.stop()
        _live = None


def say_above(text: str) -> None:
    """Prints on standard output; if that is the terminal, above the lines."""
    if _live is not None and sys.stdout.isatty():
        _live.console.print(Text(text), soft_wrap=True)
    else:
        print(text, flush=True)
