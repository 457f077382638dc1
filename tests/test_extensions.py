"""What is written while training."""

import json
import types

import pytest

from mnist_bn import training
from mnist_bn.config import RunConfig
from mnist_bn.extensions import plot_report
from mnist_bn.extensions.log_report import LogReport
from mnist_bn.extensions.plot_report import PlotReport


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
    plot(trainer)
    assert path.read_bytes().startswith(b"\x89PNG")
    path.unlink()
    now += plot_report.SECONDS_BETWEEN - 0.1
    plot(trainer)
    assert not path.exists()
    now += 0.2
    plot(trainer)
    assert path.exists()


def test_plot_holds_every_epoch_at_the_end(tmp_path, tiny_data, monkeypatch):
    lengths = []
    draw = PlotReport.draw
    monkeypatch.setattr(
        PlotReport,
        "draw",
        lambda self, t: (lengths.append(len(t.get_extension("LogReport").log)), draw(self, t)),
    )
    training.train(RunConfig(batchsize=20, epoch=3, out=str(tmp_path)))
    assert lengths == [1, 1, 3, 3]


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
