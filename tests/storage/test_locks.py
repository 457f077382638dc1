"""One process at a time in a result folder, and a killed one keeps nothing."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mnist_bn import training
from mnist_bn.config import RunConfig
from mnist_bn.errors import UserError
from mnist_bn.storage import locks
from mnist_bn.training import prepare

HOLD = """
import sys
from pathlib import Path
from mnist_bn.storage import locks
with locks.hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def config(tmp_path, tiny_data, no_plots):
    return RunConfig(model="MnistCNN", batchsize=20, epoch=1, dataset="mnist", out=str(tmp_path))


@pytest.fixture
def other_process(config):
    """A process that holds the run's folder."""
    config.folder.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(config.folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    with process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_the_second_process_is_told_and_changes_nothing(config, other_process):
    with pytest.raises(UserError, match=f"^{config.folder}: another process is training in this"):
        training.train(prepare(config))
    assert os.listdir(config.folder) == [".lock"]
    other_process.kill()
    other_process.wait()
    with locks.hold(config.folder):  # the lock died with it, the file stayed
        assert (config.folder / ".lock").exists()


def test_without_the_lock_both_write_into_the_folder(config, other_process, monkeypatch):
    """The control of the test above."""
    monkeypatch.setattr(training.locks, "hold", contextlib.nullcontext)
    training.train(prepare(config))
    assert (config.folder / "model.npz").exists() and other_process.poll() is None


def test_a_lock_that_cannot_be_made_is_one_line(config):
    (config.folder / ".lock").mkdir(parents=True)
    with pytest.raises(UserError, match=r"\.lock: cannot be written \(Is a directory\)$"):
        training.train(prepare(config))


def test_a_process_may_hold_a_folder_twice(tmp_path):
    with locks.hold(tmp_path), locks.hold(tmp_path / "."):
        pass
    with locks.hold(tmp_path):
        pass


def test_a_removed_lock_file_lets_nobody_in(config, other_process):
    (config.folder / ".lock").unlink()
    with pytest.raises(UserError, match=f"^{config.folder}: another process is training in this"):
        training.train(prepare(config))
    other_process.kill()
    other_process.wait()
    with locks.hold(config.folder):
        pass


def test_without_the_lock_on_the_folder_it_would(config, other_process, monkeypatch):
    """The control of the test above."""
    (config.folder / ".lock").unlink()
    monkeypatch.setattr(locks, "_hold_itself", lambda folder: contextlib.nullcontext())
    with locks.hold(config.folder):
        pass


def test_a_file_system_that_locks_no_folders_is_done_with_the_file(tmp_path, monkeypatch):
    def flock(handle, operation):
        raise OSError(9, "Bad file descriptor")  # as on NFS

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    with locks._hold_itself(tmp_path):
        pass


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("elsewhere", path)])
def test_what_stands_in_place_of_the_lock_file_stops_no_run_for_ever(tmp_path, make):
    make(tmp_path / ".lock")
    with contextlib.suppress(UserError), locks.hold(tmp_path):
        pass
    assert not (tmp_path / "elsewhere").exists()
