"""Replacing methods of Chainer's classes by faster ones, and putting the originals back."""

from __future__ import annotations

from collections.abc import Callable

# (class, method name) -> wrap(original) -> replacement
Replacements = dict[tuple[type, str], Callable[[Callable], Callable]]

_originals: dict[tuple[type, str], Callable] = {}


def install(replacements: Replacements) -> None:
    """Replaces the methods; each replacement can call the original it was given."""
    for (cls, name), wrap in replacements.items():
        original = vars(cls)[name]
        _originals.setdefault((cls, name), original)
        setattr(cls, name, wrap(original))


def uninstall() -> None:
    """Puts every original back."""
    for (cls, name), original in _originals.items():
        setattr(cls, name, original)
    _originals.clear()
