"""Parameters that are not updated or have no shape yet, and optimizers with own numbers."""

import dataclasses
import json

import chainer
import numpy as np
import pytest

from mnist_bn import optimizers, training
from mnist_bn.config import RunConfig
from mnist_bn.storage import archives, snapshots
from mnist_bn.trainer import update_rules
from mnist_bn.training import prepare

NETS = """
import chainer
import chainer.links as L


class Net(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.used, self.other = L.Linear(784, 10), L.Linear(None, 10)

    def forward(self, x):
        return self.used(x)


class Late(Net):
    def __init__(self):
        super().__init__()
        self.add_persistent("steps", 0)

    def forward(self, x):
        self.steps += chainer.config.train
        return self.used(x) + self.other(x) if self.steps > 6 else self.used(x)


class Frozen(Net):
    def __init__(self):
        super().__init__()
        self.used.disable_update()

    def forward(self, x):
        return self.other(self.used(x))


class FrozenLater(Frozen):
    def __init__(self):
        super().__init__()
        self.used.enable_update()
        self.add_persistent("steps", 0)

    def forward(self, x):
        self.steps += chainer.config.train
        if self.steps == 2:
            self.used.disable_update()
        return self.other(self.used(x))
"""


@pytest.fixture
def config(tmp_path, tiny_data, no_plots):
    path = tmp_path / "nets.py"
    path.write_text(NETS)
    return RunConfig(
        f"{path}:Net", "Adam", dataset="mnist", batchsize=8, iteration=8, evaluate_every=5,
        accelerate="off", out=str(tmp_path),
    )  # fmt: skip


def ending(config):
    training.train(prepare(config))
    with np.load(prepare(config).folder / "model.npz") as npz:
        return {name: npz[name].tobytes() for name in npz.files}


def resumed(config, cut):
    apart = dataclasses.replace(config, out=f"{config.out}/{cut}")
    ending(dataclasses.replace(apart, iteration=cut))
    cut_config = prepare(dataclasses.replace(apart, iteration=cut)).config
    (snapshot,) = snapshots.found(cut_config.folder)
    training.train(prepare(apart), resume=snapshot)
    with np.load(prepare(apart).folder / "model.npz") as npz:
        return {name: npz[name].tobytes() for name in npz.files}


@pytest.mark.parametrize("optimizer", optimizers.names())
def test_every_optimizer_goes_on_with_a_layer_that_is_never_called(config, optimizer):
    config = dataclasses.replace(config, optimizer=optimizer)
    assert resumed(config, 3) == ending(config)


@pytest.mark.parametrize("cut", [3, 7])
@pytest.mark.parametrize("name", ["Late", "Frozen", "FrozenLater"])
def test_a_layer_called_late_or_not_updated_goes_on_exactly(config, name, cut):
    config = dataclasses.replace(config, model=config.model.replace("Net", name))
    assert resumed(config, cut) == ending(config)


def test_without_their_numbers_an_optimizer_does_not_go_on_exactly(config, monkeypatch):
    """The control of the tests above."""
    config = dataclasses.replace(config, optimizer="MSVAG")
    expected = ending(config)
    monkeypatch.setattr(update_rules, "restore", lambda *_: None)
    assert resumed(config, 3) != expected


def test_a_state_that_is_missing_of_a_parameter_in_use_is_an_error(config):
    ending(dataclasses.replace(config, iteration=3))
    short = prepare(dataclasses.replace(config, iteration=3)).config
    (path,) = snapshots.found(short.folder)
    arrays = archives.read(path)
    del arrays["updater/optimizer:main/predictor/used/W/m"]
    archives.write(path, arrays)
    with pytest.raises(snapshots.BadSnapshotError, match="does not fit this network"):
        training.train(prepare(config), resume=path)


def test_parameters_without_the_unused_layer_are_begun_with(config):
    ending(config)
    init = prepare(config).folder / "model.npz"
    again = dataclasses.replace(config, init=str(init))
    assert ending(again).keys() == ending(config).keys() == {"used/W", "used/b", "other/b"}


@pytest.mark.parametrize("weight_decay", [None, 0.1])
def test_what_a_network_disables_in_its_init_stays_as_it_is(config, weight_decay):
    frozen = config.model.replace("Net", "Frozen")
    config = dataclasses.replace(config, model=frozen, weight_decay=weight_decay)
    trainer = training.build_trainer(prepare(config))
    network = trainer.updater.get_optimizer("main").target.predictor
    before = network.used.W.array.copy()
    trainer.run()
    assert np.array_equal(network.used.W.array, before)
    assert (network.other.b.array != 0).any()  # the others are updated


def test_chainer_alone_forgets_it():
    """The control of the test above, and what `setup` adds."""
    for setup, is_updated in (
        (lambda optimizer, link: optimizer.setup(link), True),
        (update_rules.setup, False),
    ):
        link = chainer.links.Linear(2, 2)
        link.disable_update()
        setup(chainer.optimizers.SGD(), link)
        assert link.update_enabled is is_updated
    link.enable_update()
    assert link.update_enabled


def test_the_header_holds_what_is_not_updated(config):
    frozen = dataclasses.replace(config, model=config.model.replace("Net", "Frozen"), iteration=1)
    ending(frozen)
    (path,) = snapshots.found(prepare(frozen).folder)
    saved = json.loads(json.dumps(snapshots.read(path).header["optimizer"]))
    assert saved["/predictor/used/W"]["enabled"] is False
    assert saved["/predictor/other/W"]["enabled"] is True
