"""A batch of images as a network receives it: a Variable, as on Chainer 1.12."""

from __future__ import annotations

from typing import Any

import chainer
import numpy as np

from mnist_bn.devices import NdArray


class Input(chainer.Variable):
    """A Variable of images, which no gradient is computed of.

    Chainer 2 and later hand a network the array itself, so networks exist that treat their input as
    one: an array's attributes and operators are there too. What they give is an Input again if it
    is a method of Variables, and otherwise what the array gives.

    Args:
        array: images, float32 `(N, ...)`, of NumPy or CuPy. A network may give the Variable another
            array, shape or values: this one keeps its shape, and, if it is a view of a larger one,
            its values too.
    """

    def __init__(self, array: NdArray) -> None:
        # A batch is the network's own; a view may be of the images that other batches are made of.
        its_own = array.view() if array.base is None else array.copy()
        super().__init__(its_own, requires_grad=False)

    @classmethod
    def of_own(cls, array: NdArray) -> Input:
        """Makes one of the array itself, which nobody else needs."""
        one = cls.__new__(cls)
        chainer.Variable.__init__(one, array, requires_grad=False)
        return one

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") and name != "__cuda_array_interface__":
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return getattr(self.array, name)

    def __array__(self, dtype=None, copy: bool | None = None) -> np.ndarray:
        if copy is None:
            return np.asarray(self.array, dtype)
        return np.array(self.array, dtype, copy=copy)

    def __setitem__(self, index, value) -> None:
        self.array[index] = chainer.as_array(value)

    @property
    def T(self) -> Input:
        return self.transpose()


def _is_plain(value: object) -> bool:
    return isinstance(value, Input) or not isinstance(value, chainer.Variable)


def _operand(value: object) -> object:
    """Returns an array of an Input, and of NumPy's number one of Python's, which widens nothing."""
    return value.item() if isinstance(value, np.generic) else chainer.as_array(value)


def _method(name: str):
    """Returns the array's method of this name, for operands that no gradient is computed of."""

    def method(self, *args, **options):
        if not all(map(_is_plain, args)):
            return getattr(super(Input, self), name)(*args, **options)
        result = getattr(self.array, name)(*map(_operand, args), **options)
        is_array = hasattr(chainer.Variable, name) and isinstance(result, type(self.array))
        return Input.of_own(result) if is_array and name not in _COMPARISONS else result

    return method


_COMPARISONS = ("__lt__", "__le__", "__eq__", "__ne__", "__gt__", "__ge__")  # Variables refuse them
_ARITHMETIC = ("add", "sub", "mul", "truediv", "floordiv", "pow", "matmul", "mod")
for _name in (
    *_COMPARISONS,
    *(f"__{side}{name}__" for name in _ARITHMETIC for side in ("", "r")),
    *("__neg__", "__abs__", "__getitem__", "reshape", "transpose", "squeeze", "mean"),
):
    setattr(Input, _name, _method(_name))


_init = chainer.Variable.__init__


def _init_of_input_too(self, data=None, **options) -> None:
    """`Variable(x)`, which a network for Chainer 2 and later may do with the array it receives."""
    _init(self, data.array if type(data) is Input else data, **options)


chainer.Variable.__init__ = _init_of_input_too


def taking_inputs(network: chainer.Link) -> chainer.Link:
    """Returns the network, whose calls from now on get an Input for the array they are given.

    The class is replaced, not the method of this one network: its copies are to do the same.
    """
    of = type(network)
    names = {name: getattr(of, name) for name in ("__module__", "__qualname__", "__doc__")}
    metaclass: type = type(of)
    network.__class__ = metaclass(of.__name__, (_TakingInputs, of), names)
    return network


class _TakingInputs:
    def __call__(self, x, *args, **options):
        if isinstance(x, chainer.get_array_types()):
            x = Input(x)
        return super().__call__(x, *args, **options)
