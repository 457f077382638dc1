"""Messages: lines that fit the terminal, numbers of things, and commands to be typed."""

import io
import os
import shlex
import sys
from pathlib import Path

import pytest

from mnist_bn.terminal import wording

ROOT = Path(__file__).resolve().parents[2]


def test_numbers_of_things():
    counted = [wording.count(n, "run") for n in (0, 1, 2, 1000)]
    assert counted == ["0 runs", "1 run", "2 runs", "1,000 runs"]


@pytest.mark.parametrize(
    ("typed", "folder", "command"),
    [
        ("python train_mnist.py -e 1", "r", "python plot_results.py r"),
        (".venv/bin/python train_mnist.py", "r", ".venv/bin/python plot_results.py r"),
        ("python /x/y/train_mnist.py", "my r", "python /x/y/plot_results.py 'my r'"),
        ("python '/x y/train_mnist.py'", "it's", "python '/x y/plot_results.py' 'it'\"'\"'s'"),
        ("python -X dev train_mnist.py", "-r", "python -X dev plot_results.py ./-r"),
        ("python -m train_mnist -e 1", "$r", "python -m plot_results '$r'"),
    ],
)
def test_the_command_of_another_script(monkeypatch, typed, folder, command):
    words = shlex.split(typed)
    script = next(i for i, word in enumerate(words) if "train_mnist" in word)
    monkeypatch.setattr(sys, "orig_argv", words)
    monkeypatch.setattr(sys, "argv", words[script:])
    assert wording.command("plot_results.py", folder) == command


@pytest.mark.parametrize(
    ("pip", "words"),
    [
        ("/x/.venv/bin/pip", "pip"),
        ("/usr/bin/pip", ".venv/bin/python -m pip"),
        (None, ".venv/bin/python -m pip"),
    ],
)
def test_what_installs_into_our_environment(monkeypatch, pip, words):
    monkeypatch.setattr(sys, "executable", "/x/.venv/bin/python")
    monkeypatch.setattr(sys, "orig_argv", [".venv/bin/python", "train_mnist.py"])
    monkeypatch.setattr(wording.shutil, "which", lambda name: pip)
    monkeypatch.chdir(ROOT)
    assert wording.pip_install("r.txt") == f"{words} install -r r.txt"
    monkeypatch.chdir("/")
    assert wording.pip_install("r.txt") == f"{words} install -r {ROOT / 'r.txt'}"


class Terminal(io.StringIO):
    columns = 40

    def isatty(self):
        return True

    def fileno(self):
        return 1


def test_a_line_for_a_terminal_is_broken_between_words(monkeypatch):
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((40, 24)))
    line = "the activation-moments of a network with a long-hyphenated-name are here"
    out = Terminal()
    wording.say(line, "python plot_results.py " + "x" * 60, file=out)
    *text, command = out.getvalue().splitlines()
    assert all(len(part) < 40 for part in text)
    assert " ".join(part.strip() for part in text) == line
    assert command == "  python plot_results.py " + "x" * 60  # in one piece, to be copied


def test_a_line_for_a_file_is_one_line():
    out = io.StringIO()
    wording.say("x " * 100, "go", file=out)
    assert out.getvalue() == "x " * 100 + " go\n"


@pytest.mark.parametrize(
    ("called", "text"),
    [
        ("/x/train_mnist.py", "python train_mnist.py, plot_results.py"),
        ("/x/bin/mnist-bn-train", "mnist-bn-train, mnist-bn-plot"),
        ("mnist-bn-plot.exe", "mnist-bn-train, mnist-bn-plot"),
    ],
)
def test_commands_are_named_as_they_were_called(called, text, monkeypatch):
    monkeypatch.setattr(sys, "argv", [called, "--help"])
    assert wording.named("python train_mnist.py, plot_results.py") == text
