"""The kernels behind Chainer's update rules, against stock Chainer in float64."""

import copy

import chainer
import chainer.links as L
import numpy as np
import pytest
from chainer import optimizers
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_bn.kernels import updates
from tests.kernels.switching import kernels

STEPS = 6
OPTIMIZERS = {
    "SGD": optimizers.SGD,
    "MomentumSGD": optimizers.MomentumSGD,
    "NesterovAG": optimizers.NesterovAG,
    "AdaGrad": optimizers.AdaGrad,
    "AdaDelta": optimizers.AdaDelta,
    "RMSprop": optimizers.RMSprop,
    "RMSprop, eps inside": lambda: optimizers.RMSprop(eps_inside_sqrt=True),
    "RMSpropGraves": optimizers.RMSpropGraves,
    "SMORMS3": optimizers.SMORMS3,
    "Adam": optimizers.Adam,
    "Adam with weight decay": lambda: optimizers.Adam(eta=0.5, weight_decay_rate=0.1),
}
UNCOVERED = {
    "AMSGrad": optimizers.AMSGrad,
    "AdaBound": optimizers.AdaBound,
    "CorrectedMomentumSGD": optimizers.CorrectedMomentumSGD,
}


@pytest.fixture(scope="module")
def replacements(library):
    return updates.replacements(library)


class Parameters(chainer.Chain):
    """A parameter of each shape."""

    def __init__(self, shapes, dtype="f"):
        super().__init__()
        with self.init_scope():
            for i, shape in enumerate(shapes):
                array = np.asarray(np.random.RandomState(i).randn(*shape), np.float32)
                setattr(self, f"p{i}", chainer.Parameter(array.astype(dtype)))


def gradient(shape, step, strided=False):
    g = np.asarray(np.random.RandomState(100 + step).randn(*shape), np.float32)
    return np.array(g, order="F") if strided else g


def train(make_optimizer, shapes, dtype="f", strided=False, prepare=None, steps=STEPS):
    """Returns all parameters and states after some updates with given gradients."""
    model = Parameters(shapes, dtype)
    optimizer = make_optimizer().setup(model)
    if prepare:
        prepare(optimizer)
    for step in range(steps):
        for parameter in model.params():
            parameter.grad = gradient(parameter.shape, step, strided).astype(dtype, order="K")
        optimizer.update()
    return arrays_of(model)


def arrays_of(model):
    arrays = []
    for parameter in model.params():
        state = parameter.update_rule.state or {}
        arrays += [parameter.array, *(state[name] for name in sorted(state))]
    return arrays


def assert_same_bits(actual, expected):
    for a, e in zip(actual, expected, strict=True):
        assert a.dtype == e.dtype
        np.testing.assert_array_equal(a, e)


@pytest.mark.parametrize("name", OPTIMIZERS)
@settings(deadline=None, max_examples=10)
@given(
    st.lists(st.lists(st.integers(0, 9), max_size=3).map(tuple), min_size=1, max_size=4),
    st.booleans(),
)
def test_several_steps(replacements, name, shapes, strided):
    exact = train(OPTIMIZERS[name], shapes, "d")
    stock = train(OPTIMIZERS[name], shapes)
    with kernels(replacements):
        actual = train(OPTIMIZERS[name], shapes, strided=strided)
    for a, s, e in zip(actual, stock, exact, strict=True):
        assert a.dtype == np.float32 and a.shape == e.shape
        # A tenth of an update's own size would be seen; a few roundings of its numbers are not.
        np.testing.assert_allclose(a, e, rtol=0, atol=2 * np.abs(s - e).max(initial=0) + 4e-6)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS.keys() - {"SGD", "AdaGrad"}))
def test_running_averages_without_gradients_end_at_zero(replacements, name):
    """Numbers below float32's normal ones take a CPU tens of times as long as others."""
    with kernels(replacements):
        model = Parameters([(16,)])
        optimizer = OPTIMIZERS[name]().setup(model)
        (parameter,) = model.params()
        parameter.grad = np.zeros(16, np.float32)
        optimizer.update()
        state = parameter.update_rule.state
        for average in state.values():
            average[...] = np.linspace(-1, 1, 16) * 2 * np.finfo(np.float32).tiny
        for _ in range(3):
            optimizer.update()
    for key, average in state.items():
        if key != "mem":  # SMORMS3's count of steps
            too_small = (average != 0) & (np.abs(average) < np.finfo(np.float32).tiny)
            assert not too_small.any(), key


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_kernel_is_what_runs(replacements, name, monkeypatch):
    calls = []
    run = updates._run
    monkeypatch.setattr(updates, "_run", lambda *args: (calls.append(len(args[1])), run(*args)))
    with kernels(replacements):
        train(OPTIMIZERS[name], [(3, 4), (5,)], steps=3)
    assert calls == [1, 1, 2, 2]  # the first step checks the arrays, later ones are one call


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.filterwarnings("ignore:(invalid value|overflow|divide)")
def test_not_a_number_and_infinity_as_stock(replacements, name):
    def run():
        model = Parameters([(40,)])
        optimizer = OPTIMIZERS[name]().setup(model)
        for value in (1.0, np.nan, np.inf, 0.0):
            model.p0.grad = gradient((40,), 0)
            model.p0.grad[:5] = value, -value, 0, 1e15, 1e-30
            optimizer.update()
        return arrays_of(model)

    stock = run()
    with kernels(replacements):
        actual = run()
    for a, s in zip(actual, stock, strict=True):
        np.testing.assert_allclose(a, s, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "name, dtype",
    [
        *((name, "f") for name in UNCOVERED),
        *((name, "d") for name in OPTIMIZERS),
        *((name, "e") for name in OPTIMIZERS if "RMSprop" not in name),  # its eps is 0 in float16
    ],
)
@pytest.mark.filterwarnings("ignore:(invalid value|overflow|divide)")
def test_what_no_kernel_covers_has_stocks_very_bits(replacements, name, dtype):
    make = (OPTIMIZERS | UNCOVERED)[name]
    stock = train(make, [(3, 4), (5,)], dtype)
    with kernels(replacements):
        actual = train(make, [(3, 4), (5,)], dtype)
    assert_same_bits(actual, stock)


def test_the_float32_master_copy_of_float16_parameters(replacements):
    def prepare(optimizer):
        optimizer.use_fp32_update()

    stock = train(optimizers.Adam, [(30,)], "e", prepare=prepare)
    with kernels(replacements):
        actual = train(optimizers.Adam, [(30,)], "e", prepare=prepare)
    assert actual[0].dtype == np.float16 and actual[1].dtype == np.float32
    np.testing.assert_allclose(actual[0], stock[0], rtol=2e-3)


def test_hooks_and_disabled_rules_and_cleared_gradients(replacements):
    def run():
        model = Parameters([(3,), (4,), (5,), (6,)])
        optimizer = optimizers.Adam().setup(model)
        calls = []
        for step in range(STEPS):
            for parameter in model.params():
                parameter.grad = gradient(parameter.shape, step)
            if step == 2:
                model.p0.update_rule.enabled = False
                optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(0.1))
                model.p1.update_rule.add_hook(lambda rule, p: calls.append(rule.t), "count")
                model.p2.update_rule.hyperparam.alpha = 0.1
            if step == 4:
                model.p3.cleargrad()
                optimizer.alpha = 0.5
            optimizer.update()
        steps = [parameter.update_rule.t for parameter in model.params()]
        return arrays_of(model), calls, steps, optimizer.t

    stock = run()
    with kernels(replacements):
        actual = run()
    assert actual[1:] == stock[1:]
    for a, s in zip(actual[0], stock[0], strict=True):
        np.testing.assert_allclose(a, s, rtol=1e-5, atol=1e-6)


def test_loss_scaling(replacements):
    def run():
        model = L.Linear(4, 3, initialW=np.float32(np.arange(12).reshape(3, 4)) / 10)
        optimizer = optimizers.MomentumSGD().setup(model)
        optimizer.loss_scaling(scale=8)
        for step in range(STEPS):
            x = gradient((5, 4), step)
            optimizer.update(lambda x: chainer.functions.sum(model(x) ** 2), x)
        return model.W.array

    stock = run()
    with kernels(replacements):
        np.testing.assert_allclose(run(), stock, rtol=1e-5)


def test_a_rule_of_ones_own_is_called(replacements):
    class Clipped(optimizers.adam.AdamRule):
        def update_core_cpu(self, param):
            super().update_core_cpu(param)
            np.clip(param.array, -0.1, 0.1, out=param.array)

    def prepare(optimizer):
        for parameter in optimizer.target.params():
            parameter.update_rule = Clipped(optimizer.hyperparam)

    with kernels(replacements):
        parameter, *_ = train(optimizers.Adam, [(50,)], prepare=prepare)
    assert np.abs(parameter).max() <= np.float32(0.1)


def test_a_copy_of_a_model_has_arrays_of_its_own(replacements):
    with kernels(replacements):
        model = Parameters([(8,)])
        optimizer = optimizers.Adam().setup(model)
        for step in range(3):
            model.p0.grad = gradient((8,), step)
            optimizer.update()
        other = copy.deepcopy(optimizer)
        before = model.p0.array.copy(), model.p0.update_rule.state["m"].copy()
        other.target.p0.grad = gradient((8,), 9)
        other.update()
    np.testing.assert_array_equal(model.p0.array, before[0])
    np.testing.assert_array_equal(model.p0.update_rule.state["m"], before[1])
    assert (other.target.p0.array != before[0]).all()


def test_arrays_replaced_between_steps(replacements):
    def run():
        model = Parameters([(8,)])
        optimizer = optimizers.Adam().setup(model)
        for step in range(STEPS):
            model.p0.grad = gradient((8,), step)
            optimizer.update()
            if step == 2:
                model.p0.array = model.p0.array[::-1].copy()
            if step == 3:
                model.p0.update_rule.state["m"] = np.ones(8, "f")
        return arrays_of(model)

    stock = run()
    with kernels(replacements):
        actual = run()
    for a, s in zip(actual, stock, strict=True):
        np.testing.assert_allclose(a, s, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["Adam", "RMSprop"])
def test_an_eps_that_vanishes_in_float32_is_an_error_as_in_stock(replacements, name):
    def prepare(optimizer):
        optimizer.eps = 1e-50

    with pytest.raises(Exception) as stock:
        train(OPTIMIZERS[name], [(3,)], prepare=prepare)
    with kernels(replacements), pytest.raises(stock.type) as actual:
        train(OPTIMIZERS[name], [(3,)], prepare=prepare)
    assert str(actual.value) == str(stock.value)


class TwoParameters(chainer.Chain):
    """a, whose rule has a kernel, and b, whose rule is the test's."""

    def __init__(self, a=None):
        super().__init__()
        with self.init_scope():
            self.a = chainer.Parameter(np.ones(3, np.float32) if a is None else a)
            self.b = chainer.Parameter(np.zeros(3, np.float32))


def steps_of(make_optimizer, change, gradients=(0.5, 0.5, 0.5), a=None):
    """Returns the arrays after an update for each gradient; `change` comes before each."""
    model = TwoParameters(a)
    optimizer = make_optimizer().setup(model)
    for step, gradient in enumerate(gradients):
        for parameter in model.params():
            parameter.grad = np.full(parameter.shape, gradient, np.float32)
        change(step, optimizer, model)
        optimizer.update()
    return arrays_of(model)


def nothing(step, optimizer, model):
    pass


def copy_a_in_bs_rule(step, optimizer, model):
    def update_core(param):
        param.array[...] = model.a.array

    model.b.update_rule.update_core = update_core


def override_after_the_first_step(step, optimizer, model):
    if step == 1:
        model.a.update_rule.update_core = lambda param: None


def add_a_parameter_in_a_hook(step, optimizer, model):
    def hook(optimizer):
        if not hasattr(model, "c"):
            with model.init_scope():
                model.c = chainer.Parameter(np.ones(2, np.float32))
            model.c.grad = np.ones(2, np.float32)
            model.c.update_rule = optimizer.create_update_rule()

    if step == 1:
        optimizer.add_hook(hook, "add")


def disable_for_a_step(step, optimizer, model):
    model.b.update_rule.enabled = step != 1


def uncover_after_the_first_step(step, optimizer, model):
    if step == 1:
        optimizer.hyperparam.amsgrad = True
        for parameter in model.params():
            parameter.update_rule.state["vhat"] = np.zeros(3, np.float32)


def scale_in_hooks(step, optimizer, model):
    def hook(optimizer):
        model.a.array *= np.float32(0.5)

    if step == 0:
        hook.timing = "post"
        optimizer.add_hook(hook, "halve", timing="post")


def hook_of_a_rule(step, optimizer, model):
    def hook(rule, param):
        param.array += np.float32(1)

    if step == 1:
        model.a.update_rule.add_hook(hook, "add one", timing="post")


def drop_a_gradient(step, optimizer, model):
    model.b.cleargrad()


@pytest.mark.parametrize(
    ("make_optimizer", "change"),
    [
        (optimizers.SGD, copy_a_in_bs_rule),
        (optimizers.SGD, override_after_the_first_step),
        (optimizers.SGD, add_a_parameter_in_a_hook),
        (optimizers.Adam, disable_for_a_step),
        (optimizers.Adam, uncover_after_the_first_step),
        (optimizers.SGD, scale_in_hooks),
        (optimizers.SGD, hook_of_a_rule),
        (optimizers.Adam, drop_a_gradient),
        (lambda: optimizers.SGD(lr=np.array([0, 0.1, 0.2], np.float32)), nothing),
    ],
    ids=lambda case: getattr(case, "__name__", "case"),
)
def test_the_order_of_updates_and_hooks_is_chainers(replacements, make_optimizer, change):
    expected = steps_of(make_optimizer, change)
    with kernels(replacements):
        actual = steps_of(make_optimizer, change)
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "make_optimizer",
    [lambda: optimizers.RMSprop(eps=0), lambda: optimizers.Adam(eps=0)],
    ids=["RMSprop", "Adam"],
)
def test_tiny_gradients_count_where_eps_is_zero(replacements, make_optimizer):
    gradients = (1e-18, 0, 0)
    with np.errstate(all="ignore"):
        expected = steps_of(make_optimizer, nothing, gradients)
        with kernels(replacements):
            actual = steps_of(make_optimizer, nothing, gradients)
    assert np.isfinite(expected[0]).all()
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-5)


def test_memory_that_must_not_be_written_is_not(replacements):
    frozen = np.frombuffer(np.ones(3, np.float32).tobytes(), np.float32)
    with kernels(replacements), pytest.raises(ValueError, match="read-only"):
        steps_of(optimizers.SGD, nothing, a=frozen)
    assert (frozen == 1).all()


def skip(self, *args):
    """Stands for any method that somebody replaces to see or to change the updates."""


@pytest.mark.parametrize(
    ("owner", "method"),
    [
        (optimizers.adam.AdamRule, "update_core_cpu"),
        (optimizers.adam.AdamRule, "update_core"),
        (chainer.UpdateRule, "update_core"),
        (chainer.UpdateRule, "update"),
        (chainer.Parameter, "update"),
    ],
)
def test_methods_replaced_on_a_class_are_called(replacements, monkeypatch, owner, method):
    def replace_after_the_first_step(step, optimizer, model):
        if step == 1:
            monkeypatch.setattr(owner, method, skip, raising=False)

    once = steps_of(optimizers.Adam, nothing, gradients=(0.5,))
    with kernels(replacements):
        actual = steps_of(optimizers.Adam, replace_after_the_first_step)
        monkeypatch.undo()
    np.testing.assert_allclose(actual[0], once[0], rtol=1e-6)


def test_an_update_of_the_parameters_own_is_called(replacements):
    def set_after_the_first_step(step, optimizer, model):
        if step == 1:
            model.a.update = lambda: None

    once = steps_of(optimizers.Adam, nothing, gradients=(0.5,))
    with kernels(replacements):
        actual = steps_of(optimizers.Adam, set_after_the_first_step)
    np.testing.assert_allclose(actual[0], once[0], rtol=1e-6)
    assert not np.allclose(actual[3], once[3], rtol=1e-6)  # the other parameter goes on


def test_reallocating_gradients_may_be_overridden(replacements):
    calls = []

    class SGD(optimizers.SGD):
        def reallocate_cleared_grads(self):
            calls.append(self.t)

    with kernels(replacements):
        steps_of(SGD, nothing, gradients=(0.5,))
    assert calls == [0, 1]


@pytest.mark.filterwarnings("ignore:Non finite number found")
def test_dynamic_loss_scaling_goes_on(replacements):
    def scales():
        model = TwoParameters()
        optimizer = optimizers.SGD().setup(model)
        optimizer.loss_scaling(interval=2)
        scales = []
        for value in (0.5, np.inf, 0.5, 0.5, 0.5):
            for parameter in model.params():
                parameter.grad = np.full(3, value, np.float32)
            optimizer.update()
            scales.append(optimizer._loss_scale)
        return [*scales, model.a.array.tolist()]

    expected = scales()
    with kernels(replacements):
        assert scales() == expected
