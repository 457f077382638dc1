"""Each setting is declared once, and all that there is of it follows."""

import csv
import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest

import train_mnist
from mnist_bn import devices
from mnist_bn.config import RATES, SETTINGS, RunConfig
from mnist_bn.errors import UsageError
from mnist_bn.plotting import partition, tables
from mnist_bn.plotting.groups import group_runs
from mnist_bn.plotting.results import VALIDATION_ACCURACY, read_run
from mnist_bn.storage.identity import difference
from mnist_bn.terminal import settings_page
from mnist_bn.training import prepare

ROOT = Path(__file__).parents[1]
every_setting = pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)

# Values of the settings that take any text, and a file for `init`.
TEXTS = {
    "model": "MnistCNN",
    "optimizer": "SGD",
    "lr_drop": "3",
    "device": "@cupy:1",
    "threads": "3",
}
TEXTS |= {"study": "blog", "observe": "dead-units"}
# What an unknown name is to settings that take a path, in which any letter may stand.
WRONG_TEXT = "no such\0"


@pytest.fixture
def config(tmp_path):
    return RunConfig(dataset="cifar10", out=str(tmp_path))


@pytest.fixture
def another(config, tmp_path):
    """Returns `config` with another value of a setting."""

    def make(setting, number=0.5):
        before = getattr(config, setting.name)
        if setting.check and setting.check.choices:
            value = next(choice for choice in setting.check.choices[1:] if choice != before)
        elif setting.kind is str:
            value = TEXTS.get(setting.name, str(tmp_path / "another"))
            Path(tmp_path / "another").write_text("another")
        else:
            value = {bool: True, int: 7, float: number}[setting.kind]
        assert value != before
        return dataclasses.replace(config, **{setting.name: value})

    return make


@pytest.fixture(scope="module")
def printed():
    """The words of `--help` on a terminal of 80 columns."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        patch.setenv("COLUMNS", "80")
        patch.setattr("sys.stdout", text := io.StringIO())
        train_mnist.parse_arguments(["--help"])
    assert max(map(len, text.getvalue().splitlines())) <= 80
    return " ".join(text.getvalue().split())


@every_setting
def test_it_is_in_the_help_with_its_default(setting, printed):
    help = f"{setting.text} (default {setting.usual})" if setting.usual else setting.text
    flags = [setting.flag, f"-{setting.short}"] if setting.short else [setting.flag]
    assert help and f" {help} " in f"{printed} "
    assert all(f" {flag} " in printed.replace(",", " ") for flag in flags)
    assert setting.default is None or setting.kind is bool or f"default {setting.default})" in help


@every_setting
def test_the_command_line_reaches_it(setting, another):
    value = getattr(another(setting), setting.name)
    line = [setting.flag] if setting.kind is bool else [setting.flag, str(value)]
    arguments = train_mnist.flags.given(train_mnist.parse_arguments(line))
    assert arguments[setting.name] == ([value] if setting.axis else value)
    assert arguments.keys() <= {setting.name, "study"}


@every_setting
def test_a_wrong_value_is_one_line(setting):
    wrong = {int: -5, float: -5.0, str: WRONG_TEXT}.get(setting.kind)
    if setting.name == "tensorboard":
        return  # a flag that goes with everything has none
    if setting.kind is bool:
        wrong = True  # without the dataset that it goes with
    with pytest.raises(UsageError) as error:
        value = [wrong] if setting.axis or setting.several else wrong
        arguments = vars(train_mnist.parse_arguments([])) | {setting.name: value}
        train_mnist.make_configs(train_mnist.argparse.Namespace(**arguments))
    line = str(error.value)
    assert "\n" not in line and (setting.flag in line or f"no {setting.name} named" in line)


@every_setting
@pytest.mark.parametrize("value", [[], {}, 1j])
def test_a_value_of_another_kind_is_one_line(setting, value):
    with pytest.raises(UsageError, match=f"args: a setting has the wrong type .{setting.name} "):
        RunConfig.from_args({setting.name: value})


@every_setting
def test_it_is_recorded(setting, another):
    args = json.loads(json.dumps(another(setting).to_args()))
    assert args[setting.name] == getattr(another(setting), setting.name)
    assert RunConfig.from_args(args) == another(setting)


@every_setting
def test_runs_are_two_if_their_numbers_depend_on_it(setting, config, another):
    now = another(setting)
    assert (config.identity() != now.identity()) == setting.numbers
    assert (config.name != now.name) == (setting.numbers and not setting.length)
    words = difference(config.identity(), now.identity())
    assert (words is not None) == (setting.numbers and not setting.length)
    assert words is None or setting.name in words


def test_no_two_settings_say_the_same_in_the_name_of_a_folder(another):
    words = []
    for setting in SETTINGS.values():
        if setting.prefix is not None:
            choices = setting.check.choices if setting.check else ()
            values = [getattr(another(setting), setting.name), *choices]
            words += {f"{setting.prefix}{value}" for value in values if value != setting.default}
    assert len(set(words)) == len(words)


@pytest.fixture
def write_run(tmp_path):
    """Returns the run of a result folder as `training` would leave it."""

    def write(config, seed):
        folder = tmp_path / f"run-{seed}"
        folder.mkdir()
        config = config if config.seed else dataclasses.replace(config, seed=seed)
        (folder / "args").write_text(json.dumps(config.to_args() | config.identity()))
        entry = {"epoch": 7, "iteration": 7, VALIDATION_ACCURACY: 0.5}
        (folder / "log").write_text(json.dumps([entry]))
        return read_run(folder)

    return write


@every_setting
def test_the_summary_has_it_if_the_numbers_depend_on_it(setting, another, write_run):
    (row,) = csv.DictReader(io.StringIO(tables.summary([write_run(another(setting), 1)])))
    # Of the length there is what the run has done of it, and a study is a name.
    column = f"{setting.name}s" if setting.length else setting.key
    assert (column in row) == (setting.numbers or setting.name == "study")
    if column in row:
        assert row[column] == str(getattr(another(setting), setting.key))


@every_setting
def test_a_figure_has_it_apart_if_the_numbers_depend_on_it(setting, config, another, write_run):
    runs = [write_run(config, 1), write_run(another(setting), 2)]
    parts = partition.parts(runs)
    curves = [curve for part in parts for curve in group_runs(part.runs)]
    is_apart = setting.numbers and setting.name not in ("seed", "epoch")
    # A study has figures of its own, and unverified images are others.
    is_apart |= setting.name in ("study", "unverified_data")
    assert len(curves) == 1 + is_apart
    by_itself = {*RATES, "optimizer"} & {setting.name}
    if setting.label is not None and not by_itself:
        assert any(curve.variant.startswith(f"{setting.label} ") for curve in curves)


@every_setting
def test_a_run_of_before_there_was_the_setting_had_its_default(setting, config, write_run):
    before = {key: value for key, value in config.to_args().items() if key != setting.name}
    now = dataclasses.replace(config, **{setting.name: setting.default})
    assert RunConfig.from_args(before) == now
    if setting.name != "optimizer":  # on which the learning rate depends
        assert difference(before, now.identity()) is None
    if setting.label is not None and setting.name not in ("batchsize", *RATES):  # always recorded
        runs = [write_run(config, seed) for seed in (1, 2)]
        del runs[0].args[setting.key]
        assert len(group_runs(runs)) == 1


@every_setting
def test_the_page_has_it(setting):
    lines = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in lines if f"`{setting.flag}` |" in line)
    assert setting.text in line and f" | {'yes' if setting.numbers else 'no'} | " in line


def test_the_page_is_up_to_date():
    written = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert written == settings_page.text(), "run `make docs`"


@pytest.mark.parametrize(
    ("given", "recorded"),
    [
        ("0", "@cupy:0"),
        ("2", "@cupy:2"),
        ("@cupy", "@cupy:0"),
        ("@cupy:1", "@cupy:1"),
        ("-1", "@numpy"),
        ("@numpy", "@numpy"),
    ],
)
def test_a_device_is_recorded_in_its_long_form(given, recorded, tiny_data, monkeypatch):
    assert devices.normalized(given) == recorded
    there = devices.resolve("@numpy")
    monkeypatch.setattr(devices, "resolve", lambda specifier: there)  # there may be no GPU
    resolved = prepare(RunConfig(dataset="mnist", device=given, batchsize=8)).config
    assert resolved.device == recorded


def test_a_number_of_numpy_is_a_number():
    assert RunConfig(seed=np.int64(3), lr=np.float64(1)) == RunConfig(seed=3, lr=1)
