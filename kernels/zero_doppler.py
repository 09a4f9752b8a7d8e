"""The zero-Doppler condition: ground to radar, and radar to ground at a known height.

Times are float64 seconds since the epoch of the orbit. A ground point ``x`` is imaged when it lies
in the plane through the satellite perpendicular to its Earth-fixed velocity (zero Doppler)::

    (x - p(t)) . v(t) = 0,    R = |x - p(t)|

References
----------
Cumming and Wong (2005), Digital Processing of Synthetic Aperture Radar Data, chapter 4.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bperp.kernels._jit import njit
from bperp.kernels.ellipsoid import geodetic_from_point, geodetic_normal
from bperp.kernels.orbit import FAST, OrbitPolynomial, Vector, axis_state, orbit_state

__all__ = ["RadarGrid", "geo2rdr", "rdr2geo_at_height"]

_LAST_STEP_S = 5e-3
_MORE_STEPS = 8


class RadarGrid(NamedTuple):
    """Where the pixels of an image lie; times since the epoch of the orbit that goes with it."""

    first_line_time_s: float
    azimuth_time_interval_s: float
    near_range_m: float
    range_spacing_m: float
    lines: int
    samples: int


@njit(error_model="numpy", fastmath=FAST, forceinline=True)
def _newton(
    x: float, y: float, z: float, place: Vector, rate: Vector, bend: Vector
) -> tuple[float, float, float]:
    """Return Newton's step, the misfit ``f = (x - p).v`` and its derivative.

    ``rate`` and ``bend`` are the derivatives with respect to normalised time, the latter halved.
    """
    dx, dy, dz = x - place[0], y - place[1], z - place[2]
    misfit = dx * rate[0] + dy * rate[1] + dz * rate[2]
    slope = 2.0 * (dx * bend[0] + dy * bend[1] + dz * bend[2])
    slope -= rate[0] * rate[0] + rate[1] * rate[1] + rate[2] * rate[2]
    return -misfit / slope, misfit, slope


@njit(error_model="numpy", fastmath=FAST, forceinline=True)
def _step_from(
    table: NDArray[np.float64], x: float, y: float, z: float, u: float
) -> tuple[float, float]:
    """Return the normalised time and the squared range after one Newton step from ``u``."""
    sx, rx, qx = axis_state(table, 0, u)
    sy, ry, qy = axis_state(table, 1, u)
    sz, rz, qz = axis_state(table, 2, u)
    step, misfit, slope = _newton(x, y, z, (sx, sy, sz), (rx, ry, rz), (qx, qy, qz))
    # R^2 is stationary at zero Doppler: the step changes it by f^2 / f' to third order.
    squared = (x - sx) ** 2 + (y - sy) ** 2 + (z - sz) ** 2 + misfit * misfit / slope
    return step, squared


@njit(error_model="numpy", fastmath=FAST)
def _geo2rdr(
    orbit: OrbitPolynomial,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    z: NDArray[np.float64],
    guess_s: float,
    time_s: NDArray[np.float64],
    range_m: NDArray[np.float64],
) -> None:
    table = orbit.coefficients
    half, center = orbit.half_span_s, orbit.center_s
    start = (guess_s - center) / half
    px, vx, ax = axis_state(table, 0, start)
    py, vy, ay = axis_state(table, 1, start)
    pz, vz, az = axis_state(table, 2, start)
    limit = _LAST_STEP_S / half
    for i in range(np.uint64(x.size)):
        a, b, c = x[i], y[i], z[i]
        step, _, _ = _newton(a, b, c, (px, py, pz), (vx, vy, vz), (ax, ay, az))
        u = start + step
        step, squared = _step_from(table, a, b, c, u)
        u += step
        time_s[i] = u * half + center
        # NaN marks the points that need further steps, see _finish. The square root is left to
        # numpy: here it would be a library call, which keeps the loop from vectorising.
        good = (abs(step) < limit) & (abs(u) <= 1.0)
        range_m[i] = squared if good else math.nan


@njit(error_model="numpy")
def _finish(
    orbit: OrbitPolynomial,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    z: NDArray[np.float64],
    time_s: NDArray[np.float64],
    range_m: NDArray[np.float64],
) -> None:
    """Iterate on where two steps were not enough; NaN where that fails."""
    half, center = orbit.half_span_s, orbit.center_s
    for i in range(x.size):
        if range_m[i] >= 0.0 or math.isnan(x[i]):
            continue
        u = min(max((time_s[i] - center) / half, -1.0), 1.0)
        step = squared = math.nan
        for _ in range(_MORE_STEPS):
            step, squared = _step_from(orbit.coefficients, x[i], y[i], z[i], u)
            u = min(max(u + step, -1.5), 1.5)
        good = (abs(step) * half < _LAST_STEP_S) and (abs(u) <= 1.0)
        time_s[i] = u * half + center if good else math.nan
        range_m[i] = squared if good else math.nan


def geo2rdr(
    orbit: OrbitPolynomial,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    z: NDArray[np.float64],
    time_guess_s: float,
    out: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Find when and how far away ground points are imaged.

    Parameters
    ----------
    orbit : OrbitPolynomial
        Orbit around the burst.
    x, y, z : ndarray (n,), float64, m
        ECEF coordinates of the points.
    time_guess_s : float, s
        Start of the iteration, usually the middle of the burst.
    out : tuple of 2 ndarray (n,), float64, optional
        Memory for the results; fresh pages can cost more than the computation.

    Returns
    -------
    azimuth_time_s : ndarray (n,), float64, s
        Zero-Doppler times; NaN where there is none within the validity of the orbit.
    slant_range_m : ndarray (n,), float64, m
        Distances at those times; NaN likewise.

    Notes
    -----
    Newton's iteration of ``f(t) = (x - p).v`` with ``f'(t) = (x - p).a - |v|^2``. From 2 s away
    the first step, with the orbit at the guess, leaves 1e-4 s and the second leaves rounding, so
    that every point takes two steps without a branch; points whose second step exceeds 5 ms (an
    error of 1e-9 s) take more.
    """
    time_s, range_m = out if out is not None else (np.empty(x.size), np.empty(x.size))
    _geo2rdr(orbit, x, y, z, float(time_guess_s), time_s, range_m)
    _finish(orbit, x, y, z, time_s, range_m)
    np.sqrt(range_m, out=range_m)
    return time_s, range_m


@njit
def zero_doppler_axes(orbit: OrbitPolynomial, time_s: float, side: float) -> NDArray[np.float64]:
    """Return rows: satellite position, downward axis and look-side axis of the imaging plane.

    ``side`` is +1 for right-looking. Downward and look-side axes are unit vectors perpendicular to
    the velocity: right = down x forward.
    """
    place, rate, _ = orbit_state(orbit, time_s)
    position = np.array(place)
    forward = np.array(rate)
    forward /= math.sqrt(np.sum(forward * forward))
    down = np.sum(position * forward) * forward - position
    down /= math.sqrt(np.sum(down * down))
    axes = np.empty((3, 3))
    axes[0] = position
    axes[1] = down
    axes[2, 0] = side * (down[1] * forward[2] - down[2] * forward[1])
    axes[2, 1] = side * (down[2] * forward[0] - down[0] * forward[2])
    axes[2, 2] = side * (down[0] * forward[1] - down[1] * forward[0])
    return axes


@njit
def sphere_angle(axes: NDArray[np.float64], range_m: float, radius_m: float) -> float:
    """Return the look angle at which the range meets a sphere about the Earth's centre."""
    distance = math.sqrt(axes[0, 0] ** 2 + axes[0, 1] ** 2 + axes[0, 2] ** 2)
    cosine = (distance**2 + range_m**2 - radius_m**2) / (2.0 * distance * range_m)
    return math.acos(min(max(cosine, -1.0), 1.0))


@njit
def radius_below(axes: NDArray[np.float64]) -> float:
    """Return the distance of the ellipsoid below the satellite from the Earth's centre, in m."""
    distance = math.sqrt(axes[0, 0] ** 2 + axes[0, 1] ** 2 + axes[0, 2] ** 2)
    return distance - geodetic_from_point(axes[0, 0], axes[0, 1], axes[0, 2])[2]


@njit
def solve_angle(
    axes: NDArray[np.float64], range_m: float, height_m: float, angle: float, steps: int
) -> tuple[float, float, Vector, float]:
    """Find the look angle at which the range arc has a given height.

    The arc ``x(angle) = p + R (cos(angle) down + sin(angle) side)`` satisfies range and Doppler
    exactly; Newton's iteration in the one remaining unknown finds the height. Returns the angle,
    the climb in m per rad, and the point and its error of height (m) before the last step.
    """
    x = y = z = error = climb = math.nan
    for _ in range(steps):
        cosine, sine = math.cos(angle) * range_m, math.sin(angle) * range_m
        x = axes[0, 0] + cosine * axes[1, 0] + sine * axes[2, 0]
        y = axes[0, 1] + cosine * axes[1, 1] + sine * axes[2, 1]
        z = axes[0, 2] + cosine * axes[1, 2] + sine * axes[2, 2]
        tx = cosine * axes[2, 0] - sine * axes[1, 0]
        ty = cosine * axes[2, 1] - sine * axes[1, 1]
        tz = cosine * axes[2, 2] - sine * axes[1, 2]
        up, level, height = geodetic_normal(x, y, z)
        climb = level * (x * tx + y * ty) / math.sqrt(x * x + y * y) + up * tz
        error = height_m - height
        angle += error / climb
    return angle, climb, (x, y, z), error


@njit
def _points_at_height(
    orbit: OrbitPolynomial,
    time_s: NDArray[np.float64],
    range_m: NDArray[np.float64],
    height_m: NDArray[np.float64],
    side: float,
) -> NDArray[np.float64]:
    points = np.empty((2, time_s.size))
    for i in range(time_s.size):
        axes = zero_doppler_axes(orbit, time_s[i], side)
        angle = sphere_angle(axes, range_m[i], radius_below(axes) + height_m[i])
        _, _, (x, y, z), error = solve_angle(axes, range_m[i], height_m[i], angle, 7)
        latitude, longitude, _ = geodetic_from_point(x, y, z)
        found = abs(error) < 1e-6
        points[0, i] = latitude if found else math.nan
        points[1, i] = longitude if found else math.nan
    return points


def rdr2geo_at_height(
    orbit: OrbitPolynomial,
    azimuth_time_s: NDArray[np.float64],
    slant_range_m: NDArray[np.float64],
    height_m: NDArray[np.float64],
    *,
    right: bool = True,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Locate points of given time, range and ellipsoidal height on the ground.

    Parameters
    ----------
    orbit : OrbitPolynomial
        Orbit around the burst.
    azimuth_time_s, slant_range_m, height_m : ndarray (n,), float64, s and m
        Zero-Doppler times, one-way ranges and heights of the points.
    right : bool
        Looking to the right of the flight direction.

    Returns
    -------
    latitude_rad, longitude_rad : ndarray (n,), float64, rad
        Exact to 1e-8 m; NaN where the range does not reach the height.
    """
    points = _points_at_height(
        orbit, azimuth_time_s, slant_range_m, height_m, 1.0 if right else -1.0
    )
    return points[0], points[1]
