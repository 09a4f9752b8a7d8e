"""Orbits: one polynomial per burst for position, velocity and acceleration.

All times are float64 seconds since an epoch that the caller chooses close to the burst (its first
line); all vectors are Earth-fixed (ECEF).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from bperp.kernels._jit import njit

__all__ = ["OrbitPolynomial", "evaluate_orbit", "fit_orbit", "interpolate_orbit"]

ORBIT_DEGREE = 7
_NEIGHBOURS = 4
# Residuals of velocity enter the fit as metres over this time. It is short on purpose: the
# positions of the distributed orbits agree with one another to 0.1 mm, whereas velocities are off
# by 10 mm/s in some precise orbit files (e.g. the one of 2022-10-11, OPOD 1.11.8).
_VELOCITY_SCALE_S = 0.2

# Fused multiply-add is the only liberty: unlike reassociation it keeps the result of a pixel
# independent of its place in a vector, and NaN stays NaN.
FAST = {"contract"}

Vector = tuple[float, float, float]


class OrbitPolynomial(NamedTuple):
    """Position as a polynomial in ``u = (t - center_s) / half_span_s``.

    ``coefficients`` (8, 3) float64 in m, lowest power first (degree 7, padded with zeros where
    fewer state vectors allowed less); valid for ``|u| <= 1``.
    """

    center_s: float
    half_span_s: float
    coefficients: NDArray[np.float64]


@njit(fastmath=FAST, forceinline=True)
def axis_state(table: NDArray[np.float64], axis: int, u: float) -> Vector:
    """Return the value of one coordinate and its first and halved second derivative at ``u``.

    Written out for degree 7: a loop over the powers would keep the callers from vectorising.
    """
    c1, c2, c3 = table[1, axis], table[2, axis], table[3, axis]
    c4, c5, c6, c7 = table[4, axis], table[5, axis], table[6, axis], table[7, axis]
    value = ((((((c7 * u + c6) * u + c5) * u + c4) * u + c3) * u + c2) * u + c1) * u
    value += table[0, axis]
    slope = 7.0 * c7 * u + 6.0 * c6
    slope = ((((slope * u + 5.0 * c5) * u + 4.0 * c4) * u + 3.0 * c3) * u + 2.0 * c2) * u + c1
    bend = 21.0 * c7 * u + 15.0 * c6
    bend = (((bend * u + 10.0 * c5) * u + 6.0 * c4) * u + 3.0 * c3) * u + c2
    return value, slope, bend


@njit
def orbit_state(orbit: OrbitPolynomial, time_s: float) -> tuple[Vector, Vector, Vector]:
    """Return position, velocity and acceleration (m, m/s, m/s2) at one time."""
    rate = 1.0 / orbit.half_span_s
    u = (time_s - orbit.center_s) * rate
    x, vx, ax = axis_state(orbit.coefficients, 0, u)
    y, vy, ay = axis_state(orbit.coefficients, 1, u)
    z, vz, az = axis_state(orbit.coefficients, 2, u)
    twice = 2.0 * rate * rate
    return (x, y, z), (vx * rate, vy * rate, vz * rate), (ax * twice, ay * twice, az * twice)


@njit
def _evaluate(orbit: OrbitPolynomial, time_s: NDArray[np.float64]) -> NDArray[np.float64]:
    states = np.empty((3, time_s.size, 3))
    for i in range(time_s.size):
        position, velocity, acceleration = orbit_state(orbit, time_s[i])
        for axis in range(3):
            states[0, i, axis] = position[axis]
            states[1, i, axis] = velocity[axis]
            states[2, i, axis] = acceleration[axis]
    return states


def evaluate_orbit(
    orbit: OrbitPolynomial, time_s: NDArray[np.float64] | float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Evaluate position, velocity and acceleration of an orbit.

    Parameters
    ----------
    orbit : OrbitPolynomial
        From ``fit_orbit``.
    time_s : ndarray (n,) or float, float64, s
        Times since the epoch of the orbit.

    Returns
    -------
    position, velocity, acceleration : ndarray (n, 3), float64, m, m/s, m/s2
        Derivatives of one and the same polynomial.
    """
    position, velocity, acceleration = _evaluate(
        orbit, np.atleast_1d(np.asarray(time_s, dtype=np.float64))
    )
    return position, velocity, acceleration


def fit_orbit(
    time_s: NDArray[np.float64],
    position: NDArray[np.float64],
    velocity: NDArray[np.float64],
    start_s: float,
    stop_s: float,
) -> OrbitPolynomial:
    """Fit one polynomial of degree 5 or 7 to the state vectors around an interval.

    The interval is widened to four state vectors on either side, as far as there are any.

    Parameters
    ----------
    time_s : ndarray (n,), float64, s
        Increasing times of the state vectors; at least 4 of them.
    position, velocity : ndarray (n, 3), float64, m and m/s
        ECEF state vectors.
    start_s, stop_s : float, s
        Interval in which the orbit will be evaluated; within the state vectors.

    Returns
    -------
    OrbitPolynomial
        Least-squares fit to positions and, with less weight, velocities. With 10 s between the
        vectors it reproduces left-out vectors as well as a Hermite interpolation or better, and
        it does not follow the noise of single velocities.

    Raises
    ------
    ValueError
        If there are fewer than 4 vectors, or the interval is empty or not covered.
    """
    if time_s.size < _NEIGHBOURS:
        raise ValueError(f"time_s needs at least {_NEIGHBOURS} state vectors, got {time_s.size}")
    if not time_s[0] <= start_s <= stop_s <= time_s[-1]:
        raise ValueError(
            f"state vectors cover {time_s[0]:.3f} to {time_s[-1]:.3f} s, "
            f"but {start_s:.3f} to {stop_s:.3f} s was asked for"
        )
    first = max(int(np.searchsorted(time_s, start_s, side="right")) - _NEIGHBOURS, 0)
    last = min(int(np.searchsorted(time_s, stop_s, side="left")) + _NEIGHBOURS, time_s.size)
    center_s = 0.5 * float(time_s[first] + time_s[last - 1])
    half_span_s = 0.5 * float(time_s[last - 1] - time_s[first])
    # Over 20 s degree 5 is exact to 1e-8 m, and more would follow the noise of dense vectors.
    degree = min(ORBIT_DEGREE if half_span_s > 10.0 else ORBIT_DEGREE - 2, last - first + 1)
    u = (time_s[first:last] - center_s) / half_span_s
    values = chebyshev.chebvander(u, degree)
    slopes = np.stack(
        [chebyshev.chebval(u, chebyshev.chebder(unit)) for unit in np.eye(degree + 1)], axis=1
    )
    scale = _VELOCITY_SCALE_S
    # The mean position is removed so that rounding in the solver stays far below a micrometre.
    origin = position[first:last].mean(axis=0)
    design = np.concatenate([values, slopes * (scale / half_span_s)])
    target = np.concatenate([position[first:last] - origin, velocity[first:last] * scale])
    solution = np.linalg.lstsq(design, target, rcond=None)[0]
    powers = np.zeros((ORBIT_DEGREE + 1, 3))
    for axis, column in enumerate(solution.T):
        terms = chebyshev.cheb2poly(column)  # drops trailing zeros
        powers[: terms.size, axis] = terms
    powers[0] += origin
    return OrbitPolynomial(center_s, half_span_s, powers)


@njit
def _hermite(
    time_s: NDArray[np.float64],
    position: NDArray[np.float64],
    velocity: NDArray[np.float64],
    query_s: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    nodes = time_s.size
    place = np.zeros(3)
    rate = np.zeros(3)
    for i in range(nodes):
        basis = 1.0
        slope = 0.0
        lean = 0.0
        for j in range(nodes):
            if j != i:
                gap = time_s[i] - time_s[j]
                slope = (slope * (query_s - time_s[j]) + basis) / gap
                basis = basis * (query_s - time_s[j]) / gap
                lean += 1.0 / gap
        shift = query_s - time_s[i]
        weight = 1.0 - 2.0 * lean * shift
        for axis in range(3):
            linear = weight * position[i, axis] + shift * velocity[i, axis]
            change = velocity[i, axis] - 2.0 * lean * position[i, axis]
            place[axis] += linear * basis * basis
            rate[axis] += change * basis * basis + 2.0 * linear * basis * slope
    return place, rate


def interpolate_orbit(
    time_s: NDArray[np.float64],
    position: NDArray[np.float64],
    velocity: NDArray[np.float64],
    query_s: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Interpolate state vectors by Hermite polynomials of degree 7 (4 vectors each).

    Parameters
    ----------
    time_s : ndarray (n,), float64, s
        Increasing times of at least 4 state vectors.
    position, velocity : ndarray (n, 3), float64, m and m/s
        ECEF state vectors.
    query_s : ndarray (m,), float64, s
        Times within the state vectors.

    Returns
    -------
    position, velocity : ndarray (m, 3), float64, m and m/s
        The interpolated state; the velocity is the derivative of the interpolated position.

    Raises
    ------
    ValueError
        If there are fewer than 4 vectors or a query lies outside them.
    """
    queries = np.atleast_1d(np.asarray(query_s, dtype=np.float64))
    if time_s.size < _NEIGHBOURS:
        raise ValueError(f"time_s needs at least {_NEIGHBOURS} state vectors, got {time_s.size}")
    if queries.min() < time_s[0] or queries.max() > time_s[-1]:
        raise ValueError(f"query_s must lie within {time_s[0]:.3f} to {time_s[-1]:.3f} s")
    places = np.empty((queries.size, 3))
    rates = np.empty((queries.size, 3))
    before = np.searchsorted(time_s, queries, side="right") - _NEIGHBOURS // 2
    first = np.clip(before, 0, time_s.size - _NEIGHBOURS)
    for i, (start, query) in enumerate(zip(first, queries, strict=True)):
        nodes = slice(int(start), int(start) + _NEIGHBOURS)
        places[i], rates[i] = _hermite(time_s[nodes], position[nodes], velocity[nodes], query)
    return places, rates
