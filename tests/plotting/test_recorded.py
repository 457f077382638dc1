"""Settings of the right types are taken as they are; others cost a note, and no more."""

import json

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mnist_bn.config import IDENTITY, RunConfig
from mnist_bn.plotting import recorded
from mnist_bn.plotting.results import read_run

OURS = RunConfig(dataset="mnist").to_args()


def parsed(args: dict) -> tuple[dict, list[str]]:
    notes: list[str] = []
    return recorded.parse(json.dumps(args), notes), notes


def test_what_training_records_is_taken_whole():
    args = OURS | {"lr": 0.1, "momentum": 0.9, "optimizer": "MomentumSGD", "lr_drop": "82,123"}
    args |= {"train_images": 5, "weight_decay": 1e-4, "study": "blog", "init_sha256": "0" * 64}
    args |= {"dataset_sha256": {"images": "0" * 64}, "versions": {"numpy": "2"}}
    assert parsed(args) == (args, [])


WRONG = [{}, [], [[1]], True, float("nan"), float("inf"), 10**400, "\x1b[31m" * 5000]


@pytest.mark.parametrize("value", WRONG, ids=lambda value: repr(value)[:9])
@pytest.mark.parametrize("field", [*IDENTITY, "study", "on_divergence", "init_sha256"])
def test_a_setting_of_another_type_is_as_one_not_recorded(field, value):
    args, notes = parsed(OURS | {field: value})
    if field == "init_sha256" and isinstance(value, str | dict):
        return  # any text will do
    assert field not in args
    assert [note for note in notes if note.startswith(f"{field} in args is of no usable value")]
    rest = {key for key in OURS if key != field}
    assert {key: args[key] for key in rest - {"lr", "momentum"}} == {
        key: OURS[key] for key in rest - {"lr", "momentum"}
    }


@pytest.mark.parametrize("field", ["batchsize", "epoch", "iteration", "train_images"])
@pytest.mark.parametrize("value", [-1, 0.5, "100", 10**13])
def test_a_count_that_is_none(field, value):
    assert field not in parsed(OURS | {field: value})[0]


@pytest.mark.parametrize(
    ("optimizer", "given", "rates"),
    [
        ("SGD", (None, None), (0.01, None)),
        ("MomentumSGD", (None, None), (0.01, 0.9)),
        ("MomentumSGD", (0.5, None), (0.5, 0.9)),
        ("Adam", (None, None), (0.001, None)),
        ("AdaDelta", (None, None), (None, None)),
        ("Unknown", (None, None), (None, None)),
        ("Unknown", (0.5, None), (0.5, None)),
        ("AdaDelta", (0.5, None), (0.5, None)),  # whatever that was
        ("net.py:Mine", (None, None), (None, None)),
        ("Adam(beta1=0.5)", (None, None), (0.001, None)),
        ("Adam(beta1=0.5)", (0.1, None), (0.1, None)),
        ("Adam(alpha=0.01)", (None, None), (0.01, None)),
        ("MomentumSGD(momentum=0.5)", (0.3, None), (0.3, 0.5)),
        ("Adam(alpha=", (None, None), (None, None)),
        (3, (None, None), (None, None)),
    ],
)
def test_an_older_folder_gets_the_rates_that_its_optimizer_had(optimizer, given, rates):
    lr, momentum = given
    args, notes = parsed({"optimizer": optimizer, "lr": lr, "momentum": momentum})
    assert ((args["lr"], args["momentum"]), notes) == (rates, [])


def test_an_older_folder_gets_the_name_that_its_optimizer_has_now():
    rates = {"lr": None, "momentum": None}
    names = [
        parsed({"optimizer": name, **rates})[0]["optimizer"]
        for name in ("Adam(alpha=0.01)", "Adam(alpha=0.01, beta1=0.5)", "mine.py:Adam(alpha=1)")
    ]
    assert names == ["Adam", "Adam(beta1=0.5)", "mine.py:Adam(alpha=1)"]


def test_settings_of_somebody_elses_program_get_no_rates():
    assert parsed({"optimizer": "Adam", "alpha": 0.1})[0] == {"optimizer": "Adam", "alpha": 0.1}


def test_no_file_that_args_names_is_run(tmp_path):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    for name in (f"{tmp_path / 'evil.py'}:Mine", "evil", f"{tmp_path / 'evil.py'}:Mine(lr=1)"):
        parsed({"optimizer": name, "lr": None, "momentum": None})
    assert not (tmp_path / "ran").exists()


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changed=st.dictionaries(st.sampled_from([*OURS, "run_id", "model_files"]), _json))
@example(changed={"study": {}})
@example(changed={"evaluate_every": {}, "unverified_data": [], "dataset_sha256": 3})
def test_whatever_is_in_args_what_is_read_can_be_told(tmp_path, changed):
    folder = tmp_path / "run"
    folder.mkdir(exist_ok=True)
    (folder / "args").write_text(json.dumps(OURS | changed))
    (folder / "log").write_text('[{"epoch": 1, "iteration": 10, "main/loss": 0.5}]')
    run = read_run(folder)
    for word in (run.name, run.model, run.optimizer, run.seed, run.dataset, run.study):
        assert word is None or (word.isprintable() and len(word) < 300)
