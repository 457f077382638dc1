"""The learning rate of every step, also of a run that was resumed."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from mnist_bn import optimizers, training
from mnist_bn.config import RunConfig
from mnist_bn.errors import UsageError
from mnist_bn.storage import snapshots
from mnist_bn.trainer import learning_rate_drop
from mnist_bn.training import prepare


@pytest.fixture
def config(tmp_path, tiny_data, no_plots):
    """Epochs of 4 steps."""
    return RunConfig("ReluMLP", "SGD", lr=0.5, batchsize=10, epoch=3, out=str(tmp_path))


@pytest.fixture
def rates(monkeypatch):
    """The learning rate of each step that is made, by the update rule of a parameter."""
    seen = []
    make = optimizers.create

    def create(*arguments):
        optimizer = make(*arguments)
        update = optimizer.update

        def look(*args):
            rule = next(iter(optimizer.target.params())).update_rule
            name = optimizers.learning_rate(type(optimizer))
            seen.append(getattr(rule.hyperparam, name))
            return update(*args)

        optimizer.update = look
        return optimizer

    monkeypatch.setattr(optimizers, "create", create)
    return seen


def test_epochs(config, rates):
    training.train(prepare(dataclasses.replace(config, lr_drop="1,2")))
    assert rates == pytest.approx([0.5] * 4 + [0.05] * 4 + [0.005] * 4)
    assert {type(rate) for rate in rates} == {float}  # NumPy's would make float64 of parameters


def test_epochs_whose_last_batch_reaches_into_the_next(config, rates):
    training.train(prepare(dataclasses.replace(config, lr_drop="1", batchsize=15)))
    assert rates == pytest.approx([0.5] * 3 + [0.05] * 5)


def test_steps(config, rates):
    training.train(prepare(dataclasses.replace(config, lr_drop="3,5", iteration=7)))
    assert rates == pytest.approx([0.5] * 3 + [0.05] * 2 + [0.005] * 2)


def test_a_resumed_run_takes_the_rate_of_where_it_is(config, rates):
    config = dataclasses.replace(config, lr_drop="1,2")
    training.train(prepare(dataclasses.replace(config, epoch=2)))
    (snapshot,) = snapshots.found(prepare(dataclasses.replace(config, epoch=2)).folder)
    rates.clear()
    training.train(prepare(config), resume=snapshot)
    assert rates == pytest.approx([0.005] * 4)


def test_it_is_what_training_by_hand_with_two_rates_is(config):
    """Against SGD written out in NumPy, for a network that is one linear layer."""
    config = dataclasses.replace(config, model=_linear_network(config), lr_drop="1", epoch=2)
    trainer = training.build_trainer(prepare(config))
    network = trainer.updater.get_optimizer("main").target.predictor
    weights, bias = network.l.W.array.astype(float), network.l.b.array.astype(float)
    iterator, batches = trainer.updater.get_iterator("main"), []
    draw = iterator.next
    iterator.next = lambda: batches.append(draw()) or batches[-1]
    trainer.run()

    for step, (images, labels) in enumerate(batches):
        scores = images @ weights.T + bias
        slopes = np.exp(scores - scores.max(axis=1, keepdims=True))
        slopes /= slopes.sum(axis=1, keepdims=True)
        slopes[np.arange(10), labels] -= 1
        rate = 0.5 if step < 4 else 0.05
        weights -= rate * slopes.T @ images / 10
        bias -= rate * slopes.mean(axis=0)
    assert len(batches) == 8
    np.testing.assert_allclose(network.l.W.array, weights, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(network.l.b.array, bias, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", [n for n in optimizers.names() if n != "AdaDelta"])
def test_every_optimizer_with_a_learning_rate(name):
    optimizer = optimizers.create(name, 0.2)
    drop = learning_rate_drop.LearningRateDrop(optimizer, [2, 4, 6], "epoch")
    for epoch, rate in ((0, 0.2), (5, 0.002), (2, 0.02), (6, 0.0002), (1, 0.2)):
        drop(SimpleNamespace(updater=SimpleNamespace(epoch=epoch)))
        now = getattr(optimizer, optimizers.learning_rate(type(optimizer)))
        assert now == pytest.approx(rate, rel=1e-15)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"epoch": 164, "lr_drop": "82,123"}, None),
        ({"epoch": 164}, None),
        (
            {"epoch": 164, "lr_drop": "32000,48000"},
            "--lr-drop 32000,48000: no effect, as the run ends after epoch 164",
        ),
        (
            {"iteration": 50, "lr_drop": "40,50"},
            "--lr-drop 50: no effect, as the run ends after iteration 50",
        ),
    ],
)
def test_drops_that_come_too_late_are_said(settings, line):
    assert learning_rate_drop.too_late(RunConfig(**settings)) == line


def test_more_drops_than_a_float_has_room_for():
    optimizer = optimizers.create("SGD")
    drop = learning_rate_drop.LearningRateDrop(optimizer, range(1, 400), "iteration")
    with np.errstate(all="ignore"):  # as while training
        drop(SimpleNamespace(updater=SimpleNamespace(iteration=400)))
    assert optimizer.lr == 0


def test_an_optimizer_without_a_learning_rate(config):
    with pytest.raises(UsageError) as caught:
        training.build_trainer(
            prepare(dataclasses.replace(config, lr=None, optimizer="AdaDelta", lr_drop="1"))
        )
    assert str(caught.value) == (
        "--lr-drop: AdaDelta has no learning rate; leave --lr-drop out for it"
    )


def _linear_network(config):
    path = f"{config.out}/net.py"
    with open(path, "w") as file:
        file.write(
            "import chainer\n"
            "import chainer.links as L\n"
            "class Linear(chainer.Chain):\n"
            "    def __init__(self):\n"
            "        super().__init__()\n"
            "        with self.init_scope():\n"
            "            self.l = L.Linear(784, 10)\n"
            "    def forward(self, x):\n"
            "        return self.l(x)\n"
        )
    return f"{path}:Linear"
