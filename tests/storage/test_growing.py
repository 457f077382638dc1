"""Arrays that grow: the same rows as of a stack, and what was handed out stays as it was."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_bn.storage.growing import GrowingArray


@given(lengths=st.lists(st.integers(0, 5)), shape=st.sampled_from([(), (2,), (2, 0)]))
def test_the_rows_are_those_added_and_earlier_views_stay(lengths, shape):
    rng = np.random.RandomState(0)
    parts = [rng.rand(length, *shape).astype(np.float32) for length in [1, *lengths]]
    array, views = GrowingArray(parts[0]), []
    for i, part in enumerate(parts):
        if i:
            array.extend(part)
        views.append(array.rows())
    for i, view in enumerate(views):
        np.testing.assert_array_equal(view, np.concatenate(parts[: i + 1]))
        assert view.dtype == np.float32 and not view.flags.writeable


def test_memory_is_moved_seldom():
    array, moves = GrowingArray(np.zeros(1)), 0
    for _ in range(1000):
        before = array._memory
        array.extend(np.ones(1))
        moves += array._memory is not before
    assert moves < 12


def test_another_shape_is_refused_and_another_dtype_widens():
    array = GrowingArray(np.zeros((1, 3), np.float32))
    with pytest.raises(ValueError, match="expected rows"):
        array.extend(np.zeros((1, 1), np.float32))  # NumPy would broadcast it
    array.extend(np.full((1, 3), 1e300))
    np.testing.assert_array_equal(array.rows(), [[0] * 3, [1e300] * 3])
