"""The client's side: sends a sweep's runs to a Dask cluster's workers, and takes what they give.

A run that loses its worker is begun again by another, two times; in a shared folder it goes on from
its newest snapshot.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import re
import secrets
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mnist_bn import provenance
from mnist_bn.cluster import packing, task
from mnist_bn.config import RunConfig
from mnist_bn.errors import UsageError, UserError
from mnist_bn.outcome import NOT_BEGUN, Outcome
from mnist_bn.storage import files, locks, result_folder
from mnist_bn.terminal import board, wording
from mnist_bn.trainer import signals

SECONDS_TO_CONNECT = 10
SECONDS_BETWEEN = 0.1
RETRIES = 2


def check(address: str) -> None:
    """Checks an address before anything is asked of it.

    Raises:
        UsageError: it is none, or Dask is not installed.
    """
    if not os.path.isfile(address) and not re.fullmatch(r"(\w+://)?[^/\s]+:\d+", address):
        raise UsageError(
            f"--cluster {address}: expected tcp://HOST:PORT of a Dask scheduler, or its file"
        )
    if importlib.util.find_spec("distributed") is None:
        raise UsageError(
            "--cluster needs Dask: "
            f"{wording.pip_install('requirements-cluster.txt')}, here and on the workers"
        )


@contextlib.contextmanager
def connected(address: str) -> Iterator[Any]:
    """Yields a client of the scheduler at an address, or of a scheduler file.

    Raises:
        UserError: there is none.
    """
    from distributed import Client

    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # it logs tracebacks
    how = {"scheduler_file": address} if os.path.isfile(address) else {"address": address}
    # Signals are for the main thread, not for those that begin here; versions are compared below.
    with signals.blocked(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            client = Client(**how, timeout=SECONDS_TO_CONNECT, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            raise UserError(
                f"--cluster {address}: no scheduler answers ({_reason(error)}); start one with "
                "`dask scheduler`, and workers with `dask worker ADDRESS`"
            ) from None
    try:
        yield client
    finally:
        with contextlib.suppress(Exception):
            client.close(timeout=2)


Outcomes = Callable[[bool, Mapping[RunConfig, board.Line]], Iterator[Outcome]]


@contextlib.contextmanager
def session(address: str, configs: Sequence[RunConfig]) -> Iterator[Outcomes]:
    """Yields a function of autoload and lines of a board that yields each run's Outcome as it ends.

    Before that, it says on standard error how the workers differ from this machine.

    Raises:
        UserError: no scheduler or worker answers, or one lacks the images.
    """
    with connected(address) as client, _marked(configs) as markers:
        for line in compare(client, address, configs, markers):
            wording.say(line, file=sys.stderr)

        def outcomes(autoload: bool, lines: Mapping[RunConfig, board.Line]) -> Iterator[Outcome]:
            return _Sweep(client, configs, autoload, lines, markers).outcomes()

        yield outcomes


@contextlib.contextmanager
def _marked(configs: Sequence[RunConfig]) -> Iterator[dict[str, str]]:
    """Puts a file into each folder of results, by which a worker that shares it knows it."""
    token = secrets.token_hex(16)
    markers = {str(Path(out, f".cluster-{token[:8]}")): token for out in {c.out for c in configs}}
    try:
        for path in markers:
            files.make_folder(Path(path).parent)
            Path(path).write_text(token)
        yield markers
    finally:
        for path in markers:
            Path(path).unlink(missing_ok=True)


def compare(
    client, address: str, configs: Sequence[RunConfig], markers: Mapping[str, str]
) -> list[str]:
    """Returns a line for each worker that differs from this machine, and one for all of them.

    Raises:
        UserError: there is no worker, one cannot import the project, or lacks the images.
    """
    if not client.scheduler_info(n_workers=-1)["workers"]:
        raise UserError(
            f"--cluster {address}: no worker has joined the scheduler; start some with "
            f"`dask worker {address}` in the project's folder"
        )
    runs = list({config.dataset: config.to_args() for config in configs}.values())
    try:
        found = client.run(
            task.facts, runs, dict(markers), os.getcwd(), on_error="return", nanny=False
        )
    except Exception as error:
        raise UserError(f"--cluster {address}: {_reason(error)}") from None
    ours = task.facts(runs, dict(markers), os.getcwd())
    said = []
    for worker, theirs in found.items():
        if isinstance(theirs, BaseException):
            raise UserError(
                f"--cluster: worker {worker} cannot run the project ({_reason(theirs)}); start it "
                "in the project's folder, with the project's Python"
            )
        for dataset, sums in theirs["data"].items():
            if isinstance(sums, str):
                raise UserError(
                    f"--cluster: worker {worker} has no {dataset} ({sums}); start it with "
                    "MNIST_BN_DATA naming the folder"
                )
        if theirs["data"] != ours["data"]:
            raise UserError(f"--cluster: worker {worker} has other images")
        if different := _differences(ours, theirs):
            said.append(
                f"note: worker {worker} has {different}: its numbers may differ in rounding from "
                "those of the others"
            )
    shared = sum(theirs["is_shared"] for theirs in found.values())
    how = "share" if shared == len(found) else "do not share" if not shared else "partly share"
    said.append(f"{wording.count(len(found), 'worker')}, which {how} this machine's folder")
    return said


def _differences(ours: dict, theirs: dict) -> str:
    said = []
    for name, version in ours["versions"].items():
        if (other := theirs["versions"].get(name)) != version:
            said.append(f"{name} {other}, not {version}")
    if theirs["kernels"] != ours["kernels"]:
        said.append(f"kernels {theirs['kernels']}, not {ours['kernels']}")
    if theirs["source"] != ours["source"]:
        said.append("another version of the project's program text")
    return ", ".join(said)


def _reason(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0] or type(error).__name__


class _Sweep:
    """The tasks of a sweep on a cluster."""

    def __init__(self, client, configs, autoload, lines, markers) -> None:
        from distributed import Event

        self._client = client
        self._autoload = autoload
        self._lines = [lines[config] for config in configs]
        self._markers = markers
        self._id = f"mnist-bn-{secrets.token_hex(8)}"
        self._stop = Event(f"{self._id}-stop", client=client)
        self._configs = list(configs)

    def outcomes(self) -> Iterator[Outcome]:
        """Yields each as it is there; a signal has the runs stop with their snapshots."""
        self._client.subscribe_topic(self._id, self._note_position)
        waiting = {}
        for index, config in enumerate(self._configs):
            try:
                waiting[self._submit(index, config)] = config
            except UserError as error:
                yield Outcome(config, error=f"failed: {error}", status=error.status)
        has_stopped = False
        while waiting:
            if signals.requested() and not has_stopped:
                has_stopped = True
                yield from self._stop_all(waiting)
            ended = [future for future in waiting if future.done()]
            for future in ended:
                yield self._outcome(waiting.pop(future), future)
            if not ended:
                time.sleep(SECONDS_BETWEEN)

    def _submit(self, index: int, config: RunConfig):
        files.make_folder(config.folder)
        marker = next(path for path in self._markers if Path(path).parent == Path(config.out))
        key = f"{self._id}-{index}"
        request = {
            "config": config.to_args(),
            "name": config.name,
            "autoload": self._autoload,
            "run_id": result_folder.run_id(config.folder),
            "origin": provenance.of_process(),
            **{"cwd": os.getcwd(), "marker": marker, "token": self._markers[marker]},
            **{"stop": self._stop.name, "topic": self._id, "run": index, "key": key},
        }
        before = packing.pack(config.folder)
        return self._client.submit(
            task.train, request, before, key=key, retries=RETRIES, pure=False
        )

    def _note_position(self, event: tuple) -> None:
        _, said = event
        position = board.parsed(said["at"].encode())
        if position is not None:
            self._lines[said["run"]].write(position)

    def _stop_all(self, waiting: dict) -> Iterator[Outcome]:
        """Has those that train stop, and takes back those that have not begun."""
        with contextlib.suppress(Exception):
            self._stop.set()
        busy = {
            key for keys in self._client.processing().values() for key in keys
        }  # on their workers, which stop them
        for future in [future for future in waiting if future.key not in busy]:
            config = waiting.pop(future)
            future.cancel()
            yield Outcome(config, left=NOT_BEGUN)

    def _outcome(self, config: RunConfig, future) -> Outcome:
        if future.status in ("cancelled", "lost"):
            return Outcome(
                config,
                error="failed: the connection to the cluster is lost; the same command with "
                "--autoload goes on",
            )
        try:
            result = future.result()
        except Exception as error:
            return Outcome(config, error=f"failed: {_reason(error)}")
        if result["folder"]:
            try:
                with locks.hold(config.folder):
                    packing.unpack(result["folder"], config.folder)
            except (UserError, OSError) as error:
                return Outcome(config, error=f"failed: {config.folder}: {error}")
        return Outcome(config, **result["outcome"])
