"""Functions that wait for what follows them, so that one kernel can do several.

Inside a link's call, a function declared here may *wait*: its Variable has a shape and a dtype, but
neither array nor node yet. What follows joins it. The first look at a value, or the end of the
outermost link's call, computes what is due: by one fused node if the chain is one of `fusion`
and nobody holds the Variables between any more, else by each function's own node.

Nobody can tell, but for rounding:
- What does not wait (another function, a backward pass, a change of a parameter) has all that waits
  computed first, so the order is the program's. What would raise or warn does not wait.
- Arrays are those of the call. A Variable's array that nobody else has is watched: a look at it
  computes first. Any other is copied; if it has changed since, nothing is fused, as gradients then
  are of the new numbers.
- BN's running statistics are watched too. If somebody else has their arrays, BN does not wait.
- Random numbers are drawn at the call.
"""

from __future__ import annotations

import contextlib
import functools
import math
import re
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from sys import getrefcount
from typing import ClassVar, NamedTuple

import chainer
import numpy as np
from chainer.configuration import config, global_config
from chainer.function_node import FunctionNode
from chainer.variable import Variable

from mnist_bn.kernels import graph
from mnist_bn.kernels.fused import Fused, Part
from mnist_bn.kernels.graph import VARIABLES

_FLOAT32 = np.dtype(np.float32)
_BITS = np.dtype(np.int32)  # as which a NaN is equal to itself
_CPU = chainer.backend.CpuDevice()
_LONGEST = 32  # functions in a chain, so that looking for chains takes no longer than computing
_HOLDER = [np.zeros(1)]
ALONE = getrefcount(_HOLDER[0])  # of what one container has, and nobody else


class _Function(NamedTuple):
    """What is declared of a function that may wait; see `function`."""

    letter: str
    shape: Callable[[FunctionNode, list], tuple[int, ...] | None]
    starts: Callable[[FunctionNode, list, bool], bool] | None
    writes: tuple[str, ...]


_functions: dict[type[FunctionNode], _Function] = {}
_fusions: list[tuple[re.Pattern, type[Fused]]] = []


def function(letter: str, *nodes: type[FunctionNode], starts=None, writes: tuple[str, ...] = ()):
    """Declares that functions of exactly these classes may wait.

    In `fusion` the letter of a function that returns maps, `(N, C, H, W)`, is a capital.

    It decorates what returns the shape of the function's output, None if the function is not to
    wait: `shape(node, inputs)`, with an array or a `Step`, which has a shape as well, for each
    input. It must know that the function will neither raise nor warn, and return float32. As it
    returns a shape, it may draw random numbers.

    Args:
        letter: what the function is called in `fusion`.
        starts: takes the same, and whether others may have the first array, which then is copied,
            and says whether the function may wait though no input waits.
        writes: attributes of the node, arrays that the function changes, or None.
    """

    def declare(shape):
        for node in nodes:
            _functions[node] = _Function(letter, shape, starts, writes)
        return shape

    return declare


def fusion(pattern: str):
    """Declares a `Fused` node that stands for functions, each the only one to use the one before.

    Args:
        pattern: a regular expression of the functions' letters, in order. The node stands for the
            longest match; the first declared goes first.
    """

    def declare(node_class):
        _fusions.append((re.compile(pattern), node_class))
        _fusion_of.cache_clear()
        return node_class

    return declare


@functools.lru_cache(1024)
def _fusion_of(letters: str) -> tuple[int, type[Fused] | None]:
    """Returns how many functions at the beginning have a fused node, one if none, and the node."""
    for pattern, node_class in _fusions:
        match = pattern.match(letters)
        if match and match.end() > 1:
            return match.end(), node_class
    return 1, None


_methods: dict[type[FunctionNode], tuple] = {}


def remember_methods() -> None:
    """Takes the functions' methods for those that fused nodes stand for."""
    _methods.update({node: _methods_of(node) for node in _functions})


def _methods_of(node: type[FunctionNode]) -> tuple:
    return node.forward, node.forward_cpu, node.backward, node.check_type_forward


@dataclass(slots=True, eq=False)
class Step:
    """A function applied, to be computed.

    Attributes:
        inputs: Variables and arrays, and a Step for a Variable that waits.
        sources: the steps among the inputs.
        arrays: those of the inputs, as at the call.
        copied: indexes of arrays that others may have.
        written: arrays that the function is going to change.
        shape: the output's.
        settings: as `_State.settings` returned them at the call.
        state: of the thread that applied it.
        output: a weak reference to the Variable.
        value: a Variable with its array and node, once `done` and while somebody needs it.
        users: the wanted steps that use it and are not computed; see `_chains`.
        is_taken: whether it is not wanted, or in a chain.
    """

    function: _Function
    node: FunctionNode
    inputs: list
    sources: list[Step]
    arrays: list[np.ndarray]
    copied: list[int]
    written: Sequence[np.ndarray]
    shape: tuple[int, ...]
    settings: tuple
    state: _State
    output: weakref.ref[Variable] = field(init=False)
    value: Variable | None = None
    done: bool = False
    users: list[Step] = field(default_factory=list)
    is_taken: bool = False
    dtype: ClassVar[np.dtype] = _FLOAT32

    @property
    def ndim(self) -> int:
        """As an array's."""
        return len(self.shape)

    @property
    def letter(self) -> str:
        """As in `fusion`."""
        letter = self.function.letter
        return letter.upper() if len(self.shape) == 4 else letter

    @property
    def size(self) -> int:
        """As an array's."""
        return math.prod(self.shape)

    def has_changed(self) -> bool:
        """Whether an array that was copied has other numbers now, and a graph will have them."""
        if config.enable_backprop:
            for i in self.copied:
                x = self.inputs[i]
                now = x._data[0] if isinstance(x, Variable) else x
                then = self.arrays[i]
                if now.shape != then.shape or not (now.view(_BITS) == then.view(_BITS)).all():
                    return True
        return False


_EVERYWHERE = global_config.__dict__


class _State:
    """What waits in a thread, made in that thread."""

    def __init__(self) -> None:
        self._config = config._local.__dict__  # reading config.name takes ten times as long
        self._hooks = chainer.get_function_hooks()
        self.allowed: bool | None = None  # whether functions may wait; None outside links' calls
        self.steps: list[Step] = []  # in the program's order
        self.watched: set[int] = set()  # ids of the steps' Variables, and of arrays they will write
        self.private: set[int] = set()  # ids of statistics that only a BN link has, when called
        self.lock = threading.RLock()  # a Variable may be looked at by another thread

    def settings(self) -> tuple | None:
        """Returns what of Chainer's configuration a step needs later, None if none may wait."""
        own, everywhere = self._config.get, _EVERYWHERE
        if (
            self._hooks
            or own("debug", everywhere["debug"])
            or own("schedule_func", everywhere["schedule_func"]) is not None
        ):
            return None
        return (
            own("enable_backprop", everywhere["enable_backprop"]),
            own("lazy_grad_sum", everywhere["lazy_grad_sum"]),
            own("in_recomputing", everywhere["in_recomputing"]),
        )


class _Here(threading.local):
    def __init__(self):
        self.state = _State()


here = _Here()
busy: set[_State] = set()  # whether any thread has steps, which is quicker to see


# --- At the call ---


def wait(state: _State, node: FunctionNode, inputs) -> Variable | None:
    """Returns the output if it can wait, None if it is to be computed now."""
    function = _functions.get(type(node))
    if function is None or node._local_function_hooks:
        return None
    settings = state.settings()
    known = None if settings is None else _known(state, inputs)
    if settings is None or known is None:
        return None
    own, arrays, shared, sources, requires_grad = known
    if not sources and (function.starts is None or not function.starts(node, arrays, 0 in shared)):
        return None
    written: Sequence[np.ndarray] = ()
    if function.writes:
        written = [a for name in function.writes if (a := getattr(node, name)) is not None]
        for a in written:
            if id(a) not in state.private:
                return None  # whoever looks at it could not be seen to
    shape = function.shape(node, arrays)
    if shape is None:
        return None
    for i in shared:
        arrays[i] = arrays[i].copy("K")
    step = Step(function, node, own, sources, arrays, shared, written, shape, settings, state)
    output = _variable(step, requires_grad)
    step.output = weakref.ref(output)
    if written or len(own) > len(sources):
        state.watched.update(map(id, own), map(id, written))
    if not state.steps:
        busy.add(state)
    state.steps.append(step)
    return output


def _known(state: _State, inputs) -> tuple | None:
    """Returns what is known of the inputs, None if there is one of another kind.

    Returns:
        The inputs, and their arrays, with a Step if a Variable waits; indexes of arrays that
        others may have; the steps of Variables that wait; whether one requires a gradient.
    """
    own, arrays, shared, sources = [], [], [], []
    requires_grad = False
    for x in inputs:
        kind = type(x)
        if kind in VARIABLES:
            requires_grad = requires_grad or x._requires_grad
            step = x._step
            if step is not None and not step.done:
                if step.state is not state:
                    return None
                sources.append(step)
                own.append(step)
                arrays.append(step)
                continue
            if x._layout is not None or x._has_chainerx_array:
                return None
            data = x._data
            array = data[0]
            is_private = (
                # Nobody but the Variable, and this function, has the array, or a view of it.
                getrefcount(array) - (x._node._data is array) == ALONE + 1
                and getrefcount(data) == ALONE + 1
                and (array.base is None or _has_base_alone(array))
            )
        elif kind is np.ndarray:
            array, is_private = x, False
        else:
            return None
        if type(array) is not np.ndarray or array.dtype != _FLOAT32 or not array.flags.aligned:
            return None
        if not is_private:
            shared.append(len(arrays))
        own.append(x)
        arrays.append(array)
    return own, arrays, shared, sources, requires_grad


def _has_base_alone(view: np.ndarray) -> bool:
    """Whether the view is all that there is of its memory, as of NHWC maps under NCHW shapes."""
    base = view.base
    return type(base) is np.ndarray and base.base is None and getrefcount(base) == ALONE + 1


def _variable(step: Step, requires_grad: bool) -> Variable:
    """Returns a Variable without `_data` and `_node`: `Variable.__getattr__` gets both."""
    v = graph.variable(None, requires_grad, _CPU)
    v._step = step
    return v


# --- At the look ---


def compute_all(state: _State | None = None) -> None:
    """Computes all that waits in this thread and is wanted.

    If it is interrupted, what is left is forgotten, as if the program had not come so far; a
    Variable of it that is looked at later is computed then.
    """
    state = here.state if state is None else state
    with state.lock:
        steps, state.steps, state.watched = state.steps, [], set()
        busy.discard(state)
        if not steps:
            return
        settings = here.state.settings()
        try:
            for chain, pattern in _chains(steps):
                _compute(chain, pattern, settings)
                _release(chain)
        finally:
            for step in steps:
                step.users.clear()  # no cycle is to keep arrays


def compute(step: Step) -> None:
    """Computes one step, and all before it."""
    with step.state.lock:
        if not step.done:
            compute_all(step.state)
        if not step.done:  # it was interrupted
            for x in step.sources:
                compute(x)
            _compute([step], step.letter, here.state.settings())


def _chains(steps: list[Step]) -> list[tuple[list[Step], str]]:
    """Returns all that is wanted, what may be fused as one chain, in the order of their lasts.

    A step is wanted if its Variable is held, it writes, or it is used by one that is wanted.
    """
    for step in reversed(steps):
        if step.users or step.written or step.output() is not None:
            for x in step.sources:
                if not x.done:
                    x.users.append(step)
        else:
            step.is_taken = True
    chains = {}  # by last step
    for step in steps:
        if not step.is_taken:
            chain, pattern = _chain(step)
            for taken in chain:
                taken.is_taken = True
            chains[taken] = chain, pattern
    return [chains[step] for step in steps if step in chains]


def _chain(step: Step) -> tuple[list[Step], str]:
    """Returns the longest chain that begins with the step and has a fused node, else the step."""
    chain, letters = [step], step.letter
    settings = step.settings
    while len(step.users) == 1 and step.output() is None and len(chain) < _LONGEST:
        (step,) = step.users
        if step.settings != settings or step.is_taken:  # a sum is in the chain of one input
            break
        chain.append(step)
        letters += step.letter
    length, _ = _fusion_of(letters)
    return chain[:length], letters[:length]


def _compute(chain: list[Step], pattern: str, settings: tuple | None) -> None:
    """Computes a chain, by as few nodes as can be.

    Args:
        pattern: the functions' letters.
        settings: those of now.
    """
    if settings != chain[0].settings:
        with _as_at_the_call(chain[0].settings):
            _compute(chain, pattern, chain[0].settings)
        return
    while chain:
        length, node_class = _fusion_of(pattern)
        if node_class is None or not _fuse(chain[:length], pattern[:length], node_class):
            length = 1
            inputs, arrays, _ = _gather(chain[:1])
            _run(chain[:1], chain[0].node, inputs, arrays)
        chain, pattern = chain[length:], pattern[length:]


def _fuse(chain: list[Step], pattern: str, node_class: type[Fused]) -> bool:
    """Computes the chain by one node, if it can be done, and returns whether it could."""
    for step in chain:
        # Anybody may replace a method, to see or to change what the function does.
        node = type(step.node)
        if (step.copied and step.has_changed()) or _methods.get(node) != _methods_of(node):
            return False
    inputs, arrays, parts = _gather(chain)
    if not node_class.covers(parts, inputs, arrays):
        return False
    _run(chain, node_class(pattern, parts), inputs, arrays)
    for step in chain:
        step.done = True
        for name in step.function.writes:
            setattr(step.node, name, None)  # when asked to, the fused node applies it again
    return True


def _gather(chain: list[Step]) -> tuple[list, list, list[Part]]:
    """Returns the inputs, but for those from within the chain, their arrays, and the parts."""
    inputs, arrays, parts = [], [], []
    before = None
    for step in chain:
        position = None
        for i, x in enumerate(step.inputs):
            if x is before:
                position = i
            elif type(x) is Step:
                inputs.append(x.value)
                arrays.append(x.value._data[0])  # type: ignore[union-attr]  # it is computed
            else:
                inputs.append(x)
                arrays.append(step.arrays[i])
        parts.append((step.node, len(step.inputs), position))
        before = step
    return inputs, arrays, parts


def _run(chain: list[Step], node: FunctionNode, inputs: list, arrays: list) -> None:
    """Sets the value of the chain's last step; if interrupted, what is written is as before."""
    last = chain[-1]
    v = last.output()
    if v is None:
        requires_grad = any([isinstance(x, Variable) and x._requires_grad for x in inputs])
        v = graph.variable(None, requires_grad, _CPU)
    written = [(a, a.copy()) for step in chain for a in step.written]
    try:
        graph.run(node, inputs, arrays, last.settings, v, len(chain) - 1)
        last.value = v
        last.done = True
    finally:
        if not last.done:
            v.__dict__.pop("_data", None)
            v.__dict__.pop("_node", None)
            for array, before in written:
                array[...] = before
    if v._step is not None:
        del v._step


def _release(chain: list[Step]) -> None:
    """Lets go of values that nobody needs any more."""
    for step in chain:
        for x in step.sources:
            if x.value is not None and step in x.users:
                x.users.remove(step)
                if not x.users:
                    x.value = None


@contextlib.contextmanager
def _as_at_the_call(settings: tuple):
    """Sets what `settings` returned, and what it demanded but for hooks, which nobody calls."""
    with contextlib.ExitStack() as stack:
        names = ("enable_backprop", "lazy_grad_sum", "in_recomputing", "debug", "schedule_func")
        for name, value in zip(names, (*settings, False, None), strict=True):
            stack.enter_context(chainer.using_config(name, value))
        yield
