"""`python -m mnist_bn.cluster.child REQUEST`: a task of the cluster, in a process of its own.

Signals, memory and a crash are then those of one run, as in a sweep on one machine. REQUEST is a
JSON file; the answer goes to the file that it names.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import sys
from pathlib import Path

from mnist_bn import data, kernels, sweep
from mnist_bn.config import RunConfig
from mnist_bn.errors import UserError
from mnist_bn.outcome import Outcome
from mnist_bn.storage import files, result_folder
from mnist_bn.terminal import board

_SOURCES = ("mnist_bn/**/*.py", "mnist_bn/**/*.cpp", "mnist_bn/**/*.h", "mnist_bn/**/*.cu")


def main(request: Path) -> None:
    """Carries out a request."""
    asked = json.loads(request.read_text())
    answer = facts(asked["runs"]) if asked["what"] == "facts" else train(asked)
    files.write_json(Path(asked["answer"]), answer)


def facts(runs: list[dict]) -> dict:
    """Returns what must be alike on all machines.

    Args:
        runs: configs of which each names another dataset.

    Returns:
        "versions", "kernels", "source": of the project. "data": a dataset's name -> checksums of
        its files; or a line that says why it is not to be had.
    """
    import chainer
    import numpy as np

    found: dict[str, object] = {}
    for args in runs:
        config = _with_data_here(RunConfig.from_args(args))
        try:
            dataset = data.load(config.dataset, config.data_dir, config.unverified_data)
        except UserError as error:
            found[config.dataset] = str(error)
        else:
            found[dataset.name] = dataset.sha256
    return {
        "versions": {
            "Python": platform.python_version(),
            "NumPy": np.__version__,
            "Chainer": chainer.__version__,
        },
        "kernels": _kernels(runs),
        "source": source_sha256(),
        "data": found,
    }


def _kernels(runs: list[dict]) -> str:
    mode = RunConfig.from_args(runs[0]).accelerate if runs else "auto"
    try:
        return kernels.install(mode)
    except UserError as error:
        return str(error)


def source_sha256() -> str:
    """Returns a checksum of the project's program text."""
    root = Path(__file__).resolve().parents[2]
    total = hashlib.sha256()
    for path in sorted(path for pattern in _SOURCES for path in root.glob(pattern)):
        total.update(f"{path.relative_to(root).as_posix()}\0".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def train(asked: dict) -> dict:
    """Trains a run as a process of a sweep, and returns its outcome, see `as_json`.

    If the folder holds another run than before the sweep, that is this one, begun by a worker that
    was lost: it goes on.
    """
    config = _with_data_here(RunConfig.from_args(asked["config"]))
    is_ours = result_folder.run_id(config.folder) != asked["run_id"]
    line = board.Line(Path(asked["board"]), 0)
    return as_json(
        sweep.run_in_worker(
            config,
            autoload=asked["autoload"] or is_ours,
            sweep=asked["parent"],
            origin=asked["origin"],
            jobs=asked["at_once"],
            line=line,
        )
    )


def _with_data_here(config: RunConfig) -> RunConfig:
    """Takes the folder of the images from the config only if this machine has it."""
    has_it = config.data_dir is not None and Path(config.data_dir).is_dir()
    return config if has_it else dataclasses.replace(config, data_dir=None)


def as_json(outcome: Outcome) -> dict:
    """Returns the outcome, without its config, as a JSON object."""
    return {key: getattr(outcome, key) for key in ("entry", "error", "left", "status")}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
