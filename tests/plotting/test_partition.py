"""What cannot share a figure is apart, what can is together, and each part has its own name."""

import json

import pytest

from mnist_bn import studies
from mnist_bn.errors import UsageError
from mnist_bn.plotting import partition
from mnist_bn.plotting.results import read_runs


def parts(root) -> dict[str, list[str]]:
    """The names of the parts, and of each the folders of its runs."""
    every = partition.parts(read_runs([root], pytest.fail), studies.has_preset)
    return {part.name: [run.folder.name for run in part.runs] for part in every}


def stock(folder, entries, by_iteration=False) -> str:
    """A log without `args`; returns the folder's name."""
    folder.mkdir(parents=True)
    log = entries("MnistCNN", "SGD", 0, 4)
    if by_iteration:
        log = [entry | {"epoch": 1} for entry in log]
    (folder / "log").write_text(json.dumps(log))
    return folder.name


@pytest.mark.parametrize(
    ("one", "other", "names"),
    [
        ({}, {"dataset": "digits"}, ["digits", "mnist"]),
        ({}, {"semantics": "2016"}, ["mnist", "mnist-2016"]),
        ({}, {"evaluate_every": 600}, ["mnist", "mnist-iterations"]),
        ({}, {"study": "blog"}, ["mnist", "blog"]),
        ({"study": "blog"}, {"study": "exercise"}, ["blog", "exercise"]),
        ({"study": "blog"}, {"study": "blog", "dataset": "digits"}, ["blog-digits", "blog"]),
        ({}, {"study": "no study of ours"}, ["mnist", "no_study_of_ours"]),
        ({}, {"dataset": "../../escaped"}, ["_.._escaped", "mnist"]),
        ({"dataset": "log"}, {"dataset": ".."}, ["_", "log-runs"]),
        ({"dataset": "Mnist"}, {"dataset": "mnist"}, ["Mnist", "mnist-2"]),
        ({"study": "blog"}, {"dataset": "blog"}, ["blog", "blog-2"]),
    ],
)
def test_what_cannot_share_a_figure_is_apart(tmp_path, make_run, one, other, names):
    folders = [make_run(tmp_path, seed=seed, **one).name for seed in (0, 1)]
    folders.append(make_run(tmp_path, **other).name)
    found = parts(tmp_path)
    assert list(found) == names
    assert sorted(found.values(), key=len) == [folders[2:], folders[:2]]


def test_no_two_parts_have_one_name(tmp_path, make_run):
    for settings in ({"study": "blog"}, {"dataset": "blog"}, {"dataset": "BLOG-2"}):
        make_run(tmp_path, **settings)
    names = list(parts(tmp_path))
    assert len({name.casefold() for name in names}) == len(names) == 3


def test_settings_that_share_a_figure_are_together(tmp_path, make_run):
    for setting in ({}, {"optimizer": "Adam"}, {"batchsize": 7}, {"lr": 0.1}, {"epochs": 5}):
        make_run(tmp_path, **setting)
    assert [len(runs) for runs in parts(tmp_path).values()] == [5]


def test_presets_that_have_a_folder_each_are_apart(tmp_path, make_run):
    for preset in ("cpu", "full", "elsewhere"):
        make_run(tmp_path / preset, study="understanding-bn", dataset="cifar10")
    assert list(parts(tmp_path)) == [
        "understanding-bn",
        "understanding-bn-cpu",
        "understanding-bn-full",
    ]


def test_what_is_not_recorded_goes_where_alone_it_can(tmp_path, make_run, entries):
    plain = make_run(tmp_path).name
    found = {stock(tmp_path / "stock", entries), plain}
    assert [set(runs) for runs in parts(tmp_path).values()] == [found]
    by_iteration = stock(tmp_path / "by-iteration", entries, by_iteration=True)
    make_run(tmp_path / "study", study="blog")
    assert {name: set(runs) for name, runs in parts(tmp_path).items()} == {
        "not-recorded": {by_iteration},
        "mnist": found,
        "blog": {"MnistCNN-SGD-0-s0"},
    }


def test_what_could_go_with_several_is_alone(tmp_path, make_run, entries):
    for dataset in ("mnist", "digits"):
        make_run(tmp_path, dataset=dataset)
    stocks = [stock(tmp_path / name, entries) for name in ("a", "b")]
    assert parts(tmp_path)["not-recorded"] == stocks


@pytest.mark.parametrize("swap", [False, True])
def test_runs_that_recorded_less_never_join_two_that_are_apart(tmp_path, make_run, swap):
    settings = [{"dataset": None}, {"dataset": None, "semantics": "2016"}, {"semantics": None}]
    for setting in reversed(settings) if swap else settings:
        make_run(tmp_path, **setting)
    for part in partition.parts(read_runs([tmp_path], pytest.fail), studies.has_preset):
        assert len({run.semantics for run in part.runs} - {None}) <= 1


def test_in_words_what_parts_differ_in(tmp_path, make_run):
    make_run(tmp_path)
    make_run(tmp_path, dataset="digits", evaluate_every=600)
    make_run(tmp_path, study="blog")
    every = partition.parts(read_runs([tmp_path], pytest.fail), studies.has_preset)
    assert partition.differences(every) == "study, dataset and epochs or iterations"
    assert partition.differences(every[1:]) == "study"


def test_runs_are_selected(tmp_path, make_run):
    make_run(tmp_path)
    make_run(tmp_path, semantics="2016")
    runs = read_runs([tmp_path], pytest.fail)
    assert partition.select(runs) == runs
    assert partition.select(runs, "2016", "mnist") == [
        run for run in runs if run.semantics == "2016"
    ]
    with pytest.raises(UsageError) as caught:
        partition.select(runs, dataset="cifar")
    assert str(caught.value) == "--dataset cifar: no such run; the runs' dataset: 2 mnist"
