"""What several tests share: the golden numbers of Chainer 1.12 and tiny data."""

import os
import signal
from pathlib import Path

import chainer.links as L
import hypothesis
import numpy as np
import pytest

import models
from mnist_bn import data, devices, kernels
from mnist_bn.trainer import semantics
from mnist_bn.trainer.plot_report import PlotReport

# No deadline: the time of an example says nothing on a shared machine. What runs on every change
# tries the same examples each time; everybody else looks for new ones.
hypothesis.settings.register_profile(
    "mnist-bn", deadline=None, derandomize=bool(os.environ.get("CI"))
)
hypothesis.settings.load_profile("mnist-bn")

GOLDEN = Path(__file__).parent / "golden" / "blog_chainer_1_12.npz"


def pytest_addoption(parser):
    parser.addoption(
        "--require-gpu",
        action="store_true",
        help="where a test needs a GPU and there is none, end with status 1 instead of skipping it",
    )


def pytest_configure():
    """Under nohup or in the background of a script, lets the tests' processes get signals.

    These begin with what we ignore ignored, but with the default in place of a handler of ours.
    """
    for name in ("SIGINT", "SIGHUP"):
        signum = getattr(signal, name, None)  # Windows has no SIGHUP
        if signum is not None and signal.getsignal(signum) is signal.SIG_IGN:
            signal.signal(signum, lambda *_: None)


def pytest_runtest_setup(item):
    """Skips what needs a GPU where there is none; with --require-gpu that ends the tests."""
    if item.get_closest_marker("gpu") and (reason := devices.why_no_gpu(0)):
        if item.config.getoption("require_gpu"):
            pytest.exit(f"no GPU 0: {reason}", returncode=1)
        pytest.skip(f"no GPU 0: {reason}")


@pytest.fixture(autouse=True)
def stock_chainer():
    """Switches off the kernels that a training run of an earlier test left on."""
    kernels.uninstall()


@pytest.fixture(scope="session")
def golden():
    """The numbers that the blog's own classes gave on Chainer 1.12 (tests/golden/README.md)."""
    with np.load(GOLDEN) as npz:
        return dict(npz)


@pytest.fixture
def golden_batch(golden):
    """The images, float32 (100, 784) in [0, 1], and labels, int32 (100,), of the golden numbers."""
    return golden["x"].astype(np.float32) * np.float32(1 / 255), golden["t"]


@pytest.fixture
def golden_classifier():
    """Makes the classifier of a network with the parameters of the golden numbers."""

    def make(name):
        classifier = L.Classifier(models.create(name))
        semantics.prepare(classifier, "2016")
        rng = np.random.RandomState(7)
        for path, parameter in sorted(classifier.predictor.namedparams()):
            noise = rng.randn(*parameter.shape)
            if path.endswith("/W"):
                value = noise / np.sqrt(np.prod(parameter.shape[1:]))
            else:
                value = parameter.array + 0.1 * noise
            parameter.array[...] = value.astype(np.float32)
        return classifier

    return make


@pytest.fixture
def no_plots(monkeypatch):
    """Leaves out the figures, which take longer than the training of tiny data."""
    monkeypatch.setattr(PlotReport, "draw", lambda self, trainer: None)


@pytest.fixture
def tiny_data(monkeypatch):
    """Replaces the datasets by 40 training and 20 test images of random digits."""
    rng = np.random.RandomState(0)

    def split(n):
        labels = np.arange(n, dtype=np.int32) % 10
        images = rng.rand(n, 784).astype(np.float32) * 0.2
        for image, label in zip(images, labels, strict=True):
            image[label * 70 : label * 70 + 70] += 0.8
        return data.Split(images, labels)

    dataset = data.Dataset("mnist", split(40), split(20), {"tiny": "0" * 64}, "a test", "")
    monkeypatch.setattr(data, "load", lambda *_: dataset)
    data._kept.clear()
    yield dataset
    data._kept.clear()
