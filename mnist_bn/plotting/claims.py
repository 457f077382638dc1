"""What a study claims, and whether its runs show it.

A claim is a function of the runs: of each case, such as an optimizer, it returns a number a seed,
and it holds of the numbers between two bounds. The verdict is "confirmed" if it holds of all of
them, "partly" if of some, "not seen" if of none, and "open" if there are no numbers: without runs
for it, or without what it compares, such as a rate at which the network trains.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mnist_bn.errors import UserError
from mnist_bn.plotting import tables
from mnist_bn.plotting.groups import SeedGroup, group_runs, in_words, settings_in_words
from mnist_bn.plotting.results import VALIDATION_ACCURACY, Run
from mnist_bn.plotting.words import joined, mean_and_range

CONFIRMED, PARTLY, NOT_SEEN, OPEN = "confirmed", "partly", "not seen", "open"

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

    @property
    def bounds(self) -> str:
        """Between which it holds, in words: "above 0.75"."""
        words = {"above": self.above, "below": self.below}
        text = " and ".join(f"{word} {n:g}" for word, n in words.items() if math.isfinite(n))
        return f"{text} (robust)" if self.is_robust else text


@dataclass(frozen=True)
class Finding:
    """What runs say of a claim: the numbers that there are, by case, a number a seed."""

    claim: Claim
    numbers: Numbers

    @property
    def every(self) -> list[float]:
        return [value for values in self.numbers.values() for value in values]

    @property
    def verdict(self) -> str:
        holds = [self.claim.holds(value) for value in self.every]
        if not holds:
            return OPEN
        return CONFIRMED if all(holds) else PARTLY if any(holds) else NOT_SEEN

    @property
    def text(self) -> str:
        """The mean of each case, and its range over seeds."""
        return "; ".join(
            f"{case} {mean_and_range(values, '.4g')}".strip()
            for case, values in self.numbers.items()
        )

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
    lines = []
    for finding in findings:
        if finding.verdict != OPEN:
            low, high = (f"{f(finding.every):.3g}" for f in (min, max))
            numbers = low if low == high else f"{low} to {high}"
            lines.append(f"- {finding.verdict}: {finding.claim.says}: {numbers}")
    are_open = len(findings) - len(lines)
    of = f"{are_open} of {len(findings)} claims"
    return lines + [f"- {OPEN}: {of}, which these runs do not decide"] * bool(are_open)


def table(findings: Sequence[Finding]) -> str:
    """Markdown: a row a claim: what was measured, where it holds, our numbers, the verdict."""
    head = ["claim", "measured", "holds", "mean (least to greatest)", "seeds", "verdict"]
    rows = [head, ["---"] * len(head)] + [
        [one.claim.says, one.claim.what, one.claim.bounds, one.text, one.seeds, one.verdict]
        for one in findings
    ]
    # Not as wide as its widest cell, as other tables are: nobody could read it.
    return "".join(f"| {' | '.join(map(tables.escaped, row))} |\n" for row in rows)


def final(run: Run, key: str = VALIDATION_ACCURACY) -> float:
    """Returns the last number of a series of the log."""
    return float(run.values(key)[-1])


def at(run: Run, step: int, key: str = VALIDATION_ACCURACY) -> float:
    """Returns the number of a series at a step (or an epoch) of the log, NaN where it has none."""
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
