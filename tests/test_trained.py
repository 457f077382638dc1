"""A finished run's network in test mode, and one's own images of digits."""

import json
import subprocess
import sys

import chainer
import numpy as np
import pytest
from PIL import Image, ImageDraw

import mnist_bn
from mnist_bn import data
from mnist_bn.config import RunConfig
from mnist_bn.errors import UserError
from mnist_bn.preparation import prepare
from mnist_bn.training import train

NET = """
import chainer
import chainer.links as L

class Mine(chainer.Chain):
    def __init__(self, units=10):
        super().__init__()
        with self.init_scope():
            self.l = L.Linear(784, units)

    def forward(self, x):
        return self.l(x)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    prepared = prepare(RunConfig("MnistCNN_BN_before", dataset="digits", epoch=2, out=str(out)))
    train(prepared)
    return prepared


def test_its_accuracy_is_the_logs_in_test_mode_whatever_chainer_says(run):
    loaded = mnist_bn.load_run(run.folder)
    test = run.dataset.test
    before = [p.array.copy() for p in loaded.network.params()]
    statistics = loaded.network.bnorm1.avg_mean.copy()
    with chainer.using_config("train", True):
        found = loaded.classify(test.images)
    batches = np.split(found == test.labels, range(100, len(found), 100))
    log = json.loads((run.folder / "log").read_text())
    assert np.mean([batch.mean() for batch in batches]) == pytest.approx(
        log[-1]["validation/main/accuracy"]
    )
    for array, parameter in zip(before, loaded.network.params(), strict=True):
        np.testing.assert_array_equal(array, parameter.array)
    np.testing.assert_array_equal(statistics, loaded.network.bnorm1.avg_mean)
    assert loaded.config.model == "MnistCNN_BN_before"


def test_a_network_of_ones_own_with_arguments(tmp_path):
    path = tmp_path / "net.py"
    path.write_text(NET)
    spec = f"{path}:Mine(units=12)"
    prepared = prepare(RunConfig(spec, dataset="digits", epoch=1, out=str(tmp_path / "r")))
    train(prepared)
    assert mnist_bn.load_run(prepared.folder)(np.zeros((3, 784))).shape == (3, 12)
    path.unlink()
    with pytest.raises(UserError, match=r"net\.py"):
        mnist_bn.load_run(prepared.folder)


def test_a_run_of_2016_has_its_eps(run, tmp_path):
    config = RunConfig(
        "MnistCNN_BN_after", dataset="digits", epoch=1, semantics="2016", out=str(tmp_path)
    )
    prepared = prepare(config)
    train(prepared)
    assert mnist_bn.load_run(prepared.folder).network.bnorm1.eps == 1e-5
    assert mnist_bn.load_run(run.folder).network.bnorm1.eps == 2e-5


@pytest.mark.parametrize(
    ("missing", "reason"),
    [("model.npz", "not finished"), ("args", "expected the settings"), ("", "no such folder")],
)
def test_a_folder_of_no_finished_run_is_one_line(run, tmp_path, missing, reason):
    for name in {"model.npz", "args"} - {missing}:
        (tmp_path / name).write_bytes((run.folder / name).read_bytes())
    folder = tmp_path if missing else tmp_path / "none"
    with pytest.raises(UserError, match=reason) as error:
        mnist_bn.load_run(folder)
    assert "\n" not in str(error.value)


def test_damaged_parameters_are_one_line(run, tmp_path):
    (tmp_path / "args").write_bytes((run.folder / "args").read_bytes())
    (tmp_path / "model.npz").write_bytes((run.folder / "model.npz").read_bytes()[:-100])
    with pytest.raises(UserError, match=r"model\.npz"):
        mnist_bn.load_run(tmp_path)


def drawing(size=(200, 300), ink=0, paper=255, width=20, mode="L"):
    image = Image.new("L", size, paper)
    w, h = size
    ImageDraw.Draw(image).line((w // 2, h // 5, w // 2, 4 * h // 5), fill=ink, width=width)
    return image.convert(mode)


@pytest.mark.parametrize(
    "image",
    [
        drawing(),
        drawing(ink=255, paper=0),
        drawing((50, 40), width=4),
        drawing((1000, 640), ink=40, paper=200, width=70),
        drawing(mode="RGB"),
        drawing(mode="1"),
    ],
)
def test_an_image_of_ones_own_is_as_mnists_are(image):
    digit = mnist_bn.digit_image(image)
    assert digit.shape == (784,) and digit.dtype == np.float32
    assert digit.min() == 0 and digit.max() == 1
    square = digit.reshape(28, 28)
    rows = np.flatnonzero(square.sum(axis=1))
    assert rows[-1] - rows[0] + 1 == 20  # the box
    centre = [(square.sum(axis=1 - axis) * np.arange(28)).sum() / square.sum() for axis in (0, 1)]
    assert centre == pytest.approx([14, 14], abs=1)


def test_what_is_transparent_is_white():
    image = Image.new("RGBA", (100, 100), (0, 0, 0, 0))
    ImageDraw.Draw(image).line((50, 20, 50, 80), fill=(0, 0, 0, 255), width=8)
    assert mnist_bn.digit_image(image).sum() > 10


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_an_empty_image_is_no_digit(grey):
    with pytest.raises(ValueError, match="only its background"):
        mnist_bn.digit_image(Image.new("L", (40, 40), grey))


def test_mnists_own_images_stay_about_as_they_are():
    """Enlarged and inverted as on paper, a test image becomes nearly itself."""
    try:
        images = data.load("mnist").test.images[:20]
    except UserError:
        pytest.skip("there is no MNIST here")
    for image in images:
        pixels = Image.fromarray(np.uint8(np.round(255 * (1 - image.reshape(28, 28)))))
        again = mnist_bn.digit_image(pixels.resize((280, 280), Image.Resampling.NEAREST))
        # The centre of mass may be off by a pixel.
        shifted = [
            np.roll(again.reshape(28, 28), (dy, dx), (0, 1)).reshape(-1)
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
        ]
        assert max(np.corrcoef(image, s)[0, 1] for s in shifted) > 0.9


def test_the_package_alone_imports_no_chainer():
    code = "import sys, mnist_bn; sys.exit('chainer' in sys.modules or 'PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
