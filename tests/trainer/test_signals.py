"""Signals: the first is noted, the second ends the process, a sweep passes them on."""

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from mnist_bn import report
from mnist_bn.storage import snapshots
from mnist_bn.trainer import signals

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def signals_arrive():
    """Undoes that a shell which runs the tests in the background has them ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("signum", signals.SIGNALS)
def test_the_first_signal_is_only_noted_and_the_handlers_come_back(signum):
    before = signal.getsignal(signum)
    with signals.deferred():
        assert signals.requested() is None
        with signals.deferred():
            os.kill(os.getpid(), signum)
        assert signals.requested() == signum
    assert signal.getsignal(signum) is before
    with signals.deferred():
        assert signals.requested() is None


def test_where_processes_may_not_be_listed_the_signal_is_noted(monkeypatch):
    def refuse():
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "Process", refuse)
    with signals.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.requested() == signal.SIGTERM


def test_without_it_the_signal_ends_what_is_under_way():
    """The control of the test above."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_what_was_ignored_from_the_start_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with signals.deferred():
            os.kill(os.getpid(), signal.SIGINT)
            assert signals.requested() is None
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_second_signal_ends_the_process_at_once():
    code = (
        "import os, signal, time\n"
        "from mnist_bn.trainer import signals\n"
        "with signals.deferred():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('still here', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(60)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (130, "still here\n")


def test_a_terminal_that_goes_away_is_told_twice_and_ends_nothing_at_once():
    with signals.deferred():
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)
        assert signals.requested() == signal.SIGHUP


def test_a_process_of_a_sweep_hears_what_was_sent_before_it_could():
    code = (
        "import os, signal\n"
        "from mnist_bn.trainer import signals\n"
        "with signals.blocked():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    signals.handle_in_worker(os.getppid())\n"
        "    assert signals.requested() == signal.SIGTERM\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=True)


def test_as_on_windows_a_process_of_a_sweep_notes_ctrl_c_itself():
    code = (
        "import os, signal\n"
        "from mnist_bn.trainer import signals\n"
        "signals.IS_WINDOWS = True\n"
        "signals.handle_in_worker(os.getppid())\n"
        "assert not signals.is_orphan() and signals.requested() is None\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "assert signals.requested() == signal.SIGINT\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=True)


def test_as_on_windows_a_process_sees_that_its_sweep_is_dead(monkeypatch):
    sweep = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    monkeypatch.setattr(signals, "IS_WINDOWS", True)
    monkeypatch.setattr(signals, "_parent", psutil.Process(sweep.pid))
    assert not signals.is_orphan()
    sweep.kill()
    sweep.wait()
    assert signals.is_orphan()
    assert signals.requested() == signal.SIGTERM


def test_blocked_signals_wait():
    with signals.deferred():
        with signals.blocked():
            # To this thread: those that earlier tests have left behind do not block it.
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
            assert signals.requested() is None
        assert signals.requested() == signal.SIGTERM


def test_a_terminals_ctrl_c_stops_a_sweep_and_leaves_no_process(tmp_path):
    arguments = ["-m", "MnistCNN", "--dataset", "digits", "-b", "500", "-e", "10000"]
    arguments += ["--seed", "0", "1", "2", "--jobs", "2"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train_mnist.py"), *arguments, "-o", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell that runs the tests in the background has them ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while len(logs := list(tmp_path.glob("*/log"))) < 2:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    children = psutil.Process(process.pid).children(recursive=True)
    # To the processes of the runs as well: they must not take it for a second one.
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in output + errors
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    for log in logs:
        (snapshot,) = snapshots.found(log.parent)
        snapshots.read(snapshot)
    # Python's tracker of semaphores, a process of its own, may warn after it of one that is gone.
    line = [line for line in errors.splitlines() if "resource_tracker" not in line][-1]
    assert line.startswith("train_mnist.py: SIGINT: 3 runs are not finished; go on with: ")
    assert line.endswith(f"{' '.join(arguments)} -o {tmp_path} --autoload")


@pytest.mark.parametrize(
    ("typed", "resumed"),
    [
        ("python train_mnist.py -e 3", "python train_mnist.py -e 3 --autoload"),
        ("python t.py --autoload -o 'a b'", "python t.py -o 'a b' --autoload"),
        ("python t.py -r s -e 3", "python t.py -e 3 --autoload"),
        ("python t.py -rs --resume=s -e 3", "python t.py -e 3 --autoload"),
    ],
)
def test_the_command_that_goes_on(typed, resumed):
    assert report.resume_command(shlex.split(typed)) == resumed
