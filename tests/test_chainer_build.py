"""The in-tree build backend that makes Chainer's wheel, without a network."""

import importlib
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path
from typing import ClassVar

import chainer
import pytest

FOLDER = Path(__file__).parents[1] / "chainer-build"
WHEEL = "chainer-7.8.1+mended-py3-none-any.whl"


@pytest.fixture
def backend(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)  # as backend-path does
    yield importlib.import_module("backend")
    for module in ("backend", "mends"):
        sys.modules.pop(module, None)


@pytest.fixture
def mends(backend):
    return sys.modules["mends"]


def write_source(folder, mends):
    """Writes files that have the words that the mends replace, and nothing else."""
    for mend in mends.MENDS:
        path = folder / mend.path
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            # Words that begin in the middle of a line stay apart from those before.
            file.write(("\n#\n" + mend.old) * mend.count)
    caffe = folder / mends.CAFFE
    caffe.parent.mkdir(parents=True)
    caffe.write_text("DESCRIPTOR = FileDescriptor(\n  serialized_pb=_b('\\n\\x0b')\n)\n")
    return folder


@pytest.fixture
def pip(monkeypatch, mends):
    """Stands for pip: puts an archive or a wheel where it is asked to, and records its command."""

    class Pip:
        returncode = 0
        stdout = "Successfully built chainer\n"
        commands: ClassVar = []

        def run(self, command, env, **options):
            self.commands.append(command)
            self.env = env
            if self.returncode == 0:
                getattr(self, command[3])(command)
            return self

        def download(self, command):
            self.requirements = Path(command[command.index("--requirement") + 1]).read_text()
            folder = Path(command[command.index("--dest") + 1])
            source = write_source(folder / "chainer-7.8.1", mends)
            with tarfile.open(folder / "chainer-7.8.1.tar.gz", "w:gz") as tar:
                tar.add(source, source.name)
            shutil.rmtree(source)

        def wheel(self, command):
            source = Path(command[-1])
            text = (source / "chainer" / "_version.py").read_text()
            Path(command[command.index("--wheel-dir") + 1], WHEEL).write_text(text)

    stand_in = Pip()
    stand_in.commands.clear()
    monkeypatch.setattr(subprocess, "run", stand_in.run)
    return stand_in


def test_wheel_of_the_mended_source_arrives_under_its_own_name(backend, pip, mends, tmp_path):
    wheels = tmp_path / "with space"
    wheels.mkdir()
    assert backend.build_wheel(str(wheels)) == WHEEL
    assert f"'7.8.1{mends.LABEL}'" in (wheels / WHEEL).read_text()


def test_source_is_pinned_by_hash(backend, pip, tmp_path):
    backend.build_wheel(str(tmp_path))
    name, digest = pip.requirements.split()
    assert name == "chainer==7.8.1"
    assert len(digest.removeprefix("--hash=sha256:")) == 64
    for command in pip.commands:
        assert {"--no-deps", "--no-build-isolation"} <= set(command)


def test_each_mend_is_in_the_chainer_installed(mends):
    folder = Path(chainer.__file__).parents[1]
    for mend in mends.MENDS:
        if mend.path != "setup.py":
            assert (folder / mend.path).read_text().count(mend.new) >= mend.count, mend
    for module, package in mends.MODULES.items():
        ours = (FOLDER / "package" / module).read_bytes()
        assert (folder / package / module).read_bytes() == ours


def test_caffe_messages_are_made_of_their_description(mends, tmp_path):
    mends.apply(write_source(tmp_path, mends))
    module = (tmp_path / mends.CAFFE).read_text()
    assert "build_messages('\\n\\x0b'.encode" in module
    assert "FileDescriptor" not in module


def test_source_without_the_words_of_a_mend_is_refused(mends, tmp_path):
    write_source(tmp_path, mends)
    mends.apply(tmp_path)
    with pytest.raises(ValueError, match=r"chainer/_version.py has \"'7.8.1'\" 0 times, not 1"):
        mends.apply(tmp_path)  # all is replaced by now


def test_settings_meant_for_the_caller_are_not_handed_on(backend, pip, tmp_path, monkeypatch):
    kept = {
        "PATH": "/bin",
        "PYTHONPATH": "/isolated/site-packages",
        "PIP_INDEX_URL": "https://mirror.example/simple",
        "PIP_CERT": "/etc/mirror.pem",
    }
    dropped = {
        "PIP_BUILD_CONSTRAINT": "constraints.txt",
        "PIP_CONSTRAINT": "constraints.txt",
        "PIP_ONLY_BINARY": ":all:",
        "PIP_PYTHON": "/another/python",
        "PIP_REQUIRE_HASHES": "1",
        "PIP_REQUIREMENT": "requirements.txt",
        "PIP_TARGET": "/target",
        "PEP517_BACKEND_PATH": "/chainer-build",
        "_PIP_STANDALONE_CERT": "/tmp/gone.pem",
        "_PYPROJECT_HOOKS_BACKEND_PATH": "/chainer-build",
    }
    for name, value in {**kept, **dropped}.items():
        monkeypatch.setenv(name, value)
    backend.build_wheel(str(tmp_path))
    assert kept.items() <= pip.env.items()
    assert not dropped.keys() & pip.env.keys()


NO_NETWORK = """\
WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError'
ERROR: Could not find a version that satisfies the requirement chainer==7.8.1
ERROR: No matching distribution found for chainer==7.8.1
"""
TIMEOUT = "ERROR: Exception:\nTraceback (most recent call last):\nReadTimeoutError: timed out.\n"


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (NO_NETWORK, "(No matching distribution found for chainer==7.8.1)"),
        (TIMEOUT, "(ReadTimeoutError: timed out.)"),
        ("", "(pip said nothing)"),
    ],
)
def test_failure_of_the_network_is_one_line(backend, pip, tmp_path, capsys, output, reason):
    pip.returncode, pip.stdout = 1, output
    with pytest.raises(SystemExit, match="check the network") as error:
        backend.build_wheel(str(tmp_path))
    assert reason in str(error.value)
    assert "\n" not in str(error.value)
    assert capsys.readouterr().out == ""


def test_failure_of_the_build_shows_its_output(backend, pip, tmp_path, capsys):
    pip.returncode = 1
    pip.stdout = "error: subprocess-exited-with-error\nNameError: in setup.py\n"
    with pytest.raises(SystemExit):
        backend.build_wheel(str(tmp_path))
    assert "NameError: in setup.py" in capsys.readouterr().out


def test_real_pip_without_an_index(backend, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(SystemExit, match=r"^chainer-build: pip could not get") as error:
        backend.build_wheel(str(tmp_path))
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_there_is_no_source_archive(backend, tmp_path):
    with pytest.raises(SystemExit, match=r"pip download chainer==7\.8\.1"):
        backend.build_sdist(str(tmp_path))


def test_build_has_a_setuptools_with_pkg_resources():
    build_system = tomllib.loads((FOLDER / "pyproject.toml").read_text())["build-system"]
    assert build_system["build-backend"] == "backend"
    assert any(r.startswith("setuptools") and r.endswith("<82") for r in build_system["requires"])
