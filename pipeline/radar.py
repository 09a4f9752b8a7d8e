"""From burst metadata to the arrays and tuples that the kernels take."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bperp.kernels.carrier import CarrierModel, RangePolynomials, build_carrier
from bperp.kernels.orbit import OrbitPolynomial, evaluate_orbit, fit_orbit
from bperp.kernels.zero_doppler import RadarGrid
from bperp.pipeline.burst import BurstImage, PolynomialList

EARTH_RADIUS_M = 6_371_000.0

ORBIT_MARGIN_S = 2.0
"""Orbit polynomials reach this far beyond the burst, for points just outside it."""


def burst_duration_s(image: BurstImage) -> float:
    """Return the time from the first to the last line in s."""
    return (image.lines - 1) * image.azimuth_time_interval_s


def burst_orbit(image: BurstImage) -> OrbitPolynomial:
    """Return the orbit over a burst, times relative to the burst's first line."""
    return fit_orbit(
        np.array(image.orbit.time_s),
        np.array(image.orbit.position_m),
        np.array(image.orbit.velocity_m_s),
        -ORBIT_MARGIN_S,
        burst_duration_s(image) + ORBIT_MARGIN_S,
    )


def burst_grid(image: BurstImage) -> RadarGrid:
    """Return the sampling of a burst, times relative to its first line."""
    return RadarGrid(
        first_line_time_s=0.0,
        azimuth_time_interval_s=image.azimuth_time_interval_s,
        near_range_m=image.near_range_m,
        range_spacing_m=image.range_spacing_m,
        lines=image.lines,
        samples=image.samples,
    )


def line_times_s(image: BurstImage, start: int, stop: int) -> NDArray[np.float64]:
    """Return the zero-Doppler times of lines ``start`` to ``stop`` relative to the first line."""
    return np.arange(start, stop, dtype=np.float64) * image.azimuth_time_interval_s


def slant_ranges_m(image: BurstImage, start: int, stop: int) -> NDArray[np.float64]:
    """Return the slant ranges of samples ``start`` to ``stop``."""
    samples = np.arange(start, stop, dtype=np.float64)
    return image.near_range_m + samples * image.range_spacing_m


def speed_m_s(image: BurstImage) -> float:
    """Return the satellite's speed (ECEF) in the middle of a burst."""
    middle = np.array([0.5 * burst_duration_s(image)])
    return float(np.linalg.norm(evaluate_orbit(burst_orbit(image), middle)[1]))


def ground_spacing_m(image: BurstImage) -> tuple[float, float]:
    """Return about the metres on the ground per line and per sample, for distances and filters.

    The line spacing is that of the sub-satellite track; the sample spacing is that of a sphere
    below the middle of the swath.
    """
    middle = np.array([0.5 * burst_duration_s(image)])
    position, velocity, _ = evaluate_orbit(burst_orbit(image), middle)
    radius = float(np.linalg.norm(position))
    line = float(np.linalg.norm(velocity)) * EARTH_RADIUS_M / radius * image.azimuth_time_interval_s
    distance = image.near_range_m + 0.5 * image.samples * image.range_spacing_m
    # Law of cosines at the ground point between its vertical and the line of sight.
    cosine = (radius**2 - distance**2 - EARTH_RADIUS_M**2) / (2 * distance * EARTH_RADIUS_M)
    return line, image.range_spacing_m / float(np.sqrt(1 - cosine**2))


def burst_carrier(image: BurstImage) -> CarrierModel:
    """Return the azimuth carrier of a burst."""
    return build_carrier(
        burst_grid(image),
        steering_rate_rad_s=image.azimuth_steering_rate_rad_s,
        speed_m_s=speed_m_s(image),
        radar_frequency_hz=image.radar_frequency_hz,
        fm_rate=_range_polynomials(image.fm_rate),
        doppler_centroid=_range_polynomials(image.doppler_centroid),
    )


def _range_polynomials(polynomials: PolynomialList) -> RangePolynomials:
    return RangePolynomials(
        np.array(polynomials.azimuth_time_s),
        np.array(polynomials.range_time_s),
        np.array(polynomials.coefficients),
    )
