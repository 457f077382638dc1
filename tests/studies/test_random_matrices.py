"""The law of the singular values of products of random matrices, and products that follow it."""

import math

import numpy as np
import pytest

from mnist_bn.studies import _random_matrices


@pytest.mark.parametrize(("matrices", "edge"), [(1, 2), (3, 3.079), (5, 3.864)])
def test_edges(matrices, edge):
    assert _random_matrices.edge(matrices) == pytest.approx(edge, abs=5e-4)
    assert _random_matrices.density(matrices)[0].max() == pytest.approx(edge, abs=1e-3)


def test_one_matrix_has_the_quarter_circle():
    value, rho = _random_matrices.density(1)
    np.testing.assert_allclose(rho, np.sqrt(4 - value**2) / math.pi, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("matrices", [1, 3, 5])
def test_moments_are_the_fuss_catalan_numbers(matrices):
    value, rho = _random_matrices.density(matrices)
    for k in (1, 2, 3):
        number = math.comb((matrices + 1) * k, k) / (matrices * k + 1)
        moment = -np.trapezoid(rho * value ** (2 * k), value)
        assert moment == pytest.approx(number, rel=1e-3)


@pytest.mark.parametrize("matrices", [1, 3, 5])
def test_edges_of_products_are_within_one_percent(matrices):
    random = np.random.default_rng(0)
    values = _random_matrices.singular_values(random, 1000, matrices)
    edge = _random_matrices.edge(matrices)
    assert _random_matrices.fitted_edge(values, matrices) == pytest.approx(edge, rel=0.01)
    # A single largest value is off by chance: 1.6% is one standard deviation at M = 5.
    assert values[0] == pytest.approx(edge, rel=0.06)


def test_a_fitted_edge_follows_the_scale():
    values = _random_matrices.singular_values(np.random.default_rng(1), 300, 2)
    fitted = _random_matrices.fitted_edge(values, 2)
    assert _random_matrices.fitted_edge(3 * values, 2) == pytest.approx(3 * fitted)
