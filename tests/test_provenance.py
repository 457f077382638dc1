"""Which command, revision and computer `args` names, whatever Git does."""

import json
import os
import subprocess
import sys
import time

import pytest

from mnist_bn import provenance, sweep
from mnist_bn.config import RunConfig, grid
from mnist_bn.training import prepare, train


@pytest.fixture(autouse=True)
def asked_anew():
    of_process = provenance.of_process
    of_process.cache_clear()
    yield
    of_process.cache_clear()


def git(folder, *arguments):
    own = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    identity = ["-c", "user.name=A", "-c", "user.email=a@b"]
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, env={**os.environ, **own},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A repository with one commit, in place of the project's folder."""
    try:
        git(tmp_path, "init", "-q", "clone")
    except FileNotFoundError:
        pytest.skip("needs Git")
    folder = tmp_path / "clone"
    (folder / "code.py").write_text("1\n")
    git(folder, "add", "code.py")
    git(folder, "commit", "-q", "-m", "first")
    monkeypatch.setattr(provenance, "ROOT", folder)
    return folder


def revision():
    found = provenance.of_process()
    return found["revision"], found["changed"]


def test_a_clone_has_its_commit_and_says_whether_tracked_files_were_changed(clone):
    head = git(clone, "rev-parse", "HEAD")
    (clone / "result").write_text("not tracked")
    assert revision() == (head, False)
    (clone / "code.py").write_text("2\n")
    assert revision() == (head, False)  # asked once a process
    provenance.of_process.cache_clear()
    assert revision() == (head, True)


def test_a_repository_that_is_named_in_the_environment_is_not_asked(clone, tmp_path, monkeypatch):
    head = git(clone, "rev-parse", "HEAD")
    git(tmp_path, "init", "-q", "other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "nothing"))
    assert revision() == (head, False)


def test_a_folder_within_another_repository_is_no_clone(clone, monkeypatch):
    copied = clone / "copied"
    copied.mkdir()
    monkeypatch.setattr(provenance, "ROOT", copied)
    assert revision() == (None, None)


def test_a_repository_without_a_commit_has_no_revision(clone, monkeypatch):
    git(clone, "init", "-q", "empty")
    monkeypatch.setattr(provenance, "ROOT", clone / "empty")
    assert revision() == (None, None)


GITS = {
    "fails": "echo 'fatal: detected dubious ownership in repository' >&2\nexit 128\n",
    "says nothing": "exit 0\n",
    "says something else": "printf '\\377\\376 # branch.oid\\n# branch.oid \\n'\n",
    "hangs": "exec sleep 60\n",
    "hangs in another process": "sleep 60\n",
    "is no program": None,
    "is not there": None,
}


@pytest.mark.parametrize("which", GITS)
def test_git_never_harms(which, tmp_path, monkeypatch, capfd):
    path = tmp_path / "bin"
    path.mkdir()
    if which == "is no program":
        (path / "git").write_bytes(b"\0\1\2")
    elif which != "is not there":
        (path / "git").write_text(f"#!/bin/sh\nPATH={os.environ['PATH']}\n{GITS[which]}")
    if which != "is not there":
        (path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(path))
    monkeypatch.setattr(provenance, "MAX_SECONDS", 0.5)
    begin = time.monotonic()
    assert revision() == (None, None)
    assert time.monotonic() - begin < 10
    assert capfd.readouterr() == ("", "")


def test_args_hold_it(tmp_path, tiny_data, no_plots, clone, monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", ["python", "train_mnist.py", "-m", "N(a='b c')"])
    run = prepare(RunConfig("ReluMLP", dataset="mnist", batchsize=20, epoch=1, out=str(tmp_path)))
    train(run)
    args = json.loads((run.folder / "args").read_bytes())
    assert args["command"] == """python train_mnist.py -m 'N(a='"'"'b c'"'"')'"""
    assert args["revision"] == git(clone, "rev-parse", "HEAD")
    assert args["changed"] is False
    assert args["host"] == os.uname().nodename


def test_the_processes_of_a_sweep_name_its_command_and_ask_git_no_more(tmp_path, monkeypatch):
    """A worker's own command line is joblib's."""
    ours = {"command": "train_mnist.py --seed 0 1", "revision": "f" * 40, "changed": True}
    monkeypatch.setattr(provenance, "of_process", lambda: ours)
    settings = {"dataset": "digits", "epoch": 1, "batchsize": 500, "out": str(tmp_path)}
    configs = grid({**settings, "seed": [0, 1]})
    sweep.run_all(configs, jobs=2)
    for config in configs:
        args = json.loads((config.folder / "args").read_bytes())
        assert {key: args[key] for key in ours} == ours
