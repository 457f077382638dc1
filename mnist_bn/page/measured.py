"""What observers measured: the film of weight updates, percentiles, gradient norms, moments."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import plotly.graph_objects as go

from mnist_bn import observations
from mnist_bn.errors import UserError
from mnist_bn.observers.measured import Observed, measurements
from mnist_bn.page import pictures
from mnist_bn.page.document import Section, table, text
from mnist_bn.plotting import film
from mnist_bn.plotting.appearance import LINE_COLOURS
from mnist_bn.plotting.groups import SeedGroup, group_runs, in_words
from mnist_bn.plotting.partition import Part

MOST_CURVES = 4  # of a part, in a panel: more cannot be told apart
MOST_FRAMES = 15  # evenly in time: each is some 40 kB
MOST_POINTS = 200


def sections(part: Part) -> Iterator[Section]:
    """Yields a panel for each observer that there are measurements of."""
    curves = [curve for curve in group_runs(part.runs) if curve.finished]
    names = {id(curve): in_words(curve, curves) or part.name for curve in curves}

    def seen(observer: str) -> list[tuple[str, SeedGroup, Observed]]:
        found = []
        for curve in curves:
            try:
                series = observations.read(curve.finished[0], observer)
            except UserError:
                continue  # the figures say so
            if series is not None:
                found.append((names[id(curve)], curve, series))
        return found[:MOST_CURVES]

    for observer, make in _PANELS.items():
        if found := seen(observer):
            yield from make(found)


Found = Sequence[tuple[str, SeedGroup, Observed]]


def _film(found: Found) -> Iterator[Section]:
    shown = found[:2]
    frames = film.frames({name: series for name, _, series in shown}, shown[0][1].unit)
    kept = np.unique(np.linspace(0, len(frames) - 1, min(len(frames), MOST_FRAMES)).round())
    addresses = [pictures.address(frames[int(i)].quantize(film.GREYS)) for i in kept]
    images = "".join(
        f'<img alt="Weight updates, picture {i + 1} of {len(addresses)}" src="{address}"'
        f"{'' if i == 0 else ' hidden'}>"
        for i, address in enumerate(addresses)
    )
    yield Section(
        "Film of the weight updates",
        "Each tile is what an epoch changed in the weights of one unit; a tile that stays flat is "
        "of a unit that has stopped learning.",
        body=f'<div class="film"><div class="frames">{images}</div><label>picture '
        f'<input type="range" min="1" max="{len(addresses)}" value="1"></label> '
        f'<output>1</output> <button type="button">Play</button></div>',
    )


def _lines(
    found: Found, title: str, says: str, what: str, lines: Callable[[Observed], dict], log: bool
) -> Iterator[Section]:
    """A panel of series against the time, one colour a network."""
    figure, rows = go.Figure(), []
    for (name, curve, series), colour in zip(found, LINE_COLOURS, strict=False):
        times = observations.times(curve.finished[0], series)
        step = max(1, len(times) // MOST_POINTS)
        for i, (label, values) in enumerate(lines(series).items()):
            y = np.asarray(values, float)[::step]
            figure.add_trace(
                go.Scatter(
                    x=np.asarray(times)[::step].tolist(),
                    y=[float(f"{v:.4g}") if np.isfinite(v) else None for v in y],
                    name=text(f"{name}: {label}"),
                    mode="lines",
                    line={"color": colour, "dash": ("solid", "dash", "dot", "dashdot")[i % 4]},
                )
            )
            rows.append([name, label, f"{y[0]:.4g}", f"{y[-1]:.4g}"])
    figure.update_layout(
        xaxis={"title": {"text": found[0][1].unit}},
        yaxis={"title": {"text": what}, "type": "log" if log else "linear"},
        legend={"orientation": "h", "y": -0.2},
        margin={"t": 20, "r": 20},
        height=480,
    )
    yield Section(
        title, says, figure, table=table(["network", "series", "first", "last"], rows, title)
    )


def _percentiles(found: Found) -> Iterator[Section]:
    def lines(series: Observed) -> dict[str, np.ndarray]:
        last = list(measurements(series).values())[-1]  # (T, 3, units) of the last layer
        return {f"{percent} %": last[:, i].mean(axis=-1) for i, percent in enumerate((15, 50, 85))}

    yield from _lines(
        found,
        "Activation percentiles of the last observed layer",
        "Without BN the three lines fan out in the first steps; with it they are apart from the "
        "start, and drift slowly.",
        "input of the nonlinearity, mean over units",
        lines,
        log=False,
    )


def _norms(found: Found) -> Iterator[Section]:
    def lines(series: Observed) -> dict[str, np.ndarray]:
        norms = {
            name: values for name, values in measurements(series).items() if name.endswith("/W")
        }
        return dict(list(norms.items())[:4])

    yield from _lines(
        found,
        "Gradient norms of the weights",
        "See whether the first layer's gradient keeps up with the last one's as training goes on.",
        "norm of the gradient",
        lines,
        log=True,
    )


_MOMENTS_SHOWN = 3  # of the measurements, from the first to the last


def _moments(found: Found) -> Iterator[Section]:
    figure, rows = go.Figure(), []
    for (name, curve, series), colour in zip(found, LINE_COLOURS, strict=False):
        times = observations.times(curve.finished[0], series)
        some = sorted(set(np.linspace(0, len(times) - 1, _MOMENTS_SHOWN).astype(int)))
        for kind, dash in (("mean", "solid"), ("std", "dash")):
            if kind not in series:
                continue
            values = np.abs(np.asarray(series[kind], float))  # (T, layers)
            for t in some:
                y, when = values[t], f"{curve.unit} {times[t]}"
                figure.add_trace(
                    go.Scatter(
                        x=list(range(1, len(y) + 1)),
                        y=[float(f"{v:.4g}") if np.isfinite(v) and v > 0 else None for v in y],
                        name=text(f"{name}: {kind}, {when}"),
                        mode="lines",
                        line={"color": colour, "dash": dash},
                        opacity=0.35 + 0.65 * (t + 1) / len(times),  # the later, the stronger
                    )
                )
                rows.append([name, f"{kind}, {when}", f"{y[0]:.4g}", f"{y[-1]:.4g}"])
    figure.update_layout(
        xaxis={"title": {"text": "layer"}},
        yaxis={"title": {"text": "mean over channels, absolute"}, "type": "log"},
        legend={"orientation": "h", "y": -0.2},
        margin={"t": 20, "r": 20},
        height=480,
    )
    yield Section(
        "Moments of the channels against depth",
        "A straight line that rises on this scale is growth by the same factor in each layer: "
        "that is what BN takes away. Faint: earlier in training.",
        figure,
        table=table(["network", "moment", "first layer", "last layer"], rows, "Moments"),
    )


_PANELS: dict[str, Callable[[Found], Iterator[Section]]] = {
    "weight-updates": _film,
    "activation-percentiles": _percentiles,
    "gradient-norms": _norms,
    "activation-moments": _moments,
}
