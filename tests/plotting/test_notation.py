"""Numbers in figures: decimals, and one notation an axis."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_bn.plotting import panels
from mnist_bn.plotting.notation import by_number, decimal, in_one_notation

_numbers = st.floats(-1e30, 1e30, allow_nan=False, allow_subnormal=False)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((1e-5, "0.00001"), (3e-5, "0.00003"), (1e-4, "0.0001"), (0.1, "0.1"), (10.0, "10")),
        *((0.0, "0"), (-2e-5, "-0.00002"), (1e6, "1000000"), (1e-9, "1e-09"), (2e9, "2e+09")),
    ],
)
def test_a_number_is_a_decimal_unless_it_is_long(value, text):
    assert decimal(value) == text


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([1e-5, 1e-4, 1e-3, 0.1], ["0.00001", "0.0001", "0.001", "0.1"]),
        ([1, 1e3, 1e6], ["1", "1000", "1000000"]),
        ([1e-9, 1e-6, 1e-3], ["10⁻⁹", "10⁻⁶", "10⁻³"]),
        ([0, 2e8, -4e8], ["0", "2×10⁸", "−4×10⁸"]),  # noqa: RUF001
        ([2.3025851, 2.3025852], ["2.3025851", "2.3025852"]),
        ([], []),
    ],
)
def test_numbers_of_an_axis_are_in_one_notation(values, texts):
    assert in_one_notation(values) == texts


def test_aligned_numbers_have_the_same_places():
    assert in_one_notation([0.85, 0.9, 1], is_aligned=True) == ["0.85", "0.90", "1.00"]


@given(_numbers)
def test_a_decimal_is_its_number(value):
    assert float(decimal(value)) == pytest.approx(value, rel=1e-5, abs=1e-300)


@given(st.lists(_numbers, min_size=2, max_size=6, unique=True))
def test_different_numbers_look_different_and_alike_in_notation(values):
    texts = in_one_notation(values)
    assert len(set(texts)) == len(values)
    assert len({"10" in text and text[-1] in "⁰¹²³⁴⁵⁶⁷⁸⁹" for text in texts if text != "0"}) == 1
    assert not any("e" in text for text in texts)


def test_the_ticks_of_a_logarithmic_axis_are_in_one_notation():
    x = 10.0 ** np.arange(-5, 0)
    panel = panels.Panel("P", [panels.Series(x, x**3, "line", "#000000")], log_y=True)
    figure = panels.stacked([panel], "T", "s", "Step size", log_x=True)
    figure.canvas.draw()
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_xticklabels()][1:3] == ["0.00001", "0.0001"]
    ticks = [text.get_text() for text in axes.get_yticklabels()]
    assert len(ticks) > 2 and all(tick.startswith("10") and tick[2] in "⁰⁻" for tick in ticks)


@pytest.mark.parametrize(
    "ascending",
    [
        ["batch 16", "batch 100", "batch 128"],
        ["", "weight decay 0.0001", "weight decay 0.01", "weight decay 1"],
        ["lr 1e-09", "lr 0.00001", "lr 2e+09"],
        ["Net(depth=20)", "Net(depth=110)", "Other"],
        ["Net2", "Net10"],
        ["x -3, y 2", "x -3, y 10", "x -2"],
        ["lr / 10 after epoch 9,10", "lr / 10 after epoch 82,123"],
        ["source 0e5f", "source 1" + "0" * 400, "source b"],
    ],
)
def test_names_with_numbers_are_sorted_by_size(ascending):
    assert sorted(reversed(ascending), key=by_number) == ascending


@given(st.lists(st.text("ab 0123.e-+", max_size=9)))
def test_any_names_can_be_sorted_and_only_the_same_are_equal(names):
    assert len({by_number(name) for name in sorted(names, key=by_number)}) == len(set(names))
