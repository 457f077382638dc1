"""The table of a study's claims and their verdicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mnist_bn.page.document import Section, table
from mnist_bn.plotting.claims import HEAD, Finding


def _verdict_second(row: Sequence[str]) -> list[str]:
    """Moves the last cell to where a phone shows it without scrolling."""
    claim, *others, verdict = row
    return [claim, verdict, *others]


def sections(findings: Sequence[Finding]) -> Iterator[Section]:
    """Yields the table, if the study claims anything."""
    if not findings:
        return
    yield Section(
        "Claims and verdicts",
        "A claim is confirmed only if the whole interval lies where it holds; with few seeds much "
        "stays open.",
        body=table(
            _verdict_second(HEAD),
            [_verdict_second(finding.row) for finding in findings],
            "What the study says, and what these runs show",
        ),
    )
