"""Keeps of finished runs all that their figures and claims are made from: `evidence/`.

    python -m mnist_bn.evidence result/blog evidence/blog
    python plot_results.py evidence/blog

Of each finished run it copies `args`, `log` and its observers' files, not parameters, snapshots or
pictures; of the folder that runs are in, the arrays that their study measured without a run.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from mnist_bn.errors import UserError
from mnist_bn.plotting.results import Run, find_result_folders, read_run
from mnist_bn.storage import files
from mnist_bn.storage.result_folder import ARGS, LOG
from mnist_bn.terminal import command_line, wording

MAX_BYTES = 2**20  # of one file: evidence is cloned by everybody
ENDING = {"program": "python -m mnist_bn.evidence", "if_interrupted": "each file there is whole"}


def keep(source: Path, target: Path) -> tuple[list[Path], list[str]]:
    """Copies the evidence of the finished runs in and under a folder.

    Returns:
        The folders of the runs copied, and a line for each that was left out.

    Raises:
        UserError: a file cannot be read or written, or is too large.
    """
    kept: list[Path] = []
    left_out: list[str] = []
    for folder in find_result_folders([source], left_out.append):
        try:
            run = read_run(folder)
        except UserError as error:
            left_out.append(str(error))
            continue
        if reason := _reason_against(run):
            left_out.append(f"{folder}: {reason}")
            continue
        _copy(folder, target / folder.relative_to(source), _names(run))
        kept.append(folder)
    for parent in {folder.parent for folder in kept if folder != source}:
        measured = [path.name for path in sorted(parent.glob("*.npz"))]
        _copy(parent, target / parent.relative_to(source), measured)
    return kept, left_out


def _reason_against(run: Run) -> str | None:
    """Why a run is no evidence, None if it is."""
    if run.notes or not run.args:
        return "; ".join(run.notes) or "no settings (`args`)"
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
        path = target / name
        if not path.is_file() or path.read_bytes() != content:
            with files.replacing(path) as file:
                file.write(content)


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
    kept, left_out = keep(Path(arguments.source), Path(arguments.target))
    for line in left_out:
        wording.say(f"{ENDING['program']}: note: {line}; left out", file=sys.stderr)
    if not kept:
        raise UserError(f"{arguments.source}: no finished run in it")
    wording.say(f"Kept {wording.count(len(kept), 'run')} in {arguments.target}")


if __name__ == "__main__":
    command_line.run(main, **ENDING)
