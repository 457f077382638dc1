"""One process at a time in a result folder, and a killed one keeps nothing."""

import multiprocessing
import os
import signal

import pytest

from mnist_bn import locks
from mnist_bn.errors import UserError


def hold_for_ever(folder, pipe):
    with locks.hold(folder):
        pipe.send("held")
        pipe.recv()


@pytest.fixture
def other_process(tmp_path):
    """A process that holds the folder."""
    # Not fork: this process has threads.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=hold_for_ever, args=(tmp_path, theirs))
    process.start()
    assert ours.recv() == "held"
    yield process
    process.kill()
    process.join()


def test_the_second_process_is_told(tmp_path, other_process):
    refused = pytest.raises(UserError, match=f"^{tmp_path}: another process is training in this")
    with refused, locks.hold(tmp_path):
        pass
    os.kill(other_process.pid, signal.SIGKILL)
    other_process.join()
    with locks.hold(tmp_path):  # the lock died with it, the file stayed
        assert (tmp_path / ".lock").exists()


def test_a_process_may_hold_a_folder_twice(tmp_path):
    with locks.hold(tmp_path), locks.hold(tmp_path / "."):
        pass
    with locks.hold(tmp_path):
        pass
