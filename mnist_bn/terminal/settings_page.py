"""docs/settings.md: what is declared of each setting. `make docs` writes it anew."""

from __future__ import annotations

import sys
from pathlib import Path

from mnist_bn.config import SETTINGS
from mnist_bn.settings import GROUPS, Setting

_HEAD = """\
# Settings

Every flag of `train_mnist.py` that is a setting of the run, as `mnist_bn/config.py` declares it.
`args` in a result folder records them all. `--help` also has the flags that say which runs are made
and how they go on.

Runs that differ in a setting on which the *numbers* depend are two runs: neither goes on from the
other's snapshots. If such a value is not the default, it stands in the name of the run's *folder*.

This page is generated: `make docs` writes it from the declarations.
"""
_COLUMNS = ("flag", "values", "default", "numbers", "folder", "")


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
        return "" if setting.kind is bool else (setting.metavar or "").lower()
    if setting.check.choices:
        return ", ".join(f"`{choice}`" for choice in setting.check.choices)
    return setting.check.expected


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(text(), encoding="utf-8")
