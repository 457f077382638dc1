"""Files that are never seen half written, and JSON that is always strict."""

import contextlib
import errno
import json
import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_bn.errors import UserError
from mnist_bn.storage import files


def test_the_new_file_takes_the_place_of_the_old(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"old")
    with files.replacing(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["log"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), files.replacing(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["log"]


def read_by_somebody(monkeypatch, tries):
    """Has the system refuse to replace a file so many times, as Windows does."""
    replace, left = os.replace, [PermissionError(13, "Access is denied")] * tries

    def refuse(*paths):
        if left:
            raise left.pop()
        replace(*paths)

    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(files, "READERS_HINDER", True)


def test_where_readers_hinder_a_writer_waits_for_them(tmp_path, monkeypatch):
    (tmp_path / "log").write_bytes(b"old")
    read_by_somebody(monkeypatch, tries=3)
    write_safely(tmp_path / "log", b"new")
    assert (tmp_path / "log").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["log"]


def test_a_reader_that_stays_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "log").write_bytes(b"old")
    read_by_somebody(monkeypatch, tries=1000)
    monkeypatch.setattr(files, "SECONDS_FOR_READERS", 0.1)
    with pytest.raises(files.CannotWriteError, match=r"log: cannot be written \(Access is denied"):
        write_safely(tmp_path / "log", b"new")
    assert (tmp_path / "log").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["log"]


def fill_the_disk(monkeypatch, call):
    """Has this function of `os` fail."""

    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, refuse)


def write_in_place(path, content):
    """Writes without the protection of `replacing`."""
    with path.open("wb") as file:
        file.write(content[:2])
        os.fsync(file.fileno())
        file.write(content[2:])


def write_safely(path, content):
    with files.replacing(path) as file:
        file.write(content)


@pytest.mark.parametrize("call", ["fdopen", "chmod", "fsync", "replace"])
def test_a_full_disk_is_one_line_and_the_old_file_stays(tmp_path, monkeypatch, call):
    path = tmp_path / "log"
    path.write_bytes(b"old")
    fill_the_disk(monkeypatch, call)
    with pytest.raises(UserError) as error:
        write_safely(path, b"new content")
    assert str(error.value) == f"{path}: cannot be written (No space left on device)"
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["log"]


def test_written_in_place_the_old_file_is_lost(tmp_path, monkeypatch):
    """The control of the test above."""
    path = tmp_path / "log"
    path.write_bytes(b"old")
    fill_the_disk(monkeypatch, "fsync")
    with pytest.raises(OSError):
        write_in_place(path, b"new content")
    assert path.read_bytes() != b"old"


@pytest.mark.parametrize(("number", "is_lost"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_a_file_system_that_cannot_sync_folders_loses_no_run(
    tmp_path, monkeypatch, number, is_lost
):
    real = os.fsync

    def fsync(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, os.strerror(number))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    expected = pytest.raises(UserError) if is_lost else contextlib.nullcontext()
    with expected:
        write_safely(tmp_path / "log", b"new")
    assert (tmp_path / "log").read_bytes() == b"new"


def test_only_what_our_writers_left_is_removed(tmp_path):
    unfinished = (".log-a1.unfinished", ".snapshot_iter_5-b2.unfinished")
    others = ("log", "mine.unfinished", ".lock")
    for name in unfinished + others:
        (tmp_path / name).touch()
    (tmp_path / ".folder.unfinished").mkdir()  # cannot be unlinked: stays, and harms nothing
    files.remove_unfinished(tmp_path)
    assert set(os.listdir(tmp_path)) == {*others, ".folder.unfinished"}


def test_a_new_file_is_as_open_as_any_other(tmp_path):
    (tmp_path / "plain").touch()
    with files.replacing(tmp_path / "log"):
        pass
    assert (tmp_path / "log").stat().st_mode == (tmp_path / "plain").stat().st_mode


def refuse(token):
    """For json: what is not in strict JSON is an error."""
    raise AssertionError(token)


numbers = st.floats() | st.integers() | st.none() | st.text()


@given(value=st.recursive(numbers, lambda v: st.lists(v) | st.dictionaries(st.text(), v)))
def test_json_is_strict_and_only_loses_what_is_not_finite(value, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "value.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)  # a hundred of them take seconds
        files.write_json(path, value)

    def with_null(item):
        if isinstance(item, dict):
            return {key: with_null(v) for key, v in item.items()}
        if isinstance(item, list):
            return [with_null(v) for v in item]
        return None if item in (float("inf"), -float("inf")) or item != item else item

    assert json.loads(path.read_bytes(), parse_constant=refuse) == with_null(value)


def test_the_json_module_by_itself_is_not_strict():
    """The control of the test above."""
    with pytest.raises(AssertionError, match="NaN"):
        json.loads(json.dumps([float("nan")]), parse_constant=refuse)
