"""Where a run's numbers come from: the command, the project's revision, the computer."""

from __future__ import annotations

import functools
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MAX_SECONDS = 5  # a repository on a network that is gone would hang for ever
# By these another repository would be asked, from within a hook of Git's, say.
_OF_A_REPOSITORY = ("DIR", "WORK_TREE", "COMMON_DIR", "INDEX_FILE", "OBJECT_DIRECTORY", "NAMESPACE")


@functools.cache
def of_process() -> dict[str, str | bool | None]:
    """Returns the provenance of what this process does, as `args` holds it.

    Returns:
        "command": as it was typed. "revision": the Git commit of the project's folder, None if it
        is no clone, or Git cannot say. "changed": whether files that Git tracks there were changed
        since. "host": the computer's name.
    """
    revision, changed = _revision(ROOT)
    return {
        "command": shlex.join(sys.orig_argv),
        "revision": revision,
        "changed": changed,
        "host": platform.node(),
    }


def _revision(folder: Path) -> tuple[str | None, bool | None]:
    """Asks Git, which writes nothing there, for the commit and whether tracked files differ."""
    ask = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", "status"]
    try:
        status = subprocess.run(
            [*ask, "--porcelain=v2", "--branch", "--untracked-files=no"],
            cwd=folder,
            env=_environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=MAX_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None, None
    lines = status.stdout.decode(errors="replace").splitlines()
    heads = [line for line in lines if line.startswith("# branch.oid ")]
    revision = heads[0].split()[-1] if heads else ""
    if not revision.isalnum():  # "(initial)", where nothing was committed yet
        return None, None
    return revision, any(not line.startswith("#") for line in lines)


def _environment(folder: Path) -> dict[str, str]:
    """Has Git look at the folder alone: at no repository around it, nor one that is named."""
    others = {f"GIT_{name}" for name in _OF_A_REPOSITORY}
    kept = {name: value for name, value in os.environ.items() if name not in others}
    return {**kept, "GIT_CEILING_DIRECTORIES": str(folder.parent)}
