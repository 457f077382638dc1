"""Frames that tests of several rooms share."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path


def write_result_folder(folder: Path, args: Mapping, log: Sequence[Mapping]) -> Path:
    """Writes a result folder, as a run with these settings and this log leaves it."""
    folder.mkdir(parents=True)
    (folder / "args").write_text(json.dumps(args))
    (folder / "log").write_text(json.dumps(log))
    return folder
