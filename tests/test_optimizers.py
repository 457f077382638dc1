"""The nine optimizers and their hyperparameters."""

import chainer
import pytest

from mnist_bn import optimizers
from mnist_bn.errors import UsageError

# The defaults in the source of Chainer 1.12.0.
DEFAULTS_2016 = {
    "SGD": {"lr": 0.01},
    "MomentumSGD": {"lr": 0.01, "momentum": 0.9},
    "NesterovAG": {"lr": 0.01, "momentum": 0.9},
    "AdaGrad": {"lr": 0.001, "eps": 1e-8},
    "AdaDelta": {"rho": 0.95, "eps": 1e-6},
    "RMSprop": {"lr": 0.01, "alpha": 0.99, "eps": 1e-8},
    "RMSpropGraves": {"lr": 1e-4, "alpha": 0.95, "momentum": 0.9, "eps": 1e-4},
    "SMORMS3": {"lr": 0.001, "eps": 1e-16},
    "Adam": {"alpha": 0.001, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
}


def test_these_are_the_nine():
    assert list(optimizers.OF_2016) == list(DEFAULTS_2016)


@pytest.mark.parametrize("name", DEFAULTS_2016)
def test_defaults_are_those_of_2016(name):
    optimizer = optimizers.create(name)
    assert type(optimizer) is getattr(chainer.optimizers, name)
    for hyperparameter, value in DEFAULTS_2016[name].items():
        assert getattr(optimizer.hyperparam, hyperparameter) == value


@pytest.mark.parametrize("name", [n for n in DEFAULTS_2016 if n != "AdaDelta"])
def test_lr_is_the_learning_rate(name):
    optimizer = optimizers.create(name, lr=0.5)
    assert getattr(optimizer.hyperparam, "alpha" if name == "Adam" else "lr") == 0.5


@pytest.mark.parametrize("name", DEFAULTS_2016)
def test_momentum_where_it_applies(name):
    if "momentum" in DEFAULTS_2016[name]:
        assert optimizers.create(name, momentum=0.5).hyperparam.momentum == 0.5
    else:
        with pytest.raises(UsageError) as error:
            optimizers.create(name, momentum=0.5)
        assert str(error.value) == (
            f"--momentum: {name} has no momentum; "
            "these have: MomentumSGD, NesterovAG, RMSpropGraves, CorrectedMomentumSGD"
        )


def test_adadelta_has_no_learning_rate():
    with pytest.raises(UsageError) as error:
        optimizers.create("AdaDelta", lr=1.0)
    assert str(error.value) == "--lr: AdaDelta has no learning rate; leave --lr out for it"


def test_wrong_name_lists_the_right_ones():
    with pytest.raises(UsageError) as error:
        optimizers.create("sdg")
    line = str(error.value)
    assert line.startswith("no optimizer named 'sdg': choose one of SGD, MomentumSGD, ")
    assert line.endswith(", or your own as path/to/file.py:ClassName; did you mean 'SGD'?")


@pytest.mark.parametrize("name", DEFAULTS_2016)
def test_effective_hyperparameters_are_the_defaults_or_those_given(name):
    defaults = DEFAULTS_2016[name]
    rate = defaults.get("lr", defaults.get("alpha") if name == "Adam" else None)
    assert optimizers.effective(name) == (rate, defaults.get("momentum"))
    if rate is not None:
        assert optimizers.effective(name, lr=0.5) == (0.5, defaults.get("momentum"))
    if "momentum" in defaults:
        assert optimizers.effective(name, momentum=0.5) == (rate, 0.5)
