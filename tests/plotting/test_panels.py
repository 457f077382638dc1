"""Panels one above the other, and figures of runs that count iterations."""

import numpy as np
import pytest

from mnist_bn.plotting import appearance, comparison, panels
from mnist_bn.plotting.canvas import broken, text_width
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


def test_a_panel_without_numbers_says_so():
    nothing = panels.Series(np.arange(3), np.full(3, np.nan), "line", "#000000")
    lost = panels.Series(np.zeros(0), np.zeros(0), "lost", "#000000", crosses=[1])
    some = panels.Series(np.arange(3), np.array([np.nan, 1, np.nan]), "line", "#000000")
    series = ([], [nothing], [lost], [nothing, some])
    figure = panels.stacked([panels.Panel("p", lines) for lines in series], "T", "s", "Step")
    said = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert ["not recorded" in words for words in said] == [True, True, False, False]


def test_the_ring_of_an_unfinished_run_is_whole_at_the_edge_and_not_drawn_outside():
    for y, count in ((0.5, 1), (1, 1), (2, 0)):
        line = panels.Series(np.arange(2), np.array([0.5, y]), "line", "#000000", is_cut_short=True)
        (axes,) = panels.stacked([panels.Panel("p", [line], (0, 1))], "T", "s", "Step").axes
        rings = [line for line in axes.lines if line.get_gid() == "unfinished"]
        assert [ring.get_clip_on() for ring in rings] == [False] * count


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
    _, figure = next(iter(comparison.of_curves([curve])))
    assert "Iteration" in [axes.get_xlabel() for axes in figure.axes]


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


def artists(axes, gid):
    return [artist for artist in axes.get_children() if artist.get_gid() == gid]


@pytest.mark.parametrize("is_high", [False, True])
def test_what_has_no_value_stands_in_a_strip_of_its_own(is_high):
    """Below an accuracy, above a loss: never among the values, nor on another line's name."""
    x = np.array([1.0, 2.0, 3.0])
    lines = [
        panels.Series(x, np.array([0.05, 0.1, np.nan]), "lost", "#ff0000", crosses=[3]),
        panels.Series(x, np.array([0.9, 0.05, 0.03]), "other", "#0000ff"),
    ]
    panel = panels.Panel("Title", lines, (0, 1), lost="gone", lost_is_high=is_high)
    with appearance.style():
        figure = panels.stacked([panel, panel], "T", "s", "Step")
        figure.canvas.draw()
        renderer = figure.canvas.get_renderer()
        upper, lower = figure.axes
        for axes in figure.axes:
            (marks,) = artists(axes, "lost")
            assert marks.get_xdata() == [3] and marks.get_color() == "#ff0000"
            (height,) = marks.get_ydata()  # in fractions of the axes
            assert height > 1 if is_high else height < 0
            (strip,), (name,) = artists(axes, "strip"), artists(axes, "strip-name")
            assert name.get_text() == "✕ gone"
            strip, name = strip.get_window_extent(), name.get_window_extent(renderer)
            y = axes.bbox.y0 + height * axes.bbox.height
            assert strip.y0 < y < strip.y1
            texts = [text.get_window_extent(renderer) for text in artists(axes, "end-label")]
            texts += [text.get_window_extent(renderer) for text in axes.get_xticklabels()]
            titles = [text for text in axes.get_children() if text is axes._left_title]
            texts += [text.get_window_extent(renderer) for text in titles]
            assert len(texts) >= (3 if axes is upper else 6)
            assert not any(box.overlaps(strip) or box.overlaps(name) for box in texts)
            assert name.x1 < figure.bbox.x1
        strips = [artists(axes, "strip")[0].get_window_extent() for axes in figure.axes]
        assert not strips[0].overlaps(lower.bbox) and not strips[1].overlaps(upper.bbox)


def test_without_crosses_there_is_no_strip():
    x = np.arange(3)
    (axes,) = panels.stacked(
        [panels.Panel("P", [panels.Series(x, x, "a", "#000000")])], "T", "s", "x"
    ).axes
    assert not artists(axes, "strip") and not artists(axes, "lost")


def test_a_marker_at_the_edge_is_whole_and_one_outside_is_not_drawn():
    x = np.array([0, 1, 2, 3])
    series = panels.Series(x, np.array([0.0, 2.0, 1.0, 0.5]), "a", "#000000", marker="s")
    (axes,) = panels.stacked([panels.Panel("P", [series], (0, 1))], "T", "s", "x").axes
    (markers,) = artists(axes, "markers")
    assert not markers.get_clip_on() and markers.get_marker() == "s"
    assert markers.get_xdata().tolist() == [0, 2, 3]
    (line,) = [line for line in axes.lines if len(line.get_xdata()) == 4 and not line.get_gid()]
    assert line.get_clip_on() and line.get_marker() in ("", "None")


def test_a_point_without_neighbours_is_marked():
    y = np.array([1.0, np.nan, 2.0, np.nan, 3.0, 4.0])
    series = panels.Series(np.arange(6), y, "a", "#000000")
    (axes,) = panels.stacked([panels.Panel("P", [series])], "T", "s", "x").axes
    (markers,) = artists(axes, "markers")
    assert markers.get_xdata().tolist() == [0, 2]
    assert markers.get_markerfacecolor() == "#000000"
    dotted = panels.Series(np.ones(1), np.ones(1), "a", "#000000", appearance.DASHES[2])
    (axes,) = panels.stacked([panels.Panel("P", [dotted])], "T", "s", "x").axes
    assert [one.get_markerfacecolor() for one in artists(axes, "markers")] == ["white"]


def test_where_lines_are_dashed_a_piece_of_each_stands_before_its_name():
    x = np.arange(3)
    lines = [
        panels.Series(x, x + i, name, "#000000", dashes)
        for i, (name, dashes) in enumerate((("solid", "-"), ("dashed", appearance.DASHES[1])))
    ]
    (axes,) = panels.stacked([panels.Panel("P", lines)], "T", "s", "x").axes
    samples, names = artists(axes, "sample"), artists(axes, "end-label")
    assert [sample.is_dashed() for sample in samples] == [False, True]
    for sample, name in zip(samples, names, strict=True):
        assert sample.get_xdata()[-1] < name.get_position()[0]
        assert sample.get_ydata()[0] == name.get_position()[1]
    (axes,) = panels.stacked([panels.Panel("P", lines[:1])], "T", "s", "x").axes
    assert not artists(axes, "sample")


def test_a_line_that_leaves_its_panel_says_where_to():
    x = np.arange(3)
    lines = [
        panels.Series(x, np.array([0.9, 0.8, 0.75]), "in", "#000000"),
        panels.Series(x, np.array([0.1, 0.2, 0.4871]), "below", "#000000"),
        panels.Series(x, np.array([0.8, 7.6, np.nan]), "lost", "#000000", crosses=[2]),
    ]
    (axes,) = panels.stacked([panels.Panel("P", lines, (0.7, 1))], "T", "s", "x").axes
    names = [text.get_text() for text in artists(axes, "end-label")]
    assert names == ["in", "below  ↓ 0.487", "lost  ↑"]


def test_a_leader_looks_like_no_dotted_line():
    x = np.arange(10)
    early = panels.Series(x[:3], x[:3], "early", "#000000")
    late = panels.Series(x, x, "late", "#000000")
    (axes,) = panels.stacked([panels.Panel("P", [early, late])], "T", "s", "x").axes
    leaders = artists(axes, "leader")
    assert len(leaders) == 2 and not any(leader.is_dashed() for leader in leaders)


def test_a_title_too_long_for_its_figure_is_smaller():
    x = [panels.Series(np.arange(3), np.arange(3), "a", "#000000")]
    with appearance.style():
        for title, is_smaller in (("Short", False), ("A very long title of a figure " * 4, True)):
            figure = panels.stacked([panels.Panel(title, x)], title, "s", "x")
            head, (axes,) = figure.texts[0], figure.axes
            renderer = figure.canvas.get_renderer()
            assert head.get_window_extent(renderer).x1 < figure.bbox.x1
            assert axes._left_title.get_window_extent(renderer).x1 < figure.bbox.x1
            assert (head.get_fontsize() < 15) == is_smaller
            assert (axes._left_title.get_fontsize() < 11) == is_smaller


def test_a_long_sentence_of_a_subtitle_is_broken_between_words():
    sentence = "See how soon each curve rises, and where it ends. " * 4
    lines = broken(f"MNIST  ·  1 seed\n{sentence.strip()}", 4.0)
    assert lines[0] == "MNIST  ·  1 seed"
    assert " ".join(lines[1:]) == sentence.strip()
    assert len(lines) > 3 and all(text_width(line) <= 4.0 for line in lines)


def test_a_study_shows_which_runs_diverged_or_did_not_finish(tmp_path, make_run, entries):
    log = entries("MnistCNN", "SGD", 0, 3)
    lost = [*log[:2], {**log[2], "main/loss": None, "diverged_at": {"iteration": 1700}}]
    make_run(tmp_path, "MnistCNN", log=lost, epoch=5)
    make_run(tmp_path, "MnistCNN_BN_before", log=log, epoch=5)
    make_run(tmp_path, "MnistCNN_BN_after", epochs=5)
    curves = group_runs(read_runs([tmp_path], pytest.fail))
    lines = [
        panels.of_curve(curve, VALIDATION_ACCURACY, curve.model, "#000000") for curve in curves
    ]
    (axes,) = panels.stacked([panels.Panel("P", lines)], "T", "s", "Epoch").axes
    assert [mark.get_xdata() for mark in artists(axes, "lost")] == [[3]]
    assert [mark.get_xdata() for mark in artists(axes, "unfinished")] == [[3]]
    assert [text.get_text() for text in artists(axes, "end-label")] == [
        *("MnistCNN (diverged)", "MnistCNN_BN_before (stopped at epoch 3 of 5)"),
        "MnistCNN_BN_after",
    ]
