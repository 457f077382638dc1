"""Which runs share figures: those of one dataset, semantics, study and unit."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mnist_bn.config import RunConfig
from mnist_bn.errors import UsageError
from mnist_bn.plotting.results import Run


class Kind(NamedTuple):
    """What runs must have in common to share a figure; None: not recorded, or in no study.

    `preset` is of a study that has a folder for each.
    """

    study: str | None
    preset: str | None
    dataset: str | None
    semantics: str | None
    unit: str


class Part(NamedTuple):
    """Runs that share figures, and the name of the folder for them."""

    kind: Kind
    name: str
    runs: list[Run]


def select(
    runs: Sequence[Run], semantics: str | None = None, dataset: str | None = None
) -> list[Run]:
    """Runs recorded with these semantics and on this dataset; None takes all.

    Raises UsageError when none is left.
    """
    for field, value in {"semantics": semantics, "dataset": dataset}.items():
        there = Counter(kind for run in runs if (kind := getattr(run, field)) is not None)
        if value is not None:
            runs = [run for run in runs if getattr(run, field) == value]
        if not runs:
            known = ", ".join(f"{there[kind]} {kind}" for kind in sorted(there))
            known = known or "none is recorded"
            raise UsageError(f"--{field} {value}: no such run; the runs' {field}: {known}")
    return list(runs)


def parts(
    runs: Sequence[Run], has_preset: Callable[[str | None, str], bool] = lambda study, preset: False
) -> list[Part]:
    """The runs in parts, each of one kind; plain runs first, then the studies by name.

    A run that did not record its dataset or semantics goes with the others if there is only one
    kind that it can be of.

    Args:
        has_preset: tells whether a study has a preset, whose runs may have a folder of that name.
    """
    known: dict[Kind, list[Run]] = {}
    # Those that recorded more are first.
    for run in sorted(runs, key=lambda run: (run.dataset, run.semantics).count(None)):
        kind = _kind(run, has_preset)
        fitting = [other for other in known if _fit(kind, other)]
        if kind in known or len(fitting) != 1:
            known.setdefault(kind, []).append(run)
        else:
            (other,) = fitting
            known[_joined(kind, other)] = [*known.pop(other), run]
    kinds = sorted(known, key=_order)
    members = {kind: {id(run) for run in known[kind]} for kind in kinds}
    return [
        Part(kind, name, [run for run in runs if id(run) in members[kind]])
        for kind, name in zip(kinds, _names(kinds), strict=True)
    ]


def differences(every: Sequence[Part]) -> str:
    """What the parts differ in, in words."""
    kinds = [part.kind for part in every]
    differ = [field for field in Kind._fields if len(_values(kinds, field)) > 1]
    differ = ["epochs or iterations" if field == "unit" else field for field in differ]
    return " and ".join(filter(None, (", ".join(differ[:-1]), differ[-1])))


def _values(kinds: Sequence[Kind], field: str) -> set[str | None]:
    return {getattr(kind, field) for kind in kinds}


def _kind(run: Run, has_preset: Callable[[str | None, str], bool]) -> Kind:
    folder = run.folder.absolute().parent.name
    preset = folder if has_preset(run.study, folder) else None
    return Kind(run.study, preset, run.dataset, run.semantics, run.unit)


def _order(kind: Kind) -> tuple:
    """Sorting key: by name; of each dataset those of other semantics than today's last."""
    words = [word or "" for word in kind]
    return *words[:3], kind.semantics not in (None, RunConfig.semantics), *words[3:]


def _fit(kind: Kind, other: Kind) -> bool:
    """Tells whether runs of these kinds share figures: what both recorded is the same."""
    if kind._replace(dataset=None, semantics=None) != other._replace(dataset=None, semantics=None):
        return False
    recorded = ((kind.dataset, other.dataset), (kind.semantics, other.semantics))
    return all(a == b or None in (a, b) for a, b in recorded)


def _joined(kind: Kind, other: Kind) -> Kind:
    return other._replace(
        dataset=other.dataset or kind.dataset, semantics=other.semantics or kind.semantics
    )


def _names(kinds: Sequence[Kind]) -> list[str]:
    """Of each kind the name of its folder, which has no separator in it and is no other's."""
    names: list[str] = []
    for kind in kinds:
        words = [kind.study, kind.preset]
        # A study is called after its dataset if that is not the one it is usually on.
        is_usual = kind.dataset == "mnist" or (
            kind.dataset == "cifar10" and kind._replace(dataset="mnist") not in kinds
        )
        words += [kind.dataset] * (kind.study is None or not is_usual)
        words += [kind.semantics] * (kind.semantics != RunConfig.semantics)
        name = "-".join(filter(None, words)) or "not-recorded"
        if kind.unit == "iteration" and kind._replace(unit="epoch") in kinds:
            name += "-iterations"
        name = re.sub(r"[^\w.-]+", "_", name).lstrip(".") or "_"
        # Not one that would make a result folder of the one it is in.
        name = f"{name}-runs" if name in ("log", "args") else name
        name = name.encode()[:120].decode(errors="ignore")
        numbered = (name, *(f"{name}-{i}" for i in range(2, len(kinds) + 1)))
        # Some file systems take names that differ in case for the same.
        taken = {one.casefold() for one in names}
        names.append(next(one for one in numbered if one.casefold() not in taken))
    return names
