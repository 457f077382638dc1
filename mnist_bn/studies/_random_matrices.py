"""Products of independent Gaussian matrices, and the law of their singular values.

The squares of the singular values of a product of M matrices of N x N entries from N(0, 1 / N)
follow, for N to infinity, the Fuss-Catalan law (Penson and Zyczkowski 2011; for M = 1 it is
Marchenko and Pastur's). In the angle phi, 0 < phi < pi / (M + 1), a square and its density are
(Haagerup and Moeller 2013, theorem 3)

    x   = sin((M + 1) phi)^(M + 1) / (sin(phi) sin(M phi)^M)
    rho = sin((M + 1) phi) sin(phi) / (pi x sin(M phi)).
"""

from __future__ import annotations

import numpy as np

TOP = 0.05  # of the spectrum, which an edge is fitted to
_ANGLES = 200_000


def singular_values(random: np.random.Generator, size: int, matrices: int) -> np.ndarray:
    """Returns those of a product of so many matrices, descending, float64 `(size,)`."""
    product = random.normal(0, size**-0.5, (size, size))
    for _ in range(matrices - 1):
        product = product @ random.normal(0, size**-0.5, (size, size))
    return np.linalg.svd(product, compute_uv=False)


def edge(matrices: int) -> float:
    """Returns the right edge of the law, sqrt((M + 1)^(M + 1) / M^M)."""
    return ((matrices + 1) ** (matrices + 1) / matrices**matrices) ** 0.5


def density(matrices: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns singular values, descending, and the density of the law at each."""
    m = float(matrices)
    phi = np.linspace(0, np.pi / (m + 1), _ANGLES + 2)[1:-1]
    square = np.sin((m + 1) * phi) ** (m + 1) / (np.sin(phi) * np.sin(m * phi) ** m)
    rho = np.sin((m + 1) * phi) * np.sin(phi) / (np.pi * square * np.sin(m * phi))
    value = np.sqrt(square)
    return value, 2 * value * rho


def fitted_edge(values: np.ndarray, matrices: int) -> float:
    """Returns the edge of the law, scaled to fit the largest of these singular values.

    The median, over the TOP part of the spectrum, of a value over the quantile of the law where it
    should be, times the edge. A single largest value lies off the edge by chance, and for a finite
    size rather below it.

    Args:
        values: of one product or several, descending, `(..., size)`.
    """
    value, rho = density(matrices)
    above = np.concatenate([[0], np.cumsum(-np.diff(value) * (rho[1:] + rho[:-1]) / 2)])
    size = values.shape[-1]
    count = max(1, round(TOP * size))
    expected = np.interp((np.arange(count) + 0.5) / size, above, value)
    return edge(matrices) * float(np.median(values[..., :count] / expected))
