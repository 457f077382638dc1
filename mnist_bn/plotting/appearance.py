"""One look for every figure: the style file, and a colour for each network and each optimizer.

Colours: Okabe and Ito, "Color Universal Design" (2008), its yellow darkened for thin lines on
white, and a grey. A network or an optimizer has the same colour in every figure.
"""

import contextlib
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

import matplotlib.style
from matplotlib.colors import to_hex, to_rgb

BLACK, GREY = "#000000", "#8A8A8A"
ORANGE, SKY, GREEN, YELLOW = "#E69F00", "#56B4E9", "#009E73", "#D9C700"
BLUE, VERMILLION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"

MARKERS = "osD^v<>PX*hp"
DASHES: tuple[str | tuple, ...] = ("-", (0, (5, 2)), (0, (1.2, 1.6)), (0, (6, 2, 1.2, 2)))

LINE_COLOURS = (BLACK, BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY)  # of lines without a look


class Look(NamedTuple):
    colour: str
    marker: str


# The order of these is the order in every legend and table.
NETWORK_LOOKS = {
    "MnistCNN": Look(BLACK, "o"),
    "MnistCNN_BN_before": Look(BLUE, "s"),
    "MnistCNN_BN_after": Look(VERMILLION, "^"),
    "MnistCNN_BN_linear_before": Look(GREEN, "D"),
}
OPTIMIZER_LOOKS = {
    "SGD": Look(BLACK, "o"),
    "MomentumSGD": Look(BLUE, "s"),
    "NesterovAG": Look(SKY, "^"),
    "AdaGrad": Look(PURPLE, "D"),
    "AdaDelta": Look(GREEN, "v"),
    "RMSprop": Look(ORANGE, "P"),
    "RMSpropGraves": Look(YELLOW, "X"),
    "SMORMS3": Look(GREY, "<"),
    "Adam": Look(VERMILLION, ">"),
}
_SPARE = tuple(
    Look(colour, marker)
    for colour, marker in zip(
        (PURPLE, SKY, ORANGE, GREY, BLUE, GREEN, VERMILLION, BLACK), "vP<>X*hp", strict=True
    )
)


def looks(names: Sequence[str], known: dict[str, Look]) -> dict[str, Look]:
    """A look for each name: its own if it is known, the spare ones in turn for the others."""
    others = [name for name in names if name not in known]
    return known | dict(zip(others, islice(cycle(_SPARE), len(others)), strict=True))


def told_apart(every: Sequence[Look]) -> list[tuple[str, str, str | tuple]]:
    """Colour, marker and dashes of each line of a figure: of one look, dashes and marker differ.

    If all have one look, as one network in several settings, they get a colour each.
    """
    if len(set(every)) == 1 and len(every) > 1:
        every = list(islice(cycle([every[0], *_SPARE]), len(every)))
    used: dict[Look, int] = {}
    lines = []
    for look in every:
        again, dash = divmod(used.setdefault(look, 0), len(DASHES))
        used[look] += 1
        marker = MARKERS[(MARKERS.index(look.marker) + again) % len(MARKERS)]
        lines.append((look.colour, marker, DASHES[dash]))
    return lines


def line_look(i: int) -> tuple[str, str | tuple]:
    """Colour and dashes of the i-th line of a panel of what has no look of its own."""
    again, colour = divmod(i, len(LINE_COLOURS))
    return LINE_COLOURS[colour], DASHES[again % len(DASHES)]


def ink(colour: str) -> str:
    """The colour, darkened until text in it is readable on white (relative luminance < 0.35)."""
    red, green, blue = to_rgb(colour)
    luminance = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2
    factor = min(1.0, (0.35 / max(luminance, 1e-9)) ** (1 / 2.2))
    return to_hex((red * factor, green * factor, blue * factor))


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Draw and save in the project's style, whatever the user's own matplotlibrc says."""
    sheet = Path(__file__).with_name("style.mplstyle")
    with matplotlib.style.context(["default", str(sheet)]):
        yield
