"""What runs that share figures get: a study's figures and claims, or the usual comparison.

And the figures of their observers, and tables, all saved in one folder.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, TypeVar

from matplotlib.figure import Figure

from mnist_bn import observations
from mnist_bn.errors import UserError
from mnist_bn.forks import side_by_side
from mnist_bn.plotting import claims, comparison, film, tables
from mnist_bn.plotting.appearance import style
from mnist_bn.plotting.film import Film
from mnist_bn.plotting.groups import SeedGroup, group_runs
from mnist_bn.plotting.partition import Part
from mnist_bn.storage import files

Yielded = Iterable[tuple[str, Figure | str | Film]]
T = TypeVar("T")


class Drawn(NamedTuple):
    """What was drawn: the files, and what their tables say."""

    files: list[Path]
    curves: list[SeedGroup]
    findings: list[claims.Finding]

    @property
    def names(self) -> list[str]:
        """The names of the files."""
        return [path.name for path in self.files]

    @property
    def runs(self) -> int:
        """How many runs are drawn."""
        return sum(len(curve.runs) - len(curve.unfinished) for curve in self.curves)


def draw(
    part: Part,
    study: ModuleType | None,
    out: Path,
    formats: Sequence[str],
    note: Callable[[str], None],
) -> Drawn:
    """Draws the figures of runs and writes their tables.

    Args:
        study: that they are of, None for none.
        note: is told in a line what cannot be drawn.

    Raises:
        UserError: a file cannot be written.
    """
    attempt = partial(_attempt, note)
    curves = group_runs(part.runs, note)
    runs = observations.without_bad_files(part.runs, curves, note)
    figures = attempt(
        f"the figures of {part.name} are not drawn",
        lambda: save((study or comparison).figures(runs), out, formats),
    )
    if study is not None and not any(path.suffix != ".md" for path in figures or []):
        if figures is not None:
            note(f"{part.name}: what the study's figures show is not there; drawn as any runs")
        others = attempt(
            f"the curves of {part.name} are not drawn",
            lambda: save(comparison.figures(runs), out, formats),
        )
        figures = [*(figures or []), *(others or [])]
    observed = attempt(
        f"the measurements of {part.name} are not drawn",
        lambda: save(observations.figures(runs, getattr(study, "OBSERVED", ())), out, formats),
    )
    findings = attempt(
        f"the claims of {part.name} are not judged",
        lambda: claims.find(getattr(study, "CLAIMS", ()), runs),
    )
    written = [*(figures or []), *(observed or [])]
    if findings:
        written.append(tables.write(claims.table(findings), out / "claims.md"))
        if any(len(finding.numbers) > 1 for finding in findings):
            written.append(tables.write(claims.table_of_cases(findings), out / "cases.md"))
    written.append(tables.write(tables.table(curves), out / "table.md"))
    written.append(tables.write(tables.summary(runs), out / "summary.csv"))
    return Drawn(written, curves, findings or [])


def _attempt(note: Callable[[str], None], failed: str, make: Callable[[], T]) -> T | None:
    """What `make` returns; None, with a note that it failed, if it cannot.

    Whatever it raises: the runs' files may hold any numbers, and the other figures are to be drawn.

    Raises:
        CannotWriteError: a file cannot be written.
    """
    try:
        return make()
    except files.CannotWriteError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        reason = reason if isinstance(error, UserError) else f"{type(error).__name__}: {reason}"
        note(f"{failed} ({reason})")
    return None


def save(yielded: Yielded, out: Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Writes each in the project's style, whole or not at all, and returns the files.

    Args:
        yielded: names of files without their format, each with a figure, a film, or Markdown.

    Raises:
        UserError: `out` cannot be written.
    """
    paths: list[Path] = []
    taken: Counter[tuple[str, bool]] = Counter()
    with style(), side_by_side() as forks:
        for name, one in yielded:
            key = name.casefold(), isinstance(one, str)
            taken[key] += 1
            # Two networks whose names are one file name.
            name = name if taken[key] == 1 else f"{name}-{taken[key]}"
            if isinstance(one, Figure):
                pictures = [out / f"{name}.{extension}" for extension in dict.fromkeys(formats)]
                forks.do(partial(comparison.save, one, pictures))
                paths += pictures
            elif isinstance(one, str):
                paths.append(tables.write(one, out / f"{name}.md"))
            else:
                paths += film.save(one, out, name)
    return paths
