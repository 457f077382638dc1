"""What a study claims, and whether its runs show it.

A claim is a function of the runs: of each case, such as an optimizer, it returns a number a seed.
Of a case it holds if the whole interval of the mean lies between two bounds, and it fails if the
interval lies beyond them. The verdict is "confirmed" if it holds of all cases, "partly" if of some,
and "not seen" if it holds of none and fails of some. It is "open" if no case is decided: without
runs for it, without what it compares, such as a rate at which the network trains, or with too few
seeds for their spread.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from mnist_bn.errors import UserError
from mnist_bn.plotting import tables
from mnist_bn.plotting.groups import SeedGroup, group_runs, in_words, settings_in_words
from mnist_bn.plotting.results import VALIDATION_ACCURACY, Run
from mnist_bn.plotting.words import joined

CONFIRMED, PARTLY, NOT_SEEN, OPEN = "confirmed", "partly", "not seen", "open"

CONFIDENCE = 0.95
HEAD = ["claim", "measured", "holds if", "mean (95 % interval)", "cases", "seeds", "verdict"]

Numbers = Mapping[str, Sequence[float]]  # by case, one a seed; NaN: not measured


@dataclass(frozen=True)
class Claim:
    """What a study says.

    Attributes:
        says: in few words, such as "any BN beats none".
        what: is measured, such as "accuracy beyond that without BN".
        measure: returns the numbers of runs, none if the runs for it are not there; None: nobody
            has said how to measure it.
        above, below: the bounds between which it holds.
        is_robust: it holds whenever the study is repeated as described; what other claims find is
            reported only.
    """

    says: str
    what: str
    measure: Callable[[Sequence[Run]], Numbers] | None
    above: float = -math.inf
    below: float = math.inf
    is_robust: bool = False

    def holds(self, value: float) -> bool:
        """Tells whether it holds of a number, which may be infinite."""
        is_above = value > self.above or self.above == -math.inf
        return is_above and (value < self.below or self.below == math.inf)

    def holds_of(self, interval: Interval) -> bool | None:
        """Tells whether it holds of a mean in an interval; None: of some of it only."""
        if self.holds(interval.low) and self.holds(interval.high):
            return True
        return False if interval.high <= self.above or interval.low >= self.below else None

    @property
    def bounds(self) -> str:
        """Between which it holds, in words: "above 0.75"."""
        words = {"above": self.above, "below": self.below}
        text = " and ".join(f"{word} {n:g}" for word, n in words.items() if math.isfinite(n))
        return f"{text} (robust)" if self.is_robust else text


class Interval(NamedTuple):
    """Where the mean of a number lies, with 95 % confidence.

    Student's t over seeds. Of a single seed, and of numbers that are infinite, it is the range.
    """

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        """Returns the interval of the mean of numbers, one a seed."""
        if len(values) == 1 or not np.isfinite(values).all():
            return cls(float(np.mean(values)), min(values), max(values))
        mean, error = np.mean(values), np.std(values, ddof=1) / math.sqrt(len(values))
        half = stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2) * error
        return cls(float(mean), float(mean - half), float(mean + half))

    def __str__(self) -> str:
        mean, low, high = (f"{x:.3g}" for x in self)
        return mean if low == high else f"{mean} ({low} to {high})"


@dataclass(frozen=True)
class Finding:
    """What runs say of a claim: the numbers that there are, by case, a number a seed."""

    claim: Claim
    numbers: Numbers

    @property
    def intervals(self) -> dict[str, Interval]:
        """By case."""
        return {case: Interval.of(values) for case, values in self.numbers.items()}

    @property
    def holds(self) -> list[bool | None]:
        """Whether the claim does, of each case; None: its seeds do not decide."""
        return [self.claim.holds_of(interval) for interval in self.intervals.values()]

    @property
    def verdict(self) -> str:
        holds = self.holds
        if True in holds:
            return CONFIRMED if all(holds) else PARTLY
        return NOT_SEEN if False in holds else OPEN

    @property
    def overall(self) -> Interval | None:
        """The mean of all cases, seed by seed; None if they have not the same number of seeds."""
        values = list(self.numbers.values())
        if not values or len({len(seeds) for seeds in values}) > 1 or not np.isfinite(values).all():
            return None
        return Interval.of(np.mean(values, axis=0).tolist())

    @property
    def text(self) -> str:
        """The mean of all cases with its interval, or the least and the greatest mean of a case."""
        if self.overall is not None:
            return str(self.overall)
        means = sorted(interval.mean for interval in self.intervals.values())
        return " to ".join(dict.fromkeys(f"{mean:.3g}" for mean in means[:1] + means[-1:]))

    @property
    def count(self) -> str:
        """Of how many cases it holds, such as "5 of 9; 1 fails"; nothing of a single case."""
        if len(self.holds) < 2:
            return ""
        failing = self.holds.count(False)
        fails = f"; {failing} fail{'s' * (failing == 1)}" if failing else ""
        return f"{self.holds.count(True)} of {len(self.holds)}{fails}"

    @property
    def row(self) -> list[str]:
        """What a table says of it, under HEAD."""
        says, what, bounds = self.claim.says, self.claim.what, self.claim.bounds
        return [says, what, bounds, self.text, self.count, self.seeds, self.verdict]

    @property
    def seeds(self) -> str:
        counts = sorted({len(values) for values in self.numbers.values()})
        return " to ".join(map(str, counts[:1] + counts[1:][-1:]))


def find(claims: Sequence[Claim], runs: Sequence[Run]) -> list[Finding]:
    """Returns what the runs say of each claim."""
    return [Finding(claim, _numbers(claim, runs)) for claim in claims]


def _numbers(claim: Claim, runs: Sequence[Run]) -> Numbers:
    """The numbers that there are, without those that were not measured."""
    try:
        numbers = claim.measure(runs) if claim.measure else {}
    except UserError:
        return {}  # a damaged file: the figure of it says so
    there = {case: [v for v in values if not math.isnan(v)] for case, values in numbers.items()}
    return {case: values for case, values in there.items() if values}


def in_lines(findings: Sequence[Finding]) -> list[str]:
    """Returns a line a claim that fits a terminal, and one for all that are open."""
    lines = [
        f"- {one.verdict}: {one.claim.says}: {one.text}" for one in findings if one.verdict != OPEN
    ]
    are_open = len(findings) - len(lines)
    of = f"{are_open} of {len(findings)} claims"
    return lines + [f"- {OPEN}: {of}, which these runs do not decide"] * bool(are_open)


def table(findings: Sequence[Finding]) -> str:
    """Markdown: a row a claim: what was measured, where it holds, our number, the verdict."""
    return _markdown(HEAD, [finding.row for finding in findings])


def table_of_cases(findings: Sequence[Finding]) -> str:
    """Markdown: a row a case of each claim that has several."""
    words = {True: "holds", False: "fails", None: "undecided"}
    return _markdown(
        ["claim", "case", "mean (95 % interval)", "seeds", ""],
        [
            [one.claim.says, case, str(interval), str(len(one.numbers[case])), words[holds]]
            for one in findings
            if len(one.numbers) > 1
            for (case, interval), holds in zip(one.intervals.items(), one.holds, strict=True)
        ],
    )


def summary(findings: Mapping[str, Sequence[Finding]]) -> str:
    """Markdown: a row a claim of all studies, by the name of the part of the runs."""
    return _markdown(
        ["runs", "claim", "mean (95 % interval)", "cases", "seeds", "verdict"],
        [
            [part, one.claim.says, one.text, one.count, one.seeds, one.verdict]
            for part, several in findings.items()
            for one in several
        ],
    )


def _markdown(head: list[str], rows: Sequence[list[str]]) -> str:
    # Not as wide as its widest cell, as other tables are: nobody could read it.
    return "".join(
        f"| {' | '.join(map(tables.escaped, row))} |\n"
        for row in [head, ["---"] * len(head), *rows]
    )


def final(run: Run, key: str = VALIDATION_ACCURACY) -> float:
    """Returns the last number of a series of the log."""
    return float(run.values(key)[-1])


def at(run: Run, step: int, key: str = VALIDATION_ACCURACY) -> float:
    """Returns the number of a series at a step (or an epoch) of the log, NaN if it has none."""
    return float(np.append(run.values(key)[run.epochs == step], np.nan)[0])


def curves(runs: Sequence[Run], networks: Sequence[str] | None = None) -> list[SeedGroup]:
    """Returns the curves that are not cut short, of these networks."""
    every = group_runs(runs)
    return [
        curve
        for curve in every
        if not curve.is_cut_short and (networks is None or curve.model in networks)
    ]


def each(
    runs: Sequence[Run],
    value: Callable[[Run], float] = final,
    networks: Sequence[str] | None = None,
) -> Numbers:
    """Returns a value of each finished seed of these networks."""
    shown = curves(runs, networks)
    return {in_words(one, shown): list(map(value, one.finished)) for one in shown}


def leads(
    runs: Sequence[Run],
    networks: Sequence[str],
    other: str,
    value: Callable[[Run], float] = final,
) -> Numbers:
    """Returns how far networks are ahead of another under the same settings, seed by seed."""
    shown = curves(runs, [*networks, other])
    found = {}
    for one in shown:
        settings = joined(one.optimizer, one.variant)
        for base in shown:
            if one.model != other == base.model and settings == joined(
                base.optimizer, base.variant
            ):
                theirs = by_seed(base)
                case = joined(one.model, settings_in_words(one, shown))
                found[case] = [
                    value(run) - value(theirs[run.seed])
                    for run in one.finished
                    if run.seed in theirs
                ]
    return found


def by_seed(curve: SeedGroup) -> dict[str | None, Run]:
    """Returns the finished runs."""
    return {run.seed: run for run in curve.finished}
