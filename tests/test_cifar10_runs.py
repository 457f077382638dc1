"""Runs on CIFAR-10 from the command to the figure, with a few made images and a user's network."""

import dataclasses
import json

import numpy as np
import pytest

import plot_results
import train_mnist
from mnist_bn import data, training
from mnist_bn.config import RunConfig
from mnist_bn.errors import UsageError
from mnist_bn.storage import snapshots
from mnist_bn.trainer import schedule
from mnist_bn.training import prepare

pytestmark = pytest.mark.usefixtures("no_plots")

NETWORK = """
import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np

class Net(chainer.Chain):
    def __init__(self):
        super().__init__()
        self.add_persistent("mean", np.zeros((3, 1, 1), np.float32))
        with self.init_scope():
            self.conv = L.Convolution2D(3, 4, 5, stride=4)
            self.bnorm = L.BatchNormalization(4)
            self.out = L.Linear(None, 10)

    def fit_input(self, images):
        self.mean[...] = images.mean((0, 2, 3), keepdims=True)[0]

    def forward(self, x):
        return self.out(F.dropout(F.relu(self.bnorm(self.conv(x - self.mean))), 0.1))
"""


def made_records(rng, count):
    """Images whose brightest rows say their label."""
    images = rng.randint(0, 100, (count, 3, 32, 32))
    labels = np.arange(count) % 10
    for image, label in zip(images, labels, strict=True):
        image[:, 3 * label : 3 * label + 3] += 150
    return np.concatenate([labels[:, None], images.reshape(count, -1)], axis=1).astype(np.uint8)


@pytest.fixture
def config(tmp_path, monkeypatch):
    rng = np.random.RandomState(0)
    folder = tmp_path / "cifar"
    folder.mkdir()
    for name, count in (("data_batch_1", 30), ("data_batch_3", 20), ("test_batch", 12)):
        (folder / f"{name}.bin").write_bytes(made_records(rng, count).tobytes())
    (tmp_path / "net.py").write_text(NETWORK)
    monkeypatch.setattr(data, "_kept", {})
    return RunConfig(
        model=f"{tmp_path}/net.py:Net",
        optimizer="MomentumSGD",
        lr=0.1,
        dataset="cifar10",
        data_dir=str(folder),
        unverified_data=True,
        batchsize=8,
        epoch=3,
        out=str(tmp_path / "result"),
        train_images=40,
        holdout=10,
        augment="crop-flip",
        weight_decay=0.01,
        lr_drop="1,2",
    )


def ending(config):
    """The final parameters and the log, but for the times."""
    folder = prepare(config).folder
    log = json.loads((folder / "log").read_bytes())
    with np.load(folder / "model.npz") as npz:
        parameters = {name: npz[name].tobytes() for name in npz}
    return parameters, [{k: v for k, v in entry.items() if k != "elapsed_time"} for entry in log]


def flags(config):
    """The command line that gives `config`."""
    return [
        *("--model", config.model, "--optimizer", config.optimizer, "--lr", "0.1", "-b", "8"),
        *("--dataset", "cifar10", "--data-dir", config.data_dir, "--unverified-data"),
        *("--train-images", "40", "--holdout", "10", "--augment", "crop-flip", "-e", "3"),
        *("--weight-decay", "0.01", "--lr-drop", "1,2", "-o", config.out),
    ]


def test_from_the_command_to_the_figure(config, capsys, tmp_path):
    assert train_mnist.main(flags(config)) == 0
    assert capsys.readouterr().out.startswith(
        f"Dataset cifar10-unverified: 40 training and 10 test images, from {config.data_dir} (not "
        "verified to be the official images: every result is labelled so; evaluated on training "
        "images held out, not on the test images)\n"
    )
    resolved = prepare(config).config
    assert resolved.folder.name == (
        "Net-MomentumSGD-cifar10-unverified-lr0.1-b8-crop-flip-wd0.01-drop1,2-train40-holdout10-s0"
    )
    args = json.loads((resolved.folder / "args").read_bytes())
    assert RunConfig.from_args(args) == resolved
    assert list(args["dataset_sha256"]) == [
        "data_batch_1.bin",
        "data_batch_3.bin",
        "test_batch.bin",
    ]

    assert plot_results.main([config.out, "--format", "svg"]) == 0
    printed = capsys.readouterr()
    conditions = (
        "CIFAR-10 images that are not the official bytes (unverified)  ·  evaluated in test mode  ·"
        "  first 40 training images  ·  evaluated on 10 training images held out"
    )
    assert f"{conditions}.\n" in printed.out
    figure = (resolved.folder.parent / "figures" / "runs.svg").read_text()
    assert all(condition in figure for condition in conditions.split("  ·  "))

    assert train_mnist.main(flags(config)) == 0
    assert "The run is finished already: skipped" in capsys.readouterr().out


@pytest.mark.parametrize("iteration", [3, 5, 12])  # in an epoch, at the end of one, after a drop
def test_resuming_gives_the_bits_of_a_run_that_was_never_stopped(
    config, monkeypatch, tmp_path, iteration
):
    monkeypatch.setattr(schedule, "is_snapshot_due", lambda t, _: t.updater.iteration == iteration)
    training.train(prepare(config))
    snapshot = prepare(config).folder / f"snapshot_iter_{iteration}"
    resumed = dataclasses.replace(config, out=str(tmp_path / "resumed"))
    training.train(prepare(resumed), resume=snapshot)
    assert ending(resumed) == ending(config)


@pytest.mark.parametrize(
    "setting",
    [{"augment": "none"}, {"weight_decay": None}, {"lr_drop": None}, {"train_images": 32}],
)
def test_every_setting_changes_the_numbers(config, setting):
    """An option that did nothing would not."""
    training.train(prepare(config))
    other = dataclasses.replace(config, **setting)
    training.train(prepare(other))
    assert ending(other)[0] != ending(config)[0]


def test_evaluation_is_of_the_images_as_they_are(config):
    """Also of those held out, which are training images."""
    trainer = training.build_trainer(prepare(config))
    trainer.run()
    network = trainer.updater.get_optimizer("main").target.predictor
    dataset = training.load_dataset(config)
    with training.chainer.using_config("train", False):
        scores = network(dataset.test.images).array
    # Evaluator takes the mean of the batches' means: of 8 and of 2 images.
    right = scores.argmax(axis=1) == dataset.test.labels
    expected = (right[:8].mean() + right[8:].mean()) / 2
    log = trainer.get_extension("LogReport").log
    assert log[-1]["validation/main/accuracy"] == pytest.approx(expected, abs=1e-6)


def test_fit_input_sees_the_training_images_and_is_kept(config):
    images = training.load_dataset(config).train.images
    assert images.shape == (40, 3, 32, 32)
    training.train(prepare(config))
    folder = prepare(config).folder
    with np.load(folder / "model.npz") as npz:
        np.testing.assert_allclose(npz["mean"], images.mean((0, 2, 3), keepdims=True)[0])
        fitted = npz["mean"]
    # What --init and a snapshot hold counts, whatever the images.
    other = dataclasses.replace(config, train_images=20, init=str(folder / "model.npz"))
    network = training.build_trainer(prepare(other)).updater.get_optimizer("main").target.predictor
    assert np.array_equal(network.mean, fitted)
    trainer = training.build_trainer(prepare(config))
    network = trainer.updater.get_optimizer("main").target.predictor
    network.mean[...] = 0
    snapshots.load(snapshots.read(snapshots.found(folder)[0]), trainer)
    assert np.array_equal(network.mean, fitted)


def test_weight_decay_takes_its_share_of_each_parameter(config):
    """One step of SGD with it and without differs by lr * rate * parameter."""
    config = dataclasses.replace(config, optimizer="SGD", weight_decay=None)
    ends = []
    for rate in (None, 0.01):
        trainer = training.build_trainer(prepare(dataclasses.replace(config, weight_decay=rate)))
        network = trainer.updater.get_optimizer("main").target.predictor
        network(np.zeros((1, 3, 32, 32), np.float32))  # gives the last layer its shape
        np.random.seed(0)
        if rate is None:
            begin = {path: p.array.copy() for path, p in network.namedparams()}
        else:
            for path, parameter in network.namedparams():
                parameter.array[...] = begin[path]
        trainer.updater.update()
        ends.append({path: p.array for path, p in network.namedparams()})
    for path, value in begin.items():
        difference = ends[0][path] - ends[1][path]
        np.testing.assert_allclose(difference, 0.1 * 0.01 * value, rtol=1e-3, atol=1e-7)
    assert np.abs(begin["/conv/W"]).max() > 0.1


@pytest.mark.parametrize("name", ["MnistCNN", "ReluMLP"])
def test_a_network_for_other_images_is_refused_before_training(config, capsys, tmp_path, name):
    arguments = flags(config)
    arguments[1] = name
    with pytest.raises(UsageError) as caught:
        train_mnist.main(arguments)
    assert str(caught.value).startswith(
        f"{name}: not a network for cifar10-unverified, which maps images, float32 (N, 3, 32, 32), "
        "to logits (N, 10): InvalidType: "
    )
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "result").exists()


def test_images_in_rows_are_not_augmented(tmp_path, tiny_data):
    with pytest.raises(UsageError) as caught:
        prepare(RunConfig(augment="crop-flip", batchsize=10))
    assert str(caught.value) == (
        "--augment crop-flip: expected images with rows and columns, as of --dataset cifar10; "
        "those of mnist come as rows of 784"
    )


def test_a_snapshot_of_another_unit_of_drops_is_refused(config):
    training.train(prepare(config))
    (snapshot,) = snapshots.found(prepare(config).folder)
    with pytest.raises(
        UsageError, match=r"with --lr-drop in epochs, not iterations: resume with --epoch$"
    ):
        training.train(
            prepare(dataclasses.replace(config, epoch=20, iteration=100)), resume=snapshot
        )
    training.train(prepare(dataclasses.replace(config, epoch=4)), resume=snapshot)
