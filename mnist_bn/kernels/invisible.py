"""What of Chainer's is wrapped so that nobody can tell that functions wait; see `waiting`."""

from __future__ import annotations

import contextlib
import functools
import sys
from sys import getrefcount
from types import ModuleType

import chainer
from chainer import _backprop, computational_graph, function_node
from chainer.function_node import FunctionNode
from chainer.links import BatchNormalization
from chainer.variable import Variable, VariableNode

from mnist_bn.kernels import seam
from mnist_bn.kernels.fused import unfuse
from mnist_bn.kernels.seam import Replacements
from mnist_bn.kernels.waiting import ALONE, busy, compute, compute_all, here, wait


def replacements() -> Replacements:
    """Returns what goes around Chainer's functions, and around those of `graph`."""
    return {
        (FunctionNode, "apply"): _apply,
        (Variable, "_step"): lambda _: None,  # of those that do not wait
        (Variable, "__getattr__"): _getattr,
        (Variable, "__len__"): _len,
        **{(Variable, name): _known_property for name in ("shape", "ndim", "size", "dtype")},
        (Variable, "array"): _array,
        (Variable, "raw_array"): _array,
        (Variable, "_set_array"): _set_array,
        (Variable, "_to_device"): _after_all,
        (Variable, "creator"): _unfused_property,
        (Variable, "creator_node"): _unfused_property,
        (Variable, "unchain_backward"): _without_waiting,
        (chainer.GradientMethod, "update"): _after_all,
        (chainer.Link, "__init_subclass__"): _init_subclass,
        (chainer.Link, "__reduce_ex__"): lambda _: _after_all(object.__reduce_ex__),
        (chainer.Link, "copy"): _after_all,
        (chainer.Link, "copyparams"): _after_all,
        (chainer.Link, "serialize"): _after_all,
        (chainer.Link, "device_resident_accept"): _after_all,
        (BatchNormalization, "forward"): _bn_forward,
        (BatchNormalization, "avg_mean"): lambda _: _Statistic("avg_mean"),
        (BatchNormalization, "avg_var"): lambda _: _Statistic("avg_var"),
        (_backprop, "_backprop_to_all"): _backpropagation,
        **_wherever_imported(computational_graph.build_computational_graph, _build_graph),
        **_wherever_imported(function_node.grad, _backpropagation),
    } | {(link, "__call__"): _call for link in _links() if "__call__" in vars(link)}


def _wherever_imported(function, wrap) -> Replacements:
    """Returns the wrap for each module that has the function under its name."""
    name = function.__name__
    modules = [m for m in list(sys.modules.values()) if isinstance(m, ModuleType)]
    return {(m, name): wrap for m in modules if vars(m).get(name) is function}


def _links(base: type = chainer.Link) -> set[type]:
    """Returns the class and all its subclasses."""
    return {base}.union(*map(_links, base.__subclasses__()))


def _apply(original):
    def apply(self, inputs):
        state = here.state
        if state.allowed:
            output = wait(state, self, inputs)
            if output is not None:
                return (output,)
        if state.steps:
            compute_all()
        return original(self, inputs)

    return apply


def _call(original):
    """The wrap of a link's `__call__`; a network as of Chainer 3 and before has one of its own."""
    is_chainers = original is _LINK_CALL

    @functools.wraps(original)
    def __call__(self, *args, **kwds):
        state = here.state
        outer = state.allowed
        hooked = self._local_link_hooks or chainer._get_link_hooks()
        if outer is not None and not hooked:
            if is_chainers and type(self) in _forward_only and self._Link__init_done:
                return self.forward(*args, **kwds)  # all that Chainer's does then
            return original(self, *args, **kwds)
        if state.steps:
            compute_all()
        state.allowed = not hooked
        try:
            return original(self, *args, **kwds)
        finally:
            state.allowed = outer
            if state.steps:
                compute_all()

    return __call__


_LINK_CALL = chainer.Link.__call__
# Chainer's links, whose `__call__` is Link's with nothing mixed in
_forward_only = {link for name, link in vars(chainer.links).items() if isinstance(link, type)}
_forward_only = {link for link in _forward_only if link.__call__ is _LINK_CALL}


def _init_subclass(_):
    def __init_subclass__(cls, **kwds):
        super(chainer.Link, cls).__init_subclass__(**kwds)
        if "__call__" in vars(cls):
            seam.install({(cls, "__call__"): _call})

    return classmethod(__init_subclass__)


def _bn_forward(original):
    def forward(self, *args, **kwds):
        own, state = self.__dict__, here.state
        outer = state.private
        state.private = {
            id(own[name])
            for name in ("avg_mean", "avg_var")
            if getrefcount(own.get(name)) == ALONE and own[name].base is None
        }
        try:
            return original(self, *args, **kwds)
        finally:
            state.private = outer

    return forward


class _Statistic:
    """BN's avg_mean and avg_var: kept where they always are, but up to date when looked at."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, link, owner=None):
        if link is None:
            raise AttributeError(self.name)
        try:
            array = link.__dict__[self.name]
        except KeyError:
            raise AttributeError(
                f"{type(link).__name__!r} object has no attribute {self.name!r}"
            ) from None
        if busy and id(array) in here.state.watched:
            compute_all()
        return array

    def __set__(self, link, value):
        if here.state.steps:
            compute_all()
        link.__dict__[self.name] = value

    def __delete__(self, link):
        self.__get__(link)
        del link.__dict__[self.name]


def _getattr(_):
    def __getattr__(self, name):  # called for what an ordinary look does not find
        own = self.__dict__
        step = own.get("_step")
        if step is None or name not in ("_data", "_node"):
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self
            )
        compute(step)
        if "_step" in own:  # a copy of the Variable
            del self._step
            self._data = step.value._data
            self._node = VariableNode(self, step.value.name)
        return own[name]

    return __getattr__


def _known_property(original):
    get, name = original.fget, original.fget.__name__

    def fget(self):
        step = self._step
        return get(self) if step is None else getattr(step, name)

    return property(fget, doc=original.__doc__)


def _len(original):
    def __len__(self):
        step = self._step
        return original(self) if step is None or not step.shape else step.shape[0]

    return __len__


def _array(original):
    """The wrap of `array` and `raw_array`, whose ways to it are long."""

    def fget(self):
        if busy and id(self) in here.state.watched:
            compute_all()
        if self._layout is None and not self._has_chainerx_array:
            return self._data[0]
        return original.fget(self)

    return property(fget, original.fset, doc=original.__doc__)


def _set_array(original):
    def _set_array(self, *args, **kwds):
        if busy and id(self) in here.state.watched:
            compute_all()
        original(self, *args, **kwds)

    return _set_array


def _after_all(original):
    """A wrap that has all that waits computed first."""

    @functools.wraps(original)
    def method(self, *args, **kwds):
        if here.state.steps:
            compute_all()
        return original(self, *args, **kwds)

    return method


def _without_waiting(original):
    """A wrap in which nothing waits."""

    @functools.wraps(original)
    def method(*args, **kwds):
        if here.state.steps:
            compute_all()
        with _nothing_waits():
            return original(*args, **kwds)

    return method


@contextlib.contextmanager
def _nothing_waits():
    outer, here.state.allowed = here.state.allowed, False
    try:
        yield
    finally:
        here.state.allowed = outer


def _unfused_property(original):
    get = original.fget

    def fget(self):
        if here.state.allowed is not False:
            with _nothing_waits():
                unfuse([self.node])
        return get(self)

    return property(fget, original.fset, doc=original.__doc__)


def _build_graph(original):
    @functools.wraps(original)
    def build_computational_graph(outputs, *args, **kwds):
        nodes = [y.node if isinstance(y, Variable) else y for y in outputs]
        with _nothing_waits():
            unfuse([y for y in nodes if isinstance(y, VariableNode)])
        return original(outputs, *args, **kwds)

    return build_computational_graph


def _backpropagation(original):
    """The wrap of what goes back from outputs: Variables, or nodes with gradients."""

    @functools.wraps(original)
    def backpropagation(outputs, *args, **kwds):
        if chainer.get_function_hooks():
            unfuse([y[0] if isinstance(y, tuple) else y.node for y in outputs])
        return original(outputs, *args, **kwds)

    return _without_waiting(backpropagation)
