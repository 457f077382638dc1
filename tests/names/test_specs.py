"""A network's name, taken apart."""

import pytest

from mnist_bn.errors import UsageError
from mnist_bn.names.specs import NetworkSpec


def test_the_parts_of_a_name():
    spec = NetworkSpec("path/to/net.py:MyNet(depth=20, bn = 'end', ratio=.5)")
    assert (str(spec.path), spec.class_name) == ("path/to/net.py", "MyNet")
    assert spec.arguments == {"depth": 20, "bn": "end", "ratio": 0.5}
    assert spec.written == ["depth=20", "bn = 'end'", "ratio=.5"]
    assert spec.argument("bn") == "end" and spec.argument("width") is None
    assert spec.label == "MyNet-depth20-bn-end-ratio.5"
    assert NetworkSpec("MyNet").path is None and NetworkSpec("MyNet").arguments == {}


@pytest.mark.parametrize(
    "text", ["", "Net(", "Net(a", "a:b:c(x=(1, 2), y='z", "Net(x=1.2.3)", "::"]
)
def test_whatever_a_folder_records_is_taken_apart(text):
    spec = NetworkSpec(text)
    assert isinstance(spec.arguments, dict) and isinstance(spec.label, str)
    assert spec.number("x") is None and isinstance(spec.without("x"), str)


@pytest.mark.parametrize(
    ("model", "number"),
    [("Net(x=1e-3)", 1e-3), ("Net(x=True)", None), ("Net(x=1e999)", None), ("Net(ax=1)", None)],
)
def test_an_argument_that_is_a_number(model, number):
    assert NetworkSpec(model).number("x") == number


@pytest.mark.parametrize("text", ["Net(1)", "Net(x=1, x=2)", "Net(x=[1])", "Net(x=1)#", "2Net"])
def test_of_the_command_line_only_plain_calls_are_taken(text):
    with pytest.raises(UsageError, match="--model"):
        NetworkSpec.parse(text, "--model", "ReluMLP(slope=0.1)")


@pytest.mark.parametrize(
    ("model", "network"),
    [
        ("Net(ratio=1e-4)", "Net"),
        ("Net(ratio=0.1, layers=3)", "Net(layers=3)"),
        ("Net(hidden=50,layers=8,ratio=.1)", "Net(hidden=50,layers=8)"),
        ("Net(drop_ratio=1)", "Net(drop_ratio=1)"),
        ("Net", "Net"),
    ],
)
def test_a_network_without_an_argument(model, network):
    assert NetworkSpec(model).without("ratio") == network
