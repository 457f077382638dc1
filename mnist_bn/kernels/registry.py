"""A kernel behind a method of Chainer's: one flat function, decorated."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

from mnist_bn.kernels.arrays import function
from mnist_bn.kernels.seam import Replacements


class Registry:
    """The functions of a module that stand for methods of Chainer's classes.

        replaces = Registry()

        @replaces(ReLU, "forward_cpu", "relu_forward", "plp")
        def _relu_forward(node, inputs, kernel):
            ...

    The function gets what the method gets, and the kernel. It returns NotImplemented if it does not
    cover the case: then Chainer's method is called. It sees no objects of subclasses: a subclass
    may override any method that Chainer's own method calls, and the kernels call none.
    """

    def __init__(self) -> None:
        self._functions: dict[tuple[type, str], tuple[Callable, tuple]] = {}

    def __call__(self, owner: type, method: str, *kernel) -> Callable[[Callable], Callable]:
        """Returns the decorator of the function that stands for `owner.method`.

        Args:
            kernel: as `arrays.function` takes it: name, argument types and, if it returns anything,
                the type of that. Without a kernel, the function gets none.
        """

        def register(body: Callable) -> Callable:
            self._functions[owner, method] = body, kernel
            return body

        return register

    def replacements(
        self, library: ctypes.CDLL, prepare: Callable[[Callable], Callable] = lambda kernel: kernel
    ) -> Replacements:
        """Returns what calls this library's kernels; `prepare` sees to each kernel first."""
        return {
            (owner, name): functools.partial(
                _wrap, owner, body, [prepare(function(library, *kernel))] if kernel else []
            )
            for (owner, name), (body, kernel) in self._functions.items()
        }


def _wrap(owner: type, body: Callable, kernel: list, original: Callable) -> Callable:
    def method(self, *args):
        if type(self) is owner:
            result = body(self, *args, *kernel)
            if result is not NotImplemented:
                return result
        return original(self, *args)

    return method
