"""Functions that stand for methods, without any kernel."""

import pytest

from mnist_bn.kernels import seam
from mnist_bn.kernels.registry import Registry


class Node:
    def double(self, x):
        return f"Chainer's {2 * x}"


class Descendant(Node):
    pass


@pytest.fixture
def replaced():
    replaces = Registry()

    @replaces(Node, "double")
    def _double(node, x):
        return f"ours {2 * x}" if x > 0 else NotImplemented

    seam.install(replaces.replacements(None))
    yield
    seam.uninstall()


@pytest.mark.parametrize(
    ("owner", "x", "expected"),
    [(Node, 1, "ours 2"), (Node, -1, "Chainer's -2"), (Descendant, 1, "Chainer's 2")],
)
def test_cases_that_are_not_covered_are_chainers(replaced, owner, x, expected):
    assert owner().double(x) == expected
