"""What a Dask worker itself runs: it starts a child process for each run, and looks after it.

It imports next to nothing: Chainer holds Python's lock for long, and a worker that is not heard of
is taken for lost.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from mnist_bn.cluster import packing
from mnist_bn.outcome import NOT_BEGUN
from mnist_bn.trainer import signals

SECONDS_BETWEEN = 0.5
SECONDS_TO_STOP = 60
# A run whose process was orphaned with its worker ends by itself, with a snapshot.
SECONDS_FOR_LOCK = 30
_ENDED_BY_REQUEST = (-signal.SIGTERM, 0xC000013A)  # the latter as Windows says it
_KILLED = -9
_NOT_BEGUN = {"left": NOT_BEGUN}
_HELD = "another process is training in this folder"
ROOT = Path(__file__).resolve().parents[2]


def facts(runs: list[dict], folders: dict[str, str], cwd: str) -> dict[str, Any]:
    """Returns what must be alike on all machines, and "is_shared": whether all have the folders.

    Args:
        runs: see `child.facts`.
        folders: the client's folders, with what stands in the file that it has put there.
        cwd: where they are relative to.
    """
    with tempfile.TemporaryDirectory(prefix="mnist-bn-") as folder:
        here = cwd if os.path.isdir(cwd) else folder
        answer = _ask(Path(folder), here, {"what": "facts", "runs": runs})
    return {**answer, "is_shared": all(_holds(cwd, *one) for one in folders.items())}


def _holds(cwd: str, path: str, token: str) -> bool:
    try:
        return Path(cwd, path).read_text() == token
    except OSError:
        return False


def train(request: dict[str, Any], packed: bytes | None) -> dict[str, Any]:
    """Trains a run in a child process, which ends with a snapshot if the client wants to stop.

    Args:
        request: "config", "autoload", "run_id", "origin" as `child.train` takes them; "name" of the
            result folder; "cwd", the client's; "marker" and "token", a file in the folder of its
            results and what stands in it; "stop", the name of an Event; "topic", where to say how
            far the run is, and "run", as which; "key", the task's.
        packed: the result folder as it was, for a worker that does not share it.

    Returns:
        "outcome", see `child.as_json`; "folder", packed, None if it is shared.
    """
    from distributed import Event

    if Event(request["stop"]).is_set():  # a place was free as another run stopped
        return {"outcome": _NOT_BEGUN, "folder": None}
    is_shared = _holds(request["cwd"], request["marker"], request["token"])
    with tempfile.TemporaryDirectory(prefix="mnist-bn-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        board = folder / "board"
        board.write_bytes(b"\n".rjust(96))
        config = dict(request["config"])
        cwd = Path(request["cwd"])
        if not is_shared:
            cwd = folder / "here"
            cwd.mkdir()
            out = Path(config["out"])
            config["out"] = out.name if out.is_absolute() else config["out"]
            if packed is not None:
                packing.unpack(packed, cwd / config["out"] / request["name"])
        asked = {
            "what": "train",
            "config": config,
            **{"autoload": request["autoload"], "run_id": request["run_id"]},
            "origin": request["origin"],
            "at_once": _threads_of_worker(),
            "board": str(board),
            "parent": os.getpid(),
        }
        outcome = _train(folder, cwd, asked, request, board)
        result = cwd / config["out"] / request["name"]
        packed = None if is_shared else packing.pack(result) if result.is_dir() else b""
        return {"outcome": outcome, "folder": packed}


def _train(folder: Path, cwd: Path, asked: dict, request: dict, board: Path) -> dict:
    deadline = time.monotonic() + SECONDS_FOR_LOCK
    while True:
        outcome = _ask(folder, str(cwd), asked, lambda child: _look_after(child, request, board))
        if _HELD not in (outcome.get("error") or "") or time.monotonic() > deadline:
            return outcome
        time.sleep(1)


def _ask(folder: Path, cwd: str, asked: dict, look_after=lambda child: child.wait()) -> dict:
    """Has a child process carry out a request, and returns its answer."""
    request, answer, log = folder / "request", folder / "answer", folder / "log"
    answer.unlink(missing_ok=True)
    request.write_text(json.dumps({**asked, "answer": str(answer)}))
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "mnist_bn.cluster.child", str(request)],
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            **signals.of_its_own(),
        )
        look_after(child)
    if answer.is_file():
        return json.loads(answer.read_text())
    if child.returncode in _ENDED_BY_REQUEST:  # before it could note the signal
        return _NOT_BEGUN
    if child.returncode == _KILLED:
        raise RuntimeError("its process was killed (out of memory?)")
    lines = log.read_text(errors="replace").strip().splitlines()
    raise RuntimeError(lines[-1] if lines else f"exit status {child.returncode}")


def _look_after(child: subprocess.Popen, request: dict, board: Path) -> None:
    """Waits for the child; says how far it is, and has it stop if the client wants, or is gone."""
    from distributed import Event, get_worker

    worker, asked_to_stop = get_worker(), Event(request["stop"])
    deadline, last = float("inf"), b""
    while child.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(SECONDS_BETWEEN)
            return
        if deadline == float("inf") and (
            _is_gone(worker, request["key"]) or asked_to_stop.is_set()
        ):
            signals.ask_to_stop(child)
            deadline = time.monotonic() + SECONDS_TO_STOP
        if time.monotonic() > deadline:
            child.kill()
        if (position := board.read_bytes()) != last:
            worker.log_event(request["topic"], {"run": request["run"], "at": position.decode()})
            last = position


def _is_gone(worker, key: str) -> bool:
    """Whether nobody waits for the task any more: its client has ended, or lost the connection."""
    state = worker.state.tasks.get(key)
    return state is None or state.state not in ("executing", "long-running")


def _threads_of_worker() -> int:
    from distributed import get_worker

    return get_worker().state.nthreads
