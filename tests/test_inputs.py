"""A network gets a Variable of its images, as on Chainer 1.12, that an array's user can use too."""

import copy
import json
from pathlib import Path

import chainer
import chainer.functions as F
import numpy as np
import pytest

from mnist_bn import networks, training
from mnist_bn.config import RunConfig
from mnist_bn.errors import UsageError
from mnist_bn.inputs import Input
from mnist_bn.training import prepare

# The blog's networks as their author would have written them in August 2016.
BLOG = Path(__file__).parents[1] / "benchmarks" / "blog.py"
CLASSES = ("MnistCNN_BN_before", "MnistCNN_BN_after", "MnistCNN_BN_linear_before")


def trained(model, out, **settings):
    """Parameters and log, without its times, of a short run."""
    config = RunConfig(
        model, "Adam", dataset="mnist", batchsize=8, iteration=3, evaluate_every=2,
        accelerate="off", out=str(out), **settings,
    )  # fmt: skip
    training.train(prepare(config))
    folder = prepare(config).folder
    log = json.loads((folder / "log").read_text())
    for entry in log:
        del entry["elapsed_time"]
    with np.load(folder / "model.npz") as npz:
        return {name: npz[name].tobytes() for name in npz.files}, log


@pytest.mark.parametrize("name", CLASSES)
def test_the_blogs_text_gives_our_bits(tmp_path, tiny_data, no_plots, name):
    images = tiny_data.test.images.copy()
    found = {}
    for semantics in ("today", "2016"):
        observed = {"semantics": semantics, "observe": "training-accuracy,variance-shift"}
        found[semantics] = trained(name, tmp_path / "ours", **observed)
        assert trained(f"{BLOG}:{name}", tmp_path / "theirs", **observed) == found[semantics]
    assert found["today"][1] != found["2016"][1]  # what differs is seen
    assert np.array_equal(tiny_data.test.images, images)


def test_without_the_variable_the_blogs_text_does_not_run():
    """The control of the test above."""
    network = networks.create(f"{BLOG}:MnistCNN_BN_before")
    as_written = type(network).__mro__[2]
    with pytest.raises((AttributeError, TypeError)):
        as_written.__call__(network, np.zeros((2, 784), np.float32))
    assert network(np.zeros((2, 784), np.float32)).shape == (2, 10)


def test_a_call_changes_neither_shape_nor_values_of_what_it_is_given(tmp_path):
    path = tmp_path / "net.py"
    path.write_text(
        "import chainer\n"
        "class Net(chainer.Chain):\n"
        "    def __call__(self, x):\n"
        "        x.data.shape = (len(x.data), 1, 28, 28)\n"
        "        x.data *= 2\n"
        "        return x\n"
    )
    network = networks.create(f"{path}:Net")
    images = np.ones((6, 784), np.float32)
    for _ in range(2):
        assert network(images[:4]).shape == (4, 1, 28, 28)
    assert images.shape == (6, 784) and (images == 1).all()
    given = chainer.Variable(images)
    assert network(given) is given  # a Variable is its caller's own affair


def test_a_copy_of_a_network_gets_a_variable_too():
    network = networks.create(f"{BLOG}:MnistCNN_BN_after")
    x = np.random.RandomState(0).rand(3, 784).astype(np.float32)
    with chainer.using_config("train", False):
        expected = network(x).array
        for one in (network.copy("copy"), copy.deepcopy(network)):
            assert np.array_equal(one(x).array, expected)
    assert type(network).__name__ == "MnistCNN_BN_after"


AS_ARRAY = {
    "method": lambda x: x.astype("d"),
    "scalar": lambda x: x.sum(),
    "reshaped": lambda x: x.reshape(-1, 7, 28).max(axis=2),
    "keyword": lambda x: x.reshape(3, 7, 28, order="F").min(),
    "slice": lambda x: x[:, :10].std(axis=0),
    "mask": lambda x: x[x > 0.5],
    "compared": lambda x: (x >= 0.5).astype("f"),
    "arithmetic": lambda x: (2 * x - x.mean(axis=0)) / 3 % 1,
    "chained": lambda x: (1 - x).T.clip(0.2, 0.8),
    "function": lambda x: np.mean(x) + np.std(x),
    "ufunc": lambda x: np.exp(x),
    "asarray": lambda x: np.asarray(x),
    "stacked": lambda x: np.concatenate([x, x]),
    "with an array": lambda x: np.arange(196, dtype="f") * x,
    "matrix": lambda x: x @ np.eye(196, 2, dtype="f"),
}


@pytest.mark.parametrize("use", AS_ARRAY.values(), ids=AS_ARRAY)
def test_it_can_be_used_as_the_array_it_stands_for(use):
    array = np.random.RandomState(0).rand(3, 196).astype(np.float32)
    expected, found = use(array), use(Input(array))
    found = chainer.as_array(found)
    assert np.asarray(found).dtype == np.asarray(expected).dtype
    assert np.array_equal(found, expected)


def test_it_can_be_used_as_the_variable_it_is():
    array = np.random.RandomState(0).rand(3, 4).astype(np.float32)
    x = Input(array)
    assert isinstance(x, chainer.Variable) and chainer.as_variable(x) is x
    assert np.array_equal(chainer.Variable(x).array, array)
    assert np.array_equal(chainer.Variable(x.data).array, array)
    scale = chainer.Parameter(np.float32([1, 2, 3, 4]))
    F.sum(x * scale).backward()  # what is learned of it has its gradient
    assert np.allclose(scale.grad, array.sum(axis=0))
    with pytest.raises(TypeError, match="are expected"):
        chainer.Variable(chainer.Variable(array))
    assert (x * np.sqrt(2) - np.float64(1)).dtype == np.float32  # NumPy's own would be float64
    x[:, 0] = 0
    assert (x.array[:, 0] == 0).all()


@pytest.mark.parametrize(
    ("forward", "hint"),
    [
        (
            "F.dropout(x, train=self.train)",
            "(leave it out: what trains and tests the network sets it",
        ),
        ("L.BatchNormalization(784)(x, test=True)", "(leave it out: what trains and tests"),
        ("F.Linear(784, 10)(x)", "(write L.Linear, with `import chainer.links as L`)"),
        ("chainer.FunctionSet()", "(write chainer.Chain)"),
        ("setattr(L.Linear(1, 1).W.update_rule, 'enabled', 0)", "a link's disable_update() works)"),
        ("L.Linear(1, 1).W.update_rule.add_hook(1)", "(update rules come with the optimizer; bef"),
        ("L.Linear(784, 10, wscale=2)(x)", "(give initialW= one of chainer.initializers)"),
        ("L.Linear(784, 10, bias=0)(x)", "(write initial_bias=)"),
        ("F.dropout(x, 0.5, True)", "but 3 were given (leave the third argument out)"),
        (
            "chainer.Variable(x.data, volatile='on')",
            "Use chainer.using_config (leave it out)",
        ),
        ("F.relu(x, use_cudnn=False)", "unexpected keyword argument 'use_cudnn' (leave it out)"),
        ("L.Convolution2D(1, 1, 3, use_cudnn=False)", "'use_cudnn' (leave it out)"),
        ("L.Convolution2D(1, 1, 3, deterministic=True)", " (leave it out)"),
        ("F.MaxPooling2D(2)(x)", "no attribute 'MaxPooling2D' (for spatial pyramids write 'max')"),
    ],
)
def test_what_chainer_1_had_is_refused_with_what_to_write(tmp_path, tiny_data, forward, hint):
    path = tmp_path / "net.py"
    path.write_text(
        "import chainer\nimport chainer.functions as F\nimport chainer.links as L\n"
        "class Net(chainer.Chain):\n"
        "    train = True\n"
        "    def __call__(self, x):\n"
        f"        return {forward}\n"
    )
    with pytest.raises(UsageError) as error:
        networks.check(f"{path}:Net", tiny_data, chainer.get_device("@numpy"))
    line = str(error.value)
    assert "line 7: " in line and hint in line and "\n" not in line


def test_a_network_that_writes_to_its_images_is_measured_as_one_that_does_not(
    tmp_path, tiny_data, no_plots
):
    path = tmp_path / "nets.py"
    path.write_text(
        "import chainer\nimport chainer.links as L\n"
        "class Apart(chainer.Chain):\n"
        "    def __init__(self):\n"
        "        super().__init__(l=L.Linear(784, 10), b=L.BatchNormalization(10))\n"
        "    def __call__(self, x):\n"
        "        return self.b(self.l(x * 0.5))\n"
        "class Inside(Apart):\n"
        "    def __call__(self, x):\n"
        "        x.data *= 0.5\n"
        "        return self.b(self.l(x))\n"
    )
    names = ("training-accuracy", "variance-shift", "reestimated-bn", "relative-loss")
    images = tiny_data.test.images.copy()
    apart, inside = (
        trained(f"{path}:{name}", tmp_path / name, observe=",".join(names))
        for name in ("Apart", "Inside")
    )
    assert apart == inside
    for name in names:
        (one,), (other,) = (
            (np.load(file) for file in (tmp_path / kind).glob(f"*/{name}.npz"))
            for kind in ("Apart", "Inside")
        )
        assert all(np.array_equal(one[key], other[key]) for key in one.files)
    assert np.array_equal(tiny_data.test.images, images)
