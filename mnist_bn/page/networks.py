"""What a finished network knows: its confusion matrix, its mistakes, its first layer's filters."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import plotly.graph_objects as go

from mnist_bn import load_run
from mnist_bn.errors import UserError
from mnist_bn.page import pictures
from mnist_bn.page.document import Section, table, text
from mnist_bn.plotting.groups import group_runs, in_words
from mnist_bn.plotting.partition import Part
from mnist_bn.plotting.results import Run
from mnist_bn.plotting.words import printable
from mnist_bn.preparation import load_dataset
from mnist_bn.storage.result_folder import MODEL

MOST_NETWORKS, MOST_MISTAKES, MOST_FILTERS = 4, 40, 64


def sections(part: Part, note: Callable[[str], None]) -> Iterator[Section]:
    """Yields the panels of the first runs that have their parameters, a seed each."""
    curves = group_runs(part.runs)
    there = [
        (in_words(curve, curves) or part.name, run)
        for curve in curves
        for run in curve.finished[:1]
        if (run.folder / MODEL).exists()
    ]
    for name, run in there[:MOST_NETWORKS]:
        try:
            yield from _of_run(name, run)
        except UserError as error:
            note(f"{printable(run.folder)}: its network is not on the page ({error})")


def _of_run(name: str, run: Run) -> Iterator[Section]:
    trained = load_run(run.folder)
    test = load_dataset(trained.config).test
    images, labels = test.images, test.labels
    guesses = trained.classify(images)
    counts = np.zeros((10, 10), int)
    np.add.at(counts, (labels, guesses), 1)
    wrong = np.flatnonzero(guesses != labels)
    yield Section(
        f"{name}: confusion matrix",
        f"{len(wrong)} of {len(labels):,} test images are classified wrongly; a cell beside the "
        "diagonal says which classes it takes for which.",
        _matrix(counts),
        table=table(
            ["is", *map(str, range(10))],
            [[label, *row] for label, row in enumerate(counts.tolist())],
            "Rows: what it is; columns: what the network says",
        ),
    )
    if images.shape[1:] == (784,) and len(wrong):
        figures = "".join(
            f'<figure><img alt="a {labels[i]} taken for a {guesses[i]}" '
            f'src="{pictures.address(_grey(images[i]))}"><figcaption>{labels[i]} → {guesses[i]}'
            "</figcaption></figure>"
            for i in wrong[:MOST_MISTAKES]
        )
        yield Section(
            f"{name}: what it gets wrong",
            f"The first {min(len(wrong), MOST_MISTAKES)} mistakes: the label, and after the arrow "
            "what the network says. Would you have known?",
            body=f'<div class="mistakes">{figures}</div>',
        )
    if (filters := _filters(trained.network)) is not None:
        picture = pictures.address(pictures.grid(filters, 8, max(1, 48 // filters.shape[1])))
        yield Section(
            f"{name}: filters of the first layer",
            "White weights want light there, black ones want dark: see edges and strokes.",
            body=f'<p><img class="filters" alt="Filters of {text(name)}" src="{picture}"></p>',
        )


def _grey(image: np.ndarray) -> np.ndarray:
    return np.round(255 * (1 - image.reshape(28, 28))).astype(np.uint8)


def _matrix(counts: np.ndarray) -> go.Figure:
    shown = np.where(np.eye(10, dtype=bool), np.nan, counts.astype(float))
    figure = go.Figure(
        go.Heatmap(
            z=[[None if np.isnan(v) else v for v in row] for row in shown],
            x=list(range(10)),
            y=list(range(10)),
            text=counts.tolist(),
            texttemplate="%{text}",
            showscale=False,
            hovertemplate="a %{y} taken for a %{x}: %{text}<extra></extra>",
        )
    )
    axis = {"dtick": 1, "showgrid": False, "zeroline": False}
    figure.update_layout(
        xaxis={"title": {"text": "the network says"}, **axis},
        yaxis={"title": {"text": "it is"}, "autorange": "reversed", **axis},
        margin={"t": 20, "r": 20},
        height=480,
    )
    return figure


def _filters(network) -> np.ndarray | None:
    """Returns uint8 `(filters, height, width)` of the first layer; None if it has none to see."""
    for _, parameter in sorted(network.namedparams(), key=lambda item: _depth(network, item[0])):
        w = parameter.array
        if w.ndim == 4:
            w = w.mean(axis=1)
        elif w.ndim == 2 and w.shape[1] == 784:
            w = w.reshape(-1, 28, 28)
        else:
            continue
        return np.stack([pictures.scaled(tile) for tile in w[:MOST_FILTERS]])
    return None


def _depth(network, path: str) -> int:
    """The place of a parameter's link in the order in which the network made them."""
    names = [name for name, _ in network.namedlinks(skipself=True)]
    return names.index(path.rpartition("/")[0]) if path.rpartition("/")[0] in names else 0
