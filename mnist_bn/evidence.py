"""Keeps of finished runs all that their figures and claims are made from: `evidence/`.

    python -m mnist_bn.evidence result/blog evidence/blog
    python plot_results.py evidence/blog

Of each finished run it copies `args`, `log` and its observers' files, not parameters, snapshots or
pictures; of the folder that runs are in, the arrays that their study measured without a run. Of the
paths in `args` it keeps the last names: where a run was made is nobody's business.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from mnist_bn.errors import UserError
from mnist_bn.plotting.results import Run, read_runs
from mnist_bn.plotting.words import printable
from mnist_bn.storage import files
from mnist_bn.storage.result_folder import ARGS, LOG
from mnist_bn.terminal import command_line, wording

MAX_BYTES = 2**20  # of one file: evidence is cloned by everybody
ENDING = {"program": "python -m mnist_bn.evidence", "if_interrupted": "each file there is whole"}


def keep(source: Path, target: Path, note: Callable[[str], None]) -> list[Run]:
    """Copies the evidence of the finished runs in and under a folder, and returns those runs.

    Args:
        note: is told in a line what was left out.

    Raises:
        UserError: a file cannot be read or written, or is too large.
    """
    kept: list[Run] = []
    for run in read_runs([source], note):
        if reason := _reason_against(run):
            note(f"{printable(run.folder)}: {reason}; skipped")
            continue
        _copy(run.folder, target / run.folder.relative_to(source), _names(run))
        kept.append(run)
    for parent in {run.folder.parent for run in kept if run.folder != source}:
        measured = [path.name for path in sorted(parent.glob("*.npz"))]
        _copy(parent, target / parent.relative_to(source), measured)
    return kept


def _reason_against(run: Run) -> str | None:
    """Why a run is no evidence, None if it is."""
    if run.notes or not run.args:
        return "its settings or its log are not whole"
    if run.is_cut_short:
        reached, length, unit = run.progress
        return f"not finished ({unit} {reached} of {length})"
    if run.args.get("changed"):
        return "made by code that was changed since its revision"
    return None


def _names(run: Run) -> list[str]:
    observers = filter(None, str(run.args.get("observe") or "").split(","))
    there = [f"{name}.npz" for name in observers if (run.folder / f"{name}.npz").is_file()]
    return [ARGS, LOG, *there]


def _copy(source: Path, target: Path, names: Sequence[str]) -> None:
    files.make_folder(target)
    for name in names:
        content = files.read_bytes(source / name, MAX_BYTES)
        if name == ARGS:
            content = _without_folders(content)
        path = target / name
        if not path.is_file() or path.read_bytes() != content:
            with files.replacing(path) as file:
                file.write(content)


def _without_folders(args: bytes) -> bytes:
    """Returns the settings with the last name alone of each absolute path, also in the command."""
    settings, text = json.loads(args), args.decode()
    words = [settings.get("out"), settings.get("data_dir"), settings.get("init")]
    words += shlex.split(settings.get("command") or "")
    paths = {word for word in words if isinstance(word, str) and Path(word).is_absolute()}
    for path in sorted(paths, key=len, reverse=True):  # one may begin with another
        text = text.replace(json.dumps(path)[1:-1], Path(path).name)
    return text.encode()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return command_line.status_of(lambda: _main(argv), **ENDING)


def _main(argv: Sequence[str] | None) -> None:
    parser = command_line.Parser(
        prog=ENDING["program"],
        description="Copy the settings, logs and measurements of finished runs to a folder that is "
        "small enough to be published.",
    )
    parser.add_argument("source", help="a result folder, or a folder of them")
    parser.add_argument("target", help="the folder to copy to, such as evidence/blog")
    arguments = parser.parse_args(argv)
    kept = keep(Path(arguments.source), Path(arguments.target), _note)
    if not kept:
        raise UserError(f"{arguments.source}: no finished run in it")
    wording.say(f"Kept {wording.count(len(kept), 'run')} in {arguments.target}")


def _note(line: str) -> None:
    wording.note(ENDING["program"], printable(line))


if __name__ == "__main__":
    command_line.run(main, **ENDING)
