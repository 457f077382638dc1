"""Training on a GPU: the CPU's numbers, the same bits each time, and a host that waits for nothing.

`python -m pytest -m gpu` runs these; where there is no GPU they are skipped, or with --require-gpu
end the tests with status 1.
"""

import json
import subprocess
import sys
from pathlib import Path

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest

import models
from mnist_bn import data, devices, inputs, kernels, observers, optimizers, training
from mnist_bn.config import RunConfig
from mnist_bn.data import Split
from mnist_bn.data.augmentation import send_crop_flipped
from mnist_bn.data.iterators import ArrayIterator, DeviceIterator, make_iterator
from mnist_bn.storage import archives, snapshots
from mnist_bn.training import prepare

pytestmark = pytest.mark.gpu

GPU = "@cupy:0"
CPU = "@numpy"
PROJECT = Path(training.__file__).parents[1]
BLOGS = ["MnistCNN", "MnistCNN_BN_before", "MnistCNN_BN_after", "MnistCNN_BN_linear_before"]
RESNET = "ResNetCIFAR(depth=8)"  # of 110 layers, an emulated card takes minutes a step
FOR_CIFAR10 = ["CS231nMLP", "CS231nMLP_BN", RESNET]
NETWORKS = [RESNET if name == "ResNetCIFAR" else name for name in models.networks()]


@pytest.fixture
def gpu():
    """The GPU as Chainer's device, current as it is while training."""
    device = devices.resolve(GPU)
    device.use()
    return device


@pytest.fixture
def config(tmp_path, tiny_data):
    return RunConfig(optimizer="Adam", batchsize=4, epoch=2, device=GPU, out=str(tmp_path))


@pytest.fixture
def tiny_colours(monkeypatch):
    """Replaces the datasets by 40 training and 20 test images of another tint for each label."""
    rng = np.random.RandomState(0)

    def split(n):
        labels = np.arange(n, dtype=np.int32) % 10
        images = rng.randint(0, 100, (n, 3, 32, 32), np.uint8)
        images[np.arange(n), labels % 3] += np.uint8(15) * labels[:, None, None].astype(np.uint8)
        return Split.from_bytes(images, labels)

    dataset = data.Dataset("cifar10", split(40), split(20), {"tiny": "0" * 64}, "a test", "")
    monkeypatch.setattr(data, "load", lambda *_: dataset)
    data._kept.clear()
    yield
    data._kept.clear()


@pytest.fixture
def masks_of_numpy(monkeypatch):
    """Dropout with the masks that NumPy's generator draws, on any device."""

    def dropout(h, ratio):
        mask = (np.random.rand(*h.shape) >= ratio) * np.float32(1 / (1 - ratio))
        return h * h.device.send(mask.astype(h.dtype))

    monkeypatch.setattr(F, "dropout", dropout)


def change(config, **changes):
    return RunConfig(**{**config.to_args(), **changes})


def to_cpu(array):
    return chainer.backends.cuda.to_cpu(array)


def parameters(config):
    with np.load(prepare(config).folder / "model.npz") as npz:
        return dict(npz)


def log_of(config):
    return json.loads((prepare(config).folder / "log").read_bytes())


# --- The same numbers as on the CPU --------------------------------------------------------------


def in_float64(classifier):
    """Makes parameters and running averages float64, what float32 is held against."""
    for parameter in classifier.params():
        parameter.array = parameter.array.astype(np.float64)
    for link in classifier.links():
        if isinstance(link, L.BatchNormalization):
            link.avg_mean = link.avg_mean.astype(np.float64)
            link.avg_var = link.avg_var.astype(np.float64)
    return classifier


def first_step(classifier, images, labels):
    np.random.seed(100)
    loss = classifier(images, labels)
    classifier.cleargrads()
    loss.backward()
    gradients = {path: to_cpu(p.grad) for path, p in classifier.predictor.namedparams()}
    return to_cpu(classifier.y.array), float(loss.array), gradients


@pytest.mark.parametrize("name", BLOGS)
def test_the_first_step_is_that_of_float64(
    name, gpu, golden_batch, golden_classifier, masks_of_numpy
):
    images, labels = golden_batch
    exact = in_float64(golden_classifier(name))
    logits, loss, gradients = first_step(exact, images.astype(np.float64), labels)

    classifier = golden_classifier(name)
    classifier.to_device(gpu)
    ours = first_step(classifier, *gpu.send(golden_batch))

    np.testing.assert_allclose(ours[0], logits, rtol=0, atol=1e-4)
    assert ours[1] == pytest.approx(loss, abs=1e-4)
    for path, gradient in gradients.items():
        # A bias that feeds a BN has gradient 0, and rounding is all there is to see.
        error = np.linalg.norm(ours[2][path] - gradient)
        assert error <= 1e-3 * np.linalg.norm(gradient) + 1e-3, path


@pytest.mark.parametrize("name", BLOGS)
def test_the_first_step_is_chainer_1_12s(
    name, gpu, golden, golden_batch, golden_classifier, masks_of_numpy
):
    # Chainer 1.12 sums BN's statistics one by one: its own logits are off by up to 1.6e-3.
    bound = 1e-4 if name == "MnistCNN" else 2e-3
    classifier = golden_classifier(name)
    classifier.to_device(gpu)
    logits, loss, _ = first_step(classifier, *gpu.send(golden_batch))
    np.testing.assert_allclose(logits, golden[f"{name}/logits"], rtol=0, atol=bound)
    assert loss == pytest.approx(golden[f"{name}/losses"][0], abs=bound / 10)


@pytest.mark.parametrize("name", BLOGS)
def test_three_updates_are_those_of_float64(
    name, gpu, golden_batch, golden_classifier, masks_of_numpy
):
    images, labels = golden_batch
    exact, ours = in_float64(golden_classifier(name)), golden_classifier(name)
    ours.to_device(gpu)
    losses = []
    for classifier, batch in (
        (exact, (images.astype(np.float64), labels)),
        (ours, gpu.send(golden_batch)),
    ):
        optimizer = chainer.optimizers.MomentumSGD(lr=0.05, momentum=0.9).setup(classifier)
        for step in range(3):
            np.random.seed(100 + step)
            optimizer.update(classifier, *batch)
            losses.append(float(classifier.loss.array))
    assert losses[3:] == pytest.approx(losses[:3], abs=1e-3)
    statistics = [
        [link.avg_var for link in classifier.links() if isinstance(link, L.BatchNormalization)]
        for classifier in (exact, ours)
    ]
    for expected, actual in zip(*statistics, strict=True):
        np.testing.assert_allclose(to_cpu(actual), expected, rtol=1e-2)


@pytest.mark.parametrize("name", sorted(optimizers.OF_2016))
def test_every_optimizer_updates_as_on_the_cpu(name, gpu, golden_batch, monkeypatch):
    monkeypatch.setattr(F, "dropout", lambda h, ratio: h)
    updated = []
    for device in (chainer.get_device(CPU), gpu):
        np.random.seed(0)
        classifier = L.Classifier(models.create("MnistCNN"))
        classifier.to_device(device)
        optimizer = optimizers.create(name, None, None).setup(classifier)
        for _ in range(3):
            optimizer.update(classifier, *device.send(golden_batch))
        updated.append({path: to_cpu(p.array) for path, p in classifier.namedparams()})
    for path, expected in updated[0].items():
        error = np.linalg.norm(updated[1][path] - expected)
        assert error <= 1e-3 * np.linalg.norm(expected) + 1e-5, path


def test_a_network_gets_a_variable(gpu, golden_batch):
    x = inputs.Input(gpu.send(golden_batch[0]))
    x.data = x.data.reshape((len(x.data), 1, 28, 28))
    assert L.Convolution2D(1, 2, 3).to_device(gpu)(x).shape == (100, 2, 26, 26)
    as_array = gpu.xp.asarray(x)
    assert isinstance(as_array, gpu.xp.ndarray) and as_array.shape == (100, 1, 28, 28)
    assert (x > 0.5).astype("f").dtype == np.float32
    assert isinstance((2 * x - x.mean(axis=0)).array, gpu.xp.ndarray)


def test_curves_are_within_the_noise_of_seeds(tmp_path):
    accuracies = {}
    for device in (CPU, GPU):
        for seed in range(3):
            config = RunConfig(
                "MnistCNN_BN_before",
                "MomentumSGD",
                seed=seed,
                dataset="digits",
                epoch=2,
                batchsize=10,
                train_images=300,
                device=device,
                out=str(tmp_path / device),
            )
            training.train(prepare(config))
            curve = [entry["validation/main/accuracy"] for entry in log_of(config)]
            accuracies.setdefault(device, []).append(curve)
    on_cpu, on_gpu = (np.array(accuracies[device]) for device in (CPU, GPU))
    noise = np.maximum(4 * on_cpu.std(axis=0, ddof=1), 0.03)
    assert (np.abs(on_gpu.mean(axis=0) - on_cpu.mean(axis=0)) <= noise).all(), accuracies


# --- Runs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("semantics", ["today", "2016"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_model_trains(name, semantics, config, request):
    if name in FOR_CIFAR10:
        request.getfixturevalue("tiny_colours")
        config = change(config, dataset="cifar10", augment="crop-flip")
    epochs = 4 if name == RESNET else 15
    config = change(config, model=name, epoch=epochs, semantics=semantics)
    last = training.train(prepare(config))
    assert last["main/loss"] < log_of(config)[0]["main/loss"]
    if name in BLOGS:
        assert last["validation/main/accuracy"] > 0.8
    assert kernels.active() == kernels.STOCK  # those kernels are the CPU's


@pytest.mark.parametrize("model", ["MnistCNN_BN_dropout(ratio=0)", RESNET])
def test_every_observer_measures_as_on_the_cpu(model, config, request):
    names = set(observers.observers())
    if model.startswith("ResNet"):
        request.getfixturevalue("tiny_colours")
        names -= {"dead-units", "weight-updates"}  # of a linear first layer
        config = change(config, dataset="cifar10")
    settings = {"optimizer": "SGD", "lr": 1e-3, "iteration": 4, "observe": ",".join(sorted(names))}
    found = []
    for device in (CPU, GPU):
        run = change(config, model=model, device=device, **settings, out=f"{config.out}/{device}")
        training.train(prepare(run))
        folder = prepare(run).folder
        found.append({name: archives.read(folder / f"{name}.npz") for name in names})
    for name in names:
        on_cpu, on_gpu = (series[name] for series in found)
        assert on_cpu.keys() == on_gpu.keys()
        for key, expected in on_cpu.items():
            # A bias that feeds a BN has gradient 0, and rounding is all there is to see.
            rounding = 1e-5 if key.endswith("/b") else 0
            scale = 1e-2 * np.abs(expected).max(initial=0) + rounding
            np.testing.assert_allclose(on_gpu[key], expected, 1e-2, scale, err_msg=f"{name}, {key}")


@pytest.mark.parametrize("name", ["MnistCNN", "MnistCNN_BN_before"])
def test_a_seed_gives_the_same_bits(name, config, tmp_path):
    runs = []
    for folder, seed in (("first", 0), ("again", 0), ("other", 1)):
        run = change(config, model=name, seed=seed, out=str(tmp_path / folder))
        training.train(prepare(run))
        runs.append(parameters(run))
    first, again, other = runs
    assert all(np.array_equal(first[key], again[key]) for key in first)
    assert not np.array_equal(first["conv1/W"], other["conv1/W"])


@pytest.mark.parametrize(("made_on", "resumed_on"), [(GPU, CPU), (CPU, GPU)])
def test_a_snapshot_resumes_on_the_other_device(made_on, resumed_on, config):
    first = change(config, device=made_on)
    training.train(prepare(first))
    folder = prepare(first).folder
    snapshot = snapshots.found(folder)[0]
    saved, log = parameters(first), log_of(first)

    longer = change(config, device=resumed_on, epoch=20)
    trainer = training.build_trainer(prepare(longer))
    snapshots.load(snapshots.read(snapshot), trainer)
    network = trainer.updater.get_optimizer("main").target.predictor
    for path, parameter in network.namedparams():
        assert np.array_equal(to_cpu(parameter.array), saved[path.lstrip("/")]), path
    with np.load(snapshot) as npz:
        order = npz["updater/iterator:main/order"]
    batch = trainer.updater.get_iterator("main").next()
    labels = training.load_dataset(longer).train.labels
    assert np.array_equal(to_cpu(batch[1]), labels[order[:4]])

    last = training.train(prepare(longer), resume=snapshot)
    assert log_of(longer)[:2] == log
    assert last["validation/main/accuracy"] > 0.8


def test_the_command(tmp_path):
    command = [sys.executable, "train_mnist.py", "--gpu", "--dataset", "digits", "-e", "1"]
    process = subprocess.run(
        [*command, "--out", str(tmp_path)], cwd=PROJECT, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    args = json.loads(next(tmp_path.glob("*/args")).read_bytes())
    assert args["device"] == GPU
    assert f"Device: {args['device_name']}" in process.stdout
    assert args["versions"]["cupy"]


def test_the_benchmark(tmp_path):
    file = tmp_path / "gpu.json"
    small = ["--batch", "500", "--repeats", "1", "--block", "2", "--json", str(file)]
    small += ["--variants", "stock", "ours", "torch", "torch-graph"]
    command = [sys.executable, "benchmarks/gpu.py", *small]
    process = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    results = json.loads(file.read_text())["results"]
    assert {"stock", "ours"} <= {result["variant"] for result in results}
    assert all(result["ms"]["median"] > 0 for result in results if "ms" in result)


# --- Data on the device --------------------------------------------------------------------------


def test_batches_are_gathered_on_the_gpu_bit_for_bit(gpu):
    dataset = training.load_dataset(RunConfig(dataset="digits")).train
    seen = []
    for make in (
        lambda: ArrayIterator(dataset, 100),
        lambda: DeviceIterator(dataset, 100, gpu),
    ):
        np.random.seed(0)
        iterator = make()
        batches = [iterator.next() for _ in range(40)]  # 2.7 epochs
        seen.append([[to_cpu(array).tobytes() for array in batch] for batch in batches])
    assert all(gpu.is_array_supported(array) for batch in batches for array in batch)
    assert iterator._arrays[0].dtype == np.uint8
    assert seen[0] == seen[1]


def test_images_are_augmented_on_the_gpu_bit_for_bit(gpu):
    rng = np.random.RandomState(0)
    split = Split.from_bytes(rng.randint(0, 256, (50, 3, 32, 32), np.uint8), rng.randint(0, 10, 50))
    seen = []
    for device in (chainer.get_device(CPU), gpu):
        np.random.seed(0)
        iterator = make_iterator(split, 16, device)
        batches = [send_crop_flipped(iterator.next(), device) for _ in range(10)]  # 3.2 epochs
        assert all(device.is_array_supported(array) for batch in batches for array in batch)
        seen.append([[to_cpu(array).tobytes() for array in batch] for batch in batches])
    assert seen[0] == seen[1]


SPIN = """
extern "C" __global__ void spin(long long cycles) {
    long long start = clock64();
    while (clock64() - start < cycles) {}
}
"""


def test_the_host_waits_for_nothing_within_an_epoch(config, gpu):
    """The host is done with two steps while the GPU is still busy with what was before them."""
    import cupy

    trainer = training.build_trainer(prepare(config))
    log_report = trainer.get_extension("LogReport")

    def step():
        trainer.observation = {}
        with trainer.reporter.scope(trainer.observation):
            trainer.updater.update()
        log_report._summary.add(trainer.observation)

    spin = cupy.RawKernel(SPIN, "spin")
    spin((1,), (1,), (np.int64(1),))
    for _ in range(5):  # compiles the kernels, and fills the pool of memory
        step()
    cupy.cuda.Device().synchronize()
    busy = cupy.cuda.Event()
    spin((1,), (1,), (np.int64(4 * 10**9),))  # two seconds
    busy.record()
    for _ in range(2):  # few enough for the queue of launches
        step()
    ran_ahead = not busy.done
    busy.synchronize()
    assert ran_ahead
    assert trainer.updater.iteration == 7
    assert not trainer.updater.is_new_epoch
