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
    train, test, note = dataset.train, dataset.test, dataset.note
    training, tested = (f"{kind} images of {dataset.name}" for kind in ("training", "test"))
    if holdout is not None:
        left = len(train.labels) - holdout
        if left < 1:
            there = len(train.labels)
            raise UsageError(
                f"--holdout {holdout}: expected at most {there - 1:,}, of the {there:,} {training}"
            )
        train, test = _part(train, 0, left), _part(train, left, None)
        evaluated = "evaluated on training images held out, not on the test images"
        note = f"{note}; {evaluated}" if note else evaluated
        training, tested = f"{training} that are not held out", "images held out"
    train = _first(train, train_images, "--train-images", training)
    test = _first(test, test_images, "--test-images", tested)
    return dataclasses.replace(dataset, train=train, test=test, note=note)


def _first(split: Split, count: int | None, flag: str, what: str) -> Split:
    if count is None:
        return split
    there = len(split.labels)
    if count > there:
        raise UsageError(f"{flag} {count}: expected at most {there:,}, the {what}")
    return _part(split, 0, count)


def _part(split: Split, start: int, stop: int | None) -> Split:
    return split.part(slice(start, stop))
