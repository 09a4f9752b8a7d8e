"""Perpendicular baseline of two bursts.

A point raised by ``h`` at constant reference range moves by ``dR/dh h`` in the secondary's range,
and by definition ``B_perp = -dR/dh R sin(incidence)`` (height phase
``-4 pi B_perp h / (lambda R sin incidence)``).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bperp.kernels.ellipsoid import geodetic_to_ecef
from bperp.kernels.orbit import evaluate_orbit
from bperp.kernels.zero_doppler import geo2rdr, rdr2geo_at_height
from bperp.pipeline.burst import BurstImage
from bperp.pipeline.radar import burst_duration_s, burst_orbit

HEIGHT_STEP_M = 100.0


def center_baseline_m(reference: BurstImage, secondary: BurstImage) -> float:
    """Return the perpendicular baseline at the centre of a burst on the ellipsoid in m.

    Parameters
    ----------
    reference, secondary : BurstImage
        The same burst on two dates.

    Returns
    -------
    float
        Positive as in StaMPS: ``c cos(look) - n sin(look)`` of secondary minus reference, with
        ``c`` to the look side and ``n`` down.
    """
    orbit = burst_orbit(reference)
    time = np.full(2, 0.5 * burst_duration_s(reference))
    distance = np.full(
        2, reference.near_range_m + 0.5 * reference.samples * reference.range_spacing_m
    )
    height = np.array([-HEIGHT_STEP_M, HEIGHT_STEP_M])
    latitude, longitude = rdr2geo_at_height(orbit, time, distance, height)
    points = geodetic_to_ecef(latitude, longitude, height)
    guess = 0.5 * burst_duration_s(secondary)
    _, other = geo2rdr(burst_orbit(secondary), *points, guess)
    slope = float(other[1] - other[0]) / (2 * HEIGHT_STEP_M)
    position = evaluate_orbit(orbit, time[:1])[0][0]
    sine = _incidence_sine(position, np.array([axis.mean() for axis in points]))
    return -slope * float(distance[0]) * sine


def _incidence_sine(satellite: NDArray[np.float64], ground: NDArray[np.float64]) -> float:
    sight = (satellite - ground) / np.linalg.norm(satellite - ground)
    # Normal of the ellipsoid x^2/a^2 + y^2/a^2 + z^2/b^2; only its direction matters.
    normal = ground * np.array([1.0, 1.0, (6378137.0 / 6356752.314245179) ** 2])
    cosine = float(sight @ normal) / float(np.linalg.norm(normal))
    return float(np.sqrt(1.0 - cosine**2))
