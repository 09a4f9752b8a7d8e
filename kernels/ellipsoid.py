"""WGS84: geodetic and Earth-centred Earth-fixed (ECEF) coordinates.

The scalar functions are compiled and inlined by the geometry kernels; the array functions are
their public face.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bperp.kernels._jit import njit

__all__ = [
    "ECCENTRICITY_SQUARED",
    "FLATTENING",
    "SEMI_MAJOR_AXIS_M",
    "SEMI_MINOR_AXIS_M",
    "ecef_to_geodetic",
    "geodetic_to_ecef",
]

SEMI_MAJOR_AXIS_M = 6_378_137.0
FLATTENING = 1.0 / 298.257223563
SEMI_MINOR_AXIS_M = SEMI_MAJOR_AXIS_M * (1.0 - FLATTENING)
ECCENTRICITY_SQUARED = FLATTENING * (2.0 - FLATTENING)
_SECOND_ECCENTRICITY_SQUARED = ECCENTRICITY_SQUARED / (1.0 - ECCENTRICITY_SQUARED)

Point = tuple[float, float, float]


@njit
def point_from_geodetic(latitude_rad: float, longitude_rad: float, height_m: float) -> Point:
    """Return ECEF ``(x, y, z)`` in m of one geodetic position (radians, ellipsoidal metres)."""
    sine = math.sin(latitude_rad)
    cosine = math.cos(latitude_rad)
    normal = SEMI_MAJOR_AXIS_M / math.sqrt(1.0 - ECCENTRICITY_SQUARED * sine * sine)
    radius = (normal + height_m) * cosine
    return (
        radius * math.cos(longitude_rad),
        radius * math.sin(longitude_rad),
        (normal * (1.0 - ECCENTRICITY_SQUARED) + height_m) * sine,
    )


@njit
def geodetic_normal(x: float, y: float, z: float) -> Point:
    """Return sine and cosine of the geodetic latitude, and the height, without trigonometry."""
    radius = math.sqrt(x * x + y * y)
    # Bowring's iteration on the reduced latitude, with its sine and cosine up to a common factor.
    # Every pass gains about six digits for any height from the Earth's surface to a low orbit.
    sine, cosine = z, radius * (1.0 - FLATTENING)
    for _ in range(3):
        scale = 1.0 / math.sqrt(sine * sine + cosine * cosine)
        sine, cosine = sine * scale, cosine * scale
        northing = z + _SECOND_ECCENTRICITY_SQUARED * SEMI_MINOR_AXIS_M * sine * sine * sine
        easting = radius - ECCENTRICITY_SQUARED * SEMI_MAJOR_AXIS_M * cosine * cosine * cosine
        sine, cosine = (1.0 - FLATTENING) * northing, easting
    sine /= 1.0 - FLATTENING
    scale = 1.0 / math.sqrt(sine * sine + cosine * cosine)
    sine, cosine = sine * scale, cosine * scale
    # This form of the height has no singularity at the poles, unlike radius / cosine - N.
    level = SEMI_MAJOR_AXIS_M * math.sqrt(1.0 - ECCENTRICITY_SQUARED * sine * sine)
    return sine, cosine, radius * cosine + z * sine - level


@njit
def geodetic_from_point(x: float, y: float, z: float) -> Point:
    """Return ``(latitude_rad, longitude_rad, height_m)`` of one ECEF position in m."""
    sine, cosine, height = geodetic_normal(x, y, z)
    return math.atan2(sine, cosine), math.atan2(y, x), height


@njit
def _to_ecef(
    latitude: NDArray[np.float64], longitude: NDArray[np.float64], height: NDArray[np.float64]
) -> NDArray[np.float64]:
    points = np.empty((3, latitude.size))
    for i in range(latitude.size):
        x, y, z = point_from_geodetic(latitude[i], longitude[i], height[i])
        points[0, i] = x
        points[1, i] = y
        points[2, i] = z
    return points


@njit
def _to_geodetic(
    x: NDArray[np.float64], y: NDArray[np.float64], z: NDArray[np.float64]
) -> NDArray[np.float64]:
    points = np.empty((3, x.size))
    for i in range(x.size):
        latitude, longitude, height = geodetic_from_point(x[i], y[i], z[i])
        points[0, i] = latitude
        points[1, i] = longitude
        points[2, i] = height
    return points


def geodetic_to_ecef(
    latitude_rad: NDArray[np.float64],
    longitude_rad: NDArray[np.float64],
    height_m: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Convert geodetic positions to ECEF coordinates.

    Parameters
    ----------
    latitude_rad, longitude_rad : array_like, any shapes that broadcast, float64, rad
        Geodetic latitude in [-pi/2, pi/2] and longitude.
    height_m : array_like, float64, m
        Height above the WGS84 ellipsoid.

    Returns
    -------
    x, y, z : ndarray, float64, m
        ECEF coordinates in the broadcast shape.
    """
    latitude, longitude, height = np.broadcast_arrays(
        np.asarray(latitude_rad, dtype=np.float64),
        np.asarray(longitude_rad, dtype=np.float64),
        np.asarray(height_m, dtype=np.float64),
    )
    points = _to_ecef(latitude.ravel(), longitude.ravel(), height.ravel())
    x, y, z = points.reshape(3, *latitude.shape)
    return x, y, z


def ecef_to_geodetic(
    x: NDArray[np.float64], y: NDArray[np.float64], z: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Convert ECEF coordinates to geodetic positions.

    Parameters
    ----------
    x, y, z : array_like, any shapes that broadcast, float64, m
        ECEF coordinates between 100 km below the surface and 2000 km above it.

    Returns
    -------
    latitude_rad, longitude_rad : ndarray, float64, rad
        Latitude, and longitude in (-pi, pi].
    height_m : ndarray, float64, m
        Height above the ellipsoid.

    References
    ----------
    Bowring, B. R. (1976), Transformation from spatial to geographical coordinates, Survey Review.
    """
    first, second, third = np.broadcast_arrays(
        np.asarray(x, dtype=np.float64),
        np.asarray(y, dtype=np.float64),
        np.asarray(z, dtype=np.float64),
    )
    points = _to_geodetic(first.ravel(), second.ravel(), third.ravel())
    latitude, longitude, height = points.reshape(3, *first.shape)
    return latitude, longitude, height
