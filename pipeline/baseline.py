"""Perpendicular baseline of two bursts from their orbits alone, before any offset is fitted."""

from __future__ import annotations

import numpy as np

from bperp.kernels.baseline import look_angle_rad, tcn_baseline
from bperp.pipeline.burst import BurstImage
from bperp.pipeline.radar import burst_duration_s, burst_orbit


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
    orbit, middle_s = burst_orbit(reference), 0.5 * burst_duration_s(reference)
    guess_s = 0.5 * burst_duration_s(secondary)
    (_, cross, down), _ = tcn_baseline(orbit, burst_orbit(secondary), middle_s, guess_s)
    distance_m = reference.near_range_m + 0.5 * reference.samples * reference.range_spacing_m
    look = look_angle_rad(orbit, middle_s, distance_m)
    return float(cross * np.cos(look) - down * np.sin(look))
