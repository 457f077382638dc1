"""The file of a network's parameters, and starting from it."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import chainer
import numpy as np
import pytest

import models
from mnist_bn import training
from mnist_bn.config import RunConfig
from mnist_bn.errors import UserError
from mnist_bn.storage import archives, parameters, snapshots
from mnist_bn.training import prepare


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.npz"
    parameters.save(path, models.create("MnistCNN_BN_before"))
    return path


def values(network):
    serializer = chainer.serializers.DictionarySerializer()
    serializer.save(network)
    return serializer.target


def test_ours_and_chainers_files_come_back(file, tmp_path):
    network = models.create("MnistCNN_BN_before")
    chainer.serializers.save_npz(str(tmp_path / "stock.npz"), network)
    for path in (file, tmp_path / "stock.npz"):
        other = models.create("MnistCNN_BN_before")
        parameters.load(path, other)
        again = models.create("MnistCNN_BN_before")
        chainer.serializers.load_npz(str(path), again)
        for name, value in values(again).items():
            np.testing.assert_array_equal(values(other)[name], value)


@pytest.mark.parametrize("model", ["MnistCNN", "MnistCNN_BN_linear_before"])
def test_another_networks_parameters_are_refused_by_name(file, model):
    network = models.create(model)
    before = {name: np.array(value) for name, value in values(network).items()}
    with pytest.raises(UserError, match=f"{file}: not the parameters of {model}: expected bnorm"):
        parameters.load(file, network)
    assert all(np.array_equal(values(network)[name], value) for name, value in before.items())


def test_another_shape_is_refused_where_numpy_would_broadcast(tmp_path):
    path = tmp_path / "model.npz"
    parameters.save(path, chainer.links.Linear(1, 3))
    with pytest.raises(UserError, match=r"expected W float \(3, 4\), found float \(3, 1\)"):
        parameters.load(path, chainer.links.Linear(4, 3))
    network = chainer.links.Linear(4, 3)
    chainer.serializers.load_npz(str(path), network)  # the control: stock Chainer takes it


def test_a_run_starts_from_a_file_and_says_so(tmp_path, tiny_data, file):
    settings = {"batchsize": 20, "epoch": 1, "optimizer": "SGD", "out": str(tmp_path)}
    plain, begun = RunConfig(**settings), RunConfig(**settings, init=str(file))
    trainer = training.build_trainer(prepare(begun))
    network = trainer.updater.get_optimizer("main").target.predictor
    saved = models.create("MnistCNN_BN_before")
    parameters.load(file, saved)
    np.testing.assert_array_equal(network.conv1.W.array, saved.conv1.W.array)
    assert begun.name == plain.name.replace("-s0", f"-init{begun.init_sha256[:8]}-s0")
    assert begun.identity() != plain.identity()
    args = prepare(begun).to_args()
    assert args["init_sha256"] == begun.init_sha256


def test_parameters_that_get_their_shape_by_the_first_batch(tmp_path):
    path = tmp_path / "model.npz"
    network = chainer.links.Linear(None, 3)
    parameters.save(path, network)
    parameters.load(path, network)  # no shape, before and after
    assert network.W.array is None
    network(np.ones((1, 4), np.float32))
    parameters.save(path, network)
    again = chainer.links.Linear(None, 3)
    parameters.load(path, again)
    np.testing.assert_array_equal(again.W.array, network.W.array)


def test_a_snapshot_is_told_from_parameters(tmp_path):
    path = tmp_path / "snapshot_iter_0"
    snapshots.save(path, {snapshots._HEADER: np.frombuffer(b"{}", np.uint8)})
    with pytest.raises(UserError, match=f"^{path}: a snapshot, which --resume goes on from"):
        parameters.load(path, models.create("MnistCNN"))


def test_a_wrong_file_to_begin_with_is_one_line_and_trains_nothing(tmp_path, tiny_data):
    wrong = tmp_path / "wrong.npz"
    wrong.write_bytes(b"no archive")
    config = RunConfig(batchsize=20, out=str(tmp_path), init=str(wrong))
    with pytest.raises(UserError, match=f"^{wrong}: damaged, or no such archive"):
        training.train(prepare(config))
    assert not (prepare(config).folder / "args").exists()
    with pytest.raises(UserError, match="none: cannot be read"):
        training.train(
            prepare(RunConfig(batchsize=20, out=str(tmp_path), init=str(tmp_path / "none")))
        )


def test_another_networks_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    path = tmp_path / "model.npz"
    np.savez_compressed(path, **{"conv1/W": np.zeros(2**22, np.float32)})
    monkeypatch.setattr(archives, "_read_array", None)  # it would be called
    with pytest.raises(UserError, match=r"expected conv1/W float .*, found float \(4194304,\)"):
        parameters.load(path, models.create("MnistCNN"))


SAVE = """
import sys
from pathlib import Path
import numpy as np
import models
from mnist_bn.storage import parameters
np.random.seed(0)
parameters.save(Path(sys.argv[1]), models.create("MnistCNN_BN_before"))
print(*{"W", "b", "gamma", "beta", "avg_mean", "avg_var"})
"""


def test_the_file_is_the_same_in_every_process(tmp_path):
    sums, orders = set(), set()
    for seed in ("1", "2"):
        path = tmp_path / f"{seed}.npz"
        # The control that it prints: a set of the parameters' names has another order each time.
        orders.add(
            subprocess.check_output(
                [sys.executable, "-c", SAVE, str(path)],
                env={**os.environ, "PYTHONHASHSEED": seed},
                cwd=Path(__file__).parents[2],
            )
        )
        sums.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(sums) == 1 and len(orders) == 2
