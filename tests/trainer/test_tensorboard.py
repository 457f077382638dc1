"""Event files: what TensorBoard reads in them is the log, also of a run that was resumed."""

import json
import struct

import pytest

import train_mnist
from mnist_bn.trainer import tensorboard

pytest.importorskip("tensorboardX")
from tensorboardX.proto.event_pb2 import (
    Event,
    SessionLog,
)


def events(folder):
    """The events of all files, in the order in which they were written."""
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])  # and a checksum of 4 bytes, before and after
            yield Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]


def shown(folder):
    """What TensorBoard shows: (key, step) -> value, without what a restart purges."""
    values = {}
    for event in events(folder):
        if event.session_log.status == SessionLog.START and event.step:
            values = {key: value for key, value in values.items() if key[1] < event.step}
        for value in event.summary.value:
            assert (value.tag, event.step) not in values  # drawn twice
            values[value.tag, event.step] = value.simple_value
    return values


def logged(folder):
    return {
        (key, entry["iteration"]): value
        for entry in json.loads((folder / "log").read_text())
        for key, value in entry.items()
        if key not in tensorboard.POSITIONS
    }


def run(out, *words):
    command = ["--model", "ReluMLP", "--dataset", "digits", "--tensorboard", "-o", str(out)]
    assert train_mnist.main([*command, *words]) == 0
    (folder,) = out.iterdir()
    return folder


@pytest.mark.parametrize("is_frozen", [False, True])
def test_the_events_are_the_log_and_a_longer_run_goes_on(tmp_path, monkeypatch, is_frozen):
    if is_frozen:  # the name of a file has whole seconds only
        monkeypatch.setattr("tensorboardX.event_file_writer.time.time", lambda: 1.7e9)
    folder = run(tmp_path, "-e", "2")
    assert shown(folder) == pytest.approx(logged(folder))
    assert len(shown(folder)) == 2 * 4
    run(tmp_path, "-e", "4", "--autoload")
    assert len(list(folder.glob("events.*"))) == 2
    assert shown(folder) == pytest.approx(logged(folder))
    assert len(shown(folder)) == 4 * 4


def test_what_came_after_the_snapshot_is_forgotten(tmp_path):
    folder = run(tmp_path, "-e", "3", "-f", "1")
    (folder / "model.npz").unlink()
    (newest,) = folder.glob("snapshot_iter_45")
    newest.unlink()  # as if the run had been killed before it was written
    run(tmp_path, "-e", "3", "--autoload")
    assert shown(folder) == pytest.approx(logged(folder))


def test_an_earlier_runs_events_are_set_aside(tmp_path):
    folder = run(tmp_path, "-e", "2")
    before = {path.name for path in folder.glob("events.*")}
    run(tmp_path, "-e", "3")
    assert {path.name for path in (folder / "earlier/1").glob("events.*")} == before
    assert shown(folder) == pytest.approx(logged(folder))


def test_without_the_package_it_is_one_line(tmp_path, monkeypatch, capsys):
    find = tensorboard.importlib.util.find_spec
    monkeypatch.setattr(
        tensorboard.importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "tensorboardX" else find(name, *rest),
    )
    command = ["--model", "ReluMLP", "--dataset", "digits", "--tensorboard", "-o", str(tmp_path)]
    with pytest.raises(train_mnist.UsageError) as error:
        train_mnist.main(command)
    assert "requirements-tensorboard.txt" in str(error.value)
    assert not list(tmp_path.iterdir())
