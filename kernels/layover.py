"""Layover and shadow of a radar image over a height grid.

The ground is walked along the zero-Doppler plane of each line, away from the satellite. With the
Earth's centre projected into that plane as origin, a point at the angle ``g`` from the satellite's
direction and the distance ``rho`` has, with the satellite at the distance ``D``::

    R^2 = (D - rho)^2 + 4 D rho sin^2(g / 2),    tan(look) = rho sin(g) / (D - rho cos(g))

Where ``R`` turns back the profile folds over itself: layover. Where the look angle does not exceed
its largest value so far a nearer point stands in the way: shadow.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bperp.kernels._jit import njit
from bperp.kernels.ellipsoid import (
    SEMI_MAJOR_AXIS_M,
    SEMI_MINOR_AXIS_M,
    geodetic_from_point,
    geodetic_normal,
)
from bperp.kernels.height_grid import Heights, height_at
from bperp.kernels.orbit import FAST, OrbitPolynomial
from bperp.kernels.zero_doppler import radius_below, solve_angle, sphere_angle, zero_doppler_axes

__all__ = ["LAYOVER", "SHADOW", "layover_shadow"]

LAYOVER = 1
"""Bit: the range receives echoes from more than one stretch of ground."""
SHADOW = 2
"""Bit: ground that the radar does not see lies at the range."""

Origin = tuple[float, float, float, float]

_METRES_PER_DEGREE = 111_195.0
_EARTH_RADIUS_M = 6_371_000.0
# Points of the profile are multiples of the step from below the satellite, and the polynomials in
# between belong to fixed stretches: a point is the same whatever part of the image is asked for.
_STRETCH_M = 16384.0
_COARSEST_STEP_M = 2.0
_FINEST_STEP_M = 0.125
_MARGIN_M = 100.0
_NODES = 7
_PROBE_M = 4000.0
_QUANTITIES = 8
_CHUNK = 1024

_POINTS = np.cos(np.pi * (np.arange(_NODES) + 0.5) / _NODES)
_INVERSE = np.ascontiguousarray(np.linalg.inv(np.vander(_POINTS, increasing=True)))

# Kinds of stretches of the profile; an even kind comes nearer while the ground goes on.
_NOTHING, _LIT, _DARK = 0, 1, 3


@njit
def _ellipsoid_distance(
    center: NDArray[np.float64], x: float, y: float, z: float, height_m: float
) -> float:
    """Return how far from ``center`` along the unit vector the height above the ellipsoid lies."""
    across, along = 1.0 / SEMI_MAJOR_AXIS_M**2, 1.0 / SEMI_MINOR_AXIS_M**2
    square = (x * x + y * y) * across + z * z * along
    mixed = (center[0] * x + center[1] * y) * across + center[2] * z * along
    rest = (center[0] ** 2 + center[1] ** 2) * across + center[2] ** 2 * along - 1.0
    distance = (-mixed + math.sqrt(mixed * mixed - square * rest)) / square + height_m
    for _ in range(2 if height_m != 0.0 else 0):
        point = (center[0] + distance * x, center[1] + distance * y, center[2] + distance * z)
        distance += height_m - geodetic_normal(*point)[2]
    return float(distance)


@njit
def _solve_profile(
    axes: NDArray[np.float64],
    heights: Heights,
    stretch: int,
    nodes: NDArray[np.float64],
    table: NDArray[np.float64],
) -> None:
    """Tabulate a stretch of the profile at its nodes.

    Rows of ``table``: grid row and column on the ellipsoid and their change per metre of height,
    distance from the centre and its change per metre of height, ``sin(g)``, ``sin(g / 2)**2``.
    """
    # What is left of the satellite's position lies along the flight: the centre of the plane.
    center = axes[0] - np.sum(axes[0] * axes[1]) * axes[1]
    middle = 0.5 * (heights.values.shape[1] - 1)
    middle_rad = heights.longitude_rad + middle / heights.columns_per_rad
    first = 0.0
    for j in range(nodes.size):
        angle = (stretch + 0.5 * (1.0 + nodes[j])) * (_STRETCH_M / _EARTH_RADIUS_M)
        sine, cosine = math.sin(angle), math.cos(angle)
        unit = sine * axes[2] - cosine * axes[1]
        place = np.empty((2, 3))
        for k in range(2):
            distance = _ellipsoid_distance(center, unit[0], unit[1], unit[2], k * _PROBE_M)
            point = center + distance * unit
            latitude, longitude, _ = geodetic_from_point(point[0], point[1], point[2])
            if j == 0 and k == 0:
                turn = longitude - middle_rad
                first = longitude - 2.0 * math.pi * math.floor(turn / (2.0 * math.pi) + 0.5)
            turn = longitude - first
            turn -= 2.0 * math.pi * math.floor(turn / (2.0 * math.pi) + 0.5)
            place[k, 0] = (latitude - heights.latitude_rad) * heights.rows_per_rad
            place[k, 1] = (first - middle_rad + turn) * heights.columns_per_rad + middle
            place[k, 2] = distance
        table[0, j], table[2, j] = place[0, 0], (place[1, 0] - place[0, 0]) / _PROBE_M
        table[1, j], table[3, j] = place[0, 1], (place[1, 1] - place[0, 1]) / _PROBE_M
        table[4, j], table[5, j] = place[0, 2], (place[1, 2] - place[0, 2]) / _PROBE_M
        table[6, j], table[7, j] = sine, math.sin(0.5 * angle) ** 2


@njit(fastmath=FAST, forceinline=True)
def _evaluate(powers: NDArray[np.float64], row: int, u: float) -> float:
    c0, c1, c2, c3 = powers[row, 0], powers[row, 1], powers[row, 2], powers[row, 3]
    c4, c5, c6 = powers[row, 4], powers[row, 5], powers[row, 6]
    value: float = (((((c6 * u + c5) * u + c4) * u + c3) * u + c2) * u + c1) * u + c0
    return value


@njit(fastmath=FAST)
def _place_points(
    heights: Heights,
    powers: NDArray[np.float64],
    satellite_m: float,
    place: tuple[float, float],
    squares_m2: NDArray[np.float64],
    tangent: NDArray[np.float64],
) -> None:
    """Set squared range and tangent of the look angle of successive points, NaN off the grid.

    ``place`` is the first point in units of half a stretch, and the step.
    """
    values = heights.values
    bottom, right = values.shape[0] - 1.0, values.shape[1] - 1.0
    start, step = place
    for i in range(np.uint64(squares_m2.size)):
        u = start + step * np.float64(i)
        row, column = _evaluate(powers, 0, u), _evaluate(powers, 1, u)
        per_row, per_column = _evaluate(powers, 2, u), _evaluate(powers, 3, u)
        # The plane leans against the vertical by less than 0.01: the second look-up is final.
        guess, _, _ = height_at(values, row, column)
        guess = 0.0 if math.isnan(guess) else guess
        row += per_row * guess
        column += per_column * guess
        height, _, _ = height_at(values, row, column)
        inside = (row >= 0.0) & (row <= bottom) & (column >= 0.0) & (column <= right)
        distance = _evaluate(powers, 4, u) + _evaluate(powers, 5, u) * height
        bend = 2.0 * distance * _evaluate(powers, 7, u)
        below = satellite_m - distance
        squared = below * below + 2.0 * satellite_m * bend
        squares_m2[i] = squared if inside else math.nan
        tangent[i] = distance * _evaluate(powers, 6, u) / (below + bend)


@njit
def _close(
    kind: int,
    bounds: tuple[float, float],
    squares_m2: NDArray[np.float64],
    counts: NDArray[np.int32],
) -> None:
    """Count a stretch of the profile that ends at the bounds, among lit (0) or dark (1) ground."""
    if kind == _NOTHING:
        return
    row = 0 if kind < _DARK else 1
    low, high = min(bounds), max(bounds)
    first = np.searchsorted(squares_m2, low)
    stop = np.searchsorted(squares_m2, high)
    counts[row, first] += 1
    counts[row, stop] -= 1


@njit
def _walk(
    points: tuple[NDArray[np.float64], NDArray[np.float64]],
    state: tuple[float, float, float, float, int],
    squares_m2: NDArray[np.float64],
    counts: NDArray[np.int32],
) -> tuple[float, float, float, float, int]:
    """Follow the profile over more points, counting each stretch when it ends.

    The state is squared range and tangent of the last point, the largest tangent so far, the
    squared range at which the current stretch began, and its kind. Squares save the roots.
    """
    last, before, peak, begun, kind = state
    for i in range(points[0].size):
        squared, tangent = points[0][i], points[1][i]
        if tangent > peak and squared >= last and kind == _LIT:
            last, before, peak = squared, tangent, tangent
            continue
        if math.isnan(squared) or math.isnan(last):
            # Whether the first point after a void is lit decides how its stretch begins.
            _close(kind, (begun, last), squares_m2, counts)
            last, before, begun, kind = squared, tangent, squared, _NOTHING
            if tangent > peak and not math.isnan(squared):
                peak = tangent
            continue
        falling = 1 if squared < last else 0
        if tangent <= peak:
            now = _DARK + falling
        else:
            now = _LIT + falling
            if before < peak:  # out of the shadow on the way to this point
                share = (peak - before) / (tangent - before)
                seen = last + share * (squared - last)
                if kind != _DARK + falling:
                    _close(kind, (begun, last), squares_m2, counts)
                    begun = last
                _close(_DARK, (begun, seen), squares_m2, counts)
                last, begun, kind = seen, seen, now
            peak = tangent
        if now != kind:
            _close(kind, (begun, last), squares_m2, counts)
            begun, kind = last, now
        last, before = squared, tangent
    return last, before, peak, begun, kind


@njit
def _profile_limits(
    axes: NDArray[np.float64], ranges_m: tuple[float, float], heights_m: tuple[float, float]
) -> tuple[float, float]:
    """Return the ground distances from below the satellite between which the profile matters."""
    radius, satellite = radius_below(axes), -np.sum(axes[0] * axes[1])
    ends = np.empty(2)
    lean = 0.0
    for k in range(2):
        start = sphere_angle(axes, ranges_m[k], radius + heights_m[k])
        if start < 1e-3:
            return math.nan, math.nan
        angle, _, _, error = solve_angle(axes, ranges_m[k], heights_m[k], start, 7)
        if not abs(error) < 1.0:
            return math.nan, math.nan
        sine, cosine = ranges_m[k] * math.sin(angle), ranges_m[k] * math.cos(angle)
        ground = math.atan2(sine, satellite - cosine)
        ends[k] = ground * _EARTH_RADIUS_M
        if k == 0:
            lean = math.tan(min(angle + ground, 1.5))
    # What shades the first point stands on its line of sight, at most as high as the highest.
    ends[0] -= 1.02 * lean * (heights_m[1] - heights_m[0])
    return max(ends[0] - _MARGIN_M, 0.0), ends[1] + _MARGIN_M


@njit
def _mark(counts: NDArray[np.int32], mask: NDArray[np.uint8]) -> None:
    lit = dark = np.int32(0)
    for i in range(mask.size):
        lit += counts[0, i]
        dark += counts[1, i]
        mask[i] = (LAYOVER if lit > 1 else 0) | (SHADOW if dark > 0 else 0)


@njit
def _layover_shadow(
    orbit: OrbitPolynomial,
    time_s: NDArray[np.float64],
    slant_range_m: NDArray[np.float64],
    heights: Heights,
    limits_m: tuple[float, float],
    side_step: tuple[float, float],
    nodes: tuple[NDArray[np.float64], NDArray[np.float64]],
    mask: NDArray[np.uint8],
) -> int:
    side, step_m = side_step
    per_stretch = int(_STRETCH_M / step_m)
    table = np.empty((_QUANTITIES, _NODES))
    buffers = (np.empty(_CHUNK), np.empty(_CHUNK))
    counts = np.empty((2, slant_range_m.size + 1), dtype=np.int32)
    ranges_m = (slant_range_m[0], slant_range_m[-1])
    squares_m2 = slant_range_m * slant_range_m
    for line in range(time_s.size):
        axes = zero_doppler_axes(orbit, time_s[line], side)
        near, far = _profile_limits(axes, ranges_m, limits_m)
        if math.isnan(near):
            return line
        satellite = -np.sum(axes[0] * axes[1])
        counts[:] = 0
        state = (math.nan, math.nan, -math.inf, math.nan, _NOTHING)
        point, last = int(near / step_m), int(far / step_m) + 1
        while point <= last:
            stretch = point // per_stretch
            stop = min((stretch + 1) * per_stretch, last + 1)
            _solve_profile(axes, heights, stretch, nodes[0], table)
            powers = table @ nodes[1].T
            while point < stop:
                count = min(stop - point, _CHUNK)
                part = (buffers[0][:count], buffers[1][:count])
                start = (point - stretch * per_stretch) * (2.0 / per_stretch) - 1.0
                place = (start, 2.0 / per_stretch)
                _place_points(heights, powers, satellite, place, part[0], part[1])
                state = _walk(part, state, squares_m2, counts)
                point += count
        _close(state[4], (state[3], state[0]), squares_m2, counts)
        _mark(counts, mask[line])
    return -1


def layover_shadow(
    orbit: OrbitPolynomial,
    azimuth_time_s: NDArray[np.float64],
    slant_range_m: NDArray[np.float64],
    heights: NDArray[np.float32],
    dem_origin: Origin,
    *,
    right: bool = True,
) -> NDArray[np.uint8]:
    """Tell which radar pixels lie in layover or shadow.

    Parameters
    ----------
    orbit : OrbitPolynomial
        Orbit around the burst.
    azimuth_time_s : ndarray (lines,), float64, s
        Zero-Doppler times of the lines.
    slant_range_m : ndarray (samples,), float64, m
        Increasing one-way ranges of the samples, all of them looking off nadir.
    heights : ndarray (rows, columns), float32, m
        Ellipsoidal heights, at least 2 x 2; NaN = unknown, neither lit nor dark. They should
        reach beyond the image, as mountains outside it may fall into it or shade it.
    dem_origin : tuple of 4 float, deg
        ``(lat0, lon0, dlat, dlon)``: centre of ``heights[0, 0]`` and spacing.
    right : bool
        Looking to the right of the flight direction.

    Returns
    -------
    ndarray (lines, samples), uint8
        Bit 0 (``LAYOVER``): more than one stretch of visible ground lies at the range of the
        pixel's centre, be it the slope that folds over (active) or the ground it falls upon
        (passive). Bit 1 (``SHADOW``): ground that is hidden from the radar lies at that range.

    Raises
    ------
    ValueError
        If the height grid is too small or empty of heights, the ranges do not increase, or do
        not reach the ground off nadir.

    Notes
    -----
    Points lie at fixed places a quarter of the posting or less, and 2 m or less, apart. Between
    points ranges are covered as intervals, so that no sample is skipped on steep slopes. Ground in
    shadow returns no echo and makes no layover. Tiles of one image, cut in lines or samples, get
    identical values when they are computed with the same ``heights`` and ``dem_origin``.
    """
    if min(heights.shape) < 2:
        raise ValueError(f"heights must have at least 2 rows and columns, got {heights.shape}")
    if np.any(np.diff(slant_range_m) <= 0.0):
        raise ValueError("slant_range_m must increase")
    mask = np.zeros((azimuth_time_s.size, slant_range_m.size), dtype=np.uint8)
    if not mask.size:
        return mask
    known = np.isfinite(heights)
    if not known.any():
        raise ValueError("heights must hold a known height, got NaN only")
    limits = (
        float(np.min(heights, initial=np.inf, where=known)),
        float(np.max(heights, initial=-np.inf, where=known)),
    )
    latitude0, longitude0, latitude_step, longitude_step = dem_origin
    grid = Heights(
        np.ascontiguousarray(heights, dtype=np.float32),
        math.radians(latitude0),
        math.radians(longitude0),
        1.0 / math.radians(latitude_step),
        1.0 / math.radians(longitude_step),
        False,
    )
    middle = math.radians(latitude0 + 0.5 * latitude_step * (heights.shape[0] - 1))
    posting = min(abs(latitude_step), abs(longitude_step) * math.cos(middle)) * _METRES_PER_DEGREE
    side_step = (1.0 if right else -1.0, _step_m(posting))
    failed = _layover_shadow(
        orbit,
        np.ascontiguousarray(azimuth_time_s, dtype=np.float64),
        np.ascontiguousarray(slant_range_m, dtype=np.float64),
        grid,
        limits,
        side_step,
        (_POINTS, _INVERSE),
        mask,
    )
    if failed >= 0:
        raise ValueError(
            f"slant_range_m must reach the ground off nadir at heights of {limits[0]:.0f} to "
            f"{limits[1]:.0f} m, got {slant_range_m[0]:.0f} to {slant_range_m[-1]:.0f} m"
        )
    return mask


def _step_m(posting_m: float) -> float:
    """Return the largest power of two (m) that is finer than the posting by four, within bounds."""
    wanted = min(max(0.25 * posting_m, _FINEST_STEP_M), _COARSEST_STEP_M)
    return float(2.0 ** math.floor(math.log2(wanted)))
