"""Offsets between two acquisitions as polynomials in line, sample and height.

Where a ground point of the reference image lies in another image depends on nothing but its line,
sample and height, and smoothly. A trivariate Chebyshev polynomial of 92 terms, fitted to exact
solutions, replaces the offset rasters (and the repeated geo2rdr) of other processors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from bperp.kernels._jit import njit
from bperp.kernels.ellipsoid import geodetic_to_ecef
from bperp.kernels.offset_powers import (
    SAMPLE_POWERS,
    OffsetPolynomial,
    OffsetPowers,
    collapse_line,
    offset_row,
    term_degrees,
    to_powers,
)
from bperp.kernels.orbit import OrbitPolynomial
from bperp.kernels.zero_doppler import RadarGrid, geo2rdr, rdr2geo_at_height

__all__ = [
    "BurstOffsets",
    "OffsetPolynomial",
    "OffsetPowers",
    "RadarGrid",
    "evaluate_offsets",
    "evaluate_points",
    "fit_burst_offsets",
    "fit_offset_polynomials",
    "height_slope",
    "held_out_nodes",
    "offset_domain",
    "offset_nodes",
    "to_powers",
    "zero_offsets",
]

TERMS = 92

Positions = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
"""Lines, samples and heights (m)."""


class BurstOffsets(NamedTuple):
    """Position of a burst's points in another acquisition, minus line and sample.

    The errors are the largest misfits (lines, samples) at nodes that did not enter the fit.
    """

    azimuth: OffsetPolynomial
    range: OffsetPolynomial
    azimuth_error: float
    range_error: float


def offset_domain(
    lines: int, samples: int, height_range: tuple[float, float]
) -> NDArray[np.float64]:
    """Return the ``(3, 2)`` domain of a burst: centre and half width of line, sample, height."""
    low, high = height_range
    return np.array(
        [
            [0.5 * (lines - 1), 0.5 * lines],
            [0.5 * (samples - 1), 0.5 * samples],
            [0.5 * (low + high), max(0.5 * (high - low), 1.0)],
        ]
    )


def offset_nodes(
    domain: NDArray[np.float64], counts: tuple[int, int, int] = (8, 22, 12)
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return Chebyshev nodes of a domain.

    Parameters
    ----------
    domain : ndarray (3, 2), float64
        Centre and half width of line, sample and height.
    counts : tuple of 3 int
        Nodes along each axis; 2112 together by default.

    Returns
    -------
    line, sample, height : ndarray (n,), float64
        Fractional positions, height in m.
    """
    axes = [
        centre + half * np.cos(np.pi * (np.arange(count) + 0.5) / count)
        for (centre, half), count in zip(domain, counts, strict=True)
    ]
    line, sample, height = (axis.ravel() for axis in np.meshgrid(*axes, indexing="ij"))
    return line, sample, height


def held_out_nodes(
    domain: NDArray[np.float64], count: int = 1000
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return evenly spread positions that are not Chebyshev nodes (additive recurrence).

    Parameters and results are those of ``offset_nodes``, ``count`` points together.
    """
    # Generalised golden ratio in three dimensions: the root of x**4 = x + 1.
    steps = 1.2207440846057596 ** -np.arange(1.0, 4.0)
    unit = (0.5 + np.outer(steps, np.arange(1, count + 1))) % 1.0
    places = domain[:, :1] + domain[:, 1:] * (2.0 * unit - 1.0)
    return places[0], places[1], places[2]


def _design(
    positions: NDArray[np.float64], domain: NDArray[np.float64], terms: int
) -> NDArray[np.float64]:
    """Return the ``(n, terms)`` matrix of products of Chebyshev polynomials."""
    degrees = term_degrees(terms)
    unit = (positions - domain[:, :1]) / domain[:, 1:]
    design = np.ones((positions.shape[1], terms))
    for axis in range(3):
        design *= chebyshev.chebvander(unit[axis], int(degrees[:, axis].max()))[:, degrees[:, axis]]
    return design


def fit_offset_polynomials(
    line: NDArray[np.float64],
    sample: NDArray[np.float64],
    height: NDArray[np.float64],
    values: NDArray[np.float64],
    domain: NDArray[np.float64],
    terms: int = TERMS,
) -> tuple[OffsetPolynomial, ...]:
    """Fit offset polynomials by least squares.

    Parameters
    ----------
    line, sample, height : ndarray (n,), float64
        Positions in the reference image and heights in m, at least as many as terms.
    values : ndarray (n,) or (n, m), float64
        Offsets there; rows with NaN are left out.
    domain : ndarray (3, 2), float64
        Centre and half width of line, sample and height.
    terms : int
        60, 92 or 129.

    Returns
    -------
    tuple of OffsetPolynomial
        One for each column of ``values``.

    Raises
    ------
    ValueError
        If fewer finite positions than terms are given.
    """
    columns = values.reshape(line.size, -1)
    keep = np.isfinite(columns).all(axis=1)
    if np.count_nonzero(keep) < terms:
        raise ValueError(f"{terms} terms need as many nodes, got {np.count_nonzero(keep)} finite")
    design = _design(np.stack([line, sample, height])[:, keep], domain, terms)
    solution = np.linalg.lstsq(design, columns[keep], rcond=None)[0]
    return tuple(OffsetPolynomial(domain, np.ascontiguousarray(column)) for column in solution.T)


def evaluate_points(
    polynomial: OffsetPolynomial,
    line: NDArray[np.float64],
    sample: NDArray[np.float64],
    height: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Evaluate an offset polynomial at scattered positions.

    Parameters
    ----------
    polynomial : OffsetPolynomial
        Offsets; ``coefficients`` may be (terms, k) for k polynomials over one domain.
    line, sample, height : array_like that broadcast, float64
        Positions in the reference image and heights in m.

    Returns
    -------
    ndarray, float64
        Offsets in the broadcast shape, with a last axis k if there are several polynomials.
    """
    places = np.broadcast_arrays(
        np.asarray(line, dtype=np.float64),
        np.asarray(sample, dtype=np.float64),
        np.asarray(height, dtype=np.float64),
    )
    flat = np.stack([place.ravel() for place in places])
    design = _design(flat, polynomial.domain, polynomial.coefficients.shape[0])
    values = design @ polynomial.coefficients
    return values.reshape(places[0].shape + values.shape[1:])


def zero_offsets(domain: NDArray[np.float64], terms: int = TERMS) -> OffsetPolynomial:
    """Return the offsets of the reference acquisition itself."""
    return OffsetPolynomial(domain, np.zeros(term_degrees(terms).shape[0]))


@njit
def _evaluate(
    offsets: OffsetPowers,
    first_line: float,
    first_sample: float,
    height: NDArray[np.float32],
    out: NDArray[np.float64],
) -> None:
    rows = np.empty((offsets.powers.shape[0], SAMPLE_POWERS))
    for i in range(out.shape[0]):
        collapse_line(offsets, first_line + i, rows)
        offset_row(offsets, rows, first_sample, 1.0, height[i], out[i])


def evaluate_offsets(
    polynomial: OffsetPolynomial,
    first_line: int,
    first_sample: int,
    height_m: NDArray[np.float32],
) -> NDArray[np.float64]:
    """Evaluate offsets on a tile of the reference image.

    Parameters
    ----------
    polynomial : OffsetPolynomial
        Offsets.
    first_line, first_sample : int
        Position of the tile in the burst.
    height_m : ndarray (lines, samples), float32, m
        Heights of the tile; NaN gives NaN.

    Returns
    -------
    ndarray (lines, samples), float64
        Offsets in lines or samples.
    """
    out = np.empty(height_m.shape)
    heights = np.ascontiguousarray(height_m, dtype=np.float32)
    _evaluate(to_powers(polynomial), float(first_line), float(first_sample), heights, out)
    return out


def height_slope(polynomial: OffsetPolynomial) -> OffsetPolynomial:
    """Return the derivative of an offset polynomial with respect to height, per metre."""
    terms = polynomial.coefficients.size
    degrees = term_degrees(terms)
    dense = np.zeros(degrees.max(axis=0) + 1)
    dense[degrees[:, 0], degrees[:, 1], degrees[:, 2]] = polynomial.coefficients
    slope = np.zeros_like(dense)
    slope[:, :, :-1] = chebyshev.chebder(dense, axis=2) / polynomial.domain[2, 1]
    return OffsetPolynomial(
        polynomial.domain, slope[degrees[:, 0], degrees[:, 1], degrees[:, 2]].copy()
    )


def exact_offsets(
    reference: tuple[OrbitPolynomial, RadarGrid],
    secondary: tuple[OrbitPolynomial, RadarGrid],
    positions: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
    *,
    right: bool = True,
) -> NDArray[np.float64]:
    """Solve the offsets of points of known height from the two orbits.

    Parameters
    ----------
    reference, secondary : tuple of OrbitPolynomial and RadarGrid
        Orbit and timing of the two acquisitions; each pair has its own epoch.
    positions : tuple of 3 ndarray (n,), float64
        Line, sample and height (m) in the reference image.
    right : bool
        Looking to the right of the flight direction.

    Returns
    -------
    ndarray (n, 2), float64
        Azimuth offset in lines and range offset in samples: position in the secondary image minus
        position in the reference image; NaN where there is none.
    """
    line, sample, height = positions
    orbit, grid = reference
    time_s = grid.first_line_time_s + line * grid.azimuth_time_interval_s
    range_m = grid.near_range_m + sample * grid.range_spacing_m
    latitude, longitude = rdr2geo_at_height(orbit, time_s, range_m, height, right=right)
    x, y, z = geodetic_to_ecef(latitude, longitude, height)
    orbit, grid = secondary
    middle_s = grid.first_line_time_s + 0.5 * grid.lines * grid.azimuth_time_interval_s
    time_s, range_m = geo2rdr(orbit, x, y, z, middle_s)
    offsets = np.empty((line.size, 2))
    offsets[:, 0] = (time_s - grid.first_line_time_s) / grid.azimuth_time_interval_s - line
    offsets[:, 1] = (range_m - grid.near_range_m) / grid.range_spacing_m - sample
    return offsets


def fit_burst_offsets(
    reference: tuple[OrbitPolynomial, RadarGrid],
    secondary: tuple[OrbitPolynomial, RadarGrid],
    height_range: tuple[float, float],
    *,
    right: bool = True,
    terms: int = TERMS,
    correction: Callable[[Positions], NDArray[np.float64]] | None = None,
) -> BurstOffsets:
    """Fit azimuth and range offsets of a burst and test them at held-out nodes.

    Parameters
    ----------
    reference, secondary : tuple of OrbitPolynomial and RadarGrid
        Orbit and timing of the two acquisitions; each pair has its own epoch.
    height_range : tuple of 2 float, m
        Lowest and highest ellipsoidal height of the burst, with some margin.
    right : bool
        Looking to the right of the flight direction.
    terms : int
        60, 92 or 129.
    correction : callable, optional
        Takes positions (line, sample, height in m), each float64 (n,), and returns (n, 2) lines
        and samples to add to the offsets there; smooth, or the misfit tells.

    Returns
    -------
    BurstOffsets
        Polynomials over the burst and their largest errors at 1000 nodes that were held out.

    Raises
    ------
    ValueError
        If the orbits do not see enough of the burst to determine the terms.
    """
    grid = reference[1]
    domain = offset_domain(grid.lines, grid.samples, height_range)

    def solve(positions: Positions) -> NDArray[np.float64]:
        offsets = exact_offsets(reference, secondary, positions, right=right)
        return offsets if correction is None else offsets + correction(positions)

    nodes = offset_nodes(domain)
    values = solve(nodes)
    azimuth, across = fit_offset_polynomials(*nodes, values, domain, terms)
    tests = held_out_nodes(domain)
    truth = solve(tests)
    errors = [
        float(np.nanmax(np.abs(evaluate_points(polynomial, *tests) - truth[:, column])))
        for column, polynomial in enumerate((azimuth, across))
    ]
    return BurstOffsets(azimuth, across, errors[0], errors[1])
