"""What a StaMPS input tree says of its scene: geometry, orbit, baselines.

Everything here follows the reading rules of StaMPS: a spherical Earth below the sensor, line times
counted with ``prf``, baselines in the reference's track / cross-track / normal frame.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

WGS84_SEMI_MAJOR_M = 6_378_137.0
WGS84_SEMI_MINOR_M = 6_356_752.314245179
MAXIMUM_PIXELS = 2**31 - 1

_Vector = tuple[float, float, float]


@dataclass(frozen=True)
class StateVectors:
    """Earth-fixed state vectors of one orbit.

    Parameters
    ----------
    time_s : tuple of float
        At least two ascending times in s relative to the scene's first line.
    position_m, velocity_m_s : tuple of (float, float, float)
        ECEF position in m and velocity in m/s at those times.
    """

    time_s: tuple[float, ...]
    position_m: tuple[_Vector, ...]
    velocity_m_s: tuple[_Vector, ...]

    def __post_init__(self) -> None:
        if not len(self.time_s) == len(self.position_m) == len(self.velocity_m_s) >= 2:
            raise ValueError("times, positions and velocities must be equally many, at least 2")
        if np.diff(self.time_s).min() <= 0:
            raise ValueError(f"times of state vectors must ascend, instead got {self.time_s}")

    @property
    def interval_s(self) -> float | None:
        """Time between two vectors in s; None where it is not the same between all of them."""
        steps = np.diff(self.time_s)
        return float(steps.mean()) if np.ptp(steps) < 1e-5 else None

    def at(self, time_s: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Interpolate position and velocity.

        Parameters
        ----------
        time_s : float
            Time in s on the same axis, inside the arc.

        Returns
        -------
        position_m, velocity_m_s : ndarray of shape (3,), float64
            Cubic Hermite interpolation between the two neighbouring vectors; for vectors every
            10 s of a Sentinel-1 orbit the position is within 0.3 mm.

        Raises
        ------
        ValueError
            Outside the arc: nothing is extrapolated.
        """
        if not self.time_s[0] <= time_s <= self.time_s[-1]:
            raise ValueError(
                f"time must be in {self.time_s[0]}..{self.time_s[-1]} s, instead got {time_s}"
            )
        node = min(bisect_right(self.time_s, time_s), len(self.time_s) - 1) - 1
        step = self.time_s[node + 1] - self.time_s[node]
        u = (time_s - self.time_s[node]) / step
        p0, p1 = np.array(self.position_m[node : node + 2], dtype=np.float64)
        m0, m1 = np.array(self.velocity_m_s[node : node + 2], dtype=np.float64) * step
        jump = p1 - p0
        # Horner form of the cubic through both positions and velocities.
        quadratic, cubic = 3.0 * jump - 2.0 * m0 - m1, m0 + m1 - 2.0 * jump
        position = p0 + u * (m0 + u * (quadratic + u * cubic))
        velocity = (m0 + u * (2.0 * quadratic + u * 3.0 * cubic)) / step
        return position, velocity


@dataclass(frozen=True)
class StampsScene:
    """The grid of a tree: every raster has ``lines`` x ``samples`` pixels of the reference date.

    Parameters
    ----------
    reference_date : str
        ``YYYYMMDD``.
    sensor : str
        One word, e.g. ``SENTINEL-1A``.
    lines, samples : int
        Azimuth lines and range samples.
    first_line_time_ns : int
        Zero-Doppler time of the first line, UTC nanoseconds since 1970.
    azimuth_time_interval_s : float
        Time between two lines of the written rasters.
    heading_deg : float
        Flight direction, clockwise from north.
    radar_frequency_hz, near_range_m, range_pixel_spacing_m, azimuth_pixel_spacing_m : float
        Carrier, slant range of the first sample, slant range and ground azimuth spacing.
    sar_to_earth_center_m, earth_radius_below_sensor_m : float
        At the centre line; see `platform_from_orbit`.
    center_latitude_deg, center_longitude_deg : float
        Scene centre on the ground.
    azimuth_bandwidth_hz : float
        Processed azimuth bandwidth.
    state_vectors : StateVectors, optional
        Orbit of the reference date, times relative to the first line.
    """

    reference_date: str
    sensor: str
    lines: int
    samples: int
    first_line_time_ns: int
    azimuth_time_interval_s: float
    heading_deg: float
    radar_frequency_hz: float
    near_range_m: float
    range_pixel_spacing_m: float
    azimuth_pixel_spacing_m: float
    sar_to_earth_center_m: float
    earth_radius_below_sensor_m: float
    center_latitude_deg: float
    center_longitude_deg: float
    azimuth_bandwidth_hz: float
    state_vectors: StateVectors | None = None

    def __post_init__(self) -> None:
        day = check_date(self.reference_date)
        check_sensor(self.sensor)
        if min(self.lines, self.samples) < 1:
            raise ValueError(
                f"lines and samples must be positive, instead got {self.lines} x {self.samples}"
            )
        for name in _POSITIVE:
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive and finite, instead got {value!r}")
        # Across midnight the name of the date may be one day off, never more.
        if abs(self.first_line_time.date() - day) > timedelta(days=1):
            raise ValueError(
                f"first_line_time_ns is {self.first_line_time:%Y%m%d}, "
                f"not reference_date {self.reference_date}"
            )

    @property
    def first_line_time(self) -> datetime:
        """UTC time of the first line, whole microseconds."""
        microseconds = self.first_line_time_ns // 1000
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)

    @property
    def line_frequency_hz(self) -> float:
        """Lines per second, the number that StaMPS reads as ``prf``."""
        return 1.0 / self.azimuth_time_interval_s

    @property
    def center_time_s(self) -> float:
        """Time of the image centre ``(lines - 1) / 2`` relative to the first line, in s."""
        return 0.5 * (self.lines - 1) * self.azimuth_time_interval_s

    @property
    def far_range_m(self) -> float:
        """Slant range of the last sample in m."""
        return self.near_range_m + (self.samples - 1) * self.range_pixel_spacing_m


_POSITIVE = (
    "azimuth_time_interval_s",
    "radar_frequency_hz",
    "near_range_m",
    "range_pixel_spacing_m",
    "azimuth_pixel_spacing_m",
    "sar_to_earth_center_m",
    "earth_radius_below_sensor_m",
    "azimuth_bandwidth_hz",
)


@dataclass(frozen=True)
class StampsBaseline:
    """Secondary minus reference orbit position at the centre line, and its change along track.

    Parameters
    ----------
    secondary_date : str
        ``YYYYMMDD``.
    tcn_m : (float, float, float)
        Along track, cross track (to the right, where Sentinel-1 looks), normal (positive DOWN), m.
    tcn_rate_m_s : (float, float, float)
        Change per second of azimuth time, m/s.
    """

    secondary_date: str
    tcn_m: _Vector
    tcn_rate_m_s: _Vector

    def __post_init__(self) -> None:
        check_date(self.secondary_date)
        if not np.isfinite([*self.tcn_m, *self.tcn_rate_m_s]).all():
            raise ValueError(f"baseline of {self.secondary_date} must be finite")


@dataclass(frozen=True)
class Platform:
    """Sensor above the ellipsoid at one time."""

    sar_to_earth_center_m: float
    earth_radius_below_sensor_m: float
    heading_deg: float
    ground_speed_m_s: float
    """Times ``azimuth_time_interval_s`` = azimuth pixel spacing on the ground."""


def platform_from_orbit(state_vectors: StateVectors, time_s: float) -> Platform:
    """Return what the parameter file says of the sensor at one time.

    Parameters
    ----------
    state_vectors : StateVectors
        Orbit of the reference date.
    time_s : float
        Usually `StampsScene.center_time_s`.

    Returns
    -------
    Platform
        Distance to the Earth's centre, ellipsoid radius at the sub-satellite point, heading in
        degrees clockwise from north (0 to 360), speed of the track on the ground.

    Notes
    -----
    The ellipsoid radius at geocentric latitude p is ``a b / sqrt((a sin p)^2 + (b cos p)^2)``.
    """
    position, velocity = state_vectors.at(time_s)
    distance = float(np.linalg.norm(position))
    horizontal = math.hypot(position[0], position[1])
    a, b = WGS84_SEMI_MAJOR_M, WGS84_SEMI_MINOR_M
    radius = a * b * distance / math.hypot(a * position[2], b * horizontal)
    longitude = math.atan2(position[1], position[0])
    # Bowring's latitude; at orbital height the closed form is exact to 1e-8 rad.
    parametric = math.atan2(a * position[2], b * horizontal)
    squared = 1.0 - (b / a) ** 2
    latitude = math.atan2(
        position[2] + squared * a * a / b * math.sin(parametric) ** 3,
        horizontal - squared * a * math.cos(parametric) ** 3,
    )
    east = float(velocity @ [-math.sin(longitude), math.cos(longitude), 0.0])
    sin_latitude = math.sin(latitude)
    north = float(
        velocity
        @ [
            -sin_latitude * math.cos(longitude),
            -sin_latitude * math.sin(longitude),
            math.cos(latitude),
        ]
    )
    heading = math.degrees(math.atan2(east, north)) % 360.0
    return Platform(distance, radius, heading, math.hypot(east, north) * radius / distance)


def baseline_from_orbits(
    secondary_date: str,
    reference: StateVectors,
    secondary: StateVectors,
    center_time_s: float,
    half_span_s: float,
) -> StampsBaseline:
    """Return the baseline of two orbits in the frame that StaMPS expects.

    Parameters
    ----------
    secondary_date : str
        ``YYYYMMDD``.
    reference, secondary : StateVectors
        The two orbits, each on its own time axis.
    center_time_s : float
        Time of the image centre on the reference's axis, s.
    half_span_s : float
        Half the duration of the image, s; the rate is the mean one over the image.

    Returns
    -------
    StampsBaseline
        For every azimuth time the secondary is taken where it crosses the plane through the
        reference's position across its track, so the T component is zero.

    Raises
    ------
    ValueError
        An orbit does not cover the image.

    Notes
    -----
    N points to the Earth's centre, C = N x T to the right of the track. ``Bperp = c cos(look) -
    n sin(look)`` then equals ``-dR_secondary/dh R sin(incidence)`` at constant reference range.
    """
    span = max(half_span_s, 0.1)
    times = (center_time_s - span, center_time_s, center_time_s + span)
    before, center, after = (_crossing_baseline(reference, secondary, time) for time in times)
    rate = (after - before) / (2.0 * span)
    return StampsBaseline(secondary_date, _vector(center), _vector(rate))


def _crossing_baseline(
    reference: StateVectors, secondary: StateVectors, time_s: float
) -> NDArray[np.float64]:
    position, velocity = reference.at(time_s)
    normal = -position / np.linalg.norm(position)
    cross = np.cross(normal, velocity)
    cross /= np.linalg.norm(cross)
    frame = np.stack([np.cross(cross, normal), cross, normal])
    nodes = np.array(secondary.position_m) - position
    nearest = int(np.argmin(np.linalg.norm(nodes, axis=1)))
    secondary_time = secondary.time_s[nearest]
    for _ in range(6):  # Newton; the track is straight to 1e-3 over 10 s, so three are plenty
        other, other_velocity = secondary.at(secondary_time)
        along = float(frame[0] @ (other - position))
        secondary_time -= along / float(frame[0] @ other_velocity)
    other, _ = secondary.at(secondary_time)
    return np.asarray(frame @ (other - position), dtype=np.float64)


def perpendicular_baseline(
    scene: StampsScene,
    baseline: StampsBaseline,
    line: NDArray[np.float64],
    sample: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the perpendicular baseline that StaMPS will compute at pixels.

    Parameters
    ----------
    scene : StampsScene
        Grid and sensor.
    baseline : StampsBaseline
        Of one secondary.
    line, sample : ndarray, float64
        0-based pixels, broadcastable.

    Returns
    -------
    ndarray, float64
        ``c cos(look) - n sin(look)`` in m.
    """
    slant_range = scene.near_range_m + np.asarray(sample) * scene.range_pixel_spacing_m
    sensor, earth = scene.sar_to_earth_center_m, scene.earth_radius_below_sensor_m
    look = np.arccos((sensor**2 + slant_range**2 - earth**2) / (2.0 * sensor * slant_range))
    seconds = (np.asarray(line) - 0.5 * (scene.lines - 1)) * scene.azimuth_time_interval_s
    cross = baseline.tcn_m[1] + baseline.tcn_rate_m_s[1] * seconds
    normal = baseline.tcn_m[2] + baseline.tcn_rate_m_s[2] * seconds
    return np.asarray(cross * np.cos(look) - normal * np.sin(look), dtype=np.float64)


def check_date(text: str) -> date:
    """Return the calendar date of ``YYYYMMDD`` text; ValueError for anything else."""
    if not re.fullmatch(r"[0-9]{8}", text):
        raise ValueError(f"date must be YYYYMMDD, instead got {text!r}")
    return datetime.strptime(text, "%Y%m%d").replace(tzinfo=UTC).date()


def check_sensor(sensor: str) -> str:
    """Return a sensor name that StaMPS reads as one word; ValueError for anything else."""
    if not re.fullmatch(r"[A-Z][A-Z0-9._-]*", sensor):
        raise ValueError(f"sensor must be one upper-case word, instead got {sensor!r}")
    return sensor


def _vector(values: NDArray[np.float64]) -> _Vector:
    return float(values[0]), float(values[1]), float(values[2])
