"""The command: what it writes, what it says, and how it ends."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import plot_results
from mnist_bn.config import RunConfig
from mnist_bn.storage import archives
from tests.helpers import write_result_folder

LOG = [{"epoch": e, "main/loss": 1 / e, "validation/main/accuracy": 1 - 0.1 / e} for e in (1, 2, 3)]


def write_run(root: Path, optimizer: str, **settings) -> Path:
    """A result folder; `log` replaces the entries."""
    log = settings.pop("log", LOG)
    folder = root / f"{optimizer}{len(list(root.iterdir())) if root.exists() else 0}"
    args = {"model": "MnistCNN", "optimizer": optimizer, "seed": 0, "dataset": "mnist"}
    return write_result_folder(folder, args | {"semantics": "today"} | settings, log)


def drawn_in(folder: Path) -> dict[str, set[str]]:
    """The names of the files in each folder of figures, by the folder's name."""
    found: dict[str, set[str]] = {}
    for path in folder.rglob("*.*"):
        found.setdefault(path.parent.name, set()).add(path.name)
    return found


@pytest.fixture
def quick_figures(monkeypatch):
    """Makes the figures, but in place of a picture writes a byte."""

    def savefig(self, file, **options):
        assert max(self.get_size_inches()) * 150 < 2**16  # beyond that there is no picture
        file.write(b"x")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", savefig)


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


def test_on_a_terminal_no_line_is_wider_than_it(tmp_path, capsys, monkeypatch):
    for model in ("MnistCNN", "MnistCNN_BN_before", "MnistCNN_BN_after", "ReluMLP"):
        for seed in (0, 1):
            write_run(tmp_path, "SGD", model=model, seed=seed)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.chdir(tmp_path)
    assert plot_results.main(["."]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "  MnistCNN_BN_before  0.9667 ± 0.0000\n" in out
    table = (tmp_path / "figures" / "table.md").read_text()
    assert max(map(len, table.splitlines())) > 80


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


TABLES = {"table.md", "summary.csv"}
BY_ITERATION = [entry | {"epoch": 0, "iteration": 10 * entry["epoch"]} for entry in LOG]


def test_what_cannot_share_a_figure_is_drawn_in_a_folder_each(tmp_path, capsys, quick_figures):
    result = tmp_path / "result"
    for optimizer in ("SGD", "Adam"):
        write_run(result, optimizer)
    write_run(result, "SGD", dataset="digits")
    write_run(result, "SGD", semantics="2016")
    study = {"study": "exercise", "evaluate_every": 10, "log": BY_ITERATION}
    for model in ("ExerciseMLP", "ExerciseMLP_BN"):
        write_run(result / "exercise", "SGD", model=model, **study)
    assert plot_results.main([str(result)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    wanted = {
        "digits": {"runs.png", *TABLES},
        "mnist": {"network-MnistCNN.png", *TABLES},
        "mnist-2016": {"runs.png", *TABLES},
        "exercise": {"exercise.png", "claims.md", *TABLES},
    }
    assert drawn_in(result / "figures") == wanted
    assert out.startswith(
        "Read 6 runs, drawn in 4 groups: they differ in study, dataset, semantics and epochs or"
        " iterations.\n"
    )
    for name, files in wanted.items():
        (line,) = (line for line in out.splitlines() if f"{result / 'figures' / name}:" in line)
        assert set(line.partition(": ")[2].split(", ")) == files
        assert line.startswith(("1 run, ", "2 runs, "))
        assert (result / "figures" / name / "table.md").read_text() in out


def test_one_group_is_drawn_right_in_the_folder(tmp_path, capsys, quick_figures):
    result = tmp_path / "result"
    for dataset in ("mnist", "digits"):
        write_run(result, "SGD", dataset=dataset)
    assert plot_results.main([str(result), "--dataset", "digits"]) == 0
    assert drawn_in(result / "figures") == {"figures": {"runs.png", *TABLES}}
    assert plot_results.main([str(result)]) == 0
    assert "are of an earlier call" in capsys.readouterr().err
    # What has been drawn is no result, wherever it is drawn again.
    assert plot_results.main([str(result), "-o", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().err == ""
    assert drawn_in(tmp_path / "out").keys() == {"digits", "mnist"}


def test_several_folders_are_drawn_in_the_one_they_are_in(tmp_path, monkeypatch, quick_figures):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        write_run(Path("result") / name, "SGD", seed=name)
    assert plot_results.main(["result/a", "result/b"]) == 0
    assert drawn_in(tmp_path / "result" / "figures") == {"figures": {"runs.png", *TABLES}}
    assert plot_results.main([str(tmp_path / "result"), "result/b", "typo"]) == 0
    assert not (tmp_path / "figures").exists()


def test_a_study_that_cannot_be_drawn_stops_no_other(tmp_path, capsys, quick_figures):
    write_run(tmp_path, "SGD")
    folder = write_run(tmp_path / "study", "SGD", study="understanding-bn", dataset="cifar10")
    (folder.parent / "singular-values.npz").write_bytes(b"damaged")
    assert plot_results.main([str(tmp_path)]) == 0
    assert drawn_in(tmp_path / "figures") == {
        "mnist": {"runs.png", *TABLES},
        "understanding-bn": {"runs.png", "claims.md", *TABLES},  # what can be drawn of any runs
    }
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "note: the figures of understanding-bn are not drawn (" in err


@pytest.mark.parametrize(
    ("study", "log"),
    [
        ("learning-rate", LOG[:1]),  # not finished
        ("original-paper", [{"epoch": 1, "main/loss": None}]),  # diverged
        ("dying-relu", LOG),  # without its observers
    ],
)
def test_runs_of_which_their_study_shows_nothing_are_drawn_as_any(
    tmp_path, capsys, quick_figures, study, log
):
    write_run(tmp_path, "SGD", study=study, lr=0.1, epoch=3, log=log)
    assert plot_results.main([str(tmp_path)]) == 0
    assert drawn_in(tmp_path / "figures")["figures"] >= {"runs.png", *TABLES}
    assert capsys.readouterr().err == (
        f"plot_results.py: note: {study}: what the study's figures show is not there; drawn as any"
        " runs\n"
    )


def test_a_group_that_cannot_be_written_stops_no_other(tmp_path, capsys, quick_figures):
    for dataset in ("mnist", "digits"):
        write_run(tmp_path, "SGD", dataset=dataset)
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "digits").write_text("in the way")
    assert plot_results.main([str(tmp_path)]) == 1
    assert drawn_in(tmp_path / "figures")["mnist"] == {"runs.png", *TABLES}
    assert "1 of 2 groups could not be drawn" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "other", "folder", "pipe", "loop", "shape"])
def test_a_bad_file_of_an_observer_is_a_note(tmp_path, capsys, quick_figures, content):
    folders = [write_run(tmp_path, "SGD", seed=seed) for seed in (0, 1)]
    times = {"epoch": np.arange(1, 4), "iteration": np.arange(1, 4)}
    archives.write(folders[0] / "dead-units.npz", times | {"flat_update/l": np.ones((3, 2), bool)})
    path = folders[1] / "dead-units.npz"
    if content == "":
        path.touch()
    elif content == "other":
        archives.write(path, times | {"\x1b[31m": np.ones((3, 2), bool)})
    elif content == "folder":
        path.mkdir()
    elif content == "pipe":
        os.mkfifo(path)
    elif content == "loop":
        path.symlink_to(path.name)
    else:
        archives.write(path, times | {"flat_update/l": np.ones((3, 5), bool)})
    assert plot_results.main([str(tmp_path)]) == 0
    err = capsys.readouterr().err
    assert err.startswith(f"plot_results.py: note: {path}: ")
    assert err.endswith("not drawn\n") and err.count("\n") == 1 and "\x1b" not in err
    names = drawn_in(tmp_path / "figures")["figures"]
    assert names == {"runs.png", f"{folders[0].name}-dead-units.png", *TABLES}


_value = st.recursive(
    st.sampled_from([None, {}, "mnist", "exercise", "\x1b[31m", "\ud800$x_", 10**400, "y" * 5000])
    | st.floats()
    | st.integers(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=4,
)


@pytest.mark.parametrize("study", [None, "exercise", "learning-rate"])
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_in_the_args_of_one_folder_the_other_is_drawn(
    tmp_path, capsys, quick_figures, study, data
):
    shutil.rmtree(tmp_path / "in", ignore_errors=True)
    ours = RunConfig(dataset="mnist").to_args() | {"study": study, "lr": 0.01}
    good, bad = (write_run(tmp_path / "in", "SGD") for _ in range(2))
    (good / "args").write_text(json.dumps(ours | {"seed": 1}))
    for field in data.draw(st.lists(st.sampled_from([*ours, "foreign"]), min_size=1, max_size=3)):
        ours[field] = data.draw(_value)
    (bad / "args").write_text(json.dumps(ours))
    assert plot_results.main([str(tmp_path / "in")]) == 0
    out, err = capsys.readouterr()
    assert all(character.isprintable() or character == "\n" for character in out + err)
    tables = [path.read_text() for path in (tmp_path / "in").rglob("summary.csv")]
    assert sum(str(good) in table for table in tables) == 1


def test_names_from_outside_are_drawn_as_they_are(tmp_path, capsys):
    name = "\x1b[31m$\\frac{$_x^\u202e\ud800<b>"
    for optimizer in ("SGD", "Adam"):
        write_run(tmp_path / "in", optimizer, model=name, dataset=name, foreign=name)
    (tmp_path / "in" / "\x1b]0;$\\sqrt{$").mkdir()
    (tmp_path / "in" / "\x1b]0;$\\sqrt{$" / "log").write_text(json.dumps(LOG))
    assert plot_results.main([str(tmp_path / "in"), "--format", "svg"]) == 0
    out, err = capsys.readouterr()
    assert all(character.isprintable() or character == "\n" for character in out + err)
    shown = "\ufffd[31m$\\frac{$_x^\ufffd\ufffd&lt;b&gt;"
    title = f">{shown} under 2 optimizers, on {shown}</text>"
    assert title in next((tmp_path / "in").rglob("network-*.svg")).read_text()
    for path in (tmp_path / "in" / "figures").rglob("*"):
        assert path.name.isprintable()


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
