"""Chainer's update rules with kernels inside: one pass over memory each."""

from __future__ import annotations

import array
import ctypes
import weakref
from collections.abc import Callable, Iterable
from typing import NamedTuple

import chainer
import numpy as np
from chainer import optimizer, optimizers

from mnist_bn.kernels.arrays import are_writable, function, is_float32, pointer, pointers
from mnist_bn.kernels.seam import Replacements

# The methods that one call of a kernel stands for. Anybody may replace one, on a class or on an
# instance, to see or to change each update.
_UPDATE, _UPDATE_CORE = optimizer.UpdateRule.update, optimizer.UpdateRule.update_core
_PARAMETER_UPDATE = chainer.Parameter.update
_REALLOCATE = optimizer.GradientMethod.reallocate_cleared_grads
_CALL_HOOKS = optimizer.GradientMethod.call_hooks


class _Bound(NamedTuple):
    """A rule's kernel and the arrays of its parameter, checked: they stay from step to step."""

    rule: weakref.ref[optimizer.UpdateRule]
    data: weakref.ref[np.ndarray]  # functions wait only on arrays that nobody else has
    states: dict[str, np.ndarray]
    row: tuple[int, ...]  # the kernel's `Parameter`, but for the gradient
    numbers_of: Callable[..., tuple[float, ...] | None]
    kernel: Callable[[int, int, int], None]  # address and number of rows, address of the numbers
    method: Callable  # the class's `update_core_cpu` that bound them

    def fits(self, rule: optimizer.UpdateRule, param: chainer.Parameter) -> bool:
        """Whether these still are the arrays, with a gradient, and no hook or other extra."""
        grad, state, hooks, kind = param._grad, rule.state, rule._hookable, type(rule)
        for name, own in self.states.items():
            if state.get(name) is not own:
                return False
        return (
            rule.enabled
            and self.rule() is rule
            and (data := self.data()) is not None
            and param._data[0] is data
            and param._grad_valid
            and is_float32((grad,))
            and grad.shape == data.shape
            and type(param) is chainer.Parameter
            and "update" not in param.__dict__
            and param._loss_scale is None
            and _OVERRIDABLE.isdisjoint(rule.__dict__)
            and kind.update is _UPDATE
            and kind.update_core is _UPDATE_CORE
            and kind.update_core_cpu is self.method
            and not hooks._pre_update_hooks
            and not hooks._post_update_hooks
        )


# By the rule's id. Not kept in the rule itself: a copy of a rule has other arrays.
_bound: dict[int, _Bound] = {}


def replacements(library: ctypes.CDLL) -> Replacements:
    """Returns what replaces methods of the nine update rules and of their optimizers."""
    core = {
        (rule, "update_core_cpu"): _update_core_cpu(
            rule, function(library, kernel, "plp"), state_names, numbers_of
        )
        for rule, kernel, state_names, numbers_of in RULES
    }
    return core | {
        (optimizer.GradientMethod, "update"): _update,
    }


def _update_core_cpu(rule_class, kernel, state_names, numbers_of):
    """Returns the wrap of a rule's `update_core_cpu`."""

    def bind(rule, data, method) -> _Bound | None:
        state = rule.state or {}
        if not all(name in state for name in state_names):
            return None
        states = {name: state[name] for name in state_names}
        arrays = (data, *states.values())
        if not (is_float32(arrays) and are_writable(arrays)) or any(
            a.shape != data.shape or not a.flags.c_contiguous for a in arrays
        ):
            return None
        p, s0, s1, s2 = [*map(pointer, arrays), 0, 0, 0][:4]
        key = id(rule)
        return _Bound(
            weakref.ref(rule, lambda _: _bound.pop(key, None)),
            weakref.ref(data),
            states,
            (p, s0, s1, s2, data.size),
            numbers_of,
            kernel,
            method,
        )

    def wrap(original):
        def update_core_cpu(self, param):
            grad = param.grad
            if grad is None:
                return
            data = param.data
            if not is_float32((data, grad)) or grad.shape != data.shape:
                original(self, param)
                return
            bound = bind(self, data, update_core_cpu)
            numbers = scalars(numbers_of(self, hyperparameters(self)))
            if bound is None or numbers is None:
                original(self, param)
                return
            _run(numbers, [(bound, grad)])
            if type(self) is rule_class and _OVERRIDABLE.isdisjoint(vars(self)):
                _bound[id(self)] = bound

        return update_core_cpu

    return wrap


_OVERRIDABLE = frozenset(("update", "update_core", "update_core_cpu"))


def _run(numbers: tuple[float, ...], parameters: list[tuple[_Bound, np.ndarray]]) -> None:
    """Updates parameters, given with their gradients, by one call of the kernel they share."""
    rows: list[int] = []
    grads = [np.ascontiguousarray(grad) for _, grad in parameters]
    for (bound, _), address in zip(parameters, pointers(*grads), strict=True):
        rows += bound.row
        rows.append(address or 0)
    table, floats = array.array("Q", rows), array.array("f", numbers)  # quicker than NumPy's
    parameters[0][0].kernel(table.buffer_info()[0], len(grads), floats.buffer_info()[0])


def _update(original):
    """The wrap of `GradientMethod.update`: Chainer's, with `_update_all` for its loop.

    Chainer's loop looks up devices and sends every state array to one, for each parameter in each
    step, which takes longer than the kernels.
    """

    def update(self, lossfun=None, *args, **kwds):
        if lossfun is not None:
            loss = lossfun(*args, **kwds)
            if getattr(self, "_use_cleargrads", True):
                self.target.cleargrads()
            else:
                self.target.zerograds()
            loss.backward(loss_scale=self._loss_scale)
            del loss
        params = list(self.target.params())
        _reallocate(self, params)
        self.check_nan_in_grads()
        self.call_hooks("pre")
        if self._hookable._pre_update_hooks or type(self).call_hooks is not _CALL_HOOKS:
            params = list(self.target.params())  # hooks may have added or removed some
        self.t += 1
        if self.is_safe_to_update():
            _update_all(params)
        _reallocate(self, params)
        self.call_hooks("post")
        self.update_loss_scale()

    return update


def _update_all(params: Iterable[chainer.Parameter]) -> None:
    """Does `param.update()` for each: one call does all that a kernel was bound to before."""
    # Rules mostly share hyperparameters and the step they are at, and so the numbers.
    batches: dict[tuple, list[tuple[_Bound, np.ndarray]]] = {}
    numbers: dict[tuple, tuple[float, ...]] = {}

    def run_batches() -> None:
        for key, parameters in batches.items():
            _run(numbers[key], parameters)
        batches.clear()

    def update_by_chainer(param: chainer.Parameter) -> None:
        run_batches()  # its rule may read the parameters before it
        param.update()

    is_stock = chainer.Parameter.update is _PARAMETER_UPDATE
    for param in params:
        rule = param.update_rule
        bound = _bound.get(id(rule)) if is_stock else None
        if bound is None or not bound.fits(rule, param):
            update_by_chainer(param)
            continue
        rule.t += 1
        hp = hyperparameters(rule)
        key = type(rule), id(hp), rule.t
        batch = batches.get(key)
        if batch is None:
            own = scalars(bound.numbers_of(rule, hp))
            if own is None:
                rule.t -= 1
                update_by_chainer(param)
                continue
            numbers[key] = own
            batch = batches[key] = []
        batch.append((bound, param._grad))
    run_batches()


def scalars(numbers: tuple | None) -> tuple[float, ...] | None:
    """Returns the numbers, None if one is an array: Chainer takes a rate for each element."""
    if numbers is None or not all([isinstance(n, (float, int, np.number)) for n in numbers]):
        return None
    return numbers


def _reallocate(method: optimizer.GradientMethod, params: list[chainer.Parameter]) -> None:
    """Does `reallocate_cleared_grads()`, after a look if there is any to do."""
    overridden = getattr(method.reallocate_cleared_grads, "__func__", None) is not _REALLOCATE
    if overridden or any(
        [p._data[0] is not None and (p._grad is None or not p._grad_valid) for p in params]
    ):
        method.reallocate_cleared_grads()


def hyperparameters(rule):
    """Returns where they are: a rule's own object asks its parent, slowly, for what it lacks."""
    own = rule.hyperparam
    parent = own._parent
    return parent if parent is not None and len(own.__dict__) == 1 else own


# --- (rule, hyperparameters) -> the kernel's numbers, None for options that it does not cover ---


def _sgd(rule, hp):
    return (hp.lr,)


def _momentum_sgd(rule, hp):
    return hp.lr, hp.momentum


def _nesterov_ag(rule, hp):
    return hp.lr, hp.momentum, hp.momentum * hp.momentum, (1 + hp.momentum) * hp.lr


def _ada_grad(rule, hp):
    return hp.lr, hp.eps


def _ada_delta(rule, hp):
    if _is_tiny(hp.eps):
        return None
    return hp.rho, 1 - hp.rho, hp.eps


def _rmsprop(rule, hp):
    if _is_tiny(hp.eps):
        return None
    inside, outside = (hp.eps, 0.0) if hp.eps_inside_sqrt else (0.0, hp.eps)
    return hp.lr, hp.alpha, 1 - hp.alpha, inside, outside


def _rmsprop_graves(rule, hp):
    if _is_tiny(hp.eps):
        return None
    return hp.lr, hp.alpha, 1 - hp.alpha, hp.momentum, hp.eps


def _smorms3(rule, hp):
    if _is_tiny(hp.eps):
        return None
    return hp.lr, hp.eps


def _adam(rule, hp):
    if hp.amsgrad or hp.adabound or _is_tiny(hp.eps):
        return None
    keep = 1.0 - hp.eta * hp.weight_decay_rate
    alpha_t = optimizers.adam._learning_rate(hp, rule.t)
    return alpha_t, 1.0 - hp.beta1, 1.0 - hp.beta2, hp.eps, hp.eta, keep


# rule, kernel, the arrays of its state in the kernel's order, what gives the kernel's numbers
RULES = (
    (optimizers.sgd.SGDRule, "update_sgd", (), _sgd),
    (optimizers.momentum_sgd.MomentumSGDRule, "update_momentum_sgd", ("v",), _momentum_sgd),
    (optimizers.nesterov_ag.NesterovAGRule, "update_nesterov_ag", ("v",), _nesterov_ag),
    (optimizers.ada_grad.AdaGradRule, "update_ada_grad", ("h",), _ada_grad),
    (optimizers.ada_delta.AdaDeltaRule, "update_ada_delta", ("msg", "msdx"), _ada_delta),
    (optimizers.rmsprop.RMSpropRule, "update_rmsprop", ("ms",), _rmsprop),
    (
        optimizers.rmsprop_graves.RMSpropGravesRule,
        "update_rmsprop_graves",
        ("n", "g", "delta"),
        _rmsprop_graves,
    ),
    (optimizers.smorms3.SMORMS3Rule, "update_smorms3", ("mem", "g", "g2"), _smorms3),
    (optimizers.adam.AdamRule, "update_adam", ("m", "v"), _adam),
)


def _is_tiny(eps: float) -> bool:
    """Whether eps does not hide what the kernels take for zero: averages below 1.2e-38.

    Chainer itself refuses an eps that is zero in float32.
    """
    return not eps >= 1e-16
