"""Result folders as bytes: what goes comes back, and nothing else gets out."""

import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_bn.cluster import packing

names = st.text("abcXYZ09._-", min_size=1, max_size=12).filter(
    lambda n: n.strip(".") and n != ".lock"
)
contents = st.dictionaries(names, st.binary(max_size=200), max_size=6)


def files_of(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


@settings(max_examples=30, deadline=None)
@given(before=contents, sent=contents)
def test_a_folder_comes_back_whole_and_replaces_what_was_there(tmp_path_factory, before, sent):
    here, there = tmp_path_factory.mktemp("here"), tmp_path_factory.mktemp("there")
    for folder, files in ((here, before), (there, sent)):
        for name, content in files.items():
            (folder / name).write_bytes(content)
    (there / "earlier/1").mkdir(parents=True)
    (there / "earlier/1/log").write_bytes(b"of before")
    (here / ".lock").touch()
    packing.unpack(packing.pack(there), here)
    assert files_of(here) == {**sent, "earlier/1/log": b"of before", ".lock": b""}
    assert not list(here.parent.glob(".unpacking-*"))


def archive(**member):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo(member.pop("name"))
        for key, value in member.items():
            setattr(info, key, value)
        tar.addfile(info, io.BytesIO(bytes(info.size)))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        archive(name="../out"),
        archive(name="a/../../out"),
        archive(name="/tmp/out"),
        archive(name="link", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        archive(name="hard", type=tarfile.LNKTYPE, linkname="../out"),
        archive(name="pipe", type=tarfile.FIFOTYPE),
        b"no archive at all",
        archive(name="cut", size=1000)[:700],
    ],
)
def test_what_would_get_out_is_refused_and_the_folder_stays(tmp_path, content):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "log").write_bytes(b"as it was")
    with pytest.raises(packing.BadFolderError):
        packing.unpack(content, folder)
    assert files_of(tmp_path) == {"run/log": b"as it was"}


def test_too_much_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(bytes(100))
    content = packing.pack(tmp_path)
    monkeypatch.setattr(packing, "MAX_BYTES", 99)
    with pytest.raises(packing.BadFolderError):
        packing.pack(tmp_path)
    with pytest.raises(packing.BadFolderError):
        packing.unpack(content, tmp_path / "to")
