"""`link.disable_update()` in a network's `__init__`, as on a network that trains.

Chainer forgets it there: what it sets belongs to a parameter's update rule, and the optimizer makes
the rules only when it gets the network.
"""

from __future__ import annotations

import chainer
from chainer.optimizer import UpdateRule

_disable_update = chainer.Link.disable_update


def _disable_update_early_too(self: chainer.Link) -> None:
    """Chainer's `disable_update`, which gives a parameter without a rule one that remembers it."""
    for parameter in self.params():
        if parameter.update_rule is None:
            parameter.update_rule = UpdateRule()
    _disable_update(self)


chainer.Link.disable_update = _disable_update_early_too  # type: ignore[method-assign]  # see above


def setup(optimizer: chainer.GradientMethod, link: chainer.Link) -> None:
    """Does `optimizer.setup(link)`; parameters that are not to be updated stay so."""
    rules = [parameter.update_rule for parameter in link.params()]
    optimizer.setup(link)
    for parameter, before in zip(link.params(), rules, strict=True):
        if before is not None:
            parameter.update_rule.enabled = before.enabled


def numbers(optimizer: chainer.GradientMethod) -> dict[str, dict[str, float]]:
    """Returns the numbers that an optimizer and its rules keep as attributes of their own.

    Chainer's snapshots lack them: whether a parameter is updated, the powers of MSVAG's beta, a
    hyperparameter that changes.

    Returns:
        Whose, "" for the optimizer and the parameter's path for a rule -> name -> number.
    """
    return {
        owner: {k: v for k, v in vars(one).items() if isinstance(v, bool | int | float)}
        for owner, one in _owners(optimizer).items()
    }


def restore(optimizer: chainer.GradientMethod, saved: dict[str, dict[str, float]]) -> None:
    """Puts the numbers back that `numbers` returned."""
    for owner, one in _owners(optimizer).items():
        vars(one).update(saved.get(owner, {}))


def _owners(optimizer: chainer.GradientMethod) -> dict[str, object]:
    owners = {"": optimizer, "hyperparam": optimizer.hyperparam}
    for path, parameter in sorted(optimizer.target.namedparams()):
        if parameter.update_rule is not None:
            owners[path] = parameter.update_rule
            owners[f"{path}/hyperparam"] = parameter.update_rule.hyperparam
    return owners
