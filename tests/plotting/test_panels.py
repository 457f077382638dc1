"""Panels one above the other, and figures of runs that count iterations."""

import numpy as np
import pytest

from mnist_bn.errors import UsageError
from mnist_bn.plotting import comparison, panels
from mnist_bn.plotting.canvas import broken
from mnist_bn.plotting.groups import group_runs
from mnist_bn.plotting.results import VALIDATION_ACCURACY, read_runs


def test_panels_share_their_x_axis_and_name_their_lines():
    x = np.arange(5)
    lines = [panels.Series(x, x * i, f"line {i}", "#000000", crosses=[3]) for i in (1, 2)]
    figure = panels.stacked(
        [panels.Panel("above", lines), panels.Panel("below", lines, (0, 9))], "T", "s", "Step"
    )
    above, below = figure.axes
    assert above.get_xlim() == below.get_xlim() == (0, 4)
    assert (above.get_xlabel(), below.get_xlabel()) == ("", "Step")
    assert below.get_ylim() == (0, 9)
    named = [text.get_text() for text in below.texts if text.get_gid() == "end-label"]
    assert named == ["line 1", "line 2"]


def test_a_panel_without_lines_is_drawn():
    assert len(panels.stacked([panels.Panel("none")], "T", "s", "Step").axes) == 1


def by_iteration(make_run, root, entries, seed=0, **settings):
    log = [e | {"iteration": 10 * e["epoch"], "epoch": 1} for e in entries("MnistCNN", "SGD", 0, 4)]
    return make_run(root, seed=seed, log=log, evaluate_every=10, **settings)


def test_a_log_by_iterations_is_read_by_them(tmp_path, make_run, entries):
    (run,) = read_runs([by_iteration(make_run, tmp_path, entries)], pytest.fail)
    assert run.unit == "iteration"
    assert run.epochs.tolist() == [10, 20, 30, 40]
    (curve,) = group_runs([run])
    series = panels.of_curve(curve, VALIDATION_ACCURACY, "name", "#000000")
    assert series.x.tolist() == [10, 20, 30, 40]
    _, figure = next(iter(comparison.figures([curve])))
    assert "Iteration" in [axes.get_xlabel() for axes in figure.axes]


def test_epochs_and_iterations_share_no_figure(tmp_path, make_run, entries):
    by_iteration(make_run, tmp_path, entries)
    make_run(tmp_path, seed=1)
    with pytest.raises(UsageError, match="some are evaluated once an epoch, others every few"):
        comparison.select_runs(read_runs([tmp_path], pytest.fail))


def test_a_wide_subtitle_is_broken_between_its_parts():
    parts = ["evaluated in test mode", "first 1000 training images", "mean and range of 3 seeds"]
    assert broken("  ·  ".join(parts), 8.5) == ["  ·  ".join(parts)]
    lines = broken("  ·  ".join(2 * parts), 8.5)
    assert len(lines) == 2
    assert "  ·  ".join(lines) == "  ·  ".join(2 * parts)
    line = [panels.Series(np.arange(3), np.arange(3), "a", "#000000")]
    figures = [
        panels.stacked([panels.Panel("t", line)], "T", "  ·  ".join(n * parts), "x") for n in (1, 2)
    ]
    assert figures[1].get_figheight() == pytest.approx(figures[0].get_figheight() + 0.18)
    assert figures[1].get_figwidth() < 10


def test_places_on_the_x_axis_can_have_names():
    x = np.array([1, 2, 3])
    lines = [panels.Series(x, x, "line", "#000000")]
    ticks = {1: "first", 2: "second", 3: "third"}
    (axes,) = panels.stacked([panels.Panel("P", lines)], "T", "s", "Layer", x_ticks=ticks).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["first", "second", "third"]
    low, high = axes.get_xlim()
    assert low < 1 < 3 < high
    many = {i: str(i) for i in range(1, 110)}
    (axes,) = panels.stacked([panels.Panel("P", lines)], "T", "s", "Layer", x_ticks=many).axes
    assert len(axes.get_xticks()) <= panels.MAX_TICKS
