"""Files that are never seen half written, and JSON that is always strict."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_bn import files


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


def test_a_new_file_is_as_open_as_any_other(tmp_path):
    (tmp_path / "plain").touch()
    with files.replacing(tmp_path / "log"):
        pass
    assert (tmp_path / "log").stat().st_mode == (tmp_path / "plain").stat().st_mode


numbers = st.floats() | st.integers() | st.none() | st.text()


@given(value=st.recursive(numbers, lambda v: st.lists(v) | st.dictionaries(st.text(), v)))
def test_json_is_strict_and_only_loses_what_is_not_finite(value, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "value.json"
    files.write_json(path, value)

    def refuse(token):
        raise AssertionError(token)

    def with_null(item):
        if isinstance(item, dict):
            return {key: with_null(v) for key, v in item.items()}
        if isinstance(item, list):
            return [with_null(v) for v in item]
        return None if item in (float("inf"), -float("inf")) or item != item else item

    assert json.loads(path.read_bytes(), parse_constant=refuse) == with_null(value)
