"""A real coregistered pair: conventions of sign, flattening and carrier on Sentinel-1 pixels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bperp.kernels.baseline import perpendicular_baseline
from bperp.kernels.carrier import RangePolynomials, build_carrier
from bperp.kernels.chebyshev import (
    evaluate_points,
    fit_burst_offsets,
    offset_domain,
    zero_offsets,
)
from bperp.kernels.geometry import look_vectors, rdr2geo
from bperp.kernels.orbit import evaluate_orbit, fit_orbit
from bperp.kernels.resample import SourceWindow, plan_resampling, resample_burst_tile
from bperp.kernels.taps import design_taps

pytestmark = pytest.mark.realdata

WAVELENGTH_M = 299_792_458.0 / 5.405000454334349e9


def coherence(first: np.ndarray, second: np.ndarray) -> float:
    cross = np.sum(first * second.conj())
    return float(np.abs(cross) / np.linalg.norm(first) / np.linalg.norm(second))


def test_coherence_of_the_flattened_pair(amsterdam: Callable) -> None:
    reference, secondary = (amsterdam(date).samples for date in ("20230331", "20230319"))
    assert coherence(reference, secondary) == pytest.approx(0.768, abs=0.01)
    # The product without the conjugate would keep the carrier twice: nothing is left of it.
    assert coherence(reference, secondary.conj()) < 0.1


def test_height_sensitivity_has_the_size_and_sign_of_snaps(amsterdam: Callable) -> None:
    # SNAP states a perpendicular baseline of +33.9 m and a height of ambiguity of -526.36 m: for a
    # positive baseline the phase of reference times conjugate secondary falls with height. Its
    # h2ph band is topographic phase over height over 4 pi / lambda.
    scene = amsterdam("20230319")
    reference = fit_orbit(scene.time_s, scene.position, scene.velocity, -0.5, 3.7)
    times, position, velocity = scene.secondaries["19Mar2023"]
    secondary = fit_orbit(times, position, velocity, times[2], times[-3])
    middle_s = 0.5 * scene.grid.lines * scene.grid.azimuth_time_interval_s
    place = evaluate_orbit(reference, middle_s)[0][0]
    dense = np.linspace(times[2], times[-3], 20001)
    nearest = dense[np.argmin(np.linalg.norm(evaluate_orbit(secondary, dense)[0] - place, axis=1))]
    shifted = scene.grid._replace(first_line_time_s=float(nearest) - middle_s)
    offsets = fit_burst_offsets((reference, scene.grid), (secondary, shifted), (-50.0, 200.0))
    baseline = perpendicular_baseline(
        offsets.range, (scene.grid, shifted), np.array(954.0), np.array(9347.0), np.array(45.0),
        np.array(np.radians(43.057)),
    )  # fmt: skip
    range_m = scene.grid.near_range_m + 9347.0 * scene.grid.range_spacing_m
    ours = -float(baseline) / (range_m * np.sin(np.radians(43.057)))
    assert 0.5 * WAVELENGTH_M / ours == pytest.approx(-526.36, rel=0.02)
    h2ph = float(np.median(scene.band("h2ph_VV_19Mar2023")))
    assert h2ph == pytest.approx(ours, rel=0.04)


def test_pixels_lie_where_snap_says(amsterdam: Callable) -> None:
    # SNAP's latitude and longitude of every pixel come from its own inverse geocoding.
    scene = amsterdam("20230331")
    orbit = fit_orbit(scene.time_s, scene.position, scene.velocity, -0.5, 3.7)
    interval_s = scene.grid.azimuth_time_interval_s
    time_s = interval_s * (scene.first_line + np.arange(84.0))
    range_m = scene.grid.near_range_m + scene.grid.range_spacing_m * (
        scene.first_sample + np.arange(338.0)
    )
    level = float(np.median(scene.band("elevation_VV")))
    heights = np.full((30, 60), level, np.float32)
    latitude, longitude, height, status = rdr2geo(
        orbit, time_s, range_m, heights, (52.42, 4.86, -0.003, 0.001)
    )
    assert (status == 0).all()
    north_m = (np.degrees(latitude) - scene.band("latitude_VV")) * 111_000.0
    east_m = (np.degrees(longitude) - scene.band("longitude_VV")) * 68_000.0
    # float32 degrees, and pixels whose height differs from the median.
    assert np.abs(np.median(north_m)) < 5.0
    assert np.abs(np.median(east_m)) < 5.0
    _, incidence = look_vectors(orbit, time_s, latitude, longitude, height)
    assert 42.5 < np.degrees(incidence.mean()) < 43.5


def test_a_shift_and_its_opposite_keep_the_coherence(amsterdam: Callable) -> None:
    # Real speckle with its real spectrum: two fractional shifts in turn against the original.
    scene = amsterdam("20230331")
    carrier = build_carrier(
        scene.grid,
        steering_rate_rad_s=scene.steering_rate_rad_s,
        speed_m_s=float(np.linalg.norm(scene.velocity[11])),
        radar_frequency_hz=scene.radar_frequency_hz,
        fm_rate=RangePolynomials(*scene.fm_rate),
        doppler_centroid=RangePolynomials(*scene.doppler),
    )
    domain = offset_domain(scene.grid.lines, scene.grid.samples, (0.0, 100.0))
    taps = (design_taps(486.486, 327.0, 0.70, 8), design_taps(64.345e6, 42.79e6, 0.75, 8))
    zero = zero_offsets(domain)
    assert float(evaluate_points(zero, 0.0, 0.0, 0.0)) == 0.0
    image = scene.samples
    for shift in ((0.37, -0.42), (-0.37, 0.42)):
        plan = plan_resampling(
            (zero, zero), shift, taps, carrier, scene.grid, scene.grid, WAVELENGTH_M
        )
        pixels = np.rint(np.stack([image.real, image.imag], axis=-1)).astype(np.int16)
        window = SourceWindow(pixels, scene.first_line, scene.first_sample, (0, 1524, 0, 25583))
        origin = (scene.first_line, scene.first_sample)
        image = resample_burst_tile(
            window, plan, np.zeros((84, 338), np.float32), origin, (84, 338)
        )
    inside = (slice(10, -10), slice(10, -10))
    truth, found = scene.samples[inside], image[inside]
    assert coherence(truth, found) > 0.999
    assert abs(np.angle(np.sum(truth * found.conj()))) < 0.002
