"""The HTML around the page's sections: its text, tables, controls, styles and scripts."""

from __future__ import annotations

import html
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Section:
    """A panel of the page.

    Attributes:
        title: a few words.
        says: one sentence on what there is to see.
        figure: of Plotly; None for none.
        controls: HTML above the figure; `{id}` is the figure's.
        body: HTML below it.
        table: HTML of the same numbers, for a screen reader, shown on demand.
    """

    title: str
    says: str
    figure: go.Figure | None = None
    controls: str = ""
    body: str = ""
    table: str = ""


def text(words: object) -> str:
    """Returns foreign words as text of HTML, also where Plotly would see tags in them."""
    return html.escape(str(words), quote=True)


def table(head: Sequence[str], rows: Sequence[Sequence[object]], caption: str) -> str:
    """Returns a table with its header cells marked as such."""
    top = "".join(f'<th scope="col">{text(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{text(row[0])}</th>'
        + "".join(f"<td>{text(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="wide"><table><caption>{text(caption)}</caption>'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def render(parts: Sequence[tuple[str, Sequence[Section]]]) -> str:
    """Returns the page, its parts by their names."""
    numbers = itertools.count()
    anchors = [f"part-{i}" for i in range(len(parts))]
    links = "".join(
        f'<a href="#{anchor}">{text(name)}</a>'
        for anchor, (name, _) in zip(anchors, parts, strict=True)
    )
    bodies = "".join(
        f'<h2 id="{anchor}">{text(name)}</h2>'
        + "".join(_section(section, f"plot-{next(numbers)}") for section in sections)
        for anchor, (name, sections) in zip(anchors, parts, strict=True)
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>mnist-bn: Batch Normalization, reproduced</title>
<style>{_read("page.css")}</style>
<script>{get_plotlyjs()}</script>
</head>
<body>
<header><h1>Batch Normalization, reproduced</h1>
<nav aria-label="Parts of this page">{links}</nav>
<button id="theme" type="button">Light or dark</button></header>
<main>{bodies}</main>
<script>{_read("page.js")}</script>
</body>
</html>
"""


def _section(section: Section, name: str) -> str:
    plot = ""
    if section.figure is not None:
        # No "</script>" may stand in it.
        figure = section.figure.to_json().replace("</", "<\\/")
        plot = (
            f'<div class="plot" id="{name}" role="img" aria-label="{text(section.title)}"></div>'
            f'<script type="application/json" data-plot="{name}">{figure}</script>'
        )
    numbers = (
        f"<details><summary>The numbers</summary>{section.table}</details>" if section.table else ""
    )
    return (
        f"<section><h3>{text(section.title)}</h3><p>{text(section.says)}</p>"
        f"{section.controls.replace('{id}', name)}{plot}{section.body}{numbers}</section>"
    )


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
