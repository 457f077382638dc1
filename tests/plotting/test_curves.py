"""What is in a figure, read from the figure itself."""

import matplotlib
import numpy as np
import pytest
from matplotlib.text import Text

from mnist_bn.plotting import appearance, curves
from mnist_bn.plotting.comparison import of_curves
from mnist_bn.plotting.groups import NETWORKS, OPTIMIZERS, Band, group_runs
from mnist_bn.plotting.results import read_runs


def drawn(root) -> dict:
    with appearance.style():
        return dict(of_curves(group_runs(read_runs([root], pytest.fail))))


def marked(axes, gid: str) -> list:
    return [artist for artist in axes.get_children() if artist.get_gid() == gid]


def band(*mean, spread=0.0) -> Band:
    values = np.array(mean, dtype=float)
    return Band(np.arange(1, len(values) + 1), values, values - spread, values + spread)


# Validation accuracies of MnistCNN and its three BN networks on the digits, with SGD.
SLOW = band(0.207, 0.520, 0.692, 0.846, 0.854, 0.908, 0.942)
FAST = [
    band(0.509, 0.791, 0.920, 0.925, 0.948, 0.961, 0.968),
    band(0.247, 0.456, 0.782, 0.911, 0.946, 0.975, 0.985),
    band(0.503, 0.835, 0.915, 0.944, 0.949, 0.963, 0.973),
]
GOOD = [band(*np.linspace(0.94 + i / 200, 0.985 + i / 1000, 10)) for i in range(8)]


def test_limits_show_slow_curves_from_their_first_epoch():
    low, high = curves.accuracy_limits([SLOW, *FAST])
    assert 0.1 < low < 0.207 and 0.985 < high < 1.05
    low, high = curves.accuracy_limits(GOOD)
    assert 0.93 < low < 0.94 and 0.992 < high < 1.0


def test_limits_show_the_bands():
    wide = band(0.95, 0.97, spread=0.02)
    low, high = curves.accuracy_limits([*GOOD, wide])
    assert low < wide.low.min() and high > wide.high.max()
    low, high = curves.loss_limits([band(0.5, 0.3, spread=0.2)])
    assert 0 < low < 0.1 and high > 0.7


@pytest.mark.parametrize("outlier", [[0.1] * 10, [0.2] + [0.98] * 9, [0.97, 0.1] + [0.98] * 8])
def test_limits_are_not_set_by_one_curve_far_below_the_others(outlier):
    low, _ = curves.accuracy_limits([*GOOD, band(*outlier)])
    assert 0.93 < low < 0.94


def test_loss_limits_are_not_set_by_one_that_exploded():
    good = [band(*(1 - one.mean)) for one in GOOD]
    low, high = curves.loss_limits([*good, band(*[1e9] * 10)])
    assert 0.005 < low < 0.01 and 0.06 < high < 0.1


@pytest.mark.parametrize("points", [[], [0.5], [0.1, 0.1], [0.0], [-3.0, 2.0], [3e38], [5e-324]])
def test_limits_of_few_or_odd_points_span_them(points):
    for limits in (curves.accuracy_limits, curves.loss_limits):
        low, high = limits([band(point) for point in points])
        assert low < high
        assert all(low < point < high for point in points)


def test_a_network_figure_has_a_labelled_curve_and_band_for_each_optimizer(result):
    figure = drawn(result)["network-MnistCNN"]
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == [
        f"{part} {what}" for what in ("accuracy", "loss") for part in ("Training", "Validation")
    ]
    for axes in figure.axes:
        assert len(marked(axes, "curve")) == len(marked(axes, "band")) == 2
    for axes in figure.axes[1::2]:
        assert {text.get_text() for text in marked(axes, "end-label")} == {"SGD", "Adam"}
    assert [text.get_text() for text in figure.texts] == [
        "MnistCNN under 2 optimizers, on MNIST",
        "MNIST  ·  evaluated in test mode  ·  mean and range of 2 seeds",
        "See how soon each curve rises, and where it ends. A training point is a mean over an"
        " epoch's minibatches, in train mode (dropout on, if any).",
    ]
    colours = [line.get_color() for line in marked(figure.axes[0], "curve")]
    assert colours == [appearance.OPTIMIZER_LOOKS[name].colour for name in ("SGD", "Adam")]


def test_a_network_has_the_same_colour_in_every_figure(result):
    every = drawn(result)
    expected = [appearance.NETWORK_LOOKS[name].colour for name in NETWORKS[:2]]
    for name in ("optimizer-SGD", "optimizer-Adam", "overview"):
        for axes in every[name].axes:
            assert [line.get_color() for line in marked(axes, "curve")] == expected


def test_labels_lie_inside_the_figure_and_apart(tmp_path, make_run):
    for optimizer in OPTIMIZERS:
        make_run(tmp_path, "MnistCNN", optimizer)
    with appearance.style():
        figure = drawn(tmp_path)["network-MnistCNN"]
        renderer = figure.canvas.get_renderer()
        for axes in figure.axes[1::2]:
            boxes = [t.get_window_extent(renderer) for t in marked(axes, "end-label")]
            assert len(boxes) == 9
            assert all(axes.bbox.x1 < box.x0 and box.x1 < figure.bbox.x1 for box in boxes)
            middles = sorted((box.y0 + box.y1) / 2 for box in boxes)
            line = 0.99 * figure.dpi * 9 / 72
            assert min(np.diff(middles)) > line


def test_a_diverged_seed_is_crossed_and_named(tmp_path, make_run, entries):
    log = entries("MnistCNN", "SGD", 1, 4)
    log[2]["main/loss"] = None
    make_run(tmp_path, seed=0, epochs=4)
    make_run(tmp_path, seed=1, log=log)
    axes = drawn(tmp_path)["runs"].axes[1]
    (cross,) = marked(axes, "diverged")
    assert cross.get_xdata() == [2]
    assert cross.get_ydata() == [log[1]["validation/main/accuracy"]]
    assert [t.get_text() for t in marked(axes, "end-label")] == ["MnistCNN, SGD (1 of 2 diverged)"]


def test_a_seed_that_trained_on_after_diverging_is_drawn_to_its_end(tmp_path, make_run, entries):
    log = entries("MnistCNN", "SGD", 1, 6)
    log[2] |= {"main/loss": None, "diverged_at": {"iteration": 1300, "value": None}}
    make_run(tmp_path, seed=0, epochs=4)
    make_run(tmp_path, seed=1, log=log, on_divergence="continue")
    axes = drawn(tmp_path)["runs"].axes[2]  # the training loss
    (cross,) = marked(axes, "diverged")
    assert cross.get_xdata() == [2]
    (line,) = marked(axes, "diverged-seed")
    np.testing.assert_array_equal(line.get_xdata(), [1, 2, 4, 5, 6])
    assert axes.get_xlim()[1] > 6


def test_a_run_that_never_had_a_number_is_still_told(tmp_path, make_run):
    make_run(tmp_path, log=[{"epoch": 1, "main/loss": None}])
    figure = drawn(tmp_path)["runs"]
    for axes, is_loss in zip(figure.axes, (False, False, True, True), strict=True):
        (cross,) = marked(axes, "lost")
        assert (cross.get_ydata()[0] > 1) == is_loss  # above the axes, or below: in fractions
        assert not 0 <= cross.get_ydata()[0] <= 1


def test_a_curve_that_leaves_the_range_is_told_with_its_value(tmp_path, make_run, entries):
    log = [e | {"validation/main/accuracy": 0.1135} for e in entries("MnistCNN", "SGD", 0, 9)]
    make_run(tmp_path, "MnistCNN", "SGD", log=log)
    for optimizer in ("Adam", "AdaDelta", "SMORMS3"):
        make_run(tmp_path, "MnistCNN", optimizer, epochs=9)
    axes = drawn(tmp_path)["network-MnistCNN"].axes[1]
    assert axes.get_ylim()[0] > 0.85
    assert "SGD  ↓ 0.114" in {text.get_text() for text in marked(axes, "end-label")}


def test_the_overview_names_what_its_panel_does_not_show(tmp_path, make_run, entries):
    log = [e | {"validation/main/accuracy": 0.1135} for e in entries("MnistCNN", "SGD", 0, 9)]
    make_run(tmp_path, "MnistCNN", "SGD", log=log)
    make_run(tmp_path, "MnistCNN", "Adam", log=[{"epoch": 1, "main/loss": None}])
    for optimizer in ("SGD", "Adam"):
        for network in NETWORKS[1:]:
            make_run(tmp_path, network, optimizer, epochs=9)
    with appearance.style():
        figure = drawn(tmp_path)["overview"]
        renderer = figure.canvas.get_renderer()
        for axes, text in zip(
            figure.axes, ("MnistCNN  ↓ 0.114", "✕ MnistCNN (diverged)"), strict=True
        ):
            (note,) = marked(axes, "note")
            assert note.get_text() == text
            box = note.get_window_extent(renderer)
            (title,) = (
                t for t in axes.get_children() if isinstance(t, Text) and t.get_text() in OPTIMIZERS
            )
            title = title.get_window_extent(renderer)
            assert axes.bbox.y1 < box.y0 and box.y1 < title.y0  # it covers nothing


def test_an_unfinished_seed_is_named(tmp_path, make_run):
    for seed, epochs in enumerate((4, 4, 1)):
        make_run(tmp_path, seed=seed, epochs=epochs)
    axes = drawn(tmp_path)["runs"].axes[1]
    assert [t.get_text() for t in marked(axes, "end-label")] == ["MnistCNN, SGD (2 of 3 seeds)"]
    assert marked(axes, "curve")[0].get_xdata().tolist() == [1, 2, 3, 4]


def test_a_single_epoch_is_a_marker(tmp_path, make_run):
    make_run(tmp_path, epochs=1)
    axes = drawn(tmp_path)["runs"].axes[0]
    (line,) = marked(axes, "curve")
    assert line.get_marker() == "o" and line.get_markevery() == (0, 1)
    assert [t for t in axes.get_xticks() if 0.5 < t < 1.5] == [1]


def test_the_style_does_not_depend_on_the_users_own():
    with matplotlib.rc_context({"font.size": 40, "text.usetex": True}), appearance.style():
        assert matplotlib.rcParams["font.size"] == 10
        assert not matplotlib.rcParams["text.usetex"]


def test_a_run_that_failed_is_circled_and_named(tmp_path, make_run, entries):
    """So that it does not look like one that is finished."""
    make_run(tmp_path, "MnistCNN", log=entries("MnistCNN", "SGD", 0, 5), epochs=5)
    failed = make_run(tmp_path, NETWORKS[1], log=entries("MnistCNN", "SGD", 1, 2), epoch=5)
    (failed / "error.txt").write_text("Traceback")
    make_run(tmp_path, NETWORKS[2], log=entries("MnistCNN", "SGD", 2, 3), epoch=5)
    figure = drawn(tmp_path)["optimizer-SGD"]
    for axes in figure.axes:
        assert [mark.get_xdata().tolist() for mark in marked(axes, "unfinished")] == [[2], [3]]
    assert [t.get_text() for t in marked(figure.axes[1], "end-label")] == [
        *("MnistCNN", f"{NETWORKS[1]} (failed at epoch 2 of 5)"),
        f"{NETWORKS[2]} (stopped at epoch 3 of 5)",
    ]
    assert "○ not finished" in figure.texts[1].get_text()


@pytest.mark.parametrize(
    "finished", ["as long as it was to be", "model.npz", "length not recorded", "diverged"]
)
def test_a_run_that_is_finished_is_not_marked(tmp_path, make_run, entries, finished):
    settings = {"epoch": 5, "log": entries("MnistCNN", "SGD", 0, 3)}
    if finished == "as long as it was to be":
        settings["epoch"] = 3
    if finished == "length not recorded":
        settings["epoch"] = None
    if finished == "diverged":
        settings["log"][-1] |= {"main/loss": None, "diverged_at": {"iteration": 1800}}
    folder = make_run(tmp_path, **settings)
    if finished == "model.npz":
        (folder / "model.npz").write_bytes(b"")
    figure = drawn(tmp_path)["runs"]
    assert not any(marked(axes, "unfinished") for axes in figure.axes)
    assert "not finished" not in figure.texts[1].get_text()


def test_how_far_a_run_by_iterations_is(tmp_path, make_run, entries):
    log = [e | {"iteration": 10 * e["epoch"], "epoch": 1} for e in entries("MnistCNN", "SGD", 0, 4)]
    for length in (40, 90):
        make_run(tmp_path / str(length), log=log, iteration=length, evaluate_every=10, epoch=20)
    runs = read_runs([tmp_path], pytest.fail)
    assert [run.progress for run in runs] == [(40, 40, "iteration"), (40, 90, "iteration")]
    assert [run.is_cut_short for run in runs] == [False, True]


def test_single_epochs_stand_apart_with_their_seeds_as_a_bar(tmp_path, make_run):
    for network in NETWORKS:
        for seed in (0, 1):
            make_run(tmp_path, network, "SGD", seed, epochs=1)
    figure = drawn(tmp_path)["optimizer-SGD"]
    for axes in figure.axes:
        places = [line.get_xdata()[0] for line in marked(axes, "curve")]
        assert len(set(places)) == 4 and 0.5 < min(places) < max(places) < 1.5
        bars = [bar.get_segments()[0] for bar in marked(axes, "band")]
        assert [bar[0, 0] for bar in bars] == places
        assert all(bar[0, 1] < bar[1, 1] for bar in bars)
    leaders = marked(figure.axes[1], "leader")
    low, high = figure.axes[1].get_xlim()
    starts = [low + leader.get_xdata()[0] * (high - low) for leader in leaders]
    assert starts == pytest.approx(places)


def test_each_diverged_network_has_its_row_in_the_strip(tmp_path, make_run):
    for network in NETWORKS[:3]:
        make_run(tmp_path, network, log=[{"epoch": 1, "main/loss": None}])
    make_run(tmp_path, NETWORKS[3], epochs=3)
    figure = drawn(tmp_path)["optimizer-SGD"]
    for axes, is_loss in zip(figure.axes, (False, False, True, True), strict=True):
        heights = [mark.get_ydata()[0] for mark in marked(axes, "lost")]
        assert len(set(heights)) == 3
        assert all(height > 1 if is_loss else height < 0 for height in heights)
        assert not marked(axes, "diverged")


@pytest.mark.parametrize(("networks", "settings"), [(1, 14), (2, 6), (14, 1)])
def test_no_two_curves_of_a_figure_look_alike(tmp_path, make_run, networks, settings):
    for i in range(networks):
        for batch in range(settings):
            make_run(tmp_path, model=f"Net{i}", batchsize=batch + 1)
    with appearance.style():
        axes = drawn(tmp_path)["optimizer-SGD"].axes[1]
        curves = marked(axes, "curve")
        looks = {(c.get_color(), c.get_marker(), str(c._dash_pattern)) for c in curves}
    assert len(looks) == len(curves) == networks * settings


def test_long_settings_fit_their_panel_of_the_overview(tmp_path, make_run):
    long = {"holdout": 1000, "lr_drop": "40000,60000", "train_images": 2000, "weight_decay": 0.0001}
    for network in NETWORKS[:2]:
        for optimizer in ("SGD", "Adam"):
            make_run(tmp_path, network, optimizer)
            make_run(tmp_path, network, optimizer, **long)
    overview = drawn(tmp_path)["overview"]
    with appearance.style():
        renderer = overview.canvas.get_renderer()
        every = overview.axes
        assert len(every) == 4
        for axes in every:
            name = axes.get_title(loc="left")
            (title,) = (text for text in axes.findobj(Text) if text.get_text() == name)
            assert name and title.get_window_extent(renderer).width <= axes.bbox.width


def test_the_overview_names_a_network_of_which_a_seed_diverged(tmp_path, make_run, entries):
    log = entries("MnistCNN", "SGD", 1, 9)[:1]
    log[0] |= {"main/loss": None, "validation/main/accuracy": 0.1}
    make_run(tmp_path, "MnistCNN", "SGD", seed=1, log=log)
    for optimizer in ("SGD", "Adam"):
        for network in NETWORKS:
            make_run(tmp_path, network, optimizer, epochs=9)
    sgd, adam = drawn(tmp_path)["overview"].axes
    assert [note.get_text() for note in marked(sgd, "note")] == ["✕ MnistCNN (1 of 2 diverged)"]
    assert not marked(adam, "note")


def test_a_curve_without_numbers_in_a_panel_is_called_not_recorded(tmp_path, make_run, entries):
    every = entries("MnistCNN", "SGD", 0, 4)
    trained = [{k: v for k, v in e.items() if not k.startswith("validation")} for e in every]
    for optimizer in ("SGD", "Adam"):
        make_run(tmp_path, "MnistCNN", optimizer)
        make_run(tmp_path, "MnistCNN_BN_before", optimizer, log=trained)
    shown = drawn(tmp_path)
    labels = [text.get_text() for text in marked(shown["optimizer-SGD"].axes[1], "end-label")]
    assert labels == ["MnistCNN", "MnistCNN_BN_before (not recorded)"]
    for axes in shown["overview"].axes[:2]:
        assert [t for t in axes.texts if t.get_text() == "MnistCNN_BN_before (not recorded)"]
