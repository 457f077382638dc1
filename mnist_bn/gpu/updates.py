"""Chainer's update rules on a GPU: all parameters of an optimizer in one launch.

Within `GradientMethod.update`, a rule's own update is put off until that of the last parameter;
then one kernel does all that have the same numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import cupy
import numpy as np
from chainer import optimizer

from mnist_bn.gpu.raw import are_float32, launch
from mnist_bn.kernels.seam import Replacements
from mnist_bn.kernels.updates import RULES, hyperparameters, scalars

_PIECE, _MOST_ROWS = 1024, 64  # as in kernels/updates.cu
_ROW = np.dtype(
    [("p", "u8"), ("g", "u8"), ("states", "u8", (3,)), ("size", "i4"), ("first", "i4")], align=True
)
_TABLE = np.dtype([("rows", _ROW, (_MOST_ROWS,))], align=True)
_NUMBERS = np.dtype([("n", "f4", (6,))], align=True)


class _Update(NamedTuple):
    """What one launch does for many parameters.

    Attributes:
        numbers: the kernel's.
        first: on the device, in place of the first number.
    """

    kernel: str
    numbers: tuple[float, ...]
    first: cupy.ndarray | None


# Of the optimizer that is updating now: what to do -> parameter, gradient, states of each.
_put_off: dict[tuple, tuple[_Update, list[list[cupy.ndarray]]]] | None = None


def replacements() -> Replacements:
    """Returns what replaces methods of the nine update rules and of their optimizers."""
    return {
        (rule, "update_core_gpu"): _update_core_gpu(rule, kernel, state_names, numbers_of)
        for rule, kernel, state_names, numbers_of in RULES
    } | {
        (optimizer.GradientMethod, "update"): _update,
        (optimizer.GradientMethod, "reallocate_cleared_grads"): _reallocate_cleared_grads,
    }


def _update(original):
    """The wrap of `GradientMethod.update`, within which updates are put off."""

    def update(self, *args, **kwds):
        global _put_off
        outer, _put_off = _put_off, {}
        try:
            original(self, *args, **kwds)
        finally:
            _put_off = outer

    return update


def _reallocate_cleared_grads(original):
    """The wrap of what `update` calls after the last parameter's update, before hooks."""

    def reallocate_cleared_grads(self):
        _do_all()
        original(self)

    return reallocate_cleared_grads


def _update_core_gpu(rule_class, kernel, state_names, numbers_of):
    """Returns the wrap of a rule's `update_core_gpu`."""

    def wrap(original):
        def update_core_gpu(self, param):
            if type(self) is not rule_class or not _put_off_is_possible(self, param):
                _do_all()  # the rule may read other parameters
                original(self, param)
                return
            arrays = [param.data, param.grad, *[self.state[name] for name in state_names]]
            numbers = scalars(numbers_of(self, hyperparameters(self)))
            if numbers is None or not _are_alike(arrays):
                original(self, param)
                return
            alpha_t = getattr(self, "alpha_t", None)  # Adam's
            first = alpha_t if isinstance(alpha_t, cupy.ndarray) else None
            key = kernel, numbers, None if first is None else first.data.ptr
            _put_off.setdefault(key, (_Update(kernel, numbers, first), []))[1].append(arrays)

        return update_core_gpu

    return wrap


def _put_off_is_possible(rule: optimizer.UpdateRule, param) -> bool:
    """Whether an update is going on, and nobody looks at the parameter between it and the next."""
    hooks = rule._hookable
    return (
        _put_off is not None
        and param.grad is not None
        and not hooks._post_update_hooks
        and rule._fp32_param is None
    )


def _are_alike(arrays: list[cupy.ndarray]) -> bool:
    return are_float32(arrays) and all(
        [a.shape == arrays[0].shape and a.flags.c_contiguous for a in arrays]
    )


def _do_all() -> None:
    """Launches what was put off."""
    if _put_off:
        for update, parameters in _put_off.values():
            for i in range(0, len(parameters), _MOST_ROWS):
                _launch(update, parameters[i : i + _MOST_ROWS])
        _put_off.clear()


def _launch(update: _Update, parameters: list[list[cupy.ndarray]]) -> None:
    table, numbers = np.zeros((), _TABLE), np.zeros((), _NUMBERS)
    numbers["n"][: len(update.numbers)] = update.numbers
    blocks = 0
    for row, (p, g, *states) in zip(table["rows"], parameters, strict=False):
        row["p"], row["g"], row["size"], row["first"] = p.data.ptr, g.data.ptr, p.size, blocks
        row["states"][: len(states)] = [state.data.ptr for state in states]
        blocks += -(-p.size // _PIECE)
    launch(
        ("updates",), update.kernel, (), (blocks,),
        table[()], len(parameters), numbers[()], update.first,
    )  # fmt: skip
