"""Standard streams that are closed, full or broken: no traceback, and the work is done."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DIGITS = "--dataset digits --train-images 100 -b 50 -e 1 -m ReluMLP"

PRINT_A_LOT = """
import sys
from mnist_bn.terminal import streams
if {guarded}:
    streams.guard()
for i in range(100):
    print("é" * 1000)
print("and on", streams.is_lost(), streams.has_failed(), file=sys.stderr)
"""


def shell(line):
    """The exit status of the first command of a line in bash, and what is on standard error."""
    done = subprocess.run(
        ["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=100,
        env={**os.environ, "PYTHON": sys.executable, "PYTHONIOENCODING": "ascii"},
    )
    return done.returncode, done.stderr


def print_a_lot(redirection, guarded=True):
    code = PRINT_A_LOT.format(guarded=guarded)
    return shell(f"$PYTHON -c '{code}' {redirection}")


@pytest.mark.parametrize(
    ("redirection", "is_lost", "has_failed"),
    [
        ("> /dev/null", False, False),
        ("| cat > /dev/null", False, False),
        ("| true", True, False),
        ("| head -1 > /dev/null", True, False),
        ("> /dev/full", True, True),
        ("1< /dev/null", True, True),
    ],
)
def test_the_process_goes_on(redirection, is_lost, has_failed):
    status, errors = print_a_lot(redirection)
    assert status == 0
    assert errors.splitlines()[-1] == f"and on {is_lost} {has_failed}"
    assert errors.count("standard output cannot be written") == has_failed
    assert len(errors.splitlines()) == 1 + has_failed


def test_without_the_guard_it_does_not():
    """The control of the test above."""
    status, errors = print_a_lot("> /dev/full", guarded=False)
    assert status != 0 and "and on" not in errors


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("train_mnist.py --help | true", 0),
        ("train_mnist.py --bogus <&- >&- 2>&-", 2),
        ("plot_results.py --help > /dev/full", 1),  # the help was all that was asked for
        ("plot_results.py --bogus 2> /dev/full", 2),
    ],
)
def test_a_command_ends_as_it_would(line, status):
    found, errors = shell(f"$PYTHON {line}")
    assert found == status
    assert "Traceback" not in errors and "Exception" not in errors


def test_the_list_of_models_on_a_full_disk_is_a_failure():
    status, errors = shell("$PYTHON train_mnist.py --list-models > /dev/full")
    assert status == 1
    assert errors == (
        "train_mnist.py: note: standard output cannot be written (No space left on device); going "
        "on without it\n"
    )


@pytest.mark.parametrize(
    ("rest", "runs"), [("<&- >&- 2>&-", 1), ("--seed 0 1 --jobs 2 2>/dev/full | true", 2)]
)
def test_training_goes_on_and_its_files_are_whole(tmp_path, rest, runs):
    status, errors = shell(f"$PYTHON train_mnist.py {DIGITS} -o {tmp_path} {rest}")
    assert (status, errors) == (0, "")
    assert len(list(tmp_path.glob("*/model.npz"))) == runs
    assert not list(tmp_path.glob("*/error.txt"))
    for log in tmp_path.glob("*/log"):
        assert log.read_text().startswith("[")  # nothing that was printed has got into it


@pytest.mark.parametrize(
    ("script", "handler", "status"),
    [
        ("train_mnist.py", signal.SIG_DFL, 130),
        ("plot_results.py", signal.SIG_DFL, 130),
        ("plot_results.py", signal.SIG_IGN, 0),
    ],
)
def test_ctrl_c_while_modules_are_imported(script, handler, status):
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", str(ROOT / script), "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, handler),
    )
    errors = ""
    for line in process.stderr:
        errors += line
        if line.endswith(" numpy\n"):  # Chainer and much else are yet to come
            process.send_signal(signal.SIGINT)
            break
    _, rest = process.communicate(timeout=100)
    assert process.returncode == status
    assert "Traceback" not in errors + rest and "KeyboardInterrupt" not in errors + rest
