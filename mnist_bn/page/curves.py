"""Learning curves, with networks and optimizers to switch on and off."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import plotly.graph_objects as go

from mnist_bn.page.document import Section, table, text
from mnist_bn.plotting.appearance import NETWORK_LOOKS, OPTIMIZER_LOOKS, looks
from mnist_bn.plotting.groups import SeedGroup, group_runs
from mnist_bn.plotting.partition import Part
from mnist_bn.plotting.results import VALIDATION_ACCURACY
from mnist_bn.plotting.words import joined

DASHES = ("solid", "dash", "dot", "dashdot")
FEW = 12  # curves that can be told apart: of more, some are switched off at first
_FIRST_OPTIMIZERS = ("SGD", "Adam")


def sections(part: Part) -> Iterator[Section]:
    """Yields the curves of validation accuracy, if the logs have any."""
    curves = [
        curve
        for curve in group_runs(part.runs)
        if any(VALIDATION_ACCURACY in entry for run in curve.runs for entry in run.log)
    ]
    if not curves:
        return
    networks = list(dict.fromkeys(_network(curve) for curve in curves))
    optimizers = list(dict.fromkeys(_optimizer(curve) for curve in curves))
    several = len(networks) > 1 and len(optimizers) > 1
    shown = set(optimizers)
    if len(curves) > FEW and len(optimizers) > 2:
        shown = {name for name in optimizers if name in _FIRST_OPTIMIZERS} or {optimizers[0]}
    known = OPTIMIZER_LOOKS if len(optimizers) > 1 else NETWORK_LOOKS
    colours = looks(optimizers if len(optimizers) > 1 else networks, known)
    figure = go.Figure()
    rows = []
    for curve in curves:
        network, optimizer = _network(curve), _optimizer(curve)
        name = joined(network if len(networks) > 1 else "", optimizer if several else "")
        name = name or (optimizer if len(optimizers) > 1 else network)
        colour = colours[optimizer if len(optimizers) > 1 else network].colour
        dash = DASHES[networks.index(network) % len(DASHES)] if several else "solid"
        meta = {"network": text(network), "optimizer": text(optimizer)}
        _add(figure, curve, name, colour, dash, meta, optimizer in shown)
        band = curve.band(VALIDATION_ACCURACY)
        seeds = len(curve.finished or curve.runs)
        if len(band.mean):
            last = f"{band.mean[-1]:.4f} ({band.low[-1]:.4f} to {band.high[-1]:.4f})"
            rows.append([network, optimizer, last, seeds])
    unit = curves[0].unit
    figure.update_layout(
        xaxis={"title": {"text": unit}},
        yaxis={"title": {"text": "validation accuracy"}},
        hovermode="closest",
        legend={"orientation": "h", "y": -0.2},
        margin={"t": 20, "r": 20},
        height=560,
    )
    yield Section(
        "Learning curves",
        "See how soon each curve rises, how high it ends, and how wide its band over seeds is. On "
        "the scale of errors, an error half as large is always the same step down.",
        figure,
        controls=_controls(networks, optimizers, shown),
        table=table(
            ["network", "optimizer", "final accuracy: mean (least to greatest)", "seeds"],
            rows,
            "Final validation accuracy",
        ),
    )


def _add(
    figure: go.Figure,
    curve: SeedGroup,
    name: str,
    colour: str,
    dash: str,
    meta: dict,
    is_shown: bool,
) -> None:
    band = curve.band(VALIDATION_ACCURACY)
    x, mean, low, high = (band.epochs.tolist(), *(_rounded(y) for y in band[1:]))
    if len(curve.finished) > 1:
        figure.add_trace(
            go.Scatter(
                x=x + x[::-1],
                y=high + low[::-1],
                fill="toself",
                mode="none",
                fillcolor=_transparent(colour),
                hoverinfo="skip",
                showlegend=False,
                visible=is_shown,
                meta=meta,
            )
        )
    figure.add_trace(
        go.Scatter(
            x=x,
            y=mean,
            name=text(name),
            mode="lines+markers" if len(x) < 40 else "lines",
            line={"color": colour, "dash": dash, "width": 2},
            marker={"size": 5},
            visible=is_shown,
            meta=meta,
            hovertemplate=f"{text(name)}<br>%{{x}}: %{{y:.4f}}<extra></extra>",
        )
    )


def _controls(networks: Sequence[str], optimizers: Sequence[str], shown: set[str]) -> str:
    """Returns boxes to tick, and the choice of the scale."""
    groups = []
    for kind, names in (("network", networks), ("optimizer", optimizers)):
        if len(names) > 1:
            boxes = "".join(
                f'<label><input type="checkbox" data-for="{{id}}" data-kind="{kind}" '
                f'value="{text(name)}"{_checked(kind == "network" or name in shown)}> {text(name)}'
                "</label>"
                for name in names
            )
            groups.append(f"<fieldset><legend>{kind}s</legend>{boxes}</fieldset>")
    scale = "".join(
        f'<label><input type="radio" name="scale-{{id}}" data-for="{{id}}" data-scale="{value}"'
        f"{_checked(value == 'linear')}> {words}</label>"
        for value, words in (("linear", "accuracy"), ("log", "error, logarithmic"))
    )
    groups.append(f"<fieldset><legend>scale</legend>{scale}</fieldset>")
    return f'<div class="controls">{"".join(groups)}</div>'


def _checked(is_checked: bool) -> str:
    return " checked" if is_checked else ""


def _network(curve: SeedGroup) -> str:
    return curve.model or curve.name


def _optimizer(curve: SeedGroup) -> str:
    return joined(curve.optimizer or "", curve.variant) or "not recorded"


def _rounded(values) -> list[float]:
    return [round(float(value), 5) for value in values]


def _transparent(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"
