"""Exact resume, and what happens to snapshots that are damaged or of another run."""

import dataclasses
import json
import os
import shutil
import signal

import chainer
import numpy as np
import pytest

from mnist_bn import resuming, training
from mnist_bn.config import RunConfig
from mnist_bn.errors import UsageError, UserError
from mnist_bn.storage import archives, identity, random_state, snapshots
from mnist_bn.trainer import signals
from mnist_bn.trainer.log_report import LogReport
from mnist_bn.training import prepare

pytestmark = pytest.mark.usefixtures("no_plots")


@pytest.fixture
def config(tmp_path, tiny_data):
    """Three epochs of five iterations."""
    return RunConfig(optimizer="Adam", batchsize=8, epoch=3, out=str(tmp_path), dataset="mnist")


def send_signal_at(monkeypatch, iteration, priority):
    """Has this process send itself SIGTERM among the extensions of an iteration."""
    build = training.build_trainer

    def build_with_signal(*args, **kwargs):
        trainer = build(*args, **kwargs)

        def kill(trainer):
            if trainer.updater.iteration == iteration:
                os.kill(os.getpid(), signal.SIGTERM)

        trainer.extend(kill, trigger=(1, "iteration"), priority=priority)
        return trainer

    monkeypatch.setattr(training, "build_trainer", build_with_signal)


AFTER_UPDATE, BEFORE_EVALUATION = 50, 5000


def stopped(config, monkeypatch, iteration, priority=AFTER_UPDATE):
    """Runs until a signal stops it; returns the snapshot."""
    with monkeypatch.context() as patch:
        send_signal_at(patch, iteration, priority)
        with pytest.raises(signals.Stopped, match=f"^stopped at iteration {iteration}, epoch "):
            training.train(prepare(config))
    return config.folder / f"snapshot_iter_{iteration}"


def ending(config):
    """What must be the same: the final parameters, bit for bit, and the log but for the times."""
    log = json.loads((config.folder / "log").read_bytes())
    for entry in log:
        assert entry.pop("elapsed_time") > 0
    return (config.folder / "model.npz").read_bytes(), log


def never_stopped(config, tmp_path):
    whole = dataclasses.replace(config, out=str(tmp_path / "whole"))
    training.train(prepare(whole))
    return ending(whole)


STOPS = [
    ("MomentumSGD", "today", 3, AFTER_UPDATE),
    ("Adam", "2016", 7, AFTER_UPDATE),
    ("Adam", "2016", 5, BEFORE_EVALUATION),
    ("SGD", "today", 15, BEFORE_EVALUATION),  # the last evaluation of all
    ("SGD", "today", 15, AFTER_UPDATE),
]


@pytest.mark.parametrize(("optimizer", "semantics", "iteration", "priority"), STOPS)
def test_a_stopped_run_ends_as_if_never_stopped(
    config, tmp_path, monkeypatch, optimizer, semantics, iteration, priority
):
    config = dataclasses.replace(config, optimizer=optimizer, semantics=semantics)
    expected = never_stopped(config, tmp_path)
    stopped(config, monkeypatch, iteration, priority)
    assert not (config.folder / "model.npz").exists()
    np.random.seed(99)
    training.train(prepare(config), autoload=True)
    assert ending(config) == expected


def test_a_resumed_evaluation_can_be_stopped_again(config, tmp_path, monkeypatch):
    expected = never_stopped(config, tmp_path)
    stopped(config, monkeypatch, 5, BEFORE_EVALUATION)
    with monkeypatch.context() as patch:
        send_signal_at(patch, 5, BEFORE_EVALUATION)
        with pytest.raises(signals.Stopped, match=r"^stopped at iteration 5, epoch "):
            training.train(prepare(config), autoload=True)
    (snapshot,) = snapshots.found(config.folder)
    assert snapshots.read(snapshot).header["observation"]
    training.train(prepare(config), autoload=True)
    assert ending(config) == expected


@pytest.mark.parametrize(
    ("module", "protection"),
    [(random_state, "restore"), (snapshots, "finish_iteration")],
)
def test_without_a_protection_the_ending_is_another(
    config, tmp_path, monkeypatch, module, protection
):
    """The control of the test above."""
    expected = never_stopped(config, tmp_path)
    stopped(config, monkeypatch, 5, BEFORE_EVALUATION)
    monkeypatch.setattr(module, protection, lambda *_: None)
    training.train(prepare(config), autoload=True)
    assert ending(config) != expected


@pytest.mark.parametrize("reporter", [LogReport, chainer.training.extensions.LogReport])
def test_sums_of_half_an_epoch_keep_their_type(reporter):
    """A float32 sum is divided in float32. Stock Chainer's reporter is the control."""
    values = np.float32([1, 1, 3])

    def report(*calls):
        logger = reporter(trigger=(1, "epoch"))
        for value in calls:
            logger._summary.add({"x": value})
        return logger

    before = report(*values)
    arrays = chainer.serializers.npz.serialize(before)
    after = reporter(trigger=(1, "epoch"))
    chainer.serializers.NpzDeserializer(arrays).load(after)
    means = [logger._summary.compute_mean()["x"] for logger in (before, after)]
    assert (float(means[0]) == float(means[1])) == (reporter is LogReport)


def test_a_resumed_log_is_the_snapshots(config, monkeypatch):
    stopped(config, monkeypatch, 7)
    (config.folder / "log").write_text('[{"epoch": 1}, {"epoch": 2}, {"epoch"')
    stopped_again = dataclasses.replace(config)
    send_signal_at(monkeypatch, 8, AFTER_UPDATE)
    with pytest.raises(signals.Stopped):
        training.train(prepare(stopped_again), autoload=True)
    assert [entry["iteration"] for entry in json.loads((config.folder / "log").read_text())] == [5]


def cut(content):
    return content[: len(content) // 2]


def flip(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 16]) + content[middle + 1 :]


def of_another_version(content):
    arrays = archives.decode(content)
    header = json.loads(arrays[snapshots._HEADER].tobytes())
    text = json.dumps({**header, "format": 99}).encode()
    return archives.encode({**arrays, snapshots._HEADER: np.frombuffer(text, np.uint8)})


def of_another_run(content):
    arrays = archives.decode(content)
    header = json.loads(arrays[snapshots._HEADER].tobytes())
    header["identity"]["lr"] = 0.5
    text = json.dumps(header).encode()
    return archives.encode({**arrays, snapshots._HEADER: np.frombuffer(text, np.uint8)})


DAMAGES = [cut, flip, lambda content: b"", of_another_version, of_another_run]


@pytest.fixture
def two_snapshots(config, monkeypatch):
    """A run stopped at iteration 12 that keeps the snapshot of iteration 10."""
    config = dataclasses.replace(config, frequency=1)
    newest = stopped(config, monkeypatch, 12)
    assert [path.name for path in snapshots.found(config.folder)] == [
        "snapshot_iter_12",
        "snapshot_iter_10",
    ]
    return config, newest


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_snapshot_before_a_bad_one_is_used(two_snapshots, tmp_path, capsys, damage):
    config, newest = two_snapshots
    expected = never_stopped(config, tmp_path)
    bad = damage(newest.read_bytes())
    newest.write_bytes(bad)
    before = newest.with_name("snapshot_iter_12.refused")
    before.write_bytes(b"set aside before")
    training.train(prepare(config), autoload=True)
    note = capsys.readouterr().err
    assert note.startswith(f"note: {newest}")
    assert note.endswith("set aside as snapshot_iter_12.refused1, going on from snapshot_iter_10\n")
    assert newest.with_name("snapshot_iter_12.refused1").read_bytes() == bad
    assert before.read_bytes() == b"set aside before"
    assert ending(config) == expected


@pytest.mark.parametrize("damage", DAMAGES)
def test_with_no_good_snapshot_left_nothing_starts(two_snapshots, damage):
    config, _ = two_snapshots
    for path in snapshots.found(config.folder):
        path.write_bytes(damage(path.read_bytes()))
    before = {path: path.read_bytes() for path in config.folder.iterdir()}
    for _ in range(2):  # it would be a silent fresh start if the first had set them aside
        with pytest.raises(
            UserError, match=r"no usable snapshot|was taken with lr 0\.5, not 0\.001: "
        ):
            training.train(prepare(config), autoload=True)
    assert {path: path.read_bytes() for path in config.folder.iterdir()} == before


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_bad_snapshot_that_is_named_is_an_error(two_snapshots, damage):
    config, newest = two_snapshots
    newest.write_bytes(damage(newest.read_bytes()))
    with pytest.raises(UserError, match=f"{newest}.*"):
        training.train(prepare(config), resume=newest)
    assert newest.exists()


def test_without_the_identity_another_runs_snapshot_is_taken(two_snapshots, monkeypatch):
    """The control of the tests above."""
    config, newest = two_snapshots
    newest.write_bytes(of_another_run(newest.read_bytes()))
    monkeypatch.setattr(resuming, "check_same_run", lambda snapshot, identity: None)
    assert resuming.newest_usable(config.folder, None).path == newest


OTHER_SETTINGS = {
    "model": "MnistCNN", "optimizer": "SGD", "lr": 0.5, "seed": 7, "batchsize": 10,
    "semantics": "2016", "weight_decay": 0.1, "lr_drop": "1", "train_images": 30, "holdout": 4,
}  # fmt: skip


def test_other_settings_are_refused_by_name(config, monkeypatch):
    snapshot = stopped(config, monkeypatch, 3)
    for name, value in OTHER_SETTINGS.items():
        other = dataclasses.replace(config, **{name: value})
        with pytest.raises(UsageError, match=f"{snapshot} was taken with {name} .*, not {value}:"):
            training.train(prepare(other), resume=snapshot)
        assert not (other.folder / "args").exists()


def test_a_snapshot_of_before_there_was_a_setting_is_gone_on_with(config, monkeypatch):
    training.train(prepare(config))
    expected = ending(config)
    (config.folder / "model.npz").unlink()
    newest = stopped(config, monkeypatch, 7)
    arrays = archives.read(newest)
    header = json.loads(arrays["mnist_bn/header"].tobytes())
    for setting in ("augment", "weight_decay", "lr_drop", "train_images", "test_images", "holdout"):
        del header["identity"][setting]
    arrays["mnist_bn/header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    archives.write(newest, arrays)
    training.train(prepare(config), autoload=True)
    assert ending(config) == expected
    with pytest.raises(UsageError, match="was taken with weight_decay the default, not"):
        training.train(prepare(dataclasses.replace(config, weight_decay=0.1)), resume=newest)


def test_another_dataset_is_refused_by_name(config, monkeypatch, tiny_data):
    snapshot = stopped(config, monkeypatch, 3)
    monkeypatch.setitem(tiny_data.sha256, "tiny", "1" * 64)
    with pytest.raises(UsageError, match="was taken with other images"):
        training.train(prepare(config), resume=snapshot)


@pytest.mark.parametrize("before", ["7.8.1", "7.8.1+mended.0"])
@pytest.mark.parametrize(("label", "is_noted"), [("+mended.1", False), (".post1", True)])
def test_a_snapshot_of_before_chainer_had_its_label_is_no_other_chainers(
    config, monkeypatch, capsys, before, label, is_noted
):
    def circumstances(chainer):
        return lambda device: {**real(device), "versions": {"chainer": chainer}}

    real = identity.circumstances
    monkeypatch.setattr(identity, "circumstances", circumstances(before))
    snapshot = stopped(config, monkeypatch, 3)
    monkeypatch.setattr(identity, "circumstances", circumstances(f"7.8.1{label}"))
    training.train(prepare(config), resume=snapshot)
    assert ("differ in rounding" in capsys.readouterr().err) == is_noted


def test_other_circumstances_are_only_noted(config, monkeypatch, capsys):
    snapshot = stopped(config, monkeypatch, 3)
    real = identity.circumstances
    monkeypatch.setattr(identity, "circumstances", lambda d: {**real(d), "acceleration": "abacus"})
    training.train(prepare(config), resume=snapshot)
    assert ", now abacus: from here on the numbers differ in rounding" in capsys.readouterr().err


def test_a_change_of_the_convolution_is_noted(config, monkeypatch, capsys):
    config = dataclasses.replace(config, accelerate="auto")
    snapshot = stopped(config, monkeypatch, 3)
    monkeypatch.setenv("MNIST_BN_CONVOLUTION", "direct")
    run = prepare(config)
    if run.circumstances["acceleration"] == "off":
        pytest.skip("stock Chainer's convolution is direct")
    training.train(run, resume=snapshot)
    assert "was taken with convolution auto, now direct: from here" in capsys.readouterr().err
    args = json.loads((config.folder / "args").read_bytes())
    assert args["convolution"] == "direct"


@pytest.mark.parametrize(("method", "is_noted"), [("direct", False), ("auto", True)])
def test_before_there_was_a_choice_the_convolution_was_direct(
    config, monkeypatch, capsys, method, is_noted
):
    def circumstances(device):
        return {name: value for name, value in real(device).items() if name != "convolution"}

    real = identity.circumstances
    with monkeypatch.context() as patch:
        patch.setattr(identity, "circumstances", circumstances)
        snapshot = stopped(config, monkeypatch, 3)
    monkeypatch.setattr(identity, "circumstances", lambda d: {**real(d), "convolution": method})
    training.train(prepare(config), resume=snapshot)
    assert ("taken with convolution direct, now auto" in capsys.readouterr().err) == is_noted


def test_stock_chainers_snapshot_is_refused(config):
    trainer = training.build_trainer(prepare(config))
    os.makedirs(config.folder)
    path = config.folder / "snapshot_iter_1"
    chainer.serializers.save_npz(str(path), trainer.updater)
    with pytest.raises(UserError, match=f"no usable snapshot .{path}: damaged, or no such archive"):
        training.train(prepare(config), autoload=True)


def test_a_network_that_changed_in_its_code_is_one_line(config, monkeypatch):
    snapshot = stopped(config, monkeypatch, 3)
    monkeypatch.setattr(training.networks, "create", lambda _: chainer.links.Linear(784, 10))
    with pytest.raises(UserError, match=f"{snapshot}: does not fit this network"):
        training.train(prepare(config), resume=snapshot)


def test_parameters_are_told_from_a_snapshot(config):
    training.train(prepare(config))
    path = config.folder / "model.npz"
    with pytest.raises(UserError, match=f"^{path}: not a snapshot .* are for --init"):
        training.train(prepare(config), resume=path)
    assert path.exists()


class Disk:
    """Stands for `os` in `files`: the k-th of its calls that change the disk fails."""

    CHANGING = ("fdopen", "write", "fsync", "chmod", "replace")

    def __init__(self, failing):
        self.failing = failing
        self.calls = 0

    def __getattr__(self, name):
        real = getattr(os, name)
        return self.counted(real) if name in self.CHANGING else real

    def counted(self, call):
        def counting(*args, **kwargs):
            self.calls += 1
            if self.calls >= self.failing:
                raise OSError(28, "No space left on device")
            return call(*args, **kwargs)

        return counting


@pytest.mark.parametrize("failing", range(1, 26, 4))
def test_a_write_that_fails_leaves_the_last_good_snapshot(
    two_snapshots, tmp_path, monkeypatch, failing
):
    config, _ = two_snapshots
    expected = never_stopped(config, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(training.files, "os", Disk(failing))
        with pytest.raises(UserError) as error:
            training.train(prepare(config), autoload=True)
    line = str(error.value)
    assert line.startswith(str(config.folder)) and line.endswith(
        "cannot be written (No space left on device)"
    )
    usable = snapshots.found(config.folder)[0]
    snapshots.read(usable)
    assert not list(config.folder.glob(".*.unfinished"))
    training.train(prepare(config), autoload=True)
    assert ending(config) == expected


class Killed(BaseException):
    """Stands for SIGKILL: nothing is cleaned up after it."""


@pytest.mark.parametrize("is_swept", [True, False])
def test_leftovers_of_killed_runs_are_swept(config, monkeypatch, is_swept):
    """The control: without the sweep what a write killed half-way leaves stays for ever."""

    def kill(*_):
        raise Killed

    config.folder.mkdir()
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(os, "fsync", kill)
        patch.setattr(os, "unlink", kill)
        with training.files.replacing(config.folder / "log") as file:
            file.write(b"half")
    (config.folder / "my.unfinished").touch()  # not ours
    if not is_swept:
        monkeypatch.setattr(training.files, "remove_unfinished", lambda folder: None)
    training.train(prepare(config))
    left = list(config.folder.glob(f".*{training.files.UNFINISHED}"))
    assert len(left) == (0 if is_swept else 1)
    assert (config.folder / "my.unfinished").exists()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting wants root")
def test_a_full_disk(config, tmp_path):
    """A tmpfs of 2 MiB, on which one snapshot has room and no second one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if shutil.which("mount") is None or os.system(f"mount -t tmpfs -o size=2m none {disk} 2>&-"):
        pytest.skip("mounting is not permitted here")
    try:
        small = dataclasses.replace(config, optimizer="MomentumSGD", frequency=1, out=str(disk))
        with pytest.raises(UserError, match=r"cannot be written \(No space left on device\)"):
            training.train(prepare(small))
        (snapshot,) = snapshots.found(small.folder)[-1:]
        snapshots.read(snapshot)
    finally:
        os.system(f"umount {disk}")
