"""Parts of a dataset: fewer images, or training images held out to be measured on."""

from __future__ import annotations

import dataclasses

from mnist_bn.data.dataset import Dataset, Split
from mnist_bn.errors import UsageError


def choose(
    dataset: Dataset,
    train_images: int | None = None,
    test_images: int | None = None,
    holdout: int | None = None,
) -> Dataset:
    """Returns the dataset with fewer images; nothing is copied.

    Args:
        train_images: the first so many of the images to train on, those held out left out; None is
            all.
        test_images: the first so many of the images to be measured on; None is all.
        holdout: the last so many training images take the place of the test images; None is none.

    Raises:
        UsageError: there are fewer.
    """
    train, test, notes = dataset.train, dataset.test, [dataset.note]
    if holdout is not None:
        count = len(train.labels)
        if holdout >= count:
            raise UsageError(
                f"--holdout {holdout}: expected at most {count - 1:,}, of the {count:,} training "
                f"images of {dataset.name}"
            )
        train, test = _part(train, 0, count - holdout), _part(train, count - holdout, count)
        notes.append("in place of the test images, the last training images, held out")
    train = _first(train, train_images, "--train-images", f"training images of {dataset.name}")
    kind = "images held out" if holdout is not None else f"test images of {dataset.name}"
    test = _first(test, test_images, "--test-images", kind)
    return dataclasses.replace(dataset, train=train, test=test, note="; ".join(filter(None, notes)))


def _first(split: Split, count: int | None, flag: str, what: str) -> Split:
    if count is None:
        return split
    there = len(split.labels)
    if count > there:
        raise UsageError(f"{flag} {count}: expected at most {there:,}, the {what}")
    return _part(split, 0, count)


def _part(split: Split, start: int, stop: int) -> Split:
    return Split(split.images[start:stop], split.labels[start:stop])
