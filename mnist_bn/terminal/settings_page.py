"""docs/settings.md: what is declared of each setting. `make docs` writes it anew."""

from __future__ import annotations

import sys
from pathlib import Path

from mnist_bn.config import SETTINGS
from mnist_bn.settings import GROUPS, Setting

_HEAD = """\
# Settings

The flags of `train_mnist.py` that are settings of a run; `args` in its result folder records them.
`--gpu N` is another name for `--device @cupy:N`. The flags that say which runs are made, and how
they go on, are in `--help`.

*Numbers*: whether the run's numbers depend on the setting. Runs that differ in such a setting are
two, and neither goes on from the other's snapshots; only a longer one goes on from a shorter one.
*Folder*: how the name of the run's folder says a value that is not the default.

`make docs` writes this page from the declarations in `mnist_bn/config.py`.
"""
_COLUMNS = ("flag", "values", "default", "numbers", "folder", "what it does")


def text() -> str:
    """Returns the page."""
    return "\n".join([_HEAD, *map(_section, GROUPS)])


def _section(group: str) -> str:
    rows = [_row(setting) for setting in SETTINGS.values() if setting.group == group]
    lines = [_COLUMNS, ["---"] * len(_COLUMNS), *rows]
    title = group.partition(" (")[0].capitalize()
    return "\n".join([f"## {title}", "", *(f"| {' | '.join(line)} |" for line in lines), ""])


def _row(setting: Setting) -> list[str]:
    short = f"`-{setting.short}`, " if setting.short else ""
    default = setting.usual or ("off" if setting.kind is bool else "")
    numbers = "yes" if setting.numbers else "no"
    folder = "" if setting.prefix is None else f"`{setting.prefix}…`"
    return [f"{short}`{setting.flag}`", _values(setting), default, numbers, folder, setting.text]


def _values(setting: Setting) -> str:
    if setting.check is None:
        values = f"a {setting.metavar.lower()}" if setting.metavar else ""
    elif setting.check.choices:
        values = ", ".join(f"`{choice}`" for choice in setting.check.choices)
    else:
        values = setting.check.expected
    takes_several = setting.axis or (setting.several and setting.check is None)
    return f"{values}, or several" if takes_several else values


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(text(), encoding="utf-8")
