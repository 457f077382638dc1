"""`--observe`: what each observer measures, and that it changes nothing."""

import json
import random

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest

import models
from mnist_bn import observers, training
from mnist_bn.config import RunConfig
from mnist_bn.errors import UsageError, UserError
from mnist_bn.observers import dead_units, training_accuracy, weight_updates
from mnist_bn.observers.activation_percentiles import ActivationPercentiles
from mnist_bn.observers.dead_units import DeadUnits
from mnist_bn.observers.gradient_norms import GradientNorms
from mnist_bn.observers.probe import nonlinearity_inputs
from mnist_bn.observers.training_accuracy import TrainingAccuracy
from mnist_bn.observers.weight_updates import WeightUpdates
from mnist_bn.training import prepare

CPU = chainer.get_device("@numpy")
EVERY = (
    "dead-units,weight-updates,activation-percentiles,gradient-norms,training-accuracy,"
    "variance-shift,reestimated-bn"
)


@pytest.fixture
def config(tmp_path, tiny_data):
    return RunConfig(model="ReluMLP_BN", batchsize=20, epoch=2, out=str(tmp_path), observe=EVERY)


def measured(config, name):
    with np.load(prepare(config).folder / f"{name}.npz", allow_pickle=False) as npz:
        return dict(npz)


def parameters(config):
    with np.load(prepare(config).folder / "model.npz") as npz:
        return dict(npz)


def changed(config, **settings):
    return RunConfig(**{**config.to_args(), **settings})


def test_names_are_those_of_the_classes():
    assert set(EVERY.split(",")) < set(observers.observers())


def test_a_wrong_name_lists_the_right_ones():
    with pytest.raises(UsageError, match=r"^--observe dead-unit: choose from .*dead-units"):
        observers.check(["dead-unit"])


def test_files_hold_a_series_in_time(config):
    training.train(prepare(config))
    for name, series in ((name, measured(config, name)) for name in EVERY.split(",")):
        assert series["epoch"].tolist() == [1, 2], name
        assert series["iteration"].tolist() == [2, 4]
        assert len(series) > 2
        assert all(len(array) == 2 for array in series.values())


@pytest.mark.parametrize("model", ["ReluMLP_BN", "MnistCNN_BN_before"])
def test_observing_changes_no_bit_of_the_run(config, tmp_path, model):
    config = changed(config, model=model)
    training.train(prepare(config))
    alone = changed(config, observe=None, out=str(tmp_path / "alone"))
    training.train(prepare(alone))
    seen, unseen = parameters(config), parameters(alone)
    assert all(np.array_equal(seen[key], unseen[key]) for key in unseen)


class Noisy(chainer.Chain):
    """Draws random numbers in test mode too; its BN is of each position of each channel."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.conv1 = L.Convolution2D(1, 3, 5, stride=4)
            self.bnorm1 = L.BatchNormalization((3, 6, 6))
            self.l1 = L.Linear(108, 10)

    def forward(self, x):
        h = F.relu(self.bnorm1(self.conv1(F.reshape(x, (len(x), 1, 28, 28)))))
        with chainer.using_config("train", True):
            return self.l1(F.dropout(h, random.random()))


def test_observing_a_network_that_draws_random_numbers_when_tested_changes_none_of_them(
    config, tmp_path, monkeypatch
):
    monkeypatch.setattr(models, "networks", lambda: {"Noisy": Noisy})
    test_observing_changes_no_bit_of_the_run(config, tmp_path, "Noisy")


def test_what_was_measured_survives_a_snapshot(config):
    training.train(prepare(config))
    before = {name: measured(config, name) for name in EVERY.split(",")}
    weights = parameters(config)["l1/W"]
    longer = changed(config, epoch=3)
    training.train(prepare(longer), resume=prepare(config).folder / "snapshot_iter_4")
    for name, series in before.items():
        after = measured(longer, name)
        assert after["epoch"].tolist() == [1, 2, 3]
        assert after.keys() == series.keys()
        for key, array in series.items():
            assert np.array_equal(after[key][:2], array, equal_nan=array.dtype.kind == "f"), key
    # dW of the resumed epoch is what that epoch changed, not what all three did.
    update = (parameters(longer)["l1/W"] - weights).reshape(256, 28, 28)
    tiles = measured(longer, "weight-updates")["l1"]
    assert np.array_equal(tiles[2], weight_updates._scaled(update))


def test_they_measure_when_the_run_is_evaluated(config):
    config = changed(config, epoch=20, iteration=5, evaluate_every=2)
    training.train(prepare(config))
    assert measured(config, "gradient-norms")["iteration"].tolist() == [2, 4, 5]


def test_one_that_names_its_updates_measures_after_them(config, monkeypatch):
    """0 is the network as initialised, which a resumed run does not measure again."""
    monkeypatch.setattr(GradientNorms, "at", (0, 1, 3))
    config = changed(config, observe="gradient-norms", evaluate_every=4, frequency=1)
    training.train(prepare(config))
    series = measured(config, "gradient-norms")
    assert series["iteration"].tolist() == [0, 1, 3]
    assert series["epoch"].tolist() == [0, 0, 1]
    assert np.isnan(series["l1/W"][0])  # there has been no minibatch
    assert not np.isnan(series["l1/W"][1:]).any()
    folder = prepare(config).folder
    training.train(prepare(changed(config, epoch=3)), resume=folder / "snapshot_iter_2")
    longer = folder / "gradient-norms.npz"
    with np.load(longer) as again:
        assert again["iteration"].tolist() == [0, 1, 3]


def test_the_study_scaling():
    update = np.array([[[0.0, 1.0], [2.0, 4.0]], [[3.0, 3.0], [3.0, 3.0]]])
    scaled = weight_updates._scaled(update)
    assert scaled.dtype == np.uint8
    assert scaled[0].tolist() == [[0, 63], [127, 254]]
    assert not scaled[1].any()
    assert not weight_updates._scaled(update * np.nan).any()


def test_what_has_no_picture_is_one_line(config, tmp_path):
    net = tmp_path / "net.py"
    net.write_text(
        "import chainer, chainer.functions as F, chainer.links as L\n"
        "class Net(chainer.Chain):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        with self.init_scope():\n"
        "            self.l = L.Linear(392, 10)\n"
        "    def forward(self, x):\n"
        "        return self.l(x[:, ::2])\n"
    )
    with pytest.raises(UserError, match=r"^--observe weight-updates: expected a layer that looks"):
        training.train(prepare(changed(config, model=f"{net}:Net")))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("activation-percentiles", "expected a network with one of the nonlinearities ReLU, .*"),
        ("dead-units", "Net has nothing that it measures"),
    ],
)
def test_a_network_without_what_is_measured_is_one_line_and_no_file(
    config, tmp_path, name, message
):
    path = tmp_path / "net.py"
    path.write_text(
        "import chainer\n"
        "import chainer.functions as F\n"
        "class Net(chainer.Chain):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        with self.init_scope():\n"
        "            self.W = chainer.Parameter(0.0, (10, 784))\n"
        "    def forward(self, x):\n"
        "        return F.linear(x, self.W)\n"
    )
    with pytest.raises(UserError, match=f"^--observe {name}: {message}"):
        training.train(prepare(changed(config, model=f"{path}:Net", observe=name)))
    assert not list(tmp_path.rglob("*.npz"))


def relu_net_with_two_dead_units(dataset):
    """Unit 0 is never active, unit 1 only for the first image; both have no gradient now."""
    network = models.create("ReluMLP")
    network.l1.b.array[:] = 1
    network.l1.W.array[:2] = 0
    network.l1.b.array[:2] = -1
    first = dataset.train.images[0]
    others = dataset.train.images[1:] @ first
    network.l1.W.array[1] = first / (first @ first)
    network.l1.b.array[1] = -(others.max() / (first @ first) + 1) / 2
    network.cleargrads()
    return network


def test_a_layer_without_weights_as_yet_is_one_line(config, tmp_path):
    path = tmp_path / "net.py"
    path.write_text(
        "import chainer\n"
        "import chainer.links as L\n"
        "class Net(chainer.Chain):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        with self.init_scope():\n"
        "            self.l = L.Linear(None, 10)\n"
        "    def forward(self, x):\n"
        "        return self.l(x)\n"
    )
    with pytest.raises(UserError, match="--observe dead-units: expected layers of known input"):
        training.train(prepare(changed(config, model=f"{path}:Net", observe="dead-units")))


def test_dead_units_by_each_sign(tiny_data):
    network = relu_net_with_two_dead_units(tiny_data)
    observer = DeadUnits(tiny_data, CPU)
    observer._keep(network)
    loss = chainer.functions.softmax_cross_entropy(
        network(tiny_data.train.images[1:]), tiny_data.train.labels[1:]
    )
    loss.backward()
    for parameter in network.params():
        parameter.array -= parameter.grad
    series = observer.measure(network)
    assert np.flatnonzero(series["flat_update/l1"]).tolist() == [0, 1]
    assert np.flatnonzero(series["flat_gradient/l1"]).tolist() == [0, 1]
    assert not series["flat_update/l2"].any()
    assert series["never_positive/relu1"][0]
    assert not series["never_positive/relu1"][1]


def test_never_positive_is_over_all_batches(tiny_data, monkeypatch):
    network = relu_net_with_two_dead_units(tiny_data)
    observer = DeadUnits(tiny_data, CPU)
    whole = observer._never_positive(network)["relu1"]
    monkeypatch.setattr(dead_units, "BATCH", 7)
    assert np.array_equal(observer._never_positive(network)["relu1"], whole)
    assert whole.sum() == 1


def test_inputs_of_the_nonlinearities(tiny_data):
    x = tiny_data.test.images
    network = models.create("SigmoidMLP")
    found = nonlinearity_inputs(network, x, CPU)
    assert list(found) == ["sigmoid1", "sigmoid2", "sigmoid3"]
    binary = (x > 0.5).astype(np.float32)
    np.testing.assert_allclose(found["sigmoid1"], network.l1(binary).array, rtol=1e-5, atol=1e-6)
    leaky = nonlinearity_inputs(models.create("ReluMLP", slope=0.1), x, CPU)
    assert list(leaky) == ["leakyrelu1"]


def test_inputs_are_seen_in_fused_blocks_and_in_test_mode(tiny_data):
    network = models.create("MnistCNN_BN_before")
    before = network.bnorm1.avg_mean.copy()
    found = nonlinearity_inputs(network, tiny_data.test.images, CPU)
    shapes = {name: x.shape for name, x in found.items()}
    assert shapes == {
        "relu1": (20, 16, 26, 26),
        "relu2": (20, 32, 11, 11),
        "relu3": (20, 64, 4, 4),
        "relu4": (20, 512),
    }
    assert np.array_equal(network.bnorm1.avg_mean, before)


def test_percentiles_of_each_unit(tiny_data):
    network = models.create("SigmoidMLP_BN")
    x = nonlinearity_inputs(network, tiny_data.test.images, CPU)["sigmoid2"]
    series = ActivationPercentiles(tiny_data, CPU).measure(network)
    assert series["sigmoid2"].shape == (3, 100)
    np.testing.assert_allclose(series["sigmoid2"][1], np.median(x, axis=0), rtol=1e-5)
    np.testing.assert_allclose(series["sigmoid2"][2, 5], np.percentile(x[:, 5], 85), rtol=1e-5)
    cnn = ActivationPercentiles(tiny_data, CPU).measure(models.create("MnistCNN"))
    assert cnn["relu1"].shape == (3, 16)


def test_gradient_norms(tiny_data):
    network = models.create("ReluMLP")
    network.cleargrads()
    network.l1.W.grad = np.full_like(network.l1.W.array, 1e30)
    norms = GradientNorms(tiny_data, CPU).measure(network)
    assert sorted(norms) == ["l1/W", "l1/b", "l2/W", "l2/b"]
    assert norms["l1/W"] == pytest.approx(1e30 * (784 * 256) ** 0.5)
    assert np.isnan(norms["l2/b"])


def test_training_accuracy_is_of_the_first_training_images_in_test_mode(tiny_data, monkeypatch):
    class Net(chainer.Chain):
        """Right in test mode alone, and there for all but the first three images."""

        def forward(self, x):
            labels = tiny_data.train.labels[self.seen : self.seen + len(x)].copy()
            labels[: max(0, 3 - self.seen)] += 1
            self.seen += len(x)
            scores = np.eye(11, dtype=np.float32)[labels]
            return chainer.Variable(np.zeros_like(scores) if chainer.config.train else scores)

    network = Net()
    observer = TrainingAccuracy(tiny_data, CPU)
    for images, batch, expected in ((1000, 500, 37 / 40), (10, 4, 7 / 10)):
        monkeypatch.setattr(training_accuracy, "IMAGES", images)
        monkeypatch.setattr(training_accuracy, "BATCH", batch)
        network.seen = 0
        assert observer.measure(network) == {"accuracy": expected}


def test_nothing_measured_writes_nothing(tiny_data, tmp_path):
    observer = WeightUpdates(tiny_data, CPU)
    observer._path = tmp_path / "weight-updates.npz"
    observer.finalize()
    assert not list(tmp_path.iterdir())


def test_an_observer_that_the_snapshot_lacks_is_one_line(config):
    alone = changed(config, observe="gradient-norms")
    training.train(prepare(alone))
    snapshot = prepare(alone).folder / "snapshot_iter_4"
    with pytest.raises(UserError, match=r"snapshot_iter_4: --observe dead-units: the snapshot is"):
        training.train(prepare(changed(config, epoch=3)), resume=snapshot)


def test_a_run_that_starts_anew_leaves_no_series_of_another(config):
    training.train(prepare(config))
    training.train(prepare(changed(config, observe=None)))
    folder = prepare(config).folder
    assert [path.name for path in folder.glob("*.npz")] == ["model.npz"]


@pytest.mark.parametrize("sampling", ["shuffle", "replacement"])
def test_resumed_between_two_evaluations_a_run_is_as_if_never_stopped(config, tmp_path, sampling):
    # Evaluated at 4, 8 and 11; an epoch has 5 iterations, so the snapshot of 10 is between two.
    settings = {"iteration": 11, "evaluate_every": 4, "frequency": 1, "batchsize": 8}
    whole = changed(config, sampling=sampling, **settings)
    training.train(prepare(whole))
    resumed = changed(whole, out=str(tmp_path / "resumed"))
    training.train(prepare(resumed), resume=prepare(whole).folder / "snapshot_iter_10")
    logs = [json.loads((prepare(c).folder / "log").read_text()) for c in (whole, resumed)]
    for entry in logs[0] + logs[1]:
        del entry["elapsed_time"]
    assert logs[0] == logs[1]
    for name in (*EVERY.split(","), "model"):
        seen, again = measured(whole, name), measured(resumed, name)
        assert seen.keys() == again.keys()
        for key, array in seen.items():
            assert np.array_equal(array, again[key], equal_nan=array.dtype.kind == "f"), key
    assert measured(resumed, "gradient-norms")["iteration"].tolist() == [4, 8, 11]
