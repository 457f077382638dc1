"""What the pages promise: links that lead somewhere, lines that fit, numbers as one writes them."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "REPRODUCTION.md", "CONTRIBUTING.md")),
    *sorted(ROOT.glob("docs/**/*.md")),
    ROOT / "benchmarks/README.md",
]
every_page = pytest.mark.parametrize(
    "page", PAGES, ids=[path.relative_to(ROOT).as_posix() for path in PAGES]
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.S)


def anchors(page):
    """The names that headings have on the web."""
    headings = re.findall(r"(?m)^#+ (.*)$", page.read_text())
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_page
def test_every_link_leads_somewhere(page):
    for target in LINK.findall(page.read_text()):
        if target.startswith(("https://", "http://")):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path), target


@every_page
def test_a_number_below_one_begins_with_zero(page):
    text = CODE.sub("", page.read_text())
    assert not re.findall(r"(?<![\w./)])\.\d+", text)


def test_the_readme_can_be_read_in_three_minutes():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 130
    assert [line for line in lines if len(line) > 102 and not line.startswith(("|", "!["))] == []


def test_the_flags_in_the_readme_are_there(capsys):
    import plot_results
    import train_mnist

    helps = ""
    for command in (train_mnist, plot_results):
        with pytest.raises(SystemExit):
            command.main(["--help"])
        helps += capsys.readouterr().out
    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", (ROOT / "README.md").read_text()))
    assert {flag for flag in flags if flag not in helps} == set()
