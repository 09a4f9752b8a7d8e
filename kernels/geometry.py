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
from bperp.kernels.ellipsoid import geodetic_from_point, point_from_geodetic
from bperp.kernels.orbit import OrbitPolynomial, orbit_state
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
        (px, py, pz), _, _ = orbit_state(orbit, time_s[line])
        for i in range(np.uint64(latitude.shape[1])):
            north, east = latitude[line, i], longitude[line, i]
            x, y, z = point_from_geodetic(north, east, float(height[line, i]))
            dx, dy, dz = px - x, py - y, pz - z
            scale = 1.0 / math.sqrt(dx * dx + dy * dy + dz * dz)
            sine, cosine = math.sin(north), math.cos(north)
            turn, level = math.sin(east), math.cos(east)
            along = level * dx + turn * dy
            up = (cosine * along + sine * dz) * scale
            vectors[0, line, i] = (level * dy - turn * dx) * scale
            vectors[1, line, i] = (cosine * dz - sine * along) * scale
            vectors[2, line, i] = up
            incidence[line, i] = math.acos(up)


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
    """
    shape = latitude_rad.shape
    vectors = np.empty((3, *shape), dtype=np.float32)
    incidence_rad = np.empty(shape, dtype=np.float32)
    _look_vectors(
        orbit, azimuth_time_s, latitude_rad, longitude_rad, height_m, vectors, incidence_rad
    )
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
