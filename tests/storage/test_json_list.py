"""A JSON list in a file that grows: the file is right at every moment, and an entry is cheap."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mnist_bn.storage import files, json_list
from mnist_bn.storage.json_list import SHORT, JsonListFile

PROJECT = Path(json_list.__file__).parents[2]
ENTRIES = [{"epoch": i, "main/loss": 1 / (i + 1), "name": "é\n"} for i in range(SHORT + 30)]


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr(json_list, "SECONDS_OF_REST", 0.0)
    return tmp_path / "log"


@pytest.fixture
def long_list(path):
    """A file of SHORT + 10 entries, of which the last ten were added."""
    file = JsonListFile(path)
    for length in range(SHORT, SHORT + 11):
        file.extend(ENTRIES[:length])
    return file


def whole(entries):
    """The bytes of the file if it is written at once."""
    return files.to_json(entries) + b"\n"


def test_every_entry_is_in_the_file_at_once_and_byte_for_byte(path):
    file = JsonListFile(path)
    for length in (0, 1, 2, *range(SHORT - 1, len(ENTRIES) + 1)):
        file.extend(ENTRIES[:length])
        assert path.read_bytes() == whole(ENTRIES[:length])
    assert len(os.listdir(path.parent)) == 2
    file.close(ENTRIES)
    assert os.listdir(path.parent) == ["log"]
    assert path.read_bytes() == whole(ENTRIES)


def test_a_file_rests_before_it_is_added_to_and_the_end_has_all(path, long_list, monkeypatch):
    now = time.monotonic() + 10
    monkeypatch.setattr(json_list.time, "monotonic", lambda: now)
    monkeypatch.setattr(json_list, "SECONDS_OF_REST", 2.0)
    for seconds, length, shown in ((0, 11, 11), (1.9, 12, 11), (0.2, 13, 13), (0.1, 14, 13)):
        now += seconds
        long_list.extend(ENTRIES[: SHORT + length])
        assert path.read_bytes() == whole(ENTRIES[: SHORT + shown])
    long_list.close(ENTRIES[: SHORT + 14])
    assert path.read_bytes() == whole(ENTRIES[: SHORT + 14])
    assert os.listdir(path.parent) == ["log"]


def test_several_entries_at_once_and_what_is_not_finite(path, long_list):
    entries = [*ENTRIES[: SHORT + 10], {"a": float("nan")}, {"b": [float("inf"), {}]}, 3, []]
    long_list.extend(entries)
    assert path.read_bytes() == whole(entries)
    assert json.loads(path.read_bytes())[-4:] == [{"a": None}, {"b": [None, {}]}, 3, []]


def test_an_entry_is_written_alone(path, long_list, monkeypatch):
    monkeypatch.setattr(files, "replacing", None)  # writing all would call it
    for length in range(SHORT + 10, SHORT + 20):
        long_list.extend(ENTRIES[:length])
    assert path.read_bytes() == whole(ENTRIES[: SHORT + 19])


def test_a_new_list_is_written_whole(path, long_list):
    long_list.write(ENTRIES[:3])
    assert path.read_bytes() == whole(ENTRIES[:3])
    long_list.extend(ENTRIES[:4])
    assert path.read_bytes() == whole(ENTRIES[:4])
    long_list.write(ENTRIES[: SHORT + 5])
    for length in range(SHORT + 6, SHORT + 9):
        long_list.extend(ENTRIES[:length])
        assert path.read_bytes() == whole(ENTRIES[:length])


def test_it_is_as_open_as_any_other_file(path, long_list):
    (path.parent / "plain").touch()
    assert path.stat().st_mode == (path.parent / "plain").stat().st_mode


def replaced_by(make):
    def replace(path):
        path.unlink()
        make(path)

    return replace


def link_elsewhere(path):
    path.with_name("elsewhere").write_text("mine")
    path.symlink_to("elsewhere")


def hard_link_elsewhere(path):
    path.with_name("elsewhere").write_text("mine")
    os.link(path.with_name("elsewhere"), path)


SPOILS = {
    "removed": os.unlink,
    "another": replaced_by(lambda path: path.write_text("[1]")),
    "link": replaced_by(link_elsewhere),
    "hard link": replaced_by(hard_link_elsewhere),
    "pipe": replaced_by(os.mkfifo),
    "cut": lambda path: os.truncate(path, 100),
}


@pytest.mark.parametrize("which", ["log", "spare"])
@pytest.mark.parametrize("spoil", SPOILS)
def test_what_somebody_else_has_put_there_is_not_written_to(path, long_list, which, spoil):
    target = path if which == "log" else next(path.parent.glob(".log-*"))
    SPOILS[spoil](target)
    for length in range(SHORT + 11, SHORT + 14):
        long_list.extend(ENTRIES[:length])
        assert path.read_bytes() == whole(ENTRIES[:length])
        assert stat.S_ISREG(path.lstat().st_mode)
    elsewhere = path.with_name("elsewhere")
    assert not elsewhere.exists() or elsewhere.read_text() == "mine"


@pytest.mark.parametrize("call", ["link", "replace", "fsync", "lstat"])
def test_a_system_that_refuses_costs_time_only(path, long_list, monkeypatch, call):
    calls = []

    class Refusing:
        def __getattr__(self, name):
            def refuse(*args, **options):
                calls.append(name)
                raise OSError(95, "Operation not supported")

            return refuse if name == call else getattr(os, name)

    monkeypatch.setattr(json_list, "os", Refusing())
    for length in range(SHORT + 11, SHORT + 14):
        long_list.extend(ENTRIES[:length])
        assert path.read_bytes() == whole(ENTRIES[:length])
    assert calls or call == "replace"


def test_a_full_disk_is_one_line_and_leaves_the_file(path, long_list, monkeypatch):
    before = path.read_bytes()

    def fsync(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(files.CannotWriteError, match="No space left"):
        long_list.extend(ENTRIES[: SHORT + 11])
    assert path.read_bytes() == before


ADD_FOR_EVER = """
import sys
from pathlib import Path
from mnist_bn.storage import json_list
from mnist_bn.storage.json_list import JsonListFile
json_list.SHORT, json_list.SECONDS_OF_REST = 100, 0.2
file, entries = JsonListFile(Path(sys.argv[1])), []
while True:
    entries.append({"epoch": len(entries), "main/loss": 0.1, "text": "x" * 300})
    file.extend(entries)
    if len(entries) == 100:
        print("begun", flush=True)
"""


def test_a_reader_and_a_kill_at_any_moment_find_a_list(path):
    for seconds in (0.7, 0.9):
        command = [sys.executable, "-c", ADD_FOR_EVER, str(path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=PROJECT)
        try:
            process.stdout.readline()
            end, lengths = time.monotonic() + seconds, [100]
            while time.monotonic() < end:
                lengths.append(len(json.loads(path.read_bytes())))
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        last = json.loads(path.read_bytes())
        assert lengths == sorted(lengths) and len(last) >= lengths[-1]
        assert [entry["epoch"] for entry in last] == list(range(len(last)))
        files.remove_unfinished(path.parent)
        assert os.listdir(path.parent) == ["log"]
