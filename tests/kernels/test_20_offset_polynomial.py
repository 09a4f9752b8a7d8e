"""Offset polynomials: algebra, and accuracy against exact solutions of two orbits."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest

from bperp.kernels.chebyshev import (
    OffsetPolynomial,
    RadarGrid,
    evaluate_offsets,
    evaluate_points,
    exact_offsets,
    fit_burst_offsets,
    fit_offset_polynomials,
    height_slope,
    held_out_nodes,
    offset_domain,
    offset_nodes,
    zero_offsets,
)
from bperp.kernels.offset_powers import term_degrees
from bperp.kernels.orbit import OrbitPolynomial, fit_orbit

TIMES = np.arange(-60.0, 70.0, 10.0)
GRID = RadarGrid(0.0, 2.0555563e-3, 7.996111e5, 2.3295621, 1507, 23055)
DOMAIN = offset_domain(1507, 23055, (-100.0, 6000.0))


def planted(terms: int = 92, seed: int = 1) -> OffsetPolynomial:
    coefficients = np.random.default_rng(seed).normal(size=terms)
    return OffsetPolynomial(DOMAIN, coefficients)


@pytest.mark.parametrize("terms", [60, 92, 129])
def test_number_and_order_of_terms(terms: int) -> None:
    degrees = term_degrees(terms)
    assert degrees.shape == (terms, 3)
    limits = degrees.max(axis=0)
    # The rule in other words: of all products up to these degrees, those with a bounded sum.
    bound = degrees.sum(axis=1).max()
    everything = [t for t in product(*(range(n + 1) for n in limits)) if sum(t) <= bound]
    assert [tuple(row) for row in degrees] == everything


def test_unknown_number_of_terms() -> None:
    with pytest.raises(ValueError, match="one of"):
        term_degrees(93)


def test_single_terms_are_products_of_cosines() -> None:
    # T_n(cos a) = cos(n a).
    a, b, c = np.random.default_rng(2).uniform(0, np.pi, (3, 50))
    place = [DOMAIN[k, 0] + DOMAIN[k, 1] * np.cos(x) for k, x in enumerate((a, b, c))]
    for index in (0, 5, 17, 44, 91):
        i, j, k = term_degrees(92)[index]
        unit = OffsetPolynomial(DOMAIN, np.eye(92)[index])
        expected = np.cos(i * a) * np.cos(j * b) * np.cos(k * c)
        np.testing.assert_allclose(evaluate_points(unit, *place), expected, atol=1e-12)


@pytest.mark.parametrize("terms", [92, 129])
def test_fit_recovers_what_was_planted(terms: int) -> None:
    truth = planted(terms)
    nodes = offset_nodes(DOMAIN)
    values = np.stack([evaluate_points(truth, *nodes), 2.0 * evaluate_points(truth, *nodes)], 1)
    values[7] = np.nan
    first, second = fit_offset_polynomials(*nodes, values, DOMAIN, terms)
    np.testing.assert_allclose(first.coefficients, truth.coefficients, atol=1e-10)
    np.testing.assert_allclose(second.coefficients, 2 * truth.coefficients, atol=1e-10)


def test_fit_refuses_too_few_nodes() -> None:
    nodes = offset_nodes(DOMAIN, (3, 5, 4))
    with pytest.raises(ValueError, match="92 terms"):
        fit_offset_polynomials(*nodes, np.zeros(60), DOMAIN)


@pytest.mark.parametrize("terms", [60, 92, 129])
def test_tiles_equal_points(terms: int) -> None:
    polynomial = planted(terms)
    height = np.random.default_rng(3).uniform(-100, 6000, (5, 301)).astype(np.float32)
    height[2, 7] = np.nan
    tile = evaluate_offsets(polynomial, 700, 12345, height)
    line = 700.0 + np.arange(5)[:, np.newaxis]
    points = evaluate_points(polynomial, line, 12345.0 + np.arange(301), height.astype(float))
    np.testing.assert_allclose(tile, points, atol=1e-11)
    assert np.isnan(tile[2, 7])


def test_height_slope_is_the_derivative() -> None:
    polynomial = planted()
    line, sample, height = held_out_nodes(DOMAIN, 100)
    step = 1e-2
    difference = evaluate_points(polynomial, line, sample, height + step)
    difference -= evaluate_points(polynomial, line, sample, height - step)
    slope = evaluate_points(height_slope(polynomial), line, sample, height)
    np.testing.assert_allclose(slope, difference / (2 * step), atol=1e-8)


def test_zero_offsets_are_zero() -> None:
    assert not evaluate_offsets(zero_offsets(DOMAIN), 0, 0, np.ones((2, 3), np.float32)).any()


def orbits(orbit_states: Callable, sideways_m: float, up_m: float) -> list[OrbitPolynomial]:
    """Return two orbits that differ by a turn of the orbital plane and a lift."""
    turn = sideways_m / (7.071e6 * np.cos(0.7))
    return [
        fit_orbit(TIMES, *orbit_states(TIMES, **change)[:2], -1.5, 4.6)
        for change in ({}, {"turn_rad": turn, "raise_m": up_m})
    ]


@pytest.mark.parametrize("baseline_m", [0.0, 100.0, 300.0])
def test_polynomials_repeat_the_exact_geometry(orbit_states: Callable, baseline_m: float) -> None:
    reference, secondary = orbits(orbit_states, 0.8 * baseline_m, 0.6 * baseline_m)
    shifted = GRID._replace(first_line_time_s=0.4, near_range_m=GRID.near_range_m + 37.0)
    pair = (reference, GRID), (secondary, shifted)
    offsets = fit_burst_offsets(*pair, (-100.0, 6000.0))
    assert offsets.azimuth_error < 1e-5
    assert offsets.range_error < 1e-6
    # An independent set of positions, including the corners of the burst.
    line, sample, height = (
        x.ravel() for x in np.meshgrid([0.0, 900.0, 1506.0], [0.0, 9999.0, 23054.0], [0.0, 5500.0])
    )
    truth = exact_offsets(*pair, (line, sample, height))
    assert np.abs(evaluate_points(offsets.azimuth, line, sample, height) - truth[:, 0]).max() < 1e-5
    assert np.abs(evaluate_points(offsets.range, line, sample, height) - truth[:, 1]).max() < 1e-6


def test_same_orbit_later_start_and_farther_range(orbit_states: Callable) -> None:
    # Closed form: the same orbit with another time and range of the first pixel.
    reference, _ = orbits(orbit_states, 0.0, 0.0)
    shifted = GRID._replace(
        first_line_time_s=10 * GRID.azimuth_time_interval_s,
        near_range_m=GRID.near_range_m - 3.5 * GRID.range_spacing_m,
    )
    offsets = fit_burst_offsets((reference, GRID), (reference, shifted), (0.0, 1000.0))
    nodes = held_out_nodes(offset_domain(1507, 23055, (0.0, 1000.0)), 50)
    np.testing.assert_allclose(evaluate_points(offsets.azimuth, *nodes), -10.0, atol=1e-7)
    np.testing.assert_allclose(evaluate_points(offsets.range, *nodes), 3.5, atol=1e-7)


@pytest.mark.realdata
@pytest.mark.parametrize("swath", ["iw1", "iw2", "iw3"])
def test_real_pair(annotations: Callable, swath: str) -> None:
    pair = []
    for date in ("20230904", "20230916"):
        product = annotations(f"{swath}-slc-vv-{date}", 4)[0]
        grid = RadarGrid(
            0.0,
            product.line_interval_s,
            product.near_range_m,
            product.range_spacing_m,
            product.lines,
            product.samples,
        )
        orbit = fit_orbit(product.time_s, product.position, product.velocity, -1.0, 4.2)
        pair.append((orbit, grid))
    offsets = fit_burst_offsets(pair[0], pair[1], (-100.0, 6000.0))
    assert offsets.azimuth_error < 1e-6
    assert offsets.range_error < 1e-7
