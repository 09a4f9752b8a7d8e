"""Zero-Doppler arcs as polynomials in time, slant range and height.

Latitude and longitude on the arc of constant range in the imaging plane are smooth in time, range
and height: solved exactly at Chebyshev nodes, they are interpolated to 1e-9 m. Periods of time and
stretches of range are fixed, so that a pixel's result does not depend on its tile.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bperp.kernels._jit import njit
from bperp.kernels.ellipsoid import geodetic_from_point
from bperp.kernels.orbit import FAST, OrbitPolynomial
from bperp.kernels.zero_doppler import (
    radius_below,
    solve_angle,
    sphere_angle,
    zero_doppler_axes,
)

LOWEST_M = -500.0
HIGHEST_M = 9000.0
PERIOD_S = 0.5
TIME_NODES = 6
STRETCH_M = 16384.0
RANGE_NODES = 10
HEIGHT_NODES = 8
MIDDLE_M = 0.5 * (LOWEST_M + HIGHEST_M)
PER_METRE = 2.0 / (HIGHEST_M - LOWEST_M)


def _nodes_and_inverse(count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return Chebyshev nodes in [-1, 1] and the matrix from node values to powers."""
    nodes = np.cos(np.pi * (np.arange(count) + 0.5) / count)
    return nodes, np.linalg.inv(np.vander(nodes, increasing=True))


RANGE_POINTS, RANGE_INVERSE = _nodes_and_inverse(RANGE_NODES)
TIME_POINTS, TIME_INVERSE = _nodes_and_inverse(TIME_NODES)
HEIGHT_POINTS, HEIGHT_INVERSE = _nodes_and_inverse(HEIGHT_NODES)


@njit
def _solve_nodes(
    axes: NDArray[np.float64], start_m: float, reference: tuple[float, float]
) -> NDArray[np.float64]:
    """Solve one stretch of an arc: ``(2, heights, ranges)`` latitudes and longitudes at the nodes.

    They are relative to the reference position.
    """
    table = np.empty((2, HEIGHT_NODES, RANGE_NODES))
    radius = radius_below(axes)
    for j in range(RANGE_NODES):
        range_m = start_m + 0.5 * STRETCH_M * (1.0 + RANGE_POINTS[j])
        angle = climb = height = 0.0
        for k in range(HEIGHT_NODES):
            target = MIDDLE_M + HEIGHT_POINTS[k] / PER_METRE
            if k == 0:
                angle = sphere_angle(axes, range_m, radius + target)
            else:
                angle += (target - height) / climb
            angle, climb, (x, y, z), _ = solve_angle(axes, range_m, target, angle, 3 if k else 6)
            height = target
            latitude, longitude, _ = geodetic_from_point(x, y, z)
            turn = longitude - reference[1]
            table[0, k, j] = latitude - reference[0]
            table[1, k, j] = turn - 2.0 * math.pi * math.floor(turn / (2.0 * math.pi) + 0.5)
    return table


@njit
def solve_arcs(
    orbit: OrbitPolynomial, side: float, period: int, start_m: float
) -> tuple[tuple[float, float], NDArray[np.float64]]:
    """Solve one stretch of the arcs of all lines of a period (of ``PERIOD_S`` since the epoch).

    Returns a reference position and ``(times, 2, heights, ranges)`` powers of normalised time,
    height and range, for latitude and longitude minus the reference.
    """
    powers = np.empty((TIME_NODES, 2, HEIGHT_NODES, RANGE_NODES))
    middle_s = PERIOD_S * (period + 0.5)
    axes = zero_doppler_axes(orbit, middle_s, side)
    angle = sphere_angle(axes, start_m, radius_below(axes) + MIDDLE_M)
    _, _, (x, y, z), _ = solve_angle(axes, start_m, MIDDLE_M, angle, 6)
    latitude, longitude, _ = geodetic_from_point(x, y, z)
    for i in range(TIME_NODES):
        axes = zero_doppler_axes(orbit, middle_s + 0.5 * PERIOD_S * TIME_POINTS[i], side)
        table = _solve_nodes(axes, start_m, (latitude, longitude))
        for axis in range(2):
            powers[i, axis] = HEIGHT_INVERSE @ table[axis] @ RANGE_INVERSE.T
    flat = TIME_INVERSE @ powers.reshape(TIME_NODES, -1)
    return (latitude, longitude), flat.reshape(TIME_NODES, 2, HEIGHT_NODES, RANGE_NODES)


@njit(fastmath=FAST)
def collapse_time(
    powers: NDArray[np.float64], time_s: float, period: int, out: NDArray[np.float64]
) -> None:
    """Insert the time of a line: ``out`` (2, heights, ranges)."""
    u = (time_s - PERIOD_S * (period + 0.5)) * (2.0 / PERIOD_S)
    for axis in range(2):
        for k in range(HEIGHT_NODES):
            for j in range(RANGE_NODES):
                value = powers[TIME_NODES - 1, axis, k, j]
                for i in range(TIME_NODES - 2, -1, -1):
                    value = value * u + powers[i, axis, k, j]
                out[axis, k, j] = value


@njit(fastmath=FAST)
def collapse_range(
    powers: NDArray[np.float64], place: NDArray[np.float64], out: NDArray[np.float64]
) -> None:
    """Evaluate ``out[k, i] = sum_j powers[k, j] place[i]**j`` (10 powers, in registers)."""
    for k in range(HEIGHT_NODES):
        row = out[k]
        c = powers[k]
        c0, c1, c2, c3, c4 = c[0], c[1], c[2], c[3], c[4]
        c5, c6, c7, c8, c9 = c[5], c[6], c[7], c[8], c[9]
        for i in range(np.uint64(place.size)):
            u = place[i]
            high = (((c9 * u + c8) * u + c7) * u + c6) * u + c5
            row[i] = ((((high * u + c4) * u + c3) * u + c2) * u + c1) * u + c0


@njit(fastmath=FAST)
def expand_arcs(
    powers: NDArray[np.float64],
    height: NDArray[np.float64],
    origin: float,
    scale: float,
    out: NDArray[np.float64],
) -> None:
    """Expand all arcs about their start heights, in index units of the grid.

    ``out`` gets value, slope and half the curvature.
    """
    value, slope, bend = out[0], out[1], out[2]
    p0, p1, p2, p3 = powers[0], powers[1], powers[2], powers[3]
    p4, p5, p6, p7 = powers[4], powers[5], powers[6], powers[7]
    for i in range(np.uint64(height.size)):
        w = (height[i] - MIDDLE_M) * PER_METRE
        c1, c2, c3, c4, c5, c6, c7 = p1[i], p2[i], p3[i], p4[i], p5[i], p6[i], p7[i]
        angle = ((((((c7 * w + c6) * w + c5) * w + c4) * w + c3) * w + c2) * w + c1) * w + p0[i]
        value[i] = (angle - origin) * scale
        rate = ((7.0 * c7 * w + 6.0 * c6) * w + 5.0 * c5) * w + 4.0 * c4
        slope[i] = (((rate * w + 3.0 * c3) * w + 2.0 * c2) * w + c1) * (scale * PER_METRE)
        rate = ((21.0 * c7 * w + 15.0 * c6) * w + 10.0 * c5) * w + 6.0 * c4
        bend[i] = ((rate * w + 3.0 * c3) * w + c2) * (scale * PER_METRE * PER_METRE)


@njit(fastmath=FAST)
def place_on_arcs(
    powers: NDArray[np.float64], height: NDArray[np.float32], out: NDArray[np.float64]
) -> None:
    """Evaluate all arcs at their final heights."""
    p0, p1, p2, p3 = powers[0], powers[1], powers[2], powers[3]
    p4, p5, p6, p7 = powers[4], powers[5], powers[6], powers[7]
    for i in range(np.uint64(height.size)):
        w = (np.float64(height[i]) - MIDDLE_M) * PER_METRE
        high = ((p7[i] * w + p6[i]) * w + p5[i]) * w + p4[i]
        out[i] = (((high * w + p3[i]) * w + p2[i]) * w + p1[i]) * w + p0[i]
