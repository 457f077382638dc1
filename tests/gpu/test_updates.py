"""The update rules on a GPU: one launch for all parameters, against float64 on the CPU."""

import chainer
import chainer.links as L
import numpy as np
import pytest
from chainer import optimizer_hooks
from chainer.backends import cuda

from mnist_bn import optimizers

pytestmark = pytest.mark.gpu
# fmt: off
RULES = [
    "SGD", "MomentumSGD", "NesterovAG", "AdaGrad", "AdaDelta", "RMSprop", "RMSpropGraves",
    "SMORMS3", "Adam",
]
# fmt: on
SIZES = (1, 7, 1023, 1025, 3000)


class Net(chainer.Chain):
    def __init__(self, count=1):
        super().__init__()
        rng = np.random.RandomState(0)
        with self.init_scope():
            for i in range(count):
                for size in SIZES:
                    setattr(self, f"p{i}_{size}", chainer.Parameter(rng.randn(size)))


def trained(name, device, dtype, prepare=lambda optimizer: None, count=1):
    """Returns the parameters and the rules' states after four updates."""
    net = Net(count)
    for p in net.params():
        p.array = p.array.astype(dtype)
    net.to_device(device)
    optimizer = optimizers.create(name)
    optimizer.setup(net)
    prepare(optimizer)
    rng = np.random.RandomState(1)
    for _ in range(4):
        for _, p in sorted(net.namedparams()):
            p.grad = device.send(rng.randn(*p.shape).astype(dtype))
        optimizer.update()
    found = {name: cuda.to_cpu(p.array) for name, p in net.namedparams()}
    for name, p in net.namedparams():
        for key, state in (p.update_rule.state or {}).items():
            found[f"{name}/{key}"] = cuda.to_cpu(state)
    return found


@pytest.fixture
def launches(monkeypatch):
    """What was launched, by name."""
    from mnist_bn.gpu import updates

    names, launch = [], updates.launch

    def noting(files, name, *rest):
        names.append(name)
        launch(files, name, *rest)

    monkeypatch.setattr(updates, "launch", noting)
    return names


def assert_as_float64(gpu, name, *options):
    exact = trained(name, chainer.get_device("@numpy"), "d", *options)
    found = trained(name, gpu, "f", *options)
    assert found.keys() == exact.keys()
    for key, expected in exact.items():
        np.testing.assert_allclose(found[key], expected, rtol=2e-4, atol=2e-6, err_msg=key)


@pytest.mark.parametrize("name", RULES)
def test_every_rule(name, gpu, launches):
    assert_as_float64(gpu, name)
    assert len(launches) == 4  # one for each update


def test_more_parameters_than_a_launch_takes(gpu, launches):
    assert_as_float64(gpu, "Adam", lambda optimizer: None, 14)
    assert len(launches) == 8


def test_options_and_hooks(gpu, launches):
    def prepare(optimizer):
        optimizer.add_hook(optimizer_hooks.WeightDecay(0.1))
        optimizer.target.p0_7.update_rule.hyperparam.lr = 0.5
        optimizer.target.p0_1.update_rule.enabled = False

    assert_as_float64(gpu, "MomentumSGD", prepare)
    assert len(launches) == 8  # two learning rates


def test_whoever_looks_after_each_update_sees_it(gpu, launches):
    seen = []

    class Look:
        name, timing, call_for_each_param = "look", "post", True

        def __call__(self, rule, param):
            seen.append(cuda.to_cpu(param.array).copy())

    def prepare(optimizer):
        optimizer.target.p0_7.update_rule.add_hook(Look())

    assert_as_float64(gpu, "SGD", prepare)
    exact, found = seen[:4], seen[4:]
    np.testing.assert_allclose(found, exact, rtol=1e-4)


def test_alone_a_rule_updates_at_once(gpu, launches):
    net = L.Linear(2, 2)
    net.to_device(gpu)
    optimizers.create("SGD").setup(net)
    before = cuda.to_cpu(net.W.array)
    net.W.grad = net.W.array * 0 + 1
    net.W.update()
    assert launches == []
    assert (cuda.to_cpu(net.W.array) < before).all()
