"""The dependencies of the package: those of requirements.txt, and Chainer from ./chainer-build.

A project's metadata takes no relative path, and pyproject.toml no computed one. So `pip install .`
works, in a clone: what it installs can be used by itself, but cannot be published as a wheel.
"""

from pathlib import Path

from setuptools import setup

FOLDER = Path(__file__).resolve().parent


def dependencies() -> list[str]:
    """Returns the requirements, without those that are paths of this folder."""
    lines = (FOLDER / "requirements.txt").read_text(encoding="utf-8").splitlines()
    names = [line for line in lines if line and not line.startswith(("#", "-", "."))]
    return [f"chainer @ {(FOLDER / 'chainer-build').as_uri()}", *names]


setup(install_requires=dependencies())
