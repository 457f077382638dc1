"""Any folder is read or refused in one line; what is read is right."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mnist_bn.errors import UsageError, UserError
from mnist_bn.plotting import groups, tables
from mnist_bn.plotting.results import (
    CURVE_KEYS,
    TRAIN_LOSS,
    VALIDATION_ACCURACY,
    find_result_folders,
    read_run,
    read_runs,
)


def write(folder: Path, **files: str | bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        content = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes(content)
    return folder


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from([*CURVE_KEYS, "epoch", "model", "optimizer", "seed", "lr", "dataset"]),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)
_entry = st.fixed_dictionaries(
    {"epoch": st.integers(0, 5) | _json}, optional=dict.fromkeys(CURVE_KEYS, st.floats() | _json)
)
_contents = st.one_of(
    st.binary(max_size=200),
    _json.map(lambda value: json.dumps(value).encode()),
    st.tuples(st.lists(_entry, max_size=6), st.integers(0, 10_000)).map(
        lambda log: json.dumps(log[0]).encode()[: log[1]]
    ),
)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(log=_contents, args=_contents)
def test_whatever_lies_in_a_folder_it_is_read_or_refused_in_one_line(tmp_path, log, args):
    folder = write(tmp_path / "run", log=log, args=args)
    try:
        run = read_run(folder)
    except UserError as error:
        assert str(folder) in str(error)
        assert "\n" not in str(error)
        return
    assert run.epochs.size and (np.diff(run.epochs) > 0).all()
    assert all(not np.isinf(run.values(key)).any() for key in CURVE_KEYS)
    curves = groups.group_runs([run])  # and what is read can be told
    assert tables.table(curves) and tables.summary([run])


def test_values_of_a_good_log(tmp_path):
    log = [{"epoch": e, TRAIN_LOSS: 1 / e, VALIDATION_ACCURACY: 1 - 0.1 / e} for e in (1, 2, 3)]
    run = read_run(write(tmp_path / "run", log=json.dumps(log)))
    assert run.notes == () and run.diverged_at is None
    np.testing.assert_array_equal(run.epochs, [1, 2, 3])
    np.testing.assert_array_equal(run.values(TRAIN_LOSS), [1, 1 / 2, 1 / 3])
    assert np.isnan(run.values("main/accuracy")).all()
    assert (run.name, run.model, run.seed) == ("run", None, None)


@pytest.mark.parametrize("token", ["NaN", "Infinity", "-Infinity", "null", "1e999", "1" + "0" * 60])
def test_a_number_that_is_not_finite_ends_every_series(tmp_path, token):
    lines = [f'{{"epoch": {e}, "main/loss": 0.5, "main/accuracy": 0.9}}' for e in (1, 2, 3)]
    lines[1] = f'{{"epoch": 2, "main/loss": {token}, "main/accuracy": 0.1}}'
    run = read_run(write(tmp_path / "run", log=f"[{','.join(lines)}]"))
    assert run.diverged_at == 2
    np.testing.assert_array_equal(run.values("main/accuracy"), [0.9, math.nan, math.nan])


@pytest.mark.parametrize(("on_divergence", "after"), [("continue", 0.7), ("stop", math.nan)])
def test_a_run_that_trained_on_after_diverging_keeps_its_numbers(tmp_path, on_divergence, after):
    log = [{"epoch": e, TRAIN_LOSS: loss} for e, loss in ((1, 0.5), (2, None), (3, 0.7))]
    log[1]["diverged_at"] = {"iteration": 7, "value": None}
    args = json.dumps({"on_divergence": on_divergence})
    run = read_run(write(tmp_path / "run", log=json.dumps(log), args=args))
    assert run.diverged_at == 2
    np.testing.assert_array_equal(run.values(TRAIN_LOSS), [0.5, math.nan, after])


def test_a_log_cut_off_keeps_its_complete_entries(tmp_path, entries):
    text = json.dumps(entries("MnistCNN", "SGD", 0, 3), indent=4)
    run = read_run(write(tmp_path / "run", log=text[:-40]))
    np.testing.assert_array_equal(run.epochs, [1, 2])
    assert run.notes == ("log is cut off or damaged after 2 complete entries",)


def test_odd_entries_are_left_out_and_told(tmp_path):
    log = [
        {"epoch": 1, "main/loss": 0.5, "main/accuracy": "0.9"},
        {"epoch": 2, "main/loss": 0.7},
        {"epoch": 2, "main/loss": 0.2},
        {"main/loss": 0.1},
        7,
    ]
    run = read_run(write(tmp_path / "run", log=json.dumps(log)))
    np.testing.assert_array_equal(run.values("main/loss"), [0.5, 0.2])
    assert run.notes == (
        "2 entries without a usable epoch left out",
        "1 entry from before a resume left out, the later ones kept",
        "1 value that should be a number left out",
    )


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("[]", "no finished epoch in its log"),
        ('{"epoch": 1}', "log is not the JSON list that LogReport writes"),
        ("", "log is not the JSON list that LogReport writes"),
        (b"\x89PNG\r\n\x00\xff", "log is not the JSON list that LogReport writes"),
        ("[" * 100_000, "log is not the JSON list that LogReport writes"),
        ("[1, 2]", "no finished epoch in its log; 2 entries without a usable epoch left out"),
        ('[{"epoch": 1}]', f"no number in its log under {', '.join(CURVE_KEYS)}"),
    ],
)
def test_a_log_with_nothing_to_draw_is_refused(tmp_path, log, reason):
    with pytest.raises(UserError) as caught:
        read_run(write(tmp_path / "run", log=log))
    assert str(caught.value) == f"{tmp_path / 'run'}: {reason}"


def test_args_that_are_no_object_cost_only_the_settings(tmp_path, entries):
    log = json.dumps(entries("MnistCNN", "SGD", 0, 1))
    run = read_run(write(tmp_path / "run", log=log, args="[" * 100_000))
    assert run.args == {}
    assert run.notes == ("args is not a JSON object, so its settings are not known",)


def test_bad_folders_cost_a_note_each_and_the_others_are_read(tmp_path, make_run):
    good = make_run(tmp_path, "MnistCNN", "SGD")
    write(tmp_path / "a-garbage", log=b"\x00\x01")
    (tmp_path / "b-folder" / "log").mkdir(parents=True)
    write(tmp_path / "c-args", args="{}")
    (tmp_path / "d-loop").mkdir()
    (tmp_path / "d-loop" / "log").symlink_to("log")
    (tmp_path / "e-pipe").mkdir()
    os.mkfifo(tmp_path / "e-pipe" / "log")
    (tmp_path / "f-huge").mkdir()
    with (tmp_path / "f-huge" / "log").open("wb") as file:
        file.truncate(2**27)
    (tmp_path / "up").symlink_to(tmp_path)
    notes: list[str] = []
    runs = read_runs([tmp_path, good], notes.append)
    assert [run.folder for run in runs] == [good]
    reasons = (
        "log is not the JSON list that LogReport writes",
        "log is not a file",
        "args but no log, so no finished epoch",
        "log cannot be read (Too many levels of symbolic links)",
        "log is not a file",
        "log is larger than 64 MiB",
    )
    folders = ("a-garbage", "b-folder", "c-args", "d-loop", "e-pipe", "f-huge")
    assert notes == [
        f"{tmp_path / folder}: {reason}; skipped"
        for folder, reason in zip(folders, reasons, strict=True)
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_permission_costs_a_note(tmp_path):
    (tmp_path / "secret").mkdir(mode=0)
    notes: list[str] = []
    assert read_runs([tmp_path], notes.append) == []
    assert notes == [f"{tmp_path / 'secret'}: cannot be read (Permission denied); skipped"]


def test_a_root_that_is_no_folder_is_a_usage_error(tmp_path):
    (tmp_path / "log").write_text("[]")
    with pytest.raises(UsageError, match="log: is a file; expected a result folder"):
        find_result_folders([tmp_path / "log"], print)
    with pytest.raises(UsageError, match="nowhere: no such folder; expected a result folder"):
        find_result_folders([tmp_path / "nowhere"], print)


def by_iteration(every: int, epoch: int, entries: int) -> list[dict]:
    """A stock log with the trigger (every, "iteration"), validated once an epoch."""
    log = []
    for i in range(every, every * entries + 1, every):
        log.append({"epoch": i // epoch, "iteration": i, TRAIN_LOSS: 1 / i})
        if i % epoch == 0:
            log[-1][VALIDATION_ACCURACY] = 1 - 1 / i
    return log


def by_epoch(first: int, last: int, loss: float = 0.5) -> list[dict]:
    return [{"epoch": e, "iteration": 600 * e, TRAIN_LOSS: loss} for e in range(first, last + 1)]


def test_a_stock_log_by_iteration_counts_in_iterations(tmp_path):
    run = read_run(write(tmp_path / "run", log=json.dumps(by_iteration(100, 600, 12))))
    assert (run.unit, run.notes) == ("iteration", ())
    assert run.epochs.tolist() == [100 * i for i in range(1, 13)]
    (curve,) = groups.group_runs([run])
    epochs, _ = curve.values(VALIDATION_ACCURACY)
    assert epochs.tolist() == [600, 1200]


@pytest.mark.parametrize(
    ("log", "args", "unit"),
    [
        (by_epoch(1, 4), {}, "epoch"),
        (by_iteration(1000, 600, 8), {}, "iteration"),  # now one epoch further, now two
        (by_iteration(600, 600, 8), {}, "epoch"),  # at their ends
        (by_iteration(1200, 600, 8), {}, "epoch"),
        ([{"iteration": i, TRAIN_LOSS: 0.5} for i in (100, 200)], {}, "iteration"),
        ([{"epoch": i, TRAIN_LOSS: 0.5} for i in (1, 2)], {"iteration": 200}, "epoch"),
        (by_iteration(100, 600, 12), {"evaluate_every": 100}, "iteration"),
        (by_iteration(100, 600, 12), {"epoch": 2, "batchsize": 100}, "iteration"),
        (by_iteration(100, 600, 12)[::6], {"evaluate_every": None, "iteration": None}, "epoch"),
        # A resume repeats an epoch, with the same iterations.
        ([*by_epoch(1, 3), *by_epoch(3, 4)], {}, "epoch"),
    ],
)
def test_what_a_log_counts_in(tmp_path, log, args, unit):
    run = read_run(write(tmp_path / "run", log=json.dumps(log), args=json.dumps(args)))
    assert run.unit == unit
    assert run.epochs.tolist() == sorted({entry[unit] for entry in log})


TWO_RUNS = "log is of 2 runs, one after the other: only the last counts, {} of {} entries"
RESUMED = "{} from before a resume left out, the later ones kept"


@pytest.mark.parametrize(
    ("parts", "epochs", "kept_from", "note"),
    [
        # Resumed from an older snapshot: what was done from there on does not count.
        ([(1, 3), (3, 4)], [1, 2, 3, 4], 3, RESUMED.format("1 entry")),
        ([(1, 5), (3, 4)], [1, 2, 3, 4], 3, RESUMED.format("3 entries")),
        ([(1, 5), (4, 5), (3, 6)], [1, 2, 3, 4, 5, 6], 3, RESUMED.format("5 entries")),
        # Another run was appended.
        ([(1, 5), (1, 3)], [1, 2, 3], 1, TWO_RUNS.format(3, 8)),
        ([(2, 5), (1, 3)], [1, 2, 3], 1, TWO_RUNS.format(3, 7)),
        # Nothing is wrong.
        ([(1, 3), (4, 5)], [1, 2, 3, 4, 5], 4, None),
    ],
)
def test_a_log_that_goes_back(tmp_path, parts, epochs, kept_from, note):
    log = [entry for i, part in enumerate(parts) for entry in by_epoch(*part, loss=i / 10)]
    run = read_run(write(tmp_path / "run", log=json.dumps(log)))
    assert run.epochs.tolist() == epochs
    assert run.notes == ((note,) if note else ())
    last = (len(parts) - 1) / 10
    assert (run.values(TRAIN_LOSS)[np.array(epochs) >= kept_from] == last).all()
    assert (run.values(TRAIN_LOSS)[np.array(epochs) < kept_from] == 0).all()


def test_an_appended_run_that_counts_in_other_steps_is_not_mixed_in(tmp_path):
    log = by_iteration(100, 600, 3) + by_iteration(200, 600, 3)
    run = read_run(write(tmp_path / "run", log=json.dumps(log)))
    assert run.epochs.tolist() == [200, 400, 600]
    assert run.notes == (TWO_RUNS.format(3, 6),)


@pytest.mark.parametrize("between", ["", "\n"])
def test_two_lists_in_one_file(tmp_path, between):
    first = json.dumps(by_epoch(1, 3))
    two = "log has 2 JSON lists, one after the other"
    run = read_run(
        write(tmp_path / "on", log=f"{first}{between}{json.dumps(by_epoch(4, 5))}{between}")
    )
    assert (run.epochs.tolist(), run.notes) == ([1, 2, 3, 4, 5], (two,))
    run = read_run(write(tmp_path / "anew", log=first + between + json.dumps(by_epoch(1, 5))))
    assert (run.epochs.tolist(), run.notes) == ([1, 2, 3, 4, 5], (two, TWO_RUNS.format(5, 8)))
    run = read_run(write(tmp_path / "cut", log=first + between + json.dumps(by_epoch(4, 5))[:-9]))
    assert run.epochs.tolist() == [1, 2, 3, 4]


def test_runs_that_were_set_aside_are_drawn_only_if_named(tmp_path, make_run):
    run = make_run(tmp_path)
    aside = [make_run(run / "earlier", seed=i) for i in (1, 2)]
    (tmp_path / "begun" / "earlier").mkdir(parents=True)
    (tmp_path / "begun" / ".lock").touch()
    make_run(tmp_path / "begun" / "earlier")
    assert find_result_folders([tmp_path], pytest.fail) == [run]
    assert find_result_folders([run / "earlier"], pytest.fail) == aside
    plain = make_run(tmp_path / "results" / "earlier")
    assert find_result_folders([tmp_path / "results"], pytest.fail) == [plain]


def test_folders_as_deep_as_they_can_be(tmp_path, make_run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good = make_run(tmp_path)
    depth = 2300
    for _ in range(depth):
        os.mkdir("d")
        os.chdir("d")
    notes: list[str] = []
    found = find_result_folders([tmp_path], notes.append)
    for _ in range(depth):  # pytest could not remove them
        os.chdir("..")
        os.rmdir("d")
    assert found == [good]
    assert len(notes) == 1 and "cannot be read (File name too long)" in notes[0]


def test_a_root_that_is_wrong_costs_a_note_beside_others(tmp_path, make_run):
    good = make_run(tmp_path / "good")
    notes: list[str] = []
    roots = [tmp_path / "good", tmp_path / "typo"]
    assert find_result_folders(roots, notes.append) == [good]
    assert notes == [f"{tmp_path / 'typo'}: no such folder; skipped"]
