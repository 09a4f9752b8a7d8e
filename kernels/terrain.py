"""From radar pixels to the ground over a height grid (rdr2geo).

For one line the latitude and longitude of a zero-Doppler arc are smooth functions of slant range
and height. They are solved exactly at Chebyshev nodes of fixed stretches of range and of
-500..9000 m, and interpolated to 1e-9 m; only the height that equals the grid remains to be found
for each pixel, by Newton's iteration in one unknown, or by bisection in layover.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bperp.kernels._jit import njit
from bperp.kernels.height_grid import Heights, cubic_height, height_at, shift_origin
from bperp.kernels.orbit import FAST, OrbitPolynomial
from bperp.kernels.range_arcs import (
    HEIGHT_INVERSE,
    HEIGHT_NODES,
    HEIGHT_POINTS,
    HIGHEST_M,
    LOWEST_M,
    MIDDLE_M,
    PER_METRE,
    RANGE_INVERSE,
    RANGE_NODES,
    RANGE_POINTS,
    STRETCH_M,
    collapse_range,
    expand_arcs,
    place_on_arcs,
    solve_arcs,
)
from bperp.kernels.zero_doppler import zero_doppler_axes

__all__ = ["DEM_OUTSIDE", "DEM_VOID", "GOOD", "rdr2geo"]

GOOD = 0
"""Status: solved."""
DEM_OUTSIDE = 1
"""Status: the solution lies outside the height grid."""
DEM_VOID = 2
"""Status: the height grid has no value (NaN) on the way to the solution or at it."""

Origin = tuple[float, float, float, float]
Pixels = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float32], NDArray[np.uint8]]

# Every _ANCHOR_M of range the height is solved from scratch; in between, the iteration starts from
# the line through the anchors and sees the arc as a parabola in height, good to 1 mm over _NEAR_M.
_ANCHOR_M = 256.0
_NEAR_M = 200.0
_CHUNK = 256
_QUICK_STEPS = 4
_NEWTON_STEPS = 10
_BISECTIONS = 40
_CONVERGED_M = 5e-4


@njit(fastmath=FAST)
def _misfit(
    heights: Heights,
    latitudes: NDArray[np.float64],
    longitudes: NDArray[np.float64],
    i: int,
    height: float,
) -> tuple[float, float]:
    """Return grid height minus height on the arc, and its derivative with respect to height."""
    w = (height - MIDDLE_M) * PER_METRE
    north, east = latitudes[HEIGHT_NODES - 1, i], longitudes[HEIGHT_NODES - 1, i]
    northward = eastward = 0.0
    for k in range(HEIGHT_NODES - 2, -1, -1):
        northward, eastward = northward * w + north, eastward * w + east
        north, east = north * w + latitudes[k, i], east * w + longitudes[k, i]
    row = (north - heights.latitude_rad) * heights.rows_per_rad
    column = (east - heights.longitude_rad) * heights.columns_per_rad
    value, per_row, per_column = height_at(heights.values, row, column)
    if heights.cubic:
        value = cubic_height(heights.values, row, column)
    slope = per_row * northward * heights.rows_per_rad
    slope += per_column * eastward * heights.columns_per_rad
    return value - height, slope * PER_METRE - 1.0


@njit
def _solve_fully(
    heights: Heights,
    latitudes: NDArray[np.float64],
    longitudes: NDArray[np.float64],
    i: int,
    height: float,
) -> float:
    """Return the height at which arc ``i`` meets the grid; NaN at a void."""
    for _ in range(_NEWTON_STEPS):
        error, slope = _misfit(heights, latitudes, longitudes, i, height)
        # A slope towards the radar makes the derivative small, layover changes its sign.
        step = -error / min(slope, -0.25)
        height = min(max(height + step, LOWEST_M), HIGHEST_M)
        if not abs(step) > _CONVERGED_M:  # NaN leaves too
            return height
    low, high = LOWEST_M, HIGHEST_M
    for _ in range(_BISECTIONS):
        height = 0.5 * (low + high)
        error, _ = _misfit(heights, latitudes, longitudes, i, height)
        if math.isnan(error):
            return error
        if error > 0.0:
            low = height
        else:
            high = height
    return height


@njit(fastmath=FAST)
def _quick_step(
    values: NDArray[np.float32],
    cubic: bool,
    north: NDArray[np.float64],
    east: NDArray[np.float64],
    solution: NDArray[np.float64],
) -> None:
    """Make one Newton step for a whole chunk, with parabolic arcs about the start heights.

    ``solution`` (3, chunk) holds the start height, the rise above it and the last step.
    """
    row0, row1, row2 = north[0], north[1], north[2]
    column0, column1, column2 = east[0], east[1], east[2]
    start, rise, step = solution[0], solution[1], solution[2]
    for i in range(np.uint64(start.size)):
        d = rise[i]
        row = row0[i] + d * (row1[i] + d * row2[i])
        column = column0[i] + d * (column1[i] + d * column2[i])
        value, per_row, per_column = height_at(values, row, column)
        if cubic:
            value = cubic_height(values, row, column)
        slope = per_row * row1[i] + per_column * column1[i]
        step[i] = (value - start[i] - d) / max(1.0 - slope, 0.25)
        rise[i] = d + step[i]


@njit
def _anchor_heights(
    heights: Heights,
    powers: tuple[NDArray[np.float64], NDArray[np.float64]],
    first_m: float,
    count: int,
) -> NDArray[np.float64]:
    """Solve the heights at ``first_m`` (from the start of the stretch) and every 256 m beyond."""
    place = np.empty(count)
    for i in range(count):
        place[i] = (first_m + _ANCHOR_M * i) * (2.0 / STRETCH_M) - 1.0
    latitudes = np.empty((HEIGHT_NODES, count))
    longitudes = np.empty((HEIGHT_NODES, count))
    collapse_range(powers[0], place, latitudes)
    collapse_range(powers[1], place, longitudes)
    anchors = np.empty(count)
    for i in range(count):
        height = _solve_fully(heights, latitudes, longitudes, i, 0.0)
        anchors[i] = 0.0 if math.isnan(height) else height
    return anchors


@njit
def _solve_chunk(
    heights: Heights,
    arcs: tuple[NDArray[np.float64], NDArray[np.float64]],
    scratch: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
    height_m: NDArray[np.float32],
) -> None:
    """Find the heights of a chunk of one line, starting from ``scratch[2][0]``."""
    north, east, solution = scratch
    start, rise, step = solution[0], solution[1], solution[2]
    expand_arcs(arcs[0], start, heights.latitude_rad, heights.rows_per_rad, north)
    expand_arcs(arcs[1], start, heights.longitude_rad, heights.columns_per_rad, east)
    rise[:] = 0.0
    for _ in range(_QUICK_STEPS):
        _quick_step(heights.values, heights.cubic, north, east, solution)
    for i in range(height_m.size):
        if abs(step[i]) < _CONVERGED_M and abs(rise[i]) < _NEAR_M:
            height_m[i] = start[i] + rise[i]
        else:
            height_m[i] = _solve_fully(heights, arcs[0], arcs[1], i, 0.0)


@njit
def _finish_chunk(
    heights: Heights,
    reference: tuple[float, float],
    latitude_rad: NDArray[np.float64],
    longitude_rad: NDArray[np.float64],
    height_m: NDArray[np.float32],
    status: NDArray[np.uint8],
) -> None:
    """Turn offsets into positions and judge them."""
    bottom, right = heights.values.shape[0] - 1.0, heights.values.shape[1] - 1.0
    for i in range(np.uint64(latitude_rad.size)):
        north, east = latitude_rad[i], longitude_rad[i]
        row = (north - heights.latitude_rad) * heights.rows_per_rad
        column = (east - heights.longitude_rad) * heights.columns_per_rad
        inside = (row >= 0.0) & (row <= bottom) & (column >= 0.0) & (column <= right)
        known = height_m[i] == height_m[i]
        good = inside & known
        turn = east + reference[1]
        turn -= 2.0 * math.pi * math.floor(turn / (2.0 * math.pi) + 0.5)
        latitude_rad[i] = north + reference[0] if good else math.nan
        longitude_rad[i] = turn if good else math.nan
        height_m[i] = height_m[i] if good else np.float32(math.nan)
        status[i] = GOOD if good else (DEM_OUTSIDE if known else DEM_VOID)


@njit
def _solve_stretch(
    heights: Heights,
    powers: tuple[NDArray[np.float64], NDArray[np.float64]],
    reference: tuple[float, float],
    away_m: NDArray[np.float64],
    out: Pixels,
) -> None:
    """Solve the pixels of one line at ranges ``away_m`` from the start of their stretch."""
    latitude_rad, longitude_rad, height_m, status = out
    first = math.floor(away_m[0] / _ANCHOR_M)
    count = int(math.floor(away_m[-1] / _ANCHOR_M) - first) + 2
    anchors = _anchor_heights(heights, powers, first * _ANCHOR_M, count)
    # Buffers keep their full width, so that every row is contiguous; the tail repeats old values.
    north, east = np.empty((HEIGHT_NODES, _CHUNK)), np.empty((HEIGHT_NODES, _CHUNK))
    scratch = (np.empty((3, _CHUNK)), np.empty((3, _CHUNK)), np.zeros((3, _CHUNK)))
    place = np.zeros(_CHUNK)
    for low in range(0, away_m.size, _CHUNK):
        high = min(low + _CHUNK, away_m.size)
        for i in range(high - low):
            place[i] = away_m[low + i] * (2.0 / STRETCH_M) - 1.0
            position = away_m[low + i] / _ANCHOR_M - first
            k = int(position)
            scratch[2][0, i] = anchors[k] + (position - k) * (anchors[k + 1] - anchors[k])
        collapse_range(powers[0], place, north)
        collapse_range(powers[1], place, east)
        _solve_chunk(heights, (north, east), scratch, height_m[low:high])
        # Position and rounded height stay on the arc, exactly as later steps will combine them.
        place_on_arcs(north, height_m[low:high], latitude_rad[low:high])
        place_on_arcs(east, height_m[low:high], longitude_rad[low:high])
    _finish_chunk(heights, reference, latitude_rad, longitude_rad, height_m, status)


@njit
def _rdr2geo(
    orbit: OrbitPolynomial,
    time_s: NDArray[np.float64],
    range_m: NDArray[np.float64],
    heights: Heights,
    side: float,
    tables: tuple[
        NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]
    ],
    out: Pixels,
) -> None:
    table = np.empty((2, HEIGHT_NODES, RANGE_NODES))
    for line in range(time_s.size):
        axes = zero_doppler_axes(orbit, time_s[line], side)
        start = 0
        while start < range_m.size:
            low = math.floor(range_m[start] / STRETCH_M) * STRETCH_M
            stop = start + np.searchsorted(range_m[start:], low + STRETCH_M)
            reference = solve_arcs(axes, low, (tables[0], tables[1]), table)
            powers = (tables[3] @ table[0] @ tables[2].T, tables[3] @ table[1] @ tables[2].T)
            part = (
                out[0][line, start:stop],
                out[1][line, start:stop],
                out[2][line, start:stop],
                out[3][line, start:stop],
            )
            local = shift_origin(heights, reference[0], reference[1])
            _solve_stretch(local, powers, reference, range_m[start:stop] - low, part)
            start = stop


def rdr2geo(
    orbit: OrbitPolynomial,
    azimuth_time_s: NDArray[np.float64],
    slant_range_m: NDArray[np.float64],
    heights: NDArray[np.float32],
    dem_origin: Origin,
    *,
    right: bool = True,
    cubic: bool = False,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float32], NDArray[np.uint8]]:
    """Locate radar pixels on a height grid.

    Parameters
    ----------
    orbit : OrbitPolynomial
        Orbit around the burst.
    azimuth_time_s : ndarray (lines,), float64, s
        Zero-Doppler times of the lines.
    slant_range_m : ndarray (samples,), float64, m
        Increasing one-way ranges of the samples.
    heights : ndarray (rows, columns), float32, m
        Ellipsoidal heights within -500..9000 m, at least 2 x 2; NaN = unknown.
    dem_origin : tuple of 4 float, deg
        ``(lat0, lon0, dlat, dlon)``: centre of ``heights[0, 0]`` and spacing (``dlat`` is
        negative for north-up grids).
    right : bool
        Looking to the right of the flight direction.
    cubic : bool
        Interpolate heights by cubic convolution instead of bilinearly.

    Returns
    -------
    latitude_rad, longitude_rad : ndarray (lines, samples), float64, rad
        Position; together with the rounded height it satisfies range and zero Doppler to 1e-8 m.
    height_m : ndarray (lines, samples), float32, m
        Height of the grid there (converged to better than 1 mm).
    status : ndarray (lines, samples), uint8
        ``GOOD`` (0), ``DEM_OUTSIDE`` (1) or ``DEM_VOID`` (2); all else is NaN unless ``GOOD``.

    Raises
    ------
    ValueError
        If the height grid is too small, or the ranges do not increase.

    Notes
    -----
    In layover one range meets the ground several times; one of the solutions is returned, always
    the same one for the same pixel and grid. Tiles of one image get identical values when they
    are computed with the same ``heights`` and ``dem_origin``.
    """
    if min(heights.shape) < 2:
        raise ValueError(f"heights must have at least 2 rows and columns, got {heights.shape}")
    if np.any(np.diff(slant_range_m) <= 0.0):
        raise ValueError("slant_range_m must increase")
    latitude0, longitude0, latitude_step, longitude_step = dem_origin
    grid = Heights(
        np.ascontiguousarray(heights, dtype=np.float32),
        math.radians(latitude0),
        math.radians(longitude0),
        1.0 / math.radians(latitude_step),
        1.0 / math.radians(longitude_step),
        cubic,
    )
    shape = (azimuth_time_s.size, slant_range_m.size)
    out = (
        np.empty(shape),
        np.empty(shape),
        np.empty(shape, dtype=np.float32),
        np.empty(shape, dtype=np.uint8),
    )
    tables = (RANGE_POINTS, HEIGHT_POINTS, RANGE_INVERSE, HEIGHT_INVERSE)
    side = 1.0 if right else -1.0
    _rdr2geo(orbit, azimuth_time_s, slant_range_m, grid, side, tables, out)
    return out
