"""A snapshot with a right checksum that says what cannot be is one line, and never a traceback."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mnist_bn import training
from mnist_bn.config import RunConfig
from mnist_bn.errors import UserError
from mnist_bn.storage import snapshots
from mnist_bn.trainer import signals
from mnist_bn.training import prepare

pytestmark = pytest.mark.usefixtures("no_plots")

PREFIX = "updater/"
OPTIMIZER, ITERATOR = f"{PREFIX}optimizer:main/", f"{PREFIX}iterator:main/"


@pytest.fixture
def config(tmp_path, tiny_data):
    """Five iterations of eight images."""
    return RunConfig(
        model="ExerciseMLP_BN", batchsize=8, epoch=1, dataset="mnist", out=str(tmp_path),
        observe="training-accuracy",
    )  # fmt: skip


@pytest.fixture
def snapshot(config):
    """The snapshot of a whole run."""
    training.train(prepare(config))
    return snapshots.read(config.folder / "snapshot_iter_5")


def with_arrays(snapshot, **changed):
    names = {key.replace("__", "/").replace("--", ":"): value for key, value in changed.items()}
    assert set(names) <= set(snapshot.arrays)
    return snapshot._replace(arrays={**snapshot.arrays, **names})


def load(snapshot, config):
    np.random.seed(0)
    snapshots.load(snapshot, training.build_trainer(prepare(config)))


def test_what_is_right_is_loaded(snapshot, config):
    load(snapshot, config)


SAYS = {
    f"{OPTIMIZER}t": [-5, 6, 2.0, [5]],
    f"{OPTIMIZER}predictor/l1/W/t": [-5, 99, np.nan],
    f"{OPTIMIZER}epoch": [-1, 2**40],
    f"{PREFIX}iteration": [-5, 2**60, 5.0, 6, "five"],
    f"{ITERATOR}epoch": [-1, 0, 2**62, 1.5, [1]],
    f"{ITERATOR}current_position": [-8, 40, 8, 2**62, np.nan],
    f"{ITERATOR}is_new_epoch": [False, 7],
    f"{ITERATOR}previous_epoch_detail": [np.nan, np.inf, -7.0, 0.5],
    f"{ITERATOR}order": [
        np.zeros(40, int), np.arange(40) - 1, np.arange(41), np.arange(40.0), 3,
    ],
    "stop_trigger/previous_iteration": [-2, 10**9, 1.5],
    "stop_trigger/previous_epoch_detail": [np.nan, -2.0, "x"],
    "_snapshot_elapsed_time": [np.nan, -1.0, np.inf, "long", [1.0]],
    "mnist_bn/random/python": [np.zeros(625, np.int64), np.zeros(3, np.uint32),
                               np.full(625, 625, np.uint32)],
    "mnist_bn/random/numpy": [np.zeros(624), np.zeros(1, np.uint32)],
    f"{PREFIX}model:main/predictor/l1/W": [0.0, np.zeros((1, 784), "f4"), np.zeros((40, 784))],
    f"{OPTIMIZER}predictor/l1/W/m": [0.0, np.zeros((1, 784), "f4"), np.zeros((40, 784))],
    "extensions/LogReport/_log": [
        "5", "[5]", '[{"epoch": "x"}]', "[[", '[{"epoch": 1}]', "[" * 10**5, '{"a": 1}',
        '[{"epoch": 1, "iteration": 5, "elapsed_time": 1, "main/loss": []}]',
        '[{"epoch": 1, "iteration": 5, "elapsed_time": 1, "diverged_at": 4}]', 3,
    ],
    "extensions/LogReport/_names": ["5", "[5]", '["a"]', "{"],
    "extensions/Divergence/state": [
        "5", "[5]", '[{"iteration": "x", "value": 1}, 0, false]', "[null, null, 0, 0]", 1.0,
        '[{"iteration": 1}, 0, false]', '[null, "x", false]',
    ],
    "extensions/training-accuracy/series/names": ["5", '["epoch"]', '["a", "b", "c"]', "[" * 10**5],
    "extensions/training-accuracy/series/1": [3, np.arange(2), ["x"], np.zeros((1, 1))],
    "extensions/training-accuracy/series/2": [0.5, np.arange(2)],
}  # fmt: skip


@pytest.mark.parametrize("name", SAYS)
def test_what_cannot_be_is_one_line(snapshot, config, name):
    assert name in snapshot.arrays
    for value in SAYS[name]:
        bad = {**snapshot.arrays, name: np.asarray(value)}
        with pytest.raises(UserError, match=f"^{snapshot.path}: ") as caught:
            load(snapshot._replace(arrays=bad), config)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 500, value


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pos", 10**6), ("pos", -1), ("pos", 1.5), ("pos", None), ("has_gauss", 7),
        ("gauss", float("nan")), ("gauss", "x"), ("bit_generator", "PCG64"), ("bit_generator", 3),
    ],
)  # fmt: skip
def test_a_random_state_that_is_none_is_one_line(snapshot, config, key, value):
    """NumPy would read beyond the end of its state."""
    snapshot.header["random"]["numpy"][key] = value
    with pytest.raises(UserError, match=f"^{snapshot.path}: "):
        load(snapshot, config)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("random", None), ("random", {"python": [3, None]}), ("none", 3), ("none", None),
        ("none", ["updater/iteration"]),
        ("observation", "x"), ("observation", ["a"]), ("observation", ["main/loss"]),
        ("observation", [["main/loss"]]), ("optimizer", 3), ("optimizer", {"": 3}),
        ("optimizer", {"": {"t": [1]}}), ("optimizer", {"/predictor/l1/W": {"enabled": None}}),
    ],
)  # fmt: skip
def test_a_header_that_is_none_is_one_line(snapshot, config, key, value):
    snapshot.header[key] = value
    with pytest.raises(UserError, match=f"^{snapshot.path}: "):
        load(snapshot, config)


@pytest.mark.parametrize("unit", ["epoch", "iteration"])
@pytest.mark.parametrize("length", [0, -1, 1.5, True, "1", [1], {}])
def test_a_length_that_is_none_is_one_line(snapshot, config, unit, length):
    snapshot.header["identity"][unit] = length
    with pytest.raises(UserError, match=f"^{snapshot.path}: damaged: expected its run's {unit}"):
        load(snapshot, config)


def test_a_link_under_two_names_is_updated_twice_a_step(tmp_path, tiny_data):
    """As Chainer does it, which asks a network for its parameters name by name."""
    net = tmp_path / "net.py"
    net.write_text(
        "import chainer, chainer.links as L\n"
        "class Net(chainer.Chain):\n"
        "    def __init__(self):\n"
        "        super().__init__(a=L.Linear(784, 10))\n"
        "        with self.init_scope():\n"
        "            self.b = self.a\n"
        "    def forward(self, x):\n"
        "        return self.b(x)\n"
    )
    config = RunConfig(model=f"{net}:Net", epoch=1, batchsize=8, dataset="mnist", out=str(tmp_path))
    training.train(prepare(config))
    snapshot = snapshots.found(config.folder)[0]
    taken = snapshots.read(snapshot)
    steps = f"{OPTIMIZER}predictor/b/W/t"
    assert taken.arrays[steps] == 2 * snapshots.iteration(snapshot)
    load(taken, config)
    with pytest.raises(UserError, match=f"expected {steps} to be between 0 and 10, found 11"):
        load(taken._replace(arrays={**taken.arrays, steps: np.asarray(11)}), config)


def test_with_replacement_images_may_be_drawn_twice(config, snapshot):
    order = {f"{ITERATOR}order": np.zeros(40, int)}
    bad = snapshot._replace(arrays={**snapshot.arrays, **order})
    with pytest.raises(UserError, match="order to be every image once"):
        load(bad, config)
    snapshots.snapshot_check.check(
        bad.arrays,
        training.build_trainer(
            prepare(RunConfig(**{**config.to_args(), "sampling": "replacement"}))
        ),
    )


values = st.one_of(
    st.sampled_from([-5, 0, 2**62, 1.5, float("nan"), float("inf"), "", "x", "[]", "null", True]),
    st.sampled_from(["u1", "i8", "f2", "f8", "?", "<U1"]).flatmap(
        lambda dtype: st.sampled_from([(), (0,), (1,), (3, 2)]).map(lambda s: np.ones(s, dtype))
    ),
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_array_may_hold_anything(snapshot, config, data):
    name = data.draw(st.sampled_from(sorted(set(snapshot.arrays) - {snapshots._HEADER})))
    value = np.asarray(data.draw(values))
    bad = snapshot._replace(arrays={**snapshot.arrays, name: value})
    trainer = training.build_trainer(prepare(config))
    try:
        snapshots.load(bad, trainer)
        trainer.get_extension("LogReport").write(trainer)
        trainer.updater.update()
        snapshots.finish_iteration(bad, trainer)
        trainer.get_extension("training-accuracy")(trainer)
        trainer.get_extension("training-accuracy").finalize()
        json.loads((config.folder / "log").read_bytes())
    except UserError as error:
        assert "\n" not in str(error)


def test_a_signals_snapshot_has_what_is_checked(config, monkeypatch):
    """The control of the tests of the observation: that of a run that was stopped is right."""
    monkeypatch.setattr(signals, "requested", lambda: 15)
    with pytest.raises(signals.Stopped):
        training.train(prepare(config))
    (path,) = snapshots.found(config.folder)
    load(snapshots.read(path), config)
