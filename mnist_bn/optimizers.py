"""Chainer's nine optimizers of 2016, chosen by class name.

Chainer 7.8.1 has the same default hyperparameters for them as Chainer 1.12 had.
"""

from __future__ import annotations

import chainer

from mnist_bn.errors import UsageError

# Class name -> the hyperparameter that is its learning rate; AdaDelta has none.
LEARNING_RATE = {
    "SGD": "lr",
    "MomentumSGD": "lr",
    "NesterovAG": "lr",
    "AdaGrad": "lr",
    "AdaDelta": None,
    "RMSprop": "lr",
    "RMSpropGraves": "lr",
    "SMORMS3": "lr",
    "Adam": "alpha",
}
WITH_MOMENTUM = ("MomentumSGD", "NesterovAG", "RMSpropGraves")


def create(
    name: str, lr: float | None = None, momentum: float | None = None
) -> chainer.GradientMethod:
    """Makes the optimizer called `name`; None keeps a hyperparameter's default.

    Raises:
        UsageError: there is no such optimizer, or it has no such hyperparameter.
    """
    if name not in LEARNING_RATE:
        raise UsageError(f"no optimizer named {name!r}: choose one of {', '.join(LEARNING_RATE)}")
    hyperparameters = {}
    if lr is not None:
        if LEARNING_RATE[name] is None:
            raise UsageError(f"--lr: {name} has no learning rate; leave --lr out for it")
        hyperparameters[LEARNING_RATE[name]] = lr
    if momentum is not None:
        if name not in WITH_MOMENTUM:
            raise UsageError(
                f"--momentum: {name} has no momentum; these have: {', '.join(WITH_MOMENTUM)}"
            )
        hyperparameters["momentum"] = momentum
    return getattr(chainer.optimizers, name)(**hyperparameters)


def effective(
    name: str, lr: float | None = None, momentum: float | None = None
) -> tuple[float | None, float | None]:
    """Returns the learning rate and the momentum that the optimizer `name` has with these settings.

    None stands for a default in the arguments, and in the result for a hyperparameter that the
    optimizer does not have.

    Raises:
        UsageError: as `create`.
    """
    hyperparameters = create(name, lr, momentum).hyperparam
    rate = LEARNING_RATE[name]
    return (
        None if rate is None else getattr(hyperparameters, rate),
        getattr(hyperparameters, "momentum", None),
    )
