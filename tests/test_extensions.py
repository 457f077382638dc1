"""What is written while training."""

import json
import os
import types

import numpy as np
import pytest
from chainer.serializers import DictionarySerializer, NpzDeserializer
from matplotlib.backends.backend_agg import FigureCanvasAgg

from mnist_bn import training
from mnist_bn.config import RunConfig
from mnist_bn.storage import snapshots
from mnist_bn.trainer import plot_report
from mnist_bn.trainer.log_report import LogReport
from mnist_bn.trainer.plot_report import PlotReport
from mnist_bn.training import prepare


@pytest.fixture
def trainer(tmp_path):
    """A trainer with a log of three epochs, the second of which diverged."""
    log = [{"epoch": e, "main/loss": loss} for e, loss in ((1, 2.0), (2, float("nan")), (3, 1.0))]
    report = types.SimpleNamespace(log=log)
    return types.SimpleNamespace(out=str(tmp_path), get_extension=lambda name: report)


def test_plot_is_drawn_and_then_only_after_a_while(trainer, tmp_path, monkeypatch):
    now = 100.0
    monkeypatch.setattr(plot_report.time, "monotonic", lambda: now)
    plot = PlotReport(["main/loss", "validation/main/loss"], "loss.png")
    path = tmp_path / "loss.png"
    now += plot_report.SECONDS_BEFORE - 0.1
    plot(trainer)
    assert not path.exists()
    now += 0.2
    plot(trainer)
    assert path.read_bytes().startswith(b"\x89PNG")
    path.unlink()
    now += plot_report.SECONDS_BETWEEN - 0.1
    plot(trainer)
    assert not path.exists()
    now += 0.2
    plot(trainer)
    assert path.exists()


def test_plot_marks_where_the_run_diverged(trainer):
    plot = PlotReport(["main/loss"], "loss.png")
    figures = [plot.figure(trainer)]
    trainer.get_extension("LogReport").log[-1]["diverged_at"] = {"iteration": 7, "value": 1e9}
    figures.append(plot.figure(trainer))
    labels = [[line.get_label() for line in figure.axes[0].lines] for figure in figures]
    assert labels == [["main/loss"], ["main/loss", "diverged at iteration 7"]]


def test_plot_says_which_run_it_is_of_and_has_whole_epochs(trainer, tmp_path):
    folder = tmp_path / "My_$x^{_Net"
    folder.mkdir()
    trainer.out = str(folder)
    plot = PlotReport(["main/loss"], "loss.png")
    (axes,) = plot.figure(trainer).axes
    plot.draw(trainer)
    assert (folder / "loss.png").exists()
    assert axes.get_title() == folder.name
    assert "in train mode" in axes.get_xlabel()
    assert all(tick == int(tick) for tick in axes.get_xticks())


@pytest.mark.parametrize("length", [3, 80, 200, 255])
def test_the_title_of_a_plot_is_on_it(trainer, tmp_path, length):
    trainer.out = str(tmp_path / ("MnistCNN_BN_linear_before-RMSpropGraves-" * 7)[:length])
    figure = PlotReport(["main/loss"], "loss.png").figure(trainer)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    title = figure.axes[0].title.get_window_extent(canvas.get_renderer())
    assert title.y1 <= figure.bbox.y1 and title.y0 >= figure.axes[0].bbox.y1
    assert title.x0 >= 0 and title.x1 <= figure.bbox.x1


def test_plot_holds_every_epoch_at_the_end(tmp_path, tiny_data, monkeypatch):
    lengths = []
    draw = PlotReport.draw
    monkeypatch.setattr(
        PlotReport,
        "draw",
        lambda self, t: (lengths.append(len(t.get_extension("LogReport").log)), draw(self, t)),
    )
    training.train(prepare(RunConfig(batchsize=20, epoch=3, out=str(tmp_path))))
    assert lengths == [3, 3]  # it was over before the first was due


def test_log_report_keeps_chainers_name_and_writes_strict_json(tmp_path):
    assert LogReport().default_name == "LogReport"
    report = LogReport(trigger=(1, "iteration"))
    trainer = types.SimpleNamespace(
        observation={"main/loss": float("inf")},
        is_before_training=True,
        updater=types.SimpleNamespace(epoch=1, iteration=5),
        elapsed_time=2.0,
        out=str(tmp_path),
    )
    report(trainer)
    assert json.loads((tmp_path / "log").read_text()) == [
        {"main/loss": None, "epoch": 1, "iteration": 5, "elapsed_time": 2.0}
    ]
    assert report.log[0]["main/loss"] == float("inf")


class OnDevice:
    """A number on a device: arithmetic gives others, and reading one is counted."""

    ndim = 0
    reads = 0

    def __init__(self, value):
        self.value = np.float32(value)

    def __add__(self, other):
        return OnDevice(self.value + getattr(other, "value", other))

    def __mul__(self, other):
        return OnDevice(self.value * getattr(other, "value", other))

    def __truediv__(self, other):
        return OnDevice(self.value / other)

    __radd__, __rmul__ = __add__, __mul__

    def __float__(self):
        OnDevice.reads += 1
        return float(self.value)

    __array__ = __bool__ = __int__ = __index__ = None  # to ask for these is an error


def test_numbers_on_a_device_are_read_once_an_epoch(tmp_path):
    numbers = np.random.RandomState(0).rand(2, 10).astype(np.float32)
    logs = []
    for wrap in (np.float32, OnDevice):
        updater = types.SimpleNamespace(epoch=0, iteration=0, is_new_epoch=False)
        trainer = types.SimpleNamespace(
            updater=updater, out=str(tmp_path), is_before_training=False, elapsed_time=0.0
        )
        report = LogReport()
        report._trigger = lambda trainer: trainer.updater.is_new_epoch
        for iteration, (loss, accuracy) in enumerate(numbers.T, 1):
            updater.iteration, updater.is_new_epoch = iteration, iteration % 5 == 0
            updater.epoch = iteration // 5
            trainer.observation = {"main/loss": wrap(loss), "main/accuracy": wrap(accuracy)}
            report(trainer)
            if wrap is OnDevice:
                assert OnDevice.reads == 2 * updater.epoch
        logs.append(report.log)
    assert logs[0] == logs[1]
    assert len(logs[0]) == 2


def a_step(report, tmp_path, entries):
    """Adds an entry to a log of so many; returns what a snapshot then has of it."""
    log = [{"main/loss": 0.5, "epoch": i, "iteration": i, "elapsed_time": 0.1} for i in entries]
    npz = {"_log": json.dumps(log), "_names": "[]"}  # as text: so it was in older snapshots
    report.serialize(NpzDeserializer({key: np.asarray(text) for key, text in npz.items()}))
    trainer = types.SimpleNamespace(
        observation={"main/loss": 0.25},
        is_before_training=True,
        updater=types.SimpleNamespace(epoch=1, iteration=5),
        elapsed_time=2.0,
        out=str(tmp_path),
    )
    for _ in range(3):
        report(trainer)
    written = []
    with pytest.MonkeyPatch.context() as patch:
        dumps = json.dumps
        patch.setattr(json, "dumps", lambda *a, **k: written.append(text := dumps(*a, **k)) or text)
        report(trainer)
        serializer = DictionarySerializer()
        report.serialize(serializer)
    assert sum(map(len, written)) < 500
    report.finalize()
    return serializer.target


def test_an_entry_costs_the_same_in_a_long_log(tmp_path):
    report = LogReport(trigger=lambda trainer: True)
    arrays = a_step(report, tmp_path, range(2000))
    assert os.listdir(tmp_path) == ["log"]
    log = json.loads((tmp_path / "log").read_bytes())
    assert log == report.log and len(log) == 2004
    # A snapshot shares what only grows: to copy it would take longer and longer.
    before = arrays["_log"].tobytes()
    assert snapshots._copy(arrays["_log"]) is arrays["_log"]
    again = LogReport(trigger=lambda trainer: True)
    again.serialize(NpzDeserializer(arrays))
    assert again.log == log
    report._lines.extend(np.frombuffer(b"{}\n" * 5000, np.uint8))
    assert arrays["_log"].tobytes() == before
    with pytest.raises(ValueError, match="read-only"):
        arrays["_log"][0] = 0
