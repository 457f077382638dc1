"""The nine optimizers and their hyperparameters."""

import dataclasses

import chainer
import numpy as np
import pytest

from mnist_bn import optimizers, training
from mnist_bn.config import RunConfig
from mnist_bn.errors import UsageError
from mnist_bn.storage.identity import difference
from mnist_bn.training import prepare

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
    assert str(error.value) == "no optimizer named 'sdg'; did you mean 'SGD'? --help has all names"
    with pytest.raises(UsageError) as error:
        optimizers.create("newton")
    line = str(error.value)
    assert line.startswith("no optimizer named 'newton': choose one of SGD, MomentumSGD, ")
    assert line.endswith(", or your own as path/to/file.py:ClassName")


@pytest.mark.parametrize("name", DEFAULTS_2016)
def test_effective_hyperparameters_are_the_defaults_or_those_given(name):
    defaults = DEFAULTS_2016[name]
    rate = defaults.get("lr", defaults.get("alpha") if name == "Adam" else None)
    assert optimizers.effective(name) == (rate, defaults.get("momentum"))
    if rate is not None:
        assert optimizers.effective(name, lr=0.5) == (0.5, defaults.get("momentum"))
    if "momentum" in defaults:
        assert optimizers.effective(name, momentum=0.5) == (rate, 0.5)


def test_every_optimizer_of_chainers_is_there():
    of_chainer = {n for n in dir(chainer.optimizers) if n[0].isupper()}
    assert set(optimizers.names()) == of_chainer >= {"AdamW", "AMSGrad", "MSVAG"}
    for name in optimizers.names():
        optimizers.check(name)
        assert type(optimizers.create(name.upper())) is getattr(chainer.optimizers, name)


@pytest.mark.parametrize(
    ("given", "resolved"),
    [
        (("sgd",), ("SGD", 0.01, None)),
        (("SGD", 0.01), ("SGD", 0.01, None)),
        (("sgd(lr=0.5)",), ("SGD", 0.5, None)),
        (("MomentumSGD(momentum=0.5, lr=0.1)",), ("MomentumSGD", 0.1, 0.5)),
        (("amsgrad(beta1=0.5, alpha=0.1)",), ("AMSGrad(beta1=0.5)", 0.1, None)),
        (("AdaDelta(rho=0.5)",), ("AdaDelta(rho=0.5)", None, None)),
        (("Adam(beta1=0.5)", 0.1), ("Adam(beta1=0.5)", 0.1, None)),
        (("RMSprop(alpha=0.5)",), ("RMSprop(alpha=0.5)", 0.01, None)),
        (("SGD(lr='a')",), ("SGD(lr='a')", None, None)),  # for `check` to refuse
    ],
)
def test_settings_in_brackets_and_flags_are_the_same(given, resolved):
    assert optimizers.resolve(*given) == resolved
    assert optimizers.resolve(*resolved) == resolved
    optimizer = optimizers.create(*resolved)
    assert vars(optimizers.create(*given).hyperparam) == vars(optimizer.hyperparam)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (("SGD(lr=0.1)", 0.2), "--lr 0.2: SGD(lr=0.1) has it already; give it once"),
        (("SGD(rate=1)",), "SGD(rate=1): TypeError: SGD.__init__() got an unexpected keyword"),
        (("SGD(lr='a')",), "SGD(lr='a'): a step of this optimizer failed: "),
        (("SGD(0.1)",), "--optimizer SGD(0.1): expected numbers, or words in quotes, by their"),
        (("SGD()#/..",), "--optimizer SGD()#/..: expected numbers, or words in quotes, by their"),
        (("S/GD",), "--optimizer 'S/GD': expected a class's name, as Adam(beta1=0.5), or path/"),
    ],
)
def test_wrong_settings_are_one_line(given, line):
    with pytest.raises(UsageError) as error:
        optimizers.check(*given)
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)


OWN = """
import chainer
from chainer import optimizers

class HalfRule(chainer.UpdateRule):
    def init_state(self, param):
        self.state["steps"] = param.xp.zeros(())

    def update_core(self, param):
        self.state["steps"] += 1
        param.data -= self.hyperparam.lr * param.grad

class Half(chainer.GradientMethod):
    def __init__(self, lr=0.5, momentum=0.25, word="a"):
        super().__init__()
        self.hyperparam.lr, self.hyperparam.momentum = lr, momentum

    def create_update_rule(self):
        return HalfRule(self.hyperparam)

class Options(optimizers.MomentumSGD):
    def __init__(self, **options):
        super().__init__(**options)

class Lazy(chainer.GradientMethod):
    pass

class NoOptimizer:
    pass
"""


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return path


def test_an_optimizer_of_ones_own(own):
    assert optimizers.effective(f"{own}:Half") == (0.5, 0.25)
    assert optimizers.resolve(f"{own}:half(lr=1, word='b')") == (f"{own}:Half(word='b')", 1, 0.25)
    assert optimizers.effective(f"{own}:Options", 0.3) == (0.3, 0.9)
    optimizers.check(f"{own}:Half", 0.1, 0.2)


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ("Hlaf", ": no chainer.GradientMethod class named 'Hlaf'; it has Half, Options, Lazy; did"),
        ("NoOptimizer", ": no chainer.GradientMethod class named 'NoOptimizer'; it has Half, "),
        ("Lazy", ":Lazy: a step of this optimizer failed: "),
        ("Half(size=3)", ":Half(size=3): TypeError: Half.__init__() got an unexpected keyword"),
    ],
)
def test_what_is_wrong_with_ones_own_is_one_line(own, spec, line):
    with pytest.raises(UsageError) as error:
        optimizers.check(f"{own}:{spec}")
    assert str(error.value).startswith(f"{own}{line}")
    assert "\n" not in str(error.value)


def test_a_run_with_ones_own_drops_its_rate_and_does_not_go_on_with_another_version(
    own, tmp_path, tiny_data, no_plots
):
    config = RunConfig(
        "ReluMLP", f"{own}:Half", dataset="mnist", batchsize=8, epoch=2, lr_drop="1",
        accelerate="off", out=str(tmp_path),
    )  # fmt: skip
    run = prepare(config)
    assert run.config.name == "ReluMLP-Half-b8-drop1-s0"
    trainer = training.build_trainer(run)
    trainer.run()
    optimizer = trainer.updater.get_optimizer("main")
    assert optimizer.hyperparam.lr == pytest.approx(0.05)
    own.write_text(OWN + "# edited\n")
    assert difference(run.identity, prepare(config).identity) == "another version of own.py"


def test_a_default_that_is_given_is_the_same_run(tiny_data):
    runs = [
        prepare(RunConfig("ReluMLP", optimizer, lr=lr, dataset="mnist", batchsize=8)).config
        for optimizer, lr in (("SGD", None), ("sgd", 0.01), ("SGD(lr=0.01)", None))
    ]
    assert runs[0] == runs[1] == runs[2]
    assert (runs[0].lr, runs[0].momentum) == (0.01, None)
    assert runs[0].name == "ReluMLP-SGD-b8-s0"
    other = prepare(dataclasses.replace(runs[0], lr=0.02)).config
    assert other.name == "ReluMLP-SGD-lr0.02-b8-s0"
    assert prepare(other).to_args()["lr"] == 0.02
    assert prepare(runs[0]).to_args()["lr"] == 0.01


def test_runs_of_before_the_settings_were_effective_compare_as_they_were():
    now = RunConfig(optimizer="MomentumSGD", lr=0.01, momentum=0.9).identity()
    assert difference({**now, "lr": None, "momentum": None}, now) is None
    assert difference({**now, "lr": None}, {**now, "lr": 0.1}) == "lr 0.01, not 0.1"
    assert difference({**now, "optimizer": 3}, now) == "optimizer 3, not MomentumSGD"
    # Of a file that is gone.
    gone = {**now, "optimizer": "gone.py:Mine", "lr": None}
    assert difference(gone, gone) is None


def test_numpy_is_quiet_in_the_first_step():
    with np.errstate(all="raise"):
        optimizers.check("AdaBound")
