"""Kills, stops, starves and corrupts training runs at random, and counts how they end.

    python tests/campaigns/kill.py                     # all of it, a quarter of an hour
    python tests/campaigns/kill.py --kills 8 --longer 4 --corrupted 5 --signals 2 --fuzz 99

Every run is a process of its own, forked from one that has imported everything; its figures are
left out. It trains on 300 of scikit-learn's digits. An ending is exact if `model.npz` has the bytes
of the run that was never stopped and `log` its numbers, but for the times. Exit status 1 if
anything was not as it should be. For POSIX systems.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import train_mnist  # noqa: E402  the variables and the path must be set before

# isort: split
import numpy as np  # noqa: E402

from mnist_bn import data, kernels, training  # noqa: E402
from mnist_bn.data import cifar10, digits, idx, reading  # noqa: E402
from mnist_bn.errors import UserError  # noqa: E402
from mnist_bn.plotting import results  # noqa: E402
from mnist_bn.storage import archives, files, result_folder, snapshots  # noqa: E402
from mnist_bn.trainer.plot_report import PlotReport  # noqa: E402

MODELS = ("MnistCNN", "MnistCNN_BN_before")
OPTIMIZERS = ("SGD", "Adam")
SECONDS_TO_STOP = 5.0
SECONDS_A_PARSE = 5
CHANGING = ("fdopen", "fsync", "chmod", "replace")


class Kind(NamedTuple):
    """A kind of run."""

    model: str
    optimizer: str
    acceleration: str

    def arguments(self, out: Path, *more: str, length: Sequence[str] = ("-e", "3")) -> list[str]:
        settings = f"-m {self.model} --optimizer {self.optimizer} --accelerate {self.acceleration}"
        settings += " --dataset digits -b 50 -f 1"
        return [*settings.split(), *length, "-o", str(out), *more]

    def folder(self, out: Path) -> Path:
        return out / f"{self.model}-{self.optimizer}-digits-b50-s0"


class Ended(NamedTuple):
    """How a process ended: its exit status (negative: a signal's number), output and time."""

    status: int
    output: str
    seconds: float


def do_nothing() -> None:
    """Leaves a process as it is."""


class Process:
    """A training command in a forked process."""

    def __init__(self, arguments: list[str], prepare: Callable[[], None] = do_nothing) -> None:
        self.output = tempfile.TemporaryFile()  # noqa: SIM115  closed with the process
        self.started = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            os._exit(self._run(arguments, prepare))

    def _run(self, arguments: list[str], prepare: Callable[[], None]) -> int:
        for stream in (1, 2):
            os.dup2(self.output.fileno(), stream)
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, signal.default_int_handler)
        try:
            prepare()
            status = train_mnist.main(arguments)
        except UserError as error:
            print(f"train_mnist.py: {error}", file=sys.stderr)
            status = error.status
        except BaseException:
            import traceback

            traceback.print_exc()
            status = 99
        sys.stdout.flush()
        return status

    def send(self, signum: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signum)

    def has_ended(self) -> bool:
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.pid, flags) is not None

    def wait(self) -> Ended:
        _, status = os.waitpid(self.pid, 0)
        seconds = time.monotonic() - self.started
        with self.output:
            self.output.seek(0)
            output = self.output.read().decode()
        return Ended(os.waitstatus_to_exitcode(status), output, seconds)


def ending(folder: Path) -> tuple[bytes, list]:
    """What must be the same in two runs."""
    log = json.loads((folder / "log").read_bytes())
    for entry in log:
        del entry["elapsed_time"]
    return (folder / "model.npz").read_bytes(), log


class Campaign:
    """The parts of the campaign, and what came out.

    Attributes:
        counts: what happened, by part.
        wrong: one line for everything that should not be.
    """

    def __init__(self, out: Path, rng: random.Random) -> None:
        self.out = out
        self.rng = rng
        self.counts: dict[str, Counter] = {}
        self.wrong: list[str] = []
        choices = ("off", "on") if kernels.why_not() is None else ("off",)
        self.kinds = [Kind(*point) for point in itertools.product(MODELS, OPTIMIZERS, choices)]
        self.expected: dict[Kind, tuple[bytes, list]] = {}
        self.seconds: dict[Kind, float] = {}
        for kind in self.kinds:
            ended = Process(kind.arguments(out / f"whole-{kind.acceleration}")).wait()
            assert ended.status == 0, ended.output
            self.seconds[kind] = ended.seconds
            self.expected[kind] = ending(kind.folder(out / f"whole-{kind.acceleration}"))

    def part(self, name: str) -> Counter:
        self.say()
        self.counts[name] = Counter()
        return self.counts[name]

    def say(self) -> None:
        """Prints the counts of the part that has ended last."""
        for name, counts in list(self.counts.items())[-1:]:
            ended = ", ".join(f"{n:,} {what}" for what, n in sorted(counts.items()))
            print(f"{name}: {ended}", flush=True)

    def check(self, counts: Counter, what: str, holds: bool, detail: str = "") -> None:
        counts[what if holds else f"NOT {what}"] += 1
        if not holds:
            self.wrong.append(f"{what}: {detail}")
            print(f"wrong: {what}: {detail}", flush=True)

    @contextlib.contextmanager
    def fresh(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=self.out) as folder:
            yield Path(folder)

    def ends_exactly(self, counts: Counter, kind: Kind, out: Path) -> Ended:
        """Goes on with a run to its end, which must be exact."""
        ended = Process(kind.arguments(out, "--autoload")).wait()
        exact = ended.status == 0 and ending(kind.folder(out)) == self.expected[kind]
        self.check(counts, "exact endings", exact, f"{kind} {ended}")
        leftovers = list(kind.folder(out).glob(f"*{files.UNFINISHED}"))
        self.check(counts, "folders without leftovers", not leftovers, f"{leftovers}")
        return ended

    def kills(self, number: int) -> None:
        """SIGKILL at random moments; every fourth inside a write, which is slow."""
        counts = self.part(f"{number} SIGKILLs")
        kinds = itertools.cycle(self.kinds)
        while counts["kills"] < number:
            kind = next(kinds)
            with self.fresh() as out:
                if counts["kills"] % 4 == 3:
                    self._kill_inside_a_write(counts, kind, out)
                else:
                    process = Process(kind.arguments(out))
                    time.sleep(self.rng.uniform(0, 1.2 * self.seconds[kind]))
                    process.send(signal.SIGKILL)
                    if process.wait().status != -signal.SIGKILL:
                        continue  # it had ended before
                counts["kills"] += 1
                resumed = bool(list(out.glob("*/snapshot_iter_*")))
                counts["with a snapshot to go on from" if resumed else "with none yet"] += 1
                self.ends_exactly(counts, kind, out)

    def longer(self, number: int) -> None:
        """A shorter run that is gone on with, or begun anew over, and killed on the way."""
        counts = self.part(f"{number} longer runs, killed")
        for i in range(number):
            kind = self.kinds[i % len(self.kinds)]
            with self.fresh() as out:
                # 15 ends between two evaluations.
                length = self.rng.choice((["-e", "2"], ["--iteration", "15"]))
                assert Process(kind.arguments(out, length=length)).wait().status == 0
                autoload = self.rng.choice((["--autoload"], []))
                process = Process(kind.arguments(out, *autoload))
                time.sleep(self.rng.uniform(0, 0.6 * self.seconds[kind]))
                process.send(signal.SIGKILL)
                ended = process.wait()
                counts["killed" if ended.status else "had ended before"] += 1
                earlier = kind.folder(out) / "earlier"
                counts["begun anew" if earlier.exists() else "gone on with"] += 1
                self.ends_exactly(counts, kind, out)
                self.check(counts, "one run a folder", self._is_of_one_run(kind.folder(out)))

    def _is_of_one_run(self, folder: Path) -> bool:
        """Tells whether each place has the snapshots of its `args` alone."""
        places = [folder, *folder.glob("earlier/*")]
        return all(
            snapshots.read(path).header["run_id"] == result_folder.read_args(place)["run_id"]
            for place in places
            for path in snapshots.found(place)
        )

    def _kill_inside_a_write(self, counts: Counter, kind: Kind, out: Path) -> None:
        ours, theirs = os.pipe()
        which = self.rng.randrange(1, 12)
        call = self.rng.choice(("fsync", "replace"))

        def slow_down() -> None:
            def hang(_: int) -> None:
                os.write(theirs, b"!")
                time.sleep(600)

            files.os = FaultyOS({call: which}, hang)

        process = Process(kind.arguments(out), slow_down)
        os.close(theirs)
        if os.read(ours, 1):
            counts["kills inside a write"] += 1
        os.close(ours)
        process.send(signal.SIGKILL)
        process.wait()

    def two_snapshots(self, kind: Kind, out: Path) -> list[Path]:
        """Makes a run that was stopped after its second epoch; returns its snapshots."""

        def stop() -> None:
            build = training.build_trainer

            def build_and_stop(*args, **kwargs):
                trainer = build(*args, **kwargs)
                due = 14

                def kill(trainer):
                    if trainer.updater.iteration == due:
                        os.kill(os.getpid(), signal.SIGTERM)

                trainer.extend(kill, trigger=(1, "iteration"))
                return trainer

            training.build_trainer = build_and_stop

        ended = Process(kind.arguments(out), stop).wait()
        assert ended.status == 143, ended
        return snapshots.found(kind.folder(out))

    def corrupted(self, number: int) -> None:
        """Snapshots damaged in five ways: each is set aside, and the one before is used."""
        counts = self.part(f"{number} corrupted snapshots")
        templates = {kind: self.out / f"template-{i}" for i, kind in enumerate(self.kinds)}
        newest = {kind: self.two_snapshots(kind, out)[0] for kind, out in templates.items()}
        damages = (
            self._cut,
            self._flip,
            self._empty,
            self._of_another_model,
            self._of_another_version,
        )
        for i in range(number):
            kind = self.rng.choice(self.kinds)
            damage = damages[i % len(damages)]
            with self.fresh() as folder:
                out = folder / "out"
                shutil.copytree(templates[kind], out)
                path = kind.folder(out) / newest[kind].name
                path.write_bytes(damage(kind, newest))
                counts[damage.__name__.strip("_").replace("_", " ")] += 1
                ended = self.ends_exactly(counts, kind, out)
                aside = path.with_name(f"{path.name}.refused").exists()
                named = f"note: {path}" in ended.output and "Traceback" not in ended.output
                self.check(counts, "refused and named", aside and named, ended.output)

    def _cut(self, kind: Kind, newest: dict[Kind, Path]) -> bytes:
        content = newest[kind].read_bytes()
        return content[: self.rng.randrange(1, len(content))]

    def _flip(self, kind: Kind, newest: dict[Kind, Path]) -> bytes:
        content = bytearray(newest[kind].read_bytes())
        content[self.rng.randrange(len(content))] ^= 1 << self.rng.randrange(8)
        return bytes(content)

    def _empty(self, kind: Kind, newest: dict[Kind, Path]) -> bytes:
        return b""

    def _of_another_model(self, kind: Kind, newest: dict[Kind, Path]) -> bytes:
        others = [other for other in newest if other.model != kind.model]
        return newest[self.rng.choice(others)].read_bytes()

    def _of_another_version(self, kind: Kind, newest: dict[Kind, Path]) -> bytes:
        arrays = archives.read(newest[kind])
        header = json.loads(arrays["mnist_bn/header"].tobytes())
        header["format"] = self.rng.randrange(2, 1000)
        arrays["mnist_bn/header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
        return archives.encode(arrays)

    def signals(self, number: int) -> None:
        """SIGINT and SIGTERM at random moments, half of them in a run whose evaluation is slow."""
        counts = self.part(f"{number} SIGINTs and {number} SIGTERMs")
        for i, signum in itertools.product(range(number), (signal.SIGINT, signal.SIGTERM)):
            kind = self.kinds[i % len(self.kinds)]
            while not self._signal(counts, kind, signum, slow_evaluation if i % 2 else do_nothing):
                pass

    def _signal(
        self, counts: Counter, kind: Kind, signum: int, prepare: Callable[[], None]
    ) -> bool:
        """Stops one run and ends it; returns whether it was still running."""
        with self.fresh() as out:
            process = Process(kind.arguments(out), prepare)
            while not (kind.folder(out) / "args").exists():
                time.sleep(0.01)
            time.sleep(self.rng.uniform(0, 0.6) * self.seconds[kind])
            if process.has_ended():
                process.wait()
                return False
            process.send(signum)
            sent = time.monotonic()
            ended = process.wait()
            took = time.monotonic() - sent
            if "just finished" in ended.output:
                return False
            counts["slowest, ms"] = max(counts["slowest, ms"], round(1000 * took))
            self.check(counts, "in time", took <= SECONDS_TO_STOP, f"{took} {ended}")
            self.check(counts, "statuses 130 and 143", ended.status == 128 + signum, f"{ended}")
            newest = snapshots.read(snapshots.found(kind.folder(out))[0])
            self.check(counts, "valid snapshots", bool(newest.arrays))
            counts["stopped in an evaluation"] += newest.header["observation"] is not None
            self.ends_exactly(counts, kind, out)
            return True

    def failing_writes(self) -> None:
        """A full disk from the k-th changing call on, for every k; then a real full disk."""
        counts = self.part("writes that fail from the k-th call on, for every k")
        kind = self.kinds[-1]
        template = self.out / "template-of-failing"
        self.two_snapshots(kind, template)
        for k in itertools.count(1):
            with self.fresh() as folder:
                out = folder / "out"
                shutil.copytree(template, out)

                def fill_the_disk(k: int = k) -> None:
                    def refuse(calls: int) -> None:
                        raise OSError(28, "No space left on device")

                    files.os = FaultyOS(dict.fromkeys(CHANGING, k), refuse)

                ended = Process(kind.arguments(out, "--autoload"), fill_the_disk).wait()
                if ended.status == 0:
                    counts["calls in all"] = k - 1
                    break
                self._check_failure(counts, ended, kind.folder(out))
                self.ends_exactly(counts, kind, out)

    def full_disk(self) -> None:
        """A tmpfs of 2 MiB: the second snapshot has no room."""
        counts = self.part("a tmpfs of 2 MiB")
        disk = self.out / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(disk)]
        if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
            counts["skipped: mounting is not permitted here"] += 1
            return
        try:
            for kind in (kind for kind in self.kinds if kind.optimizer == "Adam"):
                ended = Process(kind.arguments(disk)).wait()
                self._check_failure(counts, ended, kind.folder(disk))
                for path in disk.iterdir():
                    shutil.rmtree(path)
        finally:
            subprocess.run(["umount", str(disk)], check=True)

    def _check_failure(self, counts: Counter, ended: Ended, folder: Path) -> None:
        line = f"{folder}" in ended.output and "(No space left on device)" in ended.output
        is_clean = ended.status == 1 and "Traceback" not in ended.output
        self.check(counts, "status 1 and a line with the path", line and is_clean, f"{ended}")
        for path in snapshots.found(folder):
            self.check(counts, "snapshots intact", bool(snapshots.read(path).arrays), f"{path}")

    def pairs(self, number: int) -> None:
        """Two processes at once on one folder: one trains, the other says so or finds it done."""
        counts = self.part(f"{number} pairs on one folder")
        for i in range(number):
            kind = self.kinds[i % len(self.kinds)]
            with self.fresh() as out:
                first = Process(kind.arguments(out))
                time.sleep(self.rng.choice((0, 0, self.rng.uniform(0, self.seconds[kind]))))
                ends = [process.wait() for process in (first, Process(kind.arguments(out)))]
                told = [e for e in ends if "another process is training in this" in e.output]
                done = [e for e in ends if "finished already" in e.output]
                counts["second told"] += len(told)
                counts["second finds it finished"] += len(done)
                statuses = sorted(e.status for e in ends)
                right = len(told) + len(done) == 1 and statuses == [0, len(told)]
                self.check(counts, "one of two trained", right, f"{ends}")
                self.check(counts, "exact endings", ending(kind.folder(out)) == self.expected[kind])

    def fuzz(self, number: int) -> None:
        """Damaged files for every parser: each is read or refused in one line, soon."""
        counts = self.part(f"{number} fuzzed files")
        folder = self.out / "fuzz"
        folder.mkdir()
        source = self.kinds[0].folder(self.out / f"whole-{self.kinds[0].acceleration}")
        parsers = self._parsers(folder, source)

        def too_long(*_):
            raise TimeoutError

        signal.signal(signal.SIGALRM, too_long)
        for i in range(number):
            name, seeds, parse = parsers[i % len(parsers)]
            content = mutate(self.rng, self.rng.choice(seeds))
            signal.alarm(SECONDS_A_PARSE)
            try:
                parse(content)
                counts[f"{name}: read"] += 1
            except UserError as error:
                counts[f"{name}: refused"] += 1
                if "\n" in str(error):
                    self.check(counts, "one line", False, repr(str(error)))
            except TimeoutError:
                self.check(counts, "no hang", False, f"{name} {content[:80]!r}")
            except Exception as error:
                self.check(counts, "no traceback", False, f"{name} {error!r} {content[:80]!r}")
            finally:
                signal.alarm(0)

    def _parsers(self, folder: Path, source: Path) -> list[tuple[str, list[bytes], Callable]]:
        args, log = ((source / name).read_bytes() for name in ("args", "log"))
        small = archives.encode({"W": np.ones((2, 2), np.float32), "N": np.array(3)})
        header = json.dumps({"format": 1, "identity": {}, "circumstances": {}, "none": []})
        shot = archives.encode({"mnist_bn/header": np.frombuffer(header.encode(), np.uint8)})
        images = bytes.fromhex("00000803 00000002 0000001c 0000001c") + bytes(2 * 784)
        labels = bytes.fromhex("00000801 00000003 050607")
        records = 2 * (bytes([5]) + bytes(3072))

        def read_archive(content: bytes) -> None:
            path = folder / "snapshot_iter_1"
            # Two of three with a right checksum, so that what is behind it is tried as well.
            if self.rng.randrange(3):
                content = content[:-64] + archives._digest(content)
            path.write_bytes(content)
            archives.read(path, checksum_required=False)
            snapshots.read(path)

        def read_result(name: str, content: bytes) -> None:
            for other, whole in (("args", args), ("log", log)):
                (folder / other).write_bytes(content if other == name else whole)
            results.read_run(folder)

        def read_args(content: bytes) -> None:
            read_result("args", content)
            result_folder.read_args(folder)

        def read_idx(kind: idx.Kind, content: bytes) -> None:
            idx.decode(io.BytesIO(content), "file", kind)

        def read_cifar10(content: bytes) -> None:
            reading.decode(io.BytesIO(content), "file", cifar10._read_records)

        return [
            ("IDX images", [images], lambda content: read_idx(idx.IMAGES, content)),
            ("IDX labels", [labels], lambda content: read_idx(idx.LABELS, content)),
            ("CIFAR-10", [records, gzip.compress(records)], read_cifar10),
            ("NPZ", [small, shot], read_archive),
            ("log", [log, log[:200]], lambda content: read_result("log", content)),
            ("args", [args, b'{"seed": 1, "model": "A"}'], read_args),
        ]


TOKENS = (b"NaN", b"-Infinity", b"[" * 3000, b'{"a":' * 2000, b"9" * 5000, b"1e999", b"\xff\xfe")
TOKENS += (b"PK\x05\x06", b"\x93NUMPY", b"\x1f\x8b", b"\0" * 64, b"null", b'"epoch": 1', b"|O")


def mutate(rng: random.Random, content: bytes) -> bytes:
    """Returns the bytes with one to four things cut, flipped, repeated or put in."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(changed) + 1)
        stop = min(len(changed), start + rng.choice((1, 2, 4, 30, 1000)))
        match rng.randrange(5):
            case 0:
                del changed[start:stop]
            case 1:
                for i in range(start, min(stop, start + 4)):
                    changed[i] ^= 1 << rng.randrange(8)
            case 2:
                changed[start:start] = rng.choice(TOKENS)
            case 3:
                changed[start:start] = changed[start:stop]
            case 4:
                changed[start:stop] = rng.randbytes(stop - start)
    return bytes(changed)


class FaultyOS:
    """Stands for `os` in `files`: from the k-th call of these functions on, `fault` comes first."""

    def __init__(self, faults: dict[str, int], fault: Callable[[int], None]) -> None:
        self._faults = faults
        self._fault = fault
        self._calls = 0

    def __getattr__(self, name: str):
        real = getattr(os, name)
        if name not in self._faults:
            return real

        def counting(*args, **kwargs):
            self._calls += 1
            if self._calls >= self._faults[name]:
                self._fault(self._calls)
            return real(*args, **kwargs)

        return counting


def slow_evaluation() -> None:
    """Has each batch of an evaluation take half a second."""
    build = training.build_trainer

    def build_slow(*args, **kwargs):
        trainer = build(*args, **kwargs)
        evaluator = trainer.get_extension("validation")
        evaluate_batch = evaluator.eval_func
        evaluator.eval_func = lambda *arrays: (time.sleep(0.5), evaluate_batch(*arrays))
        return trainer

    training.build_trainer = build_slow


def small_digits() -> data.Dataset:
    """300 training and 100 test images of scikit-learn's digits."""
    whole = digits.load()
    train, test = (split.part(slice(n)) for split, n in ((whole.train, 300), (whole.test, 100)))
    return data.Dataset("digits", train, test, whole.sha256, whole.origin)


def main() -> int:
    """Runs the parts asked for and prints what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    defaults = {"kills": 100, "longer": 50, "corrupted": 100, "signals": 20, "pairs": 50}
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N")
    parser.add_argument("--fuzz", type=int, default=100_000, metavar="N")
    parser.add_argument("--no-failing-writes", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    dataset = small_digits()
    data.load = lambda *_: dataset
    PlotReport.draw = lambda self, trainer: None
    with tempfile.TemporaryDirectory() as out:
        campaign = Campaign(Path(out), random.Random(options.seed))
        campaign.fuzz(options.fuzz)
        campaign.signals(options.signals)
        campaign.pairs(options.pairs)
        if not options.no_failing_writes:
            campaign.failing_writes()
            campaign.full_disk()
        campaign.corrupted(options.corrupted)
        campaign.longer(options.longer)
        campaign.kills(options.kills)
        campaign.say()
    print(f"{len(campaign.wrong)} things were not as they should be")
    return int(bool(campaign.wrong))


if __name__ == "__main__":
    sys.exit(main())
