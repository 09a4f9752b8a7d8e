"""Interferometric baselines.

Two definitions that agree to a few centimetres: the vector between the two orbits in the
reference's track, cross, normal frame, as StaMPS and GAMMA files carry it, and the perpendicular
baseline of a pixel from the change of the secondary's range with height.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bperp.kernels.chebyshev import OffsetPolynomial, evaluate_points, height_slope
from bperp.kernels.ellipsoid import geodetic_to_ecef
from bperp.kernels.orbit import OrbitPolynomial, evaluate_orbit
from bperp.kernels.zero_doppler import RadarGrid, rdr2geo_at_height

__all__ = ["look_angle_rad", "perpendicular_baseline", "tcn_baseline"]

_STEPS = 4
_RATE_STEP_S = 0.1


def _frame(position: NDArray[np.float64], velocity: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return rows: track, cross (to the right) and normal (down) unit vectors."""
    track = velocity / np.linalg.norm(velocity)
    down = (position @ track) * track - position
    down /= np.linalg.norm(down)
    return np.stack([track, np.cross(down, track), down])


def _baseline_at(
    reference: OrbitPolynomial, secondary: OrbitPolynomial, time_s: float, guess_s: float
) -> tuple[NDArray[np.float64], float]:
    """Return the baseline in the reference frame, and the secondary's time abeam of it."""
    position, velocity, _ = evaluate_orbit(reference, time_s)
    axes = _frame(position[0], velocity[0])
    for _ in range(_STEPS):
        place, rate, _ = evaluate_orbit(secondary, guess_s)
        guess_s -= float(axes[0] @ (place[0] - position[0])) / float(axes[0] @ rate[0])
    place, _, _ = evaluate_orbit(secondary, guess_s)
    return axes @ (place[0] - position[0]), guess_s


def tcn_baseline(
    reference: OrbitPolynomial,
    secondary: OrbitPolynomial,
    reference_time_s: float,
    secondary_time_s: float,
    *,
    right: bool = True,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the baseline vector and its rate in the reference's track, cross, normal frame.

    Parameters
    ----------
    reference, secondary : OrbitPolynomial
        Orbits of the two acquisitions, each with its own epoch.
    reference_time_s : float, s
        Time in the reference orbit.
    secondary_time_s : float, s
        About the corresponding time in the secondary orbit (within some seconds).
    right : bool
        Looking to the right of the flight direction.

    Returns
    -------
    baseline_m : ndarray (3,), float64, m
        Secondary minus reference position: T along the track, C to the look side, N down. T is
        zero, because the secondary is taken where it is abeam of the reference.
    rate_m_s : ndarray (3,), float64, m/s
        Change per second of the reference's azimuth time.

    Notes
    -----
    ``B_perp = C cos(look) - N sin(look)`` with the look angle at the satellite.
    """
    sides = np.array([1.0, 1.0 if right else -1.0, 1.0])
    baseline, matched_s = _baseline_at(reference, secondary, reference_time_s, secondary_time_s)
    later, _ = _baseline_at(reference, secondary, reference_time_s + _RATE_STEP_S, matched_s)
    earlier, _ = _baseline_at(reference, secondary, reference_time_s - _RATE_STEP_S, matched_s)
    return sides * baseline, sides * (later - earlier) / (2.0 * _RATE_STEP_S)


def look_angle_rad(
    orbit: OrbitPolynomial, time_s: float, slant_range_m: float, height_m: float = 0.0
) -> float:
    """Return the angle at the satellite between down and a point in the zero-Doppler plane.

    Parameters
    ----------
    orbit : OrbitPolynomial
        Orbit of the acquisition.
    time_s : float, s
        Time in it.
    slant_range_m, height_m : float, m
        Distance and ellipsoidal height of the point.

    Returns
    -------
    float, rad
        Look angle in the frame of ``tcn_baseline``, the same to either side.
    """
    place = (np.array([time_s]), np.array([slant_range_m]), np.array([height_m]))
    latitude, longitude = rdr2geo_at_height(orbit, *place)
    ground = np.array([axis[0] for axis in geodetic_to_ecef(latitude, longitude, place[2])])
    position, velocity, _ = evaluate_orbit(orbit, time_s)
    down = _frame(position[0], velocity[0])[2]
    return float(np.arccos(down @ (ground - position[0]) / slant_range_m))


def perpendicular_baseline(
    range_offset: OffsetPolynomial,
    grids: tuple[RadarGrid, RadarGrid],
    line: NDArray[np.float64],
    sample: NDArray[np.float64],
    height_m: NDArray[np.float64],
    incidence_rad: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the perpendicular baseline of pixels from the height derivative of the range.

    Parameters
    ----------
    range_offset : OffsetPolynomial
        Range offset of the secondary, in samples.
    grids : tuple of 2 RadarGrid
        Reference and secondary image.
    line, sample, height_m, incidence_rad : array_like that broadcast, float64
        Positions in the reference image, ellipsoidal heights (m) and incidence angles (rad).

    Returns
    -------
    ndarray, float64, m
        Perpendicular baseline; positive where the secondary is to the look side or above.

    Notes
    -----
    The phase of reference times conjugate secondary is ``4 pi (R_sec - R_ref) / lambda``; at
    constant reference range it changes with height by
    ``-4 pi B_perp / (lambda R sin(incidence))``, hence ``B_perp = -R sin(incidence) dR_sec / dh``.
    """
    reference, secondary = grids
    slope = evaluate_points(height_slope(range_offset), line, sample, height_m)
    distance = reference.near_range_m + np.asarray(sample) * reference.range_spacing_m
    factor = -distance * np.sin(incidence_rad) * secondary.range_spacing_m
    return np.asarray(factor * slope, dtype=np.float64)
