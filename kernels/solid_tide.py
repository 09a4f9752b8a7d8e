"""Solid Earth tide: how the ground moves under the attraction of Moon and Sun.

The displacement is up to 0.4 m vertically and 0.1 m horizontally, mostly with half a day and one
day of period. It is smooth: over a burst it changes by millimetres, between passes twelve days
apart by decimetres. The permanent part is left in, that is, the displacement is relative to the
"conventional tide free" position of the ground, to which ITRF and satellite orbits refer.

References
----------
Petit and Luzum (2010), IERS Conventions, IERS Technical Note 36, section 7.1.1; equation numbers
in this module are of that section. Meeus (1998), Astronomical Algorithms, chapters 22, 25 and 47.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bperp.kernels.ellipsoid import geodetic_to_ecef

__all__ = ["body_tide_m", "frequency_tide_m", "solid_tide_enu_m", "sun_moon_ecef_m"]

Vector = NDArray[np.float64]

_EPOCH_UNIX_S = 946_728_000.0  # 2000-01-01 12:00
_DAY_S = 86_400.0
# TT - UTC, as it has been since 2017: 2 s less in 2014, in which the Moon moves 5e-6 rad.
_TT_MINUS_UTC_S = 69.184

_EARTH_RADIUS_M = 6_378_136.6
_SUN_MASS = 332_946.0482  # in masses of the Earth
_MOON_MASS = 0.012_300_037_1
_ASTRONOMICAL_UNIT_M = 149_597_870_700.0

# Largest periodic terms of the Moon's motion. Multiples of the elongation D, the anomalies of Sun
# M and Moon M' and the argument of latitude F; longitude in 1e-6 deg (sine), distance in m
# (cosine). Meeus, table 47.A.
_MOON = np.array(
    [
        (0, 0, 1, 0, 6288774, -20905355),
        (2, 0, -1, 0, 1274027, -3699111),
        (2, 0, 0, 0, 658314, -2955968),
        (0, 0, 2, 0, 213618, -569925),
        (0, 1, 0, 0, -185116, 48888),
        (0, 0, 0, 2, -114332, -3149),
        (2, 0, -2, 0, 58793, 246158),
        (2, -1, -1, 0, 57066, -152138),
        (2, 0, 1, 0, 53322, -170733),
        (2, -1, 0, 0, 45758, -204586),
        (0, 1, -1, 0, -40923, -129620),
        (1, 0, 0, 0, -34720, 108743),
        (0, 1, 1, 0, -30383, 104755),
        (2, 0, 0, -2, 15327, 10321),
        (0, 0, 1, 2, -12528, 0),
        (0, 0, 1, -2, 10980, 79661),
        (4, 0, -1, 0, 10675, -34782),
        (0, 0, 3, 0, 10034, -23210),
        (4, 0, -2, 0, 8548, -21636),
        (2, 1, -1, 0, -7888, 24208),
        (2, 1, 0, 0, -6766, 30824),
        (1, 0, -1, 0, -5163, -8379),
        (1, 1, 0, 0, 4987, -16675),
        (2, -1, 1, 0, 4036, -12831),
        (2, 0, 2, 0, 3994, -10445),
        (4, 0, 0, 0, 3861, -11650),
        (2, 0, -3, 0, 3665, 14403),
    ],
    dtype=np.float64,
)
_MOON_MEAN_DISTANCE_M = 385_000_560.0
# The same for the latitude in 1e-6 deg (sine). Meeus, table 47.B.
_MOON_LATITUDE = np.array(
    [
        (0, 0, 0, 1, 5128122),
        (0, 0, 1, 1, 280602),
        (0, 0, 1, -1, 277693),
        (2, 0, 0, -1, 173237),
        (2, 0, -1, 1, 55413),
        (2, 0, -1, -1, 46271),
        (2, 0, 0, 1, 32573),
        (0, 0, 2, 1, 17198),
        (2, 0, 1, -1, 9266),
        (0, 0, 2, -1, 8822),
        (2, -1, 0, -1, 8216),
        (2, 0, -2, -1, 4324),
        (2, 0, 1, 1, 4200),
    ],
    dtype=np.float64,
)

# Where the Love numbers depend on frequency. Multiples of the mean longitudes of Moon s and Sun h,
# the perigees p and p_s and the node N'; then radial and transverse amplitudes in mm, in phase and
# out of phase. Table 7.3a (every tide from 0.05 mm), with tau = 1.
_DIURNAL = np.array(
    [
        (-2, 0, 1, 0, 0, -0.08, 0.0, -0.01, 0.01),  # Q1
        (-1, 0, 0, -1, 0, -0.10, 0.0, 0.0, 0.0),
        (-1, 0, 0, 0, 0, -0.51, 0.0, -0.02, 0.03),  # O1
        (0, 0, 1, 0, 0, 0.06, 0.0, 0.0, 0.0),
        (1, -3, 0, 0, 1, -0.06, 0.0, 0.0, 0.0),
        (1, -2, 0, 0, 0, -1.23, -0.07, 0.06, 0.01),  # P1
        (1, 0, 0, -1, 0, -0.22, 0.01, 0.01, 0.0),
        (1, 0, 0, 0, 0, 12.00, -0.80, -0.67, -0.03),  # K1
        (1, 0, 0, 1, 0, 1.73, -0.12, -0.10, 0.0),
        (1, 1, 0, 0, -1, -0.50, -0.01, 0.03, 0.0),
        (1, 2, 0, 0, 0, -0.11, 0.01, 0.01, 0.0),
    ]
)
# Table 7.3b, with tau = 0.
_LONG_PERIOD = np.array(
    [
        (0, 0, 0, 1, 0, 0.47, 0.16, 0.23, 0.07),
        (0, 2, 0, 0, 0, -0.20, -0.11, -0.12, -0.05),
        (1, 0, -1, 0, 0, -0.11, -0.09, -0.08, -0.04),
        (2, 0, 0, 0, 0, -0.13, -0.15, -0.11, -0.07),
        (2, 0, 0, 1, 0, -0.05, -0.06, -0.05, -0.03),
    ]
)


class _Angles(NamedTuple):
    """Fundamental angles in rad of a time, each an array like the times."""

    sidereal: Vector
    """Mean sidereal time of Greenwich."""
    obliquity: Vector
    delaunay: Vector
    """(4, ...): elongation of the Moon, anomalies of Sun and Moon, argument of latitude."""
    doodson: Vector
    """(5, ...): longitudes of Moon, Sun and perigee, negative node, longitude of perihelion."""


def _angles(unix_time_s: Vector | float) -> tuple[_Angles, Vector]:
    """Return the fundamental angles, and the time in Julian centuries of TT since 2000."""
    days = (np.asarray(unix_time_s, dtype=np.float64) - _EPOCH_UNIX_S) / _DAY_S
    t = (days + _TT_MINUS_UTC_S / _DAY_S) / 36525.0
    sidereal = 280.460_618_37 + 360.985_647_366_29 * days + 0.000_387_933 * t**2
    moon = 218.316_447_7 + 481_267.881_234_21 * t - 0.001_578_6 * t**2
    elongation = 297.850_192_1 + 445_267.111_403_4 * t - 0.001_881_9 * t**2
    sun_anomaly = 357.529_109_2 + 35_999.050_290_9 * t - 0.000_153_6 * t**2
    moon_anomaly = 134.963_396_4 + 477_198.867_505_5 * t + 0.008_741_4 * t**2
    latitude = 93.272_095_0 + 483_202.017_523_3 * t - 0.003_653_9 * t**2
    sun = 280.466_46 + 36_000.769_83 * t + 0.000_303_2 * t**2
    delaunay = np.stack([elongation, sun_anomaly, moon_anomaly, latitude])
    doodson = np.stack([moon, sun, moon - moon_anomaly, latitude - moon, sun - sun_anomaly])
    obliquity = np.radians(23.439_291 - 0.013_004_2 * t)
    angles = (np.radians(np.mod(item, 360.0)) for item in (sidereal, delaunay, doodson))
    sidereal_rad, delaunay_rad, doodson_rad = angles
    return _Angles(sidereal_rad, obliquity, delaunay_rad, doodson_rad), t


def _sun_ecliptic(angles: _Angles, centuries: Vector) -> tuple[Vector, Vector]:
    """Return longitude (rad) and distance (m) of the Sun, good to 0.01 degree and 1e-4."""
    anomaly = angles.delaunay[1]
    center = np.radians(1.914_602 - 0.004_817 * centuries) * np.sin(anomaly)
    center += np.radians(0.019_993) * np.sin(2 * anomaly) + np.radians(2.89e-4) * np.sin(
        3 * anomaly
    )
    eccentricity = 0.016_708_634 - 4.2037e-5 * centuries
    distance = 1.000_001_018 * (1 - eccentricity**2) / (1 + eccentricity * np.cos(anomaly + center))
    return angles.doodson[1] + center, distance * _ASTRONOMICAL_UNIT_M


def _moon_ecliptic(angles: _Angles) -> tuple[Vector, Vector, Vector]:
    """Return longitude and latitude (rad) and distance (m) of the Moon, to 0.02 degree, 2e-4."""
    arguments = np.tensordot(_MOON[:, :4], angles.delaunay, axes=1)
    longitude = np.tensordot(_MOON[:, 4], np.sin(arguments), axes=1) * 1e-6
    distance = np.tensordot(_MOON[:, 5], np.cos(arguments), axes=1)
    arguments = np.tensordot(_MOON_LATITUDE[:, :4], angles.delaunay, axes=1)
    latitude = np.tensordot(_MOON_LATITUDE[:, 4], np.sin(arguments), axes=1) * 1e-6
    return (
        angles.doodson[0] + np.radians(longitude),
        np.radians(latitude),
        _MOON_MEAN_DISTANCE_M + distance,
    )


def _to_ecef(longitude: Vector, latitude: Vector, distance: Vector, angles: _Angles) -> Vector:
    """Turn ecliptic coordinates of date into Earth-fixed ones, (3, ...)."""
    x = np.cos(latitude) * np.cos(longitude)
    y = np.cos(latitude) * np.sin(longitude)
    z = np.sin(latitude)
    sine, cosine = np.sin(angles.obliquity), np.cos(angles.obliquity)
    y, z = cosine * y - sine * z, sine * y + cosine * z
    sine, cosine = np.sin(angles.sidereal), np.cos(angles.sidereal)
    return np.asarray(distance * np.stack([cosine * x + sine * y, cosine * y - sine * x, z]))


def sun_moon_ecef_m(unix_time_s: Vector | float) -> tuple[Vector, Vector]:
    """Locate Sun and Moon.

    Parameters
    ----------
    unix_time_s : float or ndarray, float64, s
        UTC since 1970 without leap seconds, 2010 to 2040.

    Returns
    -------
    sun, moon : ndarray (3, ...), float64, m
        Geocentric Earth-fixed positions, good to 0.03 degree in direction and 2e-4 in distance:
        0.3 mm of the tide.

    Notes
    -----
    Series in the mean equinox of date, turned by the mean sidereal time; nutation, aberration,
    polar motion and UT1-UTC (together 0.01 degree) are left out.
    """
    angles, centuries = _angles(unix_time_s)
    longitude, distance = _sun_ecliptic(angles, centuries)
    sun = _to_ecef(longitude, np.zeros_like(longitude), distance, angles)
    return sun, _to_ecef(*_moon_ecliptic(angles), angles)


def _station_axes(station: Vector) -> tuple[Vector, Vector, Vector, Vector, Vector]:
    """Return geocentric up, east and north unit vectors (3, ...), and sine, cosine of latitude."""
    up = station / np.linalg.norm(station, axis=0)
    cosine = np.hypot(up[0], up[1])
    longitude = np.arctan2(up[1], up[0])
    east = np.stack([-np.sin(longitude), np.cos(longitude), np.zeros_like(longitude)])
    north = np.stack([-up[2] * np.cos(longitude), -up[2] * np.sin(longitude), cosine])
    return up, east, north, up[2], cosine


def _in_phase(station: Vector, body: Vector, mass: float) -> Vector:
    """Return the displacement by one body with nominal Love numbers (7.5 and 7.6)."""
    distance = np.linalg.norm(body, axis=0)
    target = body / distance
    up, _, _, sine, _ = _station_axes(station)
    zonal = 1.5 * sine**2 - 0.5
    # Love and Shida numbers depend on latitude (7.2).
    h2, l2 = 0.6078 - 0.0006 * zonal, 0.0847 + 0.0002 * zonal
    h3, l3 = 0.292, 0.015
    cosine = np.sum(up * target, axis=0)
    across = target - cosine * up
    scale = mass * _EARTH_RADIUS_M * (_EARTH_RADIUS_M / distance) ** 3
    second = h2 * (1.5 * cosine**2 - 0.5) * up + 3.0 * l2 * cosine * across
    third = h3 * (2.5 * cosine**3 - 1.5 * cosine) * up + l3 * (7.5 * cosine**2 - 1.5) * across
    return np.asarray(scale * (second + _EARTH_RADIUS_M / distance * third))


def _out_of_phase(station: Vector, body: Vector, mass: float) -> Vector:
    """Return the part by one body that lags, and that of l(1) (7.8 to 7.11)."""
    distance = np.linalg.norm(body, axis=0)
    up, east, north, sine, cosine = _station_axes(station)
    hour = np.arctan2(station[1], station[0]) - np.arctan2(body[1], body[0])
    s1, c1, s2, c2 = np.sin(hour), np.cos(hour), np.sin(2 * hour), np.cos(2 * hour)
    body_sine = body[2] / distance
    body_square = 1.0 - body_sine**2
    diurnal = 3.0 * body_sine * np.sqrt(body_square)  # P21
    semidiurnal = 3.0 * body_square  # P22
    double_sine, double_cosine = 2.0 * sine * cosine, 1.0 - 2.0 * sine**2
    # Imaginary parts of h2 and l2, and l(1), of the diurnal and the semidiurnal band.
    radial = diurnal * 0.5 * 0.0025 * double_sine * s1
    radial = radial + semidiurnal * 0.25 * 0.0022 * cosine**2 * s2
    northward = diurnal * (0.0007 * double_cosine * s1 - 0.0012 * sine**2 * c1)
    northward -= semidiurnal * (0.25 * 0.0007 * double_sine * s2 + 0.0012 * sine * cosine * c2)
    eastward = diurnal * sine * (0.0007 * c1 + 0.0012 * double_cosine * s1)
    eastward += semidiurnal * (0.5 * 0.0007 * cosine * c2 - 0.0012 * sine**2 * cosine * s2)
    scale = mass * _EARTH_RADIUS_M * (_EARTH_RADIUS_M / distance) ** 3
    return np.asarray(scale * (radial * up + northward * north + eastward * east))


def body_tide_m(station: Vector, sun: Vector, moon: Vector) -> Vector:
    """Compute the tide with Love numbers that do not depend on frequency (step 1).

    Parameters
    ----------
    station : ndarray (3, ...), float64, m
        Geocentric Earth-fixed position of the ground; only its direction enters.
    sun, moon : ndarray (3, ...), float64, m
        Geocentric Earth-fixed positions; they broadcast with the station.

    Returns
    -------
    ndarray (3, ...), float64, m
        Earth-fixed displacement: degrees 2 and 3 in phase, degree 2 out of phase, permanent tide
        included.
    """
    total = np.zeros(np.broadcast_shapes(station.shape, sun.shape, moon.shape))
    for body, mass in ((sun, _SUN_MASS), (moon, _MOON_MASS)):
        total += _in_phase(station, body, mass) + _out_of_phase(station, body, mass)
    return total


def frequency_tide_m(station: Vector, unix_time_s: Vector | float) -> Vector:
    """Compute what Love numbers that depend on frequency add to the tide (step 2).

    Parameters
    ----------
    station : ndarray (3, ...), float64, m
        Geocentric Earth-fixed position of the ground; only its direction enters.
    unix_time_s : float or ndarray, float64, s
        UTC since 1970 without leap seconds; broadcasts with the stations.

    Returns
    -------
    ndarray (3, ...), float64, m
        Earth-fixed displacement by the diurnal and the long-period band (7.12 and 7.13), up to
        14 mm. Tides below 0.05 mm are left out.
    """
    angles, _ = _angles(unix_time_s)
    up, east, north, sine, cosine = _station_axes(station)
    longitude = np.arctan2(station[1], station[0])
    tau = angles.sidereal + np.pi - angles.doodson[0]
    radial, northward, eastward = np.zeros((3, *np.broadcast_shapes(sine.shape, tau.shape)))
    for row in _DIURNAL:
        phase = tau + np.tensordot(row[:5], angles.doodson, axes=1) + longitude
        s, c = np.sin(phase), np.cos(phase)
        radial = radial + (row[5] * s + row[6] * c) * 2.0 * sine * cosine
        northward = northward + (row[7] * s + row[8] * c) * (1.0 - 2.0 * sine**2)
        eastward = eastward + (row[7] * c - row[8] * s) * sine
    for row in _LONG_PERIOD:
        phase = np.tensordot(row[:5], angles.doodson, axes=1)
        s, c = np.sin(phase), np.cos(phase)
        radial = radial + (row[5] * c + row[6] * s) * (1.5 * sine**2 - 0.5)
        northward = northward + (row[7] * c + row[8] * s) * 2.0 * sine * cosine
    return np.asarray(1e-3 * (radial * up + northward * north + eastward * east))


def solid_tide_enu_m(
    unix_time_s: Vector | float, latitude_rad: Vector | float, longitude_rad: Vector | float
) -> Vector:
    """Compute the displacement of the ground by the solid Earth tide.

    Parameters
    ----------
    unix_time_s : float or array_like, float64, s
        UTC since 1970 without leap seconds, 2010 to 2040.
    latitude_rad, longitude_rad : float or array_like that broadcast with the times, float64, rad
        Geodetic position; the height does not matter.

    Returns
    -------
    ndarray (3, ...), float64, m
        East, north and up: the ground's position minus its conventional, tide-free position. The
        permanent tide is included. Good to 1 mm.

    Notes
    -----
    Steps 1 and 2 of the IERS Conventions (2010): a body of mass M at distance d under the angle
    with cosine c raises the ground (towards ``u``; ``b`` points to the body) by::

        M/M_E R^4/d^3 (h2 (3 c^2 - 1)/2 u + 3 l2 c (b - c u)) + degree 3

    plus corrections up to 13 mm for the resonance of the core in the diurnal band.
    """
    time, latitude, longitude = np.broadcast_arrays(
        np.asarray(unix_time_s, dtype=np.float64),
        np.asarray(latitude_rad, dtype=np.float64),
        np.asarray(longitude_rad, dtype=np.float64),
    )
    station = np.stack(geodetic_to_ecef(latitude, longitude, np.zeros(latitude.shape)))
    # Sun and Moon once per time, whatever the number of places.
    moments = np.asarray(unix_time_s, dtype=np.float64)
    moments = moments.reshape((1,) * (time.ndim - moments.ndim) + moments.shape)
    sun, moon = sun_moon_ecef_m(moments)
    displacement = body_tide_m(station, sun, moon)
    displacement += frequency_tide_m(station, moments)
    return _to_enu(displacement, latitude, longitude)


def _to_enu(displacement: Vector, latitude: Vector, longitude: Vector) -> Vector:
    """Express Earth-fixed vectors in geodetic east, north, up."""
    x, y, z = displacement
    outward = np.cos(longitude) * x + np.sin(longitude) * y
    return np.stack(
        [
            np.cos(longitude) * y - np.sin(longitude) * x,
            np.cos(latitude) * z - np.sin(latitude) * outward,
            np.cos(latitude) * outward + np.sin(latitude) * z,
        ]
    )
