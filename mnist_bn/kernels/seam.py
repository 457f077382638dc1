"""Replacing attributes of Chainer's classes and modules by faster ones, and putting them back."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

# (class or module, name) -> wrap(original, None if there is none) -> replacement
Owner = type | ModuleType
Replacements = dict[tuple[Owner, str], Callable[[Callable | None], object]]

_originals: dict[tuple[Owner, str], Callable | None] = {}


def install(replacements: Replacements) -> None:
    """Replaces the attributes; each replacement can call the original it was given."""
    for (owner, name), wrap in replacements.items():
        original = vars(owner).get(name)
        _originals.setdefault((owner, name), original)
        setattr(owner, name, wrap(original))


def uninstall() -> None:
    """Puts every original back."""
    for (owner, name), original in _originals.items():
        if original is None:
            delattr(owner, name)
        else:
            setattr(owner, name, original)
    _originals.clear()
