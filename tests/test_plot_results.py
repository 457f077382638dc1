"""The command: what it writes, what it says, and how it ends."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import plot_results

LOG = [{"epoch": e, "main/loss": 1 / e, "validation/main/accuracy": 1 - 0.1 / e} for e in (1, 2, 3)]


def write_run(root: Path, optimizer: str, **settings) -> None:
    folder = root / f"{optimizer}{len(list(root.iterdir())) if root.exists() else 0}"
    folder.mkdir(parents=True)
    args = {"model": "MnistCNN", "optimizer": optimizer, "seed": 0, "dataset": "mnist"}
    (folder / "args").write_text(json.dumps(args | {"semantics": "today"} | settings))
    (folder / "log").write_text(json.dumps(LOG))


def test_figures_and_tables_are_written_and_named(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for optimizer in ("SGD", "Adam"):
        write_run(tmp_path / "result", optimizer)
    assert plot_results.main([]) == 0
    out, err = capsys.readouterr()
    files = {path.name for path in (tmp_path / "result" / "figures").iterdir()}
    assert files == {"network-MnistCNN.png", "table.md", "summary.csv"}
    assert (tmp_path / "result" / "figures" / "table.md").read_text() in out
    assert "Read 2 runs. Written to result/figures: network-MnistCNN.png, table.md" in out
    assert err == ""


def test_runs_that_are_not_drawn_are_not_counted_as_drawn(tmp_path, capsys):
    for optimizer in ("SGD", "SGD", "Adam"):
        write_run(tmp_path / "result", optimizer)
    assert plot_results.main([str(tmp_path / "result")]) == 0
    out, err = capsys.readouterr()
    assert "Read 3 runs, drew 2. Written to" in out
    assert "same settings and seed as" in err


def test_a_bad_folder_is_a_note_and_the_others_are_drawn(tmp_path, capsys):
    write_run(tmp_path, "SGD")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "log").write_bytes(b"\xff\x00")
    assert plot_results.main([str(tmp_path), "-o", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().err == (
        f"plot_results.py: note: {tmp_path / 'bad'}: log is not the JSON list that LogReport"
        " writes; skipped\n"
    )
    assert (tmp_path / "out" / "runs.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["nowhere"], 2, "nowhere: no such folder"),
        (["empty"], 1, "nothing to draw in empty"),
        (["mixed", "--semantics", "today", "-o", "file"], 1, "cannot be written"),
        (["mixed", "--semantics", "1999"], 2, "--semantics 1999: no such run"),
        (["file"], 2, "file: is a file; expected a result folder"),
        (["--colour"], 2, "unrecognized arguments: --colour (see --help)"),
        (["--format", "gif"], 2, "invalid choice: 'gif'"),
    ],
)
def test_how_it_ends_when_it_cannot(tmp_path, monkeypatch, capsys, arguments, status, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("in the way")
    write_run(tmp_path / "mixed", "SGD")
    write_run(tmp_path / "mixed", "SGD", semantics="2016")
    assert plot_results.main(arguments) == status
    err = capsys.readouterr().err
    assert err.startswith("plot_results.py: ") and err.count("\n") == 1
    assert message in err
    assert not (tmp_path / "mixed" / "figures").exists()


def test_the_exit_status_reaches_the_shell(tmp_path):
    ended = subprocess.run(
        [sys.executable, plot_results.__file__, "nowhere"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2
    assert ended.stderr == (
        "plot_results.py: nowhere: no such folder; expected a result folder, or a folder"
        " of them, as train_mnist.py writes\n"
    )
