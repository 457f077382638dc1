"""Parts of a dataset: which images they hold, and how many there may be."""

import numpy as np
import pytest

from mnist_bn.data import Dataset, Split, subsets
from mnist_bn.errors import UsageError

ALL = Dataset(
    "mnist",
    Split(np.arange(10, dtype=np.float32).reshape(10, 1), np.arange(10, dtype=np.int32)),
    Split(np.arange(20, 24, dtype=np.float32).reshape(4, 1), np.arange(4, dtype=np.int32)),
    {},
    "a test",
)


@pytest.mark.parametrize(
    ("asked", "train", "test"),
    [
        ({}, range(10), range(20, 24)),
        ({"train_images": 3}, range(3), range(20, 24)),
        ({"test_images": 2}, range(10), [20, 21]),
        ({"holdout": 4}, range(6), range(6, 10)),
        ({"holdout": 4, "train_images": 6}, range(6), range(6, 10)),
        ({"holdout": 4, "train_images": 2, "test_images": 3}, [0, 1], [6, 7, 8]),
    ],
)
def test_which_images(asked, train, test):
    part = subsets.choose(ALL, **asked)
    assert part.train.images.ravel().tolist() == list(train)
    assert part.test.images.ravel().tolist() == list(test)
    assert part.train.labels.tolist() == list(train)
    assert len(part.test.labels) == len(part.test.images)
    assert (part.name, part.sha256) == (ALL.name, ALL.sha256)
    assert part.note == ("evaluated on training images held out, not on the test images") * (
        "holdout" in asked
    )
    assert np.shares_memory(part.train.images, ALL.train.images)


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        (
            {"train_images": 11},
            "--train-images 11: expected at most 10, the training images of mnist",
        ),
        ({"test_images": 5}, "--test-images 5: expected at most 4, the test images of mnist"),
        ({"holdout": 10}, "--holdout 10: expected at most 9, of the 10 training images of mnist"),
        (
            {"holdout": 4, "train_images": 7},
            "--train-images 7: expected at most 6, the training images of mnist that are not held "
            "out",
        ),
        (
            {"holdout": 4, "test_images": 5},
            "--test-images 5: expected at most 4, the images held out",
        ),
    ],
)
def test_more_than_there_are(asked, line):
    with pytest.raises(UsageError) as caught:
        subsets.choose(ALL, **asked)
    assert str(caught.value) == line
