"""Geometry between the radar image and the ground: one import for the stages.

``geo2rdr`` and ``rdr2geo_at_height`` come from ``zero_doppler``, ``rdr2geo`` over a height grid
from ``terrain``; this module adds the directions. All times are float64 seconds since the epoch
of the orbit.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bperp.kernels._jit import njit
from bperp.kernels.ellipsoid import (
    ECCENTRICITY_SQUARED,
    SEMI_MAJOR_AXIS_M,
    geodetic_from_point,
)
from bperp.kernels.orbit import FAST, OrbitPolynomial, Vector, orbit_state
from bperp.kernels.terrain import DEM_OUTSIDE, DEM_VOID, GOOD, rdr2geo
from bperp.kernels.zero_doppler import RadarGrid, geo2rdr, rdr2geo_at_height

__all__ = [
    "DEM_OUTSIDE",
    "DEM_VOID",
    "GOOD",
    "RadarGrid",
    "geo2rdr",
    "heading_rad",
    "look_vectors",
    "rdr2geo",
    "rdr2geo_at_height",
]


@njit(fastmath=FAST, forceinline=True)
def _sine_cosine(angle: float) -> tuple[float, float]:
    """Return sine and cosine to 2e-11, by least-squares polynomials within a quarter turn."""
    half_turns = np.floor(angle * (1.0 / math.pi) + 0.5)
    r = angle - half_turns * math.pi
    z = r * r
    sine = -2.3889497924824648e-08 * z + 2.7525287098821448e-06
    sine = (sine * z - 0.00019840861552671284) * z + 0.008333330977499177
    sine = (sine * z - 0.16666666616917156) * z + 0.9999999999829697
    cosine = (1.990768430886436e-09 * z - 2.7524683514679323e-07) * z + 2.4801040288348523e-05
    cosine = (cosine * z - 0.0013888884175356335) * z + 0.04166666647311288
    cosine = (cosine * z - 0.49999999997018185) * z + 0.99999999999925
    sign = 1.0 - 2.0 * (half_turns - 2.0 * np.floor(0.5 * half_turns))
    return sine * r * sign, cosine * sign


@njit(fastmath=FAST, forceinline=True)
def _arc_cosine(x: float) -> float:
    """Return the arc cosine to 3e-8: the root of ``1 - x`` times a least-squares polynomial."""
    z = abs(x)
    value: float = -0.0012370048527585692 * z + 0.006580885238510772
    value = (value * z - 0.016965471962564878) * z + 0.03080825341115547
    value = (value * z - 0.05014502501932554) * z + 0.08897409930412242
    value = (value * z - 0.21459849423367133) * z + 1.5707963018332993
    value *= np.sqrt(max(1.0 - z, 0.0))
    return value if x >= 0.0 else math.pi - value


@njit(error_model="numpy", fastmath=FAST)
def _look_along_line(
    place: Vector,
    latitude: NDArray[np.float64],
    longitude: NDArray[np.float64],
    height: NDArray[np.float32],
    vectors: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]],
    incidence: NDArray[np.float32],
) -> None:
    """Find directions and incidence angles of one line, seen from the satellite at ``place``."""
    px, py, pz = place
    east, north, upward = vectors
    for i in range(np.uint64(latitude.size)):
        sine, cosine = _sine_cosine(latitude[i])
        turn, level = _sine_cosine(longitude[i])
        normal = SEMI_MAJOR_AXIS_M / np.sqrt(1.0 - ECCENTRICITY_SQUARED * sine * sine)
        radius = (normal + height[i]) * cosine
        dx, dy = px - radius * level, py - radius * turn
        dz = pz - (normal * (1.0 - ECCENTRICITY_SQUARED) + height[i]) * sine
        scale = 1.0 / np.sqrt(dx * dx + dy * dy + dz * dz)
        along = level * dx + turn * dy
        up = (cosine * along + sine * dz) * scale
        east[i] = (level * dy - turn * dx) * scale
        north[i] = (cosine * dz - sine * along) * scale
        upward[i] = up
        incidence[i] = _arc_cosine(up)


@njit
def _look_vectors(
    orbit: OrbitPolynomial,
    time_s: NDArray[np.float64],
    latitude: NDArray[np.float64],
    longitude: NDArray[np.float64],
    height: NDArray[np.float32],
    vectors: NDArray[np.float32],
    incidence: NDArray[np.float32],
) -> None:
    for line in range(time_s.size):
        place, _, _ = orbit_state(orbit, time_s[line])
        rows = (vectors[0, line], vectors[1, line], vectors[2, line])
        _look_along_line(
            place, latitude[line], longitude[line], height[line], rows, incidence[line]
        )


def look_vectors(
    orbit: OrbitPolynomial,
    azimuth_time_s: NDArray[np.float64],
    latitude_rad: NDArray[np.float64],
    longitude_rad: NDArray[np.float64],
    height_m: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return line-of-sight unit vectors and incidence angles of radar pixels.

    Parameters
    ----------
    orbit : OrbitPolynomial
        Orbit around the burst.
    azimuth_time_s : ndarray (lines,), float64, s
        Zero-Doppler times of the lines.
    latitude_rad, longitude_rad : ndarray (lines, samples), float64, rad
        Ground positions, from ``rdr2geo``.
    height_m : ndarray (lines, samples), float32, m
        Ellipsoidal heights.

    Returns
    -------
    vectors : ndarray (3, lines, samples), float32
        East, north and up components of the unit vector from the ground to the sensor.
    incidence_rad : ndarray (lines, samples), float32, rad
        Angle between that vector and the normal of the ellipsoid. NaN positions give NaN.

    Notes
    -----
    Sine, cosine and arc cosine are polynomials in float64, without calls to a library, so that the
    loop over a line is vectorised: vectors are exact to 1e-7, incidence angles to 2e-7 rad (most of
    it is the rounding to float32).
    """
    shape = latitude_rad.shape
    vectors = np.empty((3, *shape), dtype=np.float32)
    incidence_rad = np.empty(shape, dtype=np.float32)
    latitude, longitude = np.ascontiguousarray(latitude_rad), np.ascontiguousarray(longitude_rad)
    height = np.ascontiguousarray(height_m)
    _look_vectors(orbit, azimuth_time_s, latitude, longitude, height, vectors, incidence_rad)
    return vectors, incidence_rad


def heading_rad(orbit: OrbitPolynomial, time_s: float) -> float:
    """Return the flight direction at the satellite, clockwise from north.

    Parameters
    ----------
    orbit : OrbitPolynomial
        Orbit around the burst.
    time_s : float, s
        Time since the epoch of the orbit.

    Returns
    -------
    float, rad
        Heading in (-pi, pi] of the Earth-fixed velocity, that is of the image's azimuth axis.
    """
    (x, y, z), (vx, vy, vz), _ = orbit_state(orbit, float(time_s))
    latitude, longitude, _ = geodetic_from_point(x, y, z)
    along = math.cos(longitude) * vx + math.sin(longitude) * vy
    east = math.cos(longitude) * vy - math.sin(longitude) * vx
    north = math.cos(latitude) * vz - math.sin(latitude) * along
    return math.atan2(east, north)
