"""Setting aside what a result folder holds, and which run a folder is of."""

import dataclasses
import json
import os

import pytest

from mnist_bn import resuming, sweep, training
from mnist_bn.config import RunConfig
from mnist_bn.errors import UserError
from mnist_bn.storage import result_folder, snapshots
from mnist_bn.trainer.plot_report import PlotReport
from mnist_bn.training import prepare


@pytest.fixture
def config_with_plots(tmp_path, tiny_data):
    """An epoch has five iterations."""
    out = str(tmp_path / "result")
    return RunConfig("ReluMLP", batchsize=8, out=out, dataset="mnist", frequency=1)


@pytest.fixture
def config(config_with_plots, no_plots):
    return config_with_plots


class Killed(BaseException):
    """Stands for SIGKILL: nothing is cleaned up after it."""


def kill_at(monkeypatch, iteration):
    build = training.build_trainer

    def build_and_kill(*args, **kwargs):
        trainer = build(*args, **kwargs)

        def kill(trainer):
            if trainer.updater.iteration == iteration:
                raise Killed

        trainer.extend(kill, trigger=lambda _: True, priority=-5000)
        return trainer

    monkeypatch.setattr(training, "build_trainer", build_and_kill)


def killed(config, monkeypatch, iteration):
    """Runs until it is killed after so many steps."""
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, iteration)
        training.train(prepare(config))


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def run_ids(folder):
    """The run that `args` names, and those of the snapshots."""
    ids = {snapshots.read(path).header["run_id"] for path in snapshots.found(folder)}
    return result_folder.read_args(folder)["run_id"], ids


def test_an_unfinished_run_is_set_aside_with_a_line(config, monkeypatch, capsys):
    config = dataclasses.replace(config, epoch=3)
    killed(config, monkeypatch, 12)
    folder = config.folder
    (folder / "notes.txt").write_text("mine")
    before = contents(folder)
    training.train(prepare(config))
    aside = folder / "earlier" / "1"
    assert capsys.readouterr().err == (
        f"note: {folder} held an unfinished run (2 of 3 epochs): set aside in earlier/1, training "
        f"anew (to go on with that run: --resume {aside}/snapshot_iter_10; next time: --autoload)\n"
    )
    assert contents(aside) | {"notes.txt": b"mine"} == before
    assert (folder / "notes.txt").read_text() == "mine"
    mine, of_snapshots = run_ids(folder)
    assert of_snapshots == {mine}
    assert mine != run_ids(aside)[0]


def test_a_run_that_was_set_aside_is_gone_on_with(config, monkeypatch, tmp_path):
    whole = dataclasses.replace(config, epoch=3, out=str(tmp_path / "whole"))
    training.train(prepare(whole))
    config = dataclasses.replace(config, epoch=3)
    killed(config, monkeypatch, 12)
    killed(config, monkeypatch, 7)
    training.train(prepare(config), resume=config.folder / "earlier/1/snapshot_iter_10")
    assert {path.name for path in (config.folder / "earlier").iterdir()} == {"1", "2"}
    assert (config.folder / "model.npz").read_bytes() == (whole.folder / "model.npz").read_bytes()
    mine, of_snapshots = run_ids(config.folder)
    assert of_snapshots == {mine}
    assert mine not in (run_ids(config.folder / f"earlier/{n}")[0] for n in "12")


def test_every_run_that_was_there_is_kept(config, monkeypatch, capsys):
    """A finished shorter one, a diverged and a failed one."""
    training.train(prepare(dataclasses.replace(config, epoch=1)))
    failing = dataclasses.replace(config, epoch=2)

    def fail():
        killed(failing, monkeypatch, 8)
        raise RuntimeError("broken")

    assert "RuntimeError: broken (traceback in" in sweep.run_one(prepare(failing), fail).error
    training.train(prepare(dataclasses.replace(config, epoch=3)))
    training.train(prepare(dataclasses.replace(config, epoch=4)))
    notes = capsys.readouterr().err.splitlines()
    assert [note.partition(" held ")[2].partition(": set aside in")[0] for note in notes] == [
        "a finished run of 1 epoch",
        "a failed run (1 of 2 epochs)",
        "a finished run of 3 epochs",
    ]
    assert (config.folder / "earlier/2/error.txt").read_text().endswith("RuntimeError: broken\n")
    logs = [json.loads((config.folder / f"earlier/{n}/log").read_text()) for n in (1, 2, 3)]
    assert [len(log) for log in logs] == [1, 1, 3]


def test_a_diverged_run_is_kept_when_it_is_to_train_on(config, capsys):
    settings = {"lr": 1e30, "optimizer": "SGD", "epoch": 2, "frequency": -1}
    config = dataclasses.replace(config, **settings)
    training.train(prepare(config))
    training.train(prepare(dataclasses.replace(config, on_divergence="continue")), autoload=True)
    assert capsys.readouterr().err == (
        f"note: {config.folder} held a run that diverged at iteration 2: set aside in earlier/1, "
        "training anew (it had no snapshot to go on from)\n"
    )


def test_of_a_run_that_had_saved_nothing_nothing_is_kept(config, monkeypatch, capsys):
    killed(config, monkeypatch, 3)
    before = result_folder.read_args(config.folder)["run_id"]
    training.train(prepare(dataclasses.replace(config, epoch=1)))
    assert result_folder.read_args(config.folder)["run_id"] != before
    assert not (config.folder / "earlier").exists()
    assert capsys.readouterr().err == ""


def test_autoload_never_takes_the_snapshots_of_the_run_before(config, monkeypatch):
    """A run killed, begun anew and killed again before its first snapshot."""
    config = dataclasses.replace(config, epoch=3)
    killed(config, monkeypatch, 12)
    killed(config, monkeypatch, 3)
    assert snapshots.found(config.folder) == []
    resumed = []
    monkeypatch.setattr(snapshots, "load", lambda *args: resumed.append(args))
    training.train(prepare(config), autoload=True)
    assert resumed == []


def test_a_snapshot_of_another_run_is_refused(config, tmp_path):
    other = dataclasses.replace(config, epoch=2, out=str(tmp_path / "other"))
    training.train(prepare(other))
    training.train(prepare(dataclasses.replace(config, epoch=1)))
    longer = dataclasses.replace(config, epoch=3)
    (config.folder / "snapshot_iter_5").unlink()
    strange = config.folder / "snapshot_iter_10"
    strange.write_bytes((other.folder / "snapshot_iter_10").read_bytes())
    before = contents(config.folder)
    with pytest.raises(UserError) as error:
        training.train(prepare(longer), autoload=True)
    assert str(error.value) == (
        f"{strange} is of another run than `args` beside it: to go on with that one, name it with "
        "--resume"
    )
    assert contents(config.folder) == before
    training.train(prepare(longer), resume=strange)  # as the line says
    mine, of_snapshots = run_ids(config.folder)
    assert of_snapshots == {mine}
    assert (config.folder / "earlier/1/snapshot_iter_10").read_bytes() == before["snapshot_iter_10"]


def test_the_snapshot_before_one_of_another_run_is_used(config, tmp_path, capsys):
    other = dataclasses.replace(config, epoch=2, out=str(tmp_path / "other"))
    training.train(prepare(other))
    training.train(prepare(dataclasses.replace(config, epoch=1)))
    strange = config.folder / "snapshot_iter_10"
    strange.write_bytes((other.folder / "snapshot_iter_10").read_bytes())
    training.train(prepare(dataclasses.replace(config, epoch=3)), autoload=True)
    assert capsys.readouterr().err.endswith(
        "set aside as snapshot_iter_10.refused, going on from snapshot_iter_5\n"
    )


def test_without_the_id_another_runs_snapshot_is_taken(config, tmp_path, monkeypatch):
    """The control of the tests above."""
    other = dataclasses.replace(config, epoch=2, out=str(tmp_path / "other"))
    training.train(prepare(other))
    training.train(prepare(dataclasses.replace(config, epoch=1)))
    strange = config.folder / "snapshot_iter_10"
    strange.write_bytes((other.folder / "snapshot_iter_10").read_bytes())
    monkeypatch.setattr(resuming, "_check_same_id", lambda *_: None)
    identity = snapshots.read(strange).header["identity"]
    args = result_folder.read_args(config.folder)
    assert resuming.newest_usable(config.folder, identity, args).path == strange


def test_without_args_a_snapshot_says_which_run_it_is_of(config, tmp_path):
    """As where someone has copied it to another machine."""
    training.train(prepare(dataclasses.replace(config, epoch=1)))
    path = config.folder / "snapshot_iter_5"
    there = dataclasses.replace(config, epoch=2, out=str(tmp_path / "there"))
    there.folder.mkdir(parents=True)
    (there.folder / path.name).write_bytes(path.read_bytes())
    with pytest.raises(UserError, match="snapshot_iter_5: not of a run of this program, as no `ar"):
        training.train(prepare(there))
    training.train(prepare(there), autoload=True)
    assert run_ids(there.folder)[0] == run_ids(config.folder)[0]


MOVED = [
    "model.npz", "cg.dot", "gradient-norms.npz", "log", "snapshot_iter_10", "snapshot_iter_5",
    "args", ".setting-aside.unfinished",
]  # fmt: skip


@pytest.mark.parametrize("moves", range(len(MOVED)))
def test_a_kill_while_setting_aside_mixes_no_two_runs(config, monkeypatch, moves):
    config = dataclasses.replace(config, epoch=2, observe="gradient-norms")
    training.train(prepare(config))
    before = contents(config.folder)
    longer = dataclasses.replace(config, epoch=3)
    renamed = []

    def killing(rename):
        def move(path, target):
            if len(renamed) == moves:
                raise Killed
            renamed.append(path.name)
            return rename(path, target)

        return move

    with monkeypatch.context() as patch, pytest.raises(Killed):
        for name in ("replace", "rename"):
            patch.setattr(
                result_folder.Path, name, killing(getattr(result_folder.Path, name)), raising=True
            )
        training.train(prepare(longer))
    assert renamed == MOVED[:moves]
    assert (config.folder / "model.npz").exists() == (moves == 0)
    training.train(prepare(longer), autoload=moves % 2 == 1)
    assert contents(config.folder / "earlier/1") == before
    mine, of_snapshots = run_ids(config.folder)
    assert of_snapshots == {mine}
    assert [entry["epoch"] for entry in json.loads((config.folder / "log").read_text())] == [
        1,
        2,
        3,
    ]
    assert os.listdir(config.folder / "earlier") == ["1"]


def test_a_run_that_was_about_to_be_set_aside_is_gone_on_with(config, monkeypatch):
    training.train(prepare(dataclasses.replace(config, epoch=1)))
    mine = run_ids(config.folder)[0]
    longer = dataclasses.replace(config, epoch=2)

    def kill(*_):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(result_folder.Path, "replace", kill)
        training.train(prepare(longer))
    training.train(prepare(longer), autoload=True)
    assert run_ids(config.folder) == (mine, {mine})
    assert os.listdir(config.folder / "earlier") == []


def test_a_place_for_earlier_runs_that_cannot_be_made_is_one_line(config):
    training.train(prepare(dataclasses.replace(config, epoch=1)))
    (config.folder / "earlier").write_text("somebody's file")
    before = contents(config.folder)
    with pytest.raises(UserError, match=r"earlier: cannot be written \("):
        training.train(prepare(dataclasses.replace(config, epoch=2)))
    assert contents(config.folder) == before


@pytest.mark.parametrize("name", ["log", "model.npz", "args", "cg.dot", "snapshot_iter_7"])
def test_what_is_not_ours_is_neither_moved_nor_overwritten(config, name):
    config.folder.mkdir(parents=True)
    (config.folder / name).write_text('[{"somebody": "else"}]')
    with pytest.raises(UserError) as error:
        training.train(prepare(dataclasses.replace(config, epoch=1)))
    assert str(error.value) == (
        f"{config.folder / name}: not of a run of this program, as no `args` beside it says which: "
        "move it away, or choose another --out"
    )
    assert contents(config.folder) == {name: b'[{"somebody": "else"}]'}


def test_a_report_of_a_run_that_never_began_is_kept(config, capsys):
    config.folder.mkdir(parents=True)
    (config.folder / "error.txt").write_text("Traceback")
    training.train(prepare(dataclasses.replace(config, epoch=1)))
    assert " held a failed run: set aside in " in capsys.readouterr().err
    assert (config.folder / "earlier/1/error.txt").read_text() == "Traceback"


EVERY_FILE = ["args", "log", "cg.dot", "loss.png", "accuracy.png", "gradient-norms.npz"]


@pytest.mark.parametrize("name", [*EVERY_FILE, "snapshot_iter_5"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_no_file_is_written_through_a_link_or_into_a_pipe(
    config_with_plots, tmp_path, monkeypatch, name, kind
):
    draws = [] if name.endswith(".png") else [lambda self, trainer: None]
    for draw in draws:
        monkeypatch.setattr(PlotReport, "draw", draw)
    config = dataclasses.replace(config_with_plots, epoch=1, observe="gradient-norms")
    config.folder.mkdir(parents=True)
    victim = tmp_path / "victim"
    victim.write_text("dear")
    path = config.folder / name
    path.symlink_to(victim) if kind == "link" else os.mkfifo(path)
    training.train(prepare(config))
    assert victim.read_text() == "dear"
    assert path.is_file() and not path.is_symlink()


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_the_report_of_a_failure_is_written_so_too(config, tmp_path, kind):
    config.folder.mkdir(parents=True)
    victim = tmp_path / "victim"
    victim.write_text("dear")
    path = config.folder / "error.txt"
    path.symlink_to(victim) if kind == "link" else os.mkfifo(path)

    def fail():
        raise RuntimeError("caf\udce9")

    assert sweep.run_one(prepare(config), fail).error.endswith(f"(traceback in {path})")
    assert victim.read_text() == "dear"
    assert "RuntimeError" in path.read_text() and not path.is_symlink()


@pytest.mark.parametrize("does", ["exit 1", "sleep 60", "kill -INT $PPID; exit 1"])
def test_a_run_starts_no_graphviz(config, tmp_path, monkeypatch, does):
    """A `dot` that fails, is slow, or has had the terminal's Ctrl-C."""
    dot = tmp_path / "dot"
    dot.write_text(f"#!/bin/sh\ntouch {tmp_path}/called\n{does}\n")
    dot.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    training.train(prepare(dataclasses.replace(config, epoch=1)))
    assert not (tmp_path / "called").exists()
    assert (config.folder / "cg.dot").read_text().startswith("digraph graphname{")
    assert not (config.folder / "cg.png").exists()


def test_a_graph_that_cannot_be_written_is_one_line(config):
    (config.folder / "cg.dot").mkdir(parents=True)
    with pytest.raises(UserError, match=r"cg\.dot: cannot be written"):
        training.train(prepare(dataclasses.replace(config, epoch=1)))


def test_in_a_sweep_each_run_has_its_line(config, capfd):
    """As `--preset quick` and then `--preset full`, which have the same folders."""
    seeds = [dataclasses.replace(config, seed=seed, epoch=1) for seed in (0, 1)]
    assert all(outcome.error is None for outcome in sweep.run_all(seeds))
    longer = [dataclasses.replace(one, epoch=2) for one in seeds]
    assert not any(map(sweep.is_finished, map(prepare, longer)))
    for outcome in sweep.run_all(longer[:1], autoload=True) + sweep.run_all(longer[1:]):
        assert outcome.error is None
    notes = [line for line in capfd.readouterr().err.splitlines() if "note: " in line]
    assert len(notes) == 1
    assert f"{longer[1].folder} held a finished run of 1 epoch: set aside in " in notes[0]
