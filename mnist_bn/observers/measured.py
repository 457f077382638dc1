"""What an observer measured of one network, in each of its runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mnist_bn import plotting

Observed = dict[str, np.ndarray]
# Of a figure's title and what to see in it: its title and subtitle.
Head = Callable[[str, str], tuple[str, str]]


@dataclass(frozen=True)
class Measured:
    """What was measured of one network: a time series, arrays `(T, ...)`, for each of its runs.

    `label` and `colour` tell it from other networks in the figure.
    """

    label: str
    colour: str
    seeds: Sequence[Observed]
    runs: Sequence[plotting.results.Run] = ()

    @property
    def unit(self) -> str:
        """What the runs' logs count in: "epoch" or "iteration"."""
        return self.runs[0].unit

    @property
    def names(self) -> list[str]:
        """The names of what was measured, without the times."""
        return list(measurements(self.seeds[0]))

    def first(self, key: str) -> np.ndarray:
        """Returns the first measurement of each seed, `(seeds, ...)`."""
        return np.array([series[key][0] for series in self.seeds])

    def over_time(
        self, key: str, values: Callable[[np.ndarray], np.ndarray] = np.asarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the times that all seeds have, `(T,)`, and an array of each, `(seeds, T, ...)`.

        Args:
            values: makes of a seed's array, with all its times, what is returned of it.
        """
        found = [(series[self.unit], values(series[key])) for series in self.seeds]
        return plotting.groups.aligned(found)

    def logged(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns a series of the runs' logs as `over_time` does."""
        return plotting.groups.aligned([(run.epochs, run.values(key)) for run in self.runs])


def measurements(series: Observed) -> Observed:
    """Returns the series without the times."""
    return {key: array for key, array in series.items() if key not in ("epoch", "iteration")}


def slope(x: np.ndarray, y: np.ndarray) -> float:
    """Returns the least-squares slope of log10 y against x, NaN from fewer than two points."""
    there = np.isfinite(y) & (y > 0)
    return np.polyfit(x[there], np.log10(y[there]), 1)[0] if there.sum() > 1 else np.nan


def range_of(values: np.ndarray) -> str:
    """Returns the range of the seeds' values in words, such as "2.9 to 3.1"."""
    low, high = (f"{value:.2g}" for value in (values.min(), values.max()))
    text = low if low == high else f"{low} to {high}"
    return text.replace("-", "\N{MINUS SIGN}")
