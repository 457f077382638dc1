"""The flags of the settings, as they are declared."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from mnist_bn.config import SETTINGS
from mnist_bn.settings import GROUPS, WHAT, WHERE, Setting
from mnist_bn.terminal.command_line import ListAction, Parser, one_of

_METAVARS = {int: "N", float: "X"}


def add(parser: Parser) -> dict[str, argparse._ArgumentGroup]:
    """Adds a flag for each setting; returns the groups of `--help` by their titles."""
    groups = {title: parser.add_argument_group(title) for title in GROUPS}
    exclusive = {
        setting.instead_of: groups[setting.group].add_mutually_exclusive_group()
        for setting in SETTINGS.values()
        if setting.instead_of
    }
    device = exclusive["device"] = groups[SETTINGS["device"].group].add_mutually_exclusive_group()
    for setting in SETTINGS.values():
        if setting.name == "device":
            _add_gpu(device)
        group = exclusive.get(setting.instead_of or setting.name, groups[setting.group])
        short = [f"-{setting.short}"] if setting.short else []
        action = group.add_argument(*short, setting.flag, **_options(setting))
        vars(action)["text"] = partial(_help, setting)
    return groups


def _help(setting: Setting) -> str:
    return f"{setting.text} (default {setting.usual})" if setting.usual else setting.text


def add_further(groups: dict[str, argparse._ArgumentGroup]) -> None:
    """Adds what `train_mnist.py` takes besides settings of a run."""
    what, where = groups[WHAT], groups[WHERE]
    what.add_argument(
        "--preset",
        metavar="NAME",
        default=None,
        help="of the study: quick (default), full, or another that it has",
    )
    what.add_argument(
        "--list-models", action="store_true", default=False, help="print the networks' names"
    )
    where.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at once (default 1)")
    where.add_argument(
        "--cluster",
        metavar="ADDRESS",
        default=None,
        help="train on the workers of a Dask scheduler, such as tcp://HOST:8786 or its file",
    )
    where.add_argument(
        "--dry-run",
        action="store_true",
        default=False,
        help="train nothing: list the runs, and say about how long they take",
    )
    where.add_argument(
        "-r", "--resume", type=Path, default=None, metavar="PATH", help="snapshot to go on from"
    )
    where.add_argument(
        "--autoload",
        action="store_true",
        default=False,
        help="go on from the newest usable snapshot in the result folder",
    )


def given(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the settings among the arguments, those that are lists with commas between."""
    values = {key: value for key, value in vars(arguments).items() if key in SETTINGS}
    for name, value in values.items():
        if SETTINGS[name].several:
            values[name] = ",".join(value)
    if "device" in values:
        values["device"] = str(values["device"])
    return values


def _options(setting: Setting) -> dict[str, Any]:
    """Returns the arguments of `add_argument` for a setting."""
    options: dict[str, Any] = {"help": setting.help}
    if setting.kind is bool:
        return {**options, "action": "store_true"}
    options["metavar"] = setting.metavar or _METAVARS.get(setting.kind)
    if setting.axis or setting.several:
        expected = "whole numbers" if options["metavar"] == "N" else "names"
        return {**options, "action": ListAction, "of": setting.kind, "expected": expected}
    if setting.check is not None and (choices := setting.check.choices):
        return {**options, "type": one_of(choices), "metavar": f"{{{','.join(choices)}}}"}
    return {**options, "type": setting.kind}


def _add_gpu(group: argparse._MutuallyExclusiveGroup) -> None:
    """Adds Chainer's other flag for the device."""
    group.add_argument(
        "-g",
        "--gpu",
        dest="device",
        nargs="?",
        const=0,
        type=int,
        metavar="ID",
        help="train on the GPU with this ID (alone: 0; negative: CPU)",
    )
