"""Labels stay apart, in order and within the column, as near to their curves as can be."""

import matplotlib.pyplot as plt
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mnist_bn.plotting.labels import EndLabel, label_ends, spread

_wanted = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@given(_wanted, st.floats(0, 0.3))
def test_spread_keeps_the_gap_the_order_and_the_range(wanted, gap):
    placed = spread(wanted, gap, 0, 1)
    assert placed.min() >= -1e-9 and placed.max() <= 1 + 1e-9
    order = np.argsort(wanted, kind="stable")
    fitting = min(gap, 1 / max(1, len(wanted) - 1))
    assert (np.diff(placed[order]) >= fitting - 1e-9).all()


@given(_wanted)
def test_spread_leaves_alone_what_does_not_collide(wanted):
    apart = np.arange(len(wanted)) / 12 + np.array(wanted) / 1000
    np.testing.assert_allclose(spread(apart, 0.08, 0, 1), apart)


def test_spread_is_the_nearest_arrangement():
    np.testing.assert_allclose(spread([0.5, 0.5, 0.5], 0.1, 0, 1), [0.4, 0.5, 0.6])
    np.testing.assert_allclose(spread([1.0, 0.98], 0.1, 0, 1), [1.0, 0.9])
    np.testing.assert_allclose(spread([0.02, 0.0, 0.9], 0.1, 0, 1), [0.1, 0.0, 0.9])
    assert spread([], 0.1, 0, 1).size == 0


def test_of_curves_with_one_end_the_first_is_named_on_top():
    figure, axes = plt.subplots()
    names = ["above", "batch 16", "batch 100", "batch 128"]
    ends = (0.9, 0.5, 0.5, 0.5)
    label_ends(axes, [EndLabel(name, "black", 1, y) for name, y in zip(names, ends, strict=True)])
    shown = sorted(axes.texts, key=lambda text: -text.get_position()[1])
    assert [text.get_text() for text in shown] == names
    plt.close(figure)
