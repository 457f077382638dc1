"""Reading a run's `args`: the settings that it recorded, of the types that they should have."""

import functools
import json
import math
from collections.abc import Mapping
from typing import Any

from mnist_bn.config import IDENTITY, RATES, SETTINGS
from mnist_bn.errors import UserError
from mnist_bn.names.specs import NetworkSpec

# Words may be numbers: somebody else's `args` may count its seeds or its datasets.
_WORD, _NUMBER, _COUNT = (str, int), (int, float), (int, float)
_MAX_COUNT = 10**12
_MAX_WORD = 4096  # characters: no path is longer


def parse(text: str, notes: list[str]) -> dict[str, Any]:
    """Returns the settings in the text of `args`; adds to `notes` what had to be left out."""
    try:
        args = json.loads(text)
    except (ValueError, RecursionError):
        args = None
    if not isinstance(args, dict):
        notes.append("args is not a JSON object, so its settings are not known")
        return {}
    wrong = [key for key, value in args.items() if not _is_usable(key, value)]
    if wrong:
        verb = "are" if len(wrong) > 1 else "is"
        notes.append(f"{', '.join(wrong)} in args {verb} of no usable value, so not known")
    args = {key: value for key, value in args.items() if key not in wrong}
    return args | _effective(args)


def _is_usable(key: str, value: Any) -> bool:
    """Tells whether a setting that figures and tables depend on has a value that it may have."""
    if value is None:
        return True
    if key.endswith(("_sha256", "_files")):
        sums = value if isinstance(value, dict) else {"": value}
        return all(isinstance(one, str) for one in sums.values())
    if key not in (*IDENTITY, "study", "on_divergence"):
        return True
    kind = SETTINGS[key].kind
    if key == "seed" or kind is str:
        return _is(value, _WORD) and len(str(value)) <= _MAX_WORD
    return _is(value, _NUMBER) and (kind is float or (0 <= value <= _MAX_COUNT and value % 1 == 0))


def _is(value: Any, kinds: tuple[type, ...]) -> bool:
    """Tells whether a JSON value is of one of these types, and finite."""
    is_one = isinstance(value, kinds) and not isinstance(value, bool)
    return is_one and (isinstance(value, str) or (abs(value) <= 1e300 and math.isfinite(value)))


def _effective(args: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the optimizer, and the learning rate and the momentum that it had.

    Of a folder that says null for them, as ours did before they were recorded.
    """
    name, given = args.get("optimizer"), {key: args.get(key) for key in RATES}
    if not isinstance(name, str) or not given.keys() <= args.keys() or None not in given.values():
        return {}
    return dict(zip(("optimizer", *given), resolved(name, *given.values()), strict=True))


@functools.cache
def resolved(
    name: str, lr: float | None = None, momentum: float | None = None
) -> tuple[str, float | None, float | None]:
    """Returns name, learning rate and momentum of one of Chainer's optimizers, as in training.

    None is a default in the arguments, and in the result what the optimizer does not have;
    `Adam(alpha=1)` is Adam with 1. All are as given if the optimizer is not known or in somebody's
    file, which is not run.
    """
    if NetworkSpec(name).path is not None:
        return name, lr, momentum
    try:
        from mnist_bn import optimizers  # imports Chainer, which takes a second

        return optimizers.resolve(name, lr, momentum)
    except (UserError, ImportError, TypeError, ValueError):
        return name, lr, momentum
