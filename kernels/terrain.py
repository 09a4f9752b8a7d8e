"""From radar pixels to the ground over a height grid (rdr2geo).

Latitude and longitude of the zero-Doppler arcs are smooth functions of time, slant range and
height. They are solved exactly at Chebyshev nodes of fixed periods of time, stretches of range and
of -500..9000 m, and interpolated to 1e-9 m; only the height that equals the grid remains to be
found for each pixel, by Newton's iteration in one unknown, or by bisection in layover.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bperp.kernels._jit import njit
from bperp.kernels.height_grid import Heights, shift_origin
from bperp.kernels.height_search import SearchBuffers, solve_chunk, solve_fully
from bperp.kernels.orbit import OrbitPolynomial
from bperp.kernels.range_arcs import (
    HEIGHT_NODES,
    PERIOD_S,
    RANGE_NODES,
    STRETCH_M,
    collapse_range,
    collapse_time,
    place_on_arcs,
    solve_arcs,
)

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
# the line through the anchors.
_ANCHOR_M = 256.0
_CHUNK = 256


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
        height = solve_fully(heights, latitudes, longitudes, i, 0.0)
        anchors[i] = 0.0 if math.isnan(height) else height
    return anchors


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
    scratch = SearchBuffers(
        np.empty((3, _CHUNK)),
        np.empty((3, _CHUNK)),
        np.zeros((3, _CHUNK)),
        np.empty((2, _CHUNK), dtype=np.int32),
        np.empty((2, _CHUNK)),
        np.empty((4, _CHUNK), dtype=np.float32),
    )
    guess = scratch.solution[0]
    place = np.zeros(_CHUNK)
    for low in range(0, away_m.size, _CHUNK):
        high = min(low + _CHUNK, away_m.size)
        for i in range(high - low):
            place[i] = away_m[low + i] * (2.0 / STRETCH_M) - 1.0
            position = away_m[low + i] / _ANCHOR_M - first
            k = int(position)
            guess[i] = anchors[k] + (position - k) * (anchors[k + 1] - anchors[k])
        collapse_range(powers[0], place, north)
        collapse_range(powers[1], place, east)
        solve_chunk(heights, (north, east), scratch, height_m[low:high])
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
    out: Pixels,
) -> None:
    powers = np.empty((2, HEIGHT_NODES, RANGE_NODES))
    first_line = 0
    while first_line < time_s.size:
        period = math.floor(time_s[first_line] / PERIOD_S)
        stop_line = first_line
        while stop_line < time_s.size and math.floor(time_s[stop_line] / PERIOD_S) == period:
            stop_line += 1
        start = 0
        while start < range_m.size:
            low = math.floor(range_m[start] / STRETCH_M) * STRETCH_M
            stop = start + np.searchsorted(range_m[start:], low + STRETCH_M)
            reference, arcs = solve_arcs(orbit, side, period, low)
            local = shift_origin(heights, reference[0], reference[1])
            away_m = range_m[start:stop] - low
            for line in range(first_line, stop_line):
                collapse_time(arcs, time_s[line], period, powers)
                part = (
                    out[0][line, start:stop],
                    out[1][line, start:stop],
                    out[2][line, start:stop],
                    out[3][line, start:stop],
                )
                _solve_stretch(local, (powers[0], powers[1]), reference, away_m, part)
            start = stop
        first_line = stop_line


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
    _rdr2geo(orbit, azimuth_time_s, slant_range_m, grid, 1.0 if right else -1.0, out)
    return out
