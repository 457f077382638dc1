"""The nearest right name to a wrong one."""

import pytest

from mnist_bn.names.suggestions import suggestion


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("sgd", "SGD"),
        ("Adma", "Adam"),
        ("momentumsdg", "MomentumSGD"),
        ("quite-other", None),
        ("", None),
    ],
)
def test_the_nearest_name_is_suggested(name, nearest):
    expected = f"; did you mean {nearest!r}?" if nearest else ""
    assert suggestion(name, ["SGD", "MomentumSGD", "Adam"]) == expected
    assert suggestion(name, []) == ""
