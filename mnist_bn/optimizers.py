"""Chainer's optimizers by class name, or a class of the user's own from a Python file.

Either name may end in arguments of the class, as in Python: `Adam(beta1=0.5)`. Chainer 7.8.1 has
the same default hyperparameters for those of 2016 as Chainer 1.12 had.
"""

from __future__ import annotations

import inspect
from pathlib import Path

import chainer
import numpy as np

from mnist_bn.errors import UsageError
from mnist_bn.names import user_files
from mnist_bn.names.specs import NetworkSpec, in_any_case, nearest_argument
from mnist_bn.names.suggestions import suggestion

OF_2016 = (
    *("SGD", "MomentumSGD", "NesterovAG", "AdaGrad", "AdaDelta"),
    *("RMSprop", "RMSpropGraves", "SMORMS3", "Adam"),
)


def names() -> list[str]:
    """Returns the names of Chainer's optimizers, those of 2016 first."""
    return list(_classes())


def create(
    spec: str, lr: float | None = None, momentum: float | None = None
) -> chainer.GradientMethod:
    """Makes the optimizer that `spec` names; None keeps a hyperparameter's default.

    Raises:
        UsageError: there is no such optimizer, it has no such hyperparameter, or it cannot be made.
    """
    named = _parse(spec)
    arguments = named.arguments
    _, optimizer_class = _find(spec)
    rate = learning_rate(optimizer_class)
    for flag, name, value in (("--lr", rate, lr), ("--momentum", "momentum", momentum)):
        if value is None:
            continue
        if name not in _hyperparameters(optimizer_class):
            raise _lacks(optimizer_class, flag)
        if name in arguments:
            raise UsageError(f"{flag} {value}: {spec} has it already; give it once")
        arguments[name] = value
    try:
        return optimizer_class(**arguments)
    except (Exception, SystemExit) as error:
        failed = user_files.what_failed(error, named.path)
        nearest = nearest_argument(optimizer_class, arguments, error)
        raise UsageError(f"{spec}: {failed}{nearest}") from error


def check(spec: str, lr: float | None = None, momentum: float | None = None) -> None:
    """Checks that the optimizer can be made, and that it can take a step.

    Raises:
        UsageError: it cannot; the line says what failed.
    """
    optimizer = create(spec, lr, momentum)
    link = chainer.Link()
    with link.init_scope():
        link.weight = chainer.Parameter(np.ones(2, np.float32))
    try:
        optimizer.setup(link)
        link.weight.grad = np.ones(2, np.float32)
        with np.errstate(all="ignore"):
            optimizer.update()
    except (Exception, SystemExit) as error:
        failed = user_files.what_failed(error, NetworkSpec(spec).path)
        raise UsageError(f"{spec}: a step of this optimizer failed: {failed}") from error


def learning_rate(optimizer_class: type[chainer.GradientMethod]) -> str | None:
    """Returns the name of the hyperparameter that is the learning rate; AdaDelta has none."""
    return next((n for n in ("lr", "alpha") if n in _hyperparameters(optimizer_class)), None)


def effective(
    spec: str, lr: float | None = None, momentum: float | None = None
) -> tuple[float | None, float | None]:
    """Returns the learning rate and the momentum that the optimizer has with these settings.

    None stands for a default in the arguments, and in the result for a hyperparameter that the
    optimizer does not have.

    Raises:
        UsageError: as `create`.
    """
    optimizer = create(spec, lr, momentum)
    rate = learning_rate(type(optimizer))
    return _value(optimizer, rate), _value(optimizer, "momentum")


def resolve(
    spec: str, lr: float | None = None, momentum: float | None = None
) -> tuple[str, float | None, float | None]:
    """Returns the optimizer's name as its class has it, and its `effective` settings.

    A learning rate or momentum in the brackets is left out of the name, so that `sgd(lr=0.1)` is
    SGD with 0.1.

    Raises:
        UsageError: as `create`.
    """
    named = _parse(spec)
    class_name, optimizer_class = _find(spec)
    apart = (learning_rate(optimizer_class), "momentum")
    kept = [
        f"{name}={value!r}"
        for name, value in named.arguments.items()
        if name not in apart or isinstance(value, str)
    ]
    brackets = named.call.removeprefix(named.class_name)
    if len(kept) < len(named.arguments):
        brackets = f"({', '.join(kept)})" if kept else ""
    name = spec.removesuffix(named.call) + class_name + brackets
    return name, *effective(spec, lr, momentum)


def checksums(spec: str) -> dict[str, str] | None:
    """Returns those of the user's own file and what it imports, None for one of Chainer's."""
    path = NetworkSpec(spec).path
    return user_files.checksums(path) if path else None


def _parse(spec: str) -> NetworkSpec:
    return NetworkSpec.parse(spec, "--optimizer", "Adam(beta1=0.5)")


def _classes() -> dict[str, type[chainer.GradientMethod]]:
    every = _public_classes(vars(chainer.optimizers))
    return {name: every[name] for name in (*OF_2016, *every)}


def _public_classes(names: dict) -> dict[str, type[chainer.GradientMethod]]:
    return {
        name: value
        for name, value in names.items()
        if isinstance(value, type)
        and issubclass(value, chainer.GradientMethod)
        and not name.startswith("_")
    }


def _find(spec: str) -> tuple[str, type[chainer.GradientMethod]]:
    """Returns the class that `spec` names, and its name where it is."""
    named = _parse(spec)
    class_name = named.class_name
    if named.path is None:
        known = _classes()
        if found := in_any_case(class_name, known):
            return found, known[found]
        if nearest := suggestion(class_name, known):
            raise UsageError(f"no optimizer named {class_name!r}{nearest} --help has all names")
        raise UsageError(
            f"no optimizer named {class_name!r}: choose one of {', '.join(known)}, or your own as "
            "path/to/file.py:ClassName"
        )
    return _find_in_file(named.path, class_name)


def _find_in_file(path: Path, class_name: str) -> tuple[str, type[chainer.GradientMethod]]:
    module = user_files.load(path, "--optimizer")
    every = _public_classes(vars(module))
    if found := in_any_case(class_name, every):
        return found, every[found]
    its_own = [name for name, value in every.items() if value.__module__ == module.__name__]
    found = f"it has {', '.join(its_own)}" if its_own else "it defines none"
    raise UsageError(
        f"{path}: no chainer.GradientMethod class named {class_name!r}; {found}"
        f"{suggestion(class_name, its_own)}"
    )


def _hyperparameters(optimizer_class: type) -> list[str]:
    """Returns the names of what the class takes; `**options` are those of the class it is of."""
    found = []
    for one in optimizer_class.__mro__:
        if "__init__" not in vars(one):
            continue
        parameters = inspect.signature(vars(one)["__init__"]).parameters.values()
        found += [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        if not any(p.kind == p.VAR_KEYWORD for p in parameters):
            break
    return found


def _lacks(optimizer_class: type, flag: str) -> UsageError:
    its_name = optimizer_class.__name__
    if flag == "--lr":
        return UsageError(f"--lr: {its_name} has no learning rate; leave --lr out for it")
    have = [known for known, one in _classes().items() if "momentum" in _hyperparameters(one)]
    return UsageError(f"{flag}: {its_name} has no momentum; these have: {', '.join(have)}")


def holder(optimizer: chainer.GradientMethod, name: str) -> object:
    """Returns what keeps a hyperparameter: usually the optimizer's `hyperparam`."""
    return optimizer.hyperparam if hasattr(optimizer.hyperparam, name) else optimizer


def _value(optimizer: chainer.GradientMethod, name: str | None) -> float | None:
    if name is None:
        return None
    value = getattr(holder(optimizer, name), name, None)
    return value if isinstance(value, int | float) else None
