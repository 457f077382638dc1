"""An interactive page of result folders: one HTML file that opens without a network."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mnist_bn.errors import UsageError
from mnist_bn.plotting.claims import Finding
from mnist_bn.plotting.partition import Part
from mnist_bn.storage import files
from mnist_bn.terminal import wording

NAME = "page.html"


def check() -> None:
    """Checks that Plotly, which draws the page, is installed.

    Raises:
        UsageError: it is not; the line says how to install it.
    """
    if importlib.util.find_spec("plotly") is None:
        command = wording.pip_install("requirements-page.txt")
        raise UsageError(f"--page: there is no Plotly here; install it by {command}")


def write(
    parts: Sequence[Part],
    findings: Mapping[str, Sequence[Finding]],
    path: Path,
    note: Callable[[str], None],
) -> None:
    """Writes the page of runs.

    Args:
        parts: the runs, in parts that share figures.
        findings: what they say of their study's claims, by the name of the part.
        note: is told in a line what is left out.

    Raises:
        CannotWriteError: the file cannot be written.
    """
    from mnist_bn.page import curves, document, measured, networks, verdicts

    sections = []
    for part in parts:
        several = [
            *curves.sections(part),
            *verdicts.sections(findings.get(part.name, ())),
            *measured.sections(part),
            *networks.sections(part, note),
        ]
        sections.append((part.name, several))
    files.make_folder(path.parent)
    with files.replacing(path) as file:
        file.write(document.render(sections).encode())
