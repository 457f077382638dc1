"""Replacing functions of Chainer's classes and modules by faster ones, and putting them back."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

# (class or module, name of a function) -> wrap(original) -> replacement
Owner = type | ModuleType
Replacements = dict[tuple[Owner, str], Callable[[Callable], Callable]]

_originals: dict[tuple[Owner, str], Callable] = {}


def install(replacements: Replacements) -> None:
    """Replaces the functions; each replacement can call the original it was given."""
    for (owner, name), wrap in replacements.items():
        original = vars(owner)[name]
        _originals.setdefault((owner, name), original)
        setattr(owner, name, wrap(original))


def uninstall() -> None:
    """Puts every original back."""
    for (owner, name), original in _originals.items():
        setattr(owner, name, original)
    _originals.clear()
