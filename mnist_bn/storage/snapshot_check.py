"""Whether what a snapshot says can be true of the run that is to go on from it.

The checksum of a snapshot finds damage. This finds what has a right checksum all the same: a file
of another program's, say. Chainer itself loads nearly everything, and fails steps later, or never.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Mapping

import chainer
import numpy as np
from chainer.iterators import ShuffleOrderSampler
from chainer.serializers import DictionarySerializer
from chainer.training import Trainer

from mnist_bn.config import LENGTHS
from mnist_bn.errors import UserError

MODEL = "updater/model:main/"
OPTIMIZER = "updater/optimizer:main/"
ITERATOR = "updater/iterator:main/"
_ITERATION = "updater/iteration"
_LIKE = dict.fromkeys("biuf", "biuf")

Arrays = Mapping[str, np.ndarray]


class Impossible(UserError):
    """A snapshot holds what no run of these settings comes to."""

    def __init__(self, name: str, expected: str, found: object) -> None:
        super().__init__(f"damaged: expected {name} to be {expected}, found {found}")


def check(arrays: Arrays, trainer: Trainer) -> None:
    """Checks a snapshot's arrays by a new trainer of the same settings, which stays as it is.

    Raises:
        Impossible: one is of another type or shape, or out of its range.
        ValueError: it is of another network or optimizer.
        KeyError: one is missing.
    """
    iteration = _integer(arrays, _ITERATION)
    check_range(_ITERATION, iteration, 0, 2**53)
    _check_state(arrays, trainer)
    _check_steps(arrays, trainer, iteration)
    _check_iterator(arrays, trainer.updater.get_iterator("main"), iteration)
    _check_triggers(arrays, iteration)
    check_range("_snapshot_elapsed_time", _number(arrays, "_snapshot_elapsed_time"), 0, 2**53)


def check_header(header: Mapping, arrays: Arrays, observation_prefix: str) -> None:
    """Checks what a snapshot's header says, but for the random state.

    Raises:
        Impossible: the run's length is none, a name stands for an array and for None, what
            `update_rules.restore` is to put back are no numbers by their names by their owners, or
            what was reported before an evaluation are none by their names, the loss among them.
    """
    for unit in LENGTHS:
        length = header["identity"].get(unit)
        if not (length is None or (type(length) is int and length >= 1)):
            raise Impossible(f"its run's {unit}", "a whole number above 0", repr(length)[:40])
    for name in header["none"]:
        if name in arrays:
            raise Impossible(name, "an array or nothing", "both")
    owned = header.get("optimizer", {})
    for named in owned.values() if isinstance(owned, dict) else [None]:
        values = named.values() if isinstance(named, dict) else [None]
        if not all(isinstance(value, bool | int | float) for value in values):
            raise Impossible("what the optimizer keeps", "numbers by their names", repr(named)[:40])
    names = header["observation"]
    if names is None:
        return
    if (
        not isinstance(names, list)
        or not all(isinstance(name, str) for name in names)
        or "main/loss" not in names
    ):
        raise Impossible("the observation", "names, main/loss among them", names)
    for i in range(len(names)):
        _number(arrays, f"{observation_prefix}{i}")


def _check_state(arrays: Arrays, trainer: Trainer) -> None:
    """Checks shapes and dtypes of parameters, and of what the optimizer keeps of each."""
    serializer = DictionarySerializer()
    trainer.updater.serialize(serializer["updater"])
    expected = {
        **_numbers_of_extensions(trainer),
        **serializer.target,
        **_optimizer_state(arrays, trainer),
    }
    for name, wanted in expected.items():
        if wanted.dtype == object or name not in arrays:
            continue  # without a shape yet; what is missing Chainer itself finds
        found = arrays[name]
        are_alike = found.dtype == wanted.dtype
        if wanted.ndim == 0:  # a number of another width, or a count of a network's own
            are_alike = found.dtype.kind in _LIKE.get(wanted.dtype.kind, wanted.dtype.kind)
        if found.shape != wanted.shape or not are_alike:
            raise ValueError(f"expected {name} {_kind(wanted)}, found {_kind(found)}")


def _numbers_of_extensions(trainer: Trainer) -> dict[str, np.ndarray]:
    """Returns single numbers that extensions keep; what else they keep they check themselves."""
    serializer = DictionarySerializer()
    for name, entry in trainer._extensions.items():
        if hasattr(entry.extension, "serialize"):
            entry.extension.serialize(serializer["extensions"][name])
    return {
        name: value
        for name, value in serializer.target.items()
        if value.ndim == 0 and value.dtype.kind in "biuf"
    }


def _optimizer_state(arrays: Arrays, trainer: Trainer) -> dict[str, np.ndarray]:
    """Returns what the update rules begin with, of parameters of the snapshot's shapes."""
    state = {}
    for path, parameter in trainer.updater.get_optimizer("main").target.namedparams():
        values = arrays.get(f"{MODEL}{path[1:]}")
        if values is None or parameter.update_rule is None:
            continue
        rule = copy.copy(parameter.update_rule)
        rule._state = {}
        rule.init_state(chainer.Variable(values, grad=values))
        for name, value in rule._state.items():
            state[f"{OPTIMIZER}{path[1:]}/{name}"] = np.asarray(value)
    return state


def _check_steps(arrays: Arrays, trainer: Trainer, iteration: int) -> None:
    """Checks how many updates the optimizer and its rules have done, and how many epochs."""
    named = dict(trainer.updater.get_optimizer("main").target.namedparams())
    # Of a link that a network has under two names, each step updates the parameters twice.
    names = Counter(map(id, named.values()))
    steps = {f"{OPTIMIZER}{path[1:]}/t": iteration * names[id(p)] for path, p in named.items()}
    for name in arrays:
        if name.startswith(OPTIMIZER) and name.endswith("/t"):
            check_range(name, _integer(arrays, name), 0, steps.get(name, iteration))
    epoch = f"{OPTIMIZER}epoch"
    check_range(epoch, _integer(arrays, epoch), 0, iteration)


def _check_triggers(arrays: Arrays, iteration: int) -> None:
    stop = [f"stop_trigger/{name}" for name in ("previous_iteration", "previous_epoch_detail")]
    for name in {*stop, *(name for name in arrays if name.startswith("extension_triggers/"))}:
        if name.endswith("/previous_iteration"):
            check_range(name, _integer(arrays, name), -1, iteration)
        if name.endswith("/previous_epoch_detail"):
            check_range(name, _number(arrays, name), -1, 2**53)


def _check_iterator(
    arrays: Arrays, iterator: chainer.iterators.SerialIterator, iteration: int
) -> None:
    """Checks the place in the data, which follows from the number of steps, and their order."""
    images, batch = len(iterator.dataset), iterator.batch_size
    epoch, position = divmod(iteration * batch, images)
    before = (iteration - 1) * batch
    for name, expected in (
        ("epoch", epoch),
        ("current_position", position),
        ("is_new_epoch", iteration > 0 and before // images < epoch),
    ):
        found = arrays[ITERATOR + name]
        if found.shape != () or found != expected:
            raise Impossible(ITERATOR + name, f"{expected}", _short(found))
    name = f"{ITERATOR}previous_epoch_detail"
    expected = before / images if iteration else -1.0
    if not math.isclose(_number(arrays, name), expected, rel_tol=1e-9, abs_tol=1e-9):
        raise Impossible(name, f"{expected}", _short(arrays[name]))
    name, order = f"{ITERATOR}order", arrays.get(f"{ITERATOR}order")
    if order is None:
        return
    is_inside = order.shape == (images,) and order.dtype.kind == "i"
    is_inside = is_inside and order.min() >= 0 and order.max() < images
    if not is_inside:
        raise Impossible(name, f"{images} numbers of images", _kind(order))
    is_shuffled = isinstance(iterator.order_sampler, ShuffleOrderSampler)
    if is_shuffled and len(np.unique(order)) != images:
        raise Impossible(name, "every image once", "some more often")


def _integer(arrays: Arrays, name: str) -> int:
    found = arrays[name]
    if found.shape != () or found.dtype.kind != "i":
        raise Impossible(name, "a whole number", _kind(found))
    return int(found)


def _number(arrays: Arrays, name: str) -> float:
    found = arrays[name]
    if found.shape != () or found.dtype.kind not in "fi":
        raise Impossible(name, "a number", _kind(found))
    return float(found)


def check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # nor is NaN in any range
        raise Impossible(name, f"between {low} and {high}", value)


def _kind(array: np.ndarray) -> str:
    return f"{array.dtype} {array.shape}"


def _short(array: np.ndarray) -> str:
    return str(array) if array.shape == () and array.dtype.kind in "fib" else _kind(array)
