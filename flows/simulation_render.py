"""Pixels of a simulated stack: one burst on all dates at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bperp.flows.simulation_plan import GROUND_MARGIN_LINES, DatePlan, ScenePlan, SwathPlan
from bperp.kernels.simulation.noise import evolve_field, field_weights
from bperp.kernels.simulation.orbit import (
    SPEED_OF_LIGHT_M_S,
    evaluate_orbit,
    geodetic_to_ecef,
)
from bperp.kernels.simulation.scene import (
    draw_ground,
    draw_innovation,
    ground_to_geodetic,
    interpolate,
    locate,
    path_over_ground,
    tiles_within,
)
from bperp.kernels.simulation.signal import (
    PAD_SAMPLES,
    BurstSignal,
    Response,
    Targets,
    add_targets,
    build_response,
    carrier_line,
    form_lines,
    quantise,
    steering_doppler_rate,
    transform_length,
)

Array = NDArray[np.float64]
_BLOCK_LINES = 256
_LINES_AROUND = 40


@dataclass(frozen=True)
class PersistentTruth:
    """Persistent scatterers and what follows from the plan; ``n`` points, ``m`` dates."""

    latitude_rad: Array
    longitude_rad: Array
    height_m: Array
    position_m: Array
    velocity_m_yr: Array
    displacement_m: Array
    """(n, m) towards the satellite."""
    atmosphere_m: Array
    """(n, m) slant one-way delay."""
    guess_s: Array


def swath_response(plan: ScenePlan, swath: SwathPlan) -> Response:
    """Return the impulse response of a swath."""
    constants, radar = swath.constants, plan.radar
    bandwidth, coefficient = constants.azimuth_band
    return build_response(
        plan.options.samples,
        (constants.range_bandwidth_hz / radar.sampling_rate_hz, 0.75),
        (bandwidth * radar.line_interval_s, coefficient),
    )


def burst_signal(plan: ScenePlan, swath: SwathPlan, burst: int, date: DatePlan) -> BurstSignal:
    """Return where and how a burst was really acquired on a date.

    The annotation says ``azimuth_shift_lines`` later and ``range_shift_samples`` nearer than the
    truth held here, so a ground point appears that much further down and right than predicted.
    """
    radar, constants = plan.radar, swath.constants
    interval = radar.line_interval_s
    annotated = (date.burst_times_ns[swath.name][burst] - date.node_ns) * 1e-9
    middle = annotated + 0.5 * plan.options.lines_per_burst * interval
    _, velocity, _ = evaluate_orbit(date.orbit, np.array([middle]))
    steering = steering_doppler_rate(
        float(np.linalg.norm(velocity)),
        radar.frequency_hz,
        np.radians(constants.steering_rate_deg_s),
    )
    delay = swath.near_range_time_s + np.arange(plan.options.samples) / radar.sampling_rate_hz
    doppler = constants.doppler.at(delay) + date.doppler_offset_hz
    rate, offset = carrier_line(
        swath.fm_rates[burst + 1].at(delay), doppler, steering, plan.options.samples // 2
    )
    near_m = 0.5 * SPEED_OF_LIGHT_M_S * swath.near_range_time_s
    return BurstSignal(
        date.orbit,
        annotated - date.azimuth_shift_lines * interval,
        interval,
        near_m - date.range_shift_samples * radar.sample_spacing_m,
        radar.sample_spacing_m,
        radar.wavelength_m,
        rate,
        offset,
    )


def persistent_truth(plan: ScenePlan) -> PersistentTruth:
    """Work out positions, motion and delay of the persistent scatterers."""
    drawn = plan.persistent
    line, sample = drawn.line.astype(np.float64), drawn.sample.astype(np.float64)
    latitude, longitude = ground_to_geodetic(plan.ground, line, sample)
    terrain = interpolate(plan.elevation, latitude, longitude)
    height = terrain + drawn.height_error_m
    velocity = interpolate(plan.velocity, line, sample) + drawn.velocity_m_yr
    atmosphere = np.stack(
        [
            interpolate(date.turbulence, line, sample)
            + date.path.per_height * (height - date.path.height_m)
            for date in plan.dates
        ],
        axis=1,
    )
    return PersistentTruth(
        latitude,
        longitude,
        height,
        geodetic_to_ecef(latitude, longitude, height),
        velocity,
        velocity[:, None] * plan.years,
        atmosphere,
        plan.ground.first_line_s + line * plan.ground.line_interval_s,
    )


def valid_rectangle(plan: ScenePlan) -> tuple[int, int, int, int]:
    """Return the valid part of every burst: (first line, stop line, first sample, stop sample)."""
    options = plan.options
    return (
        options.invalid_lines[0],
        options.lines_per_burst - options.invalid_lines[1],
        options.invalid_samples[0],
        options.samples - options.invalid_samples[1],
    )


def render_burst(
    plan: ScenePlan, swath: SwathPlan, burst: int, persistent: PersistentTruth
) -> Iterator[NDArray[np.int16]]:
    """Simulate one burst on all dates, in order.

    Parameters
    ----------
    plan : ScenePlan
    swath : SwathPlan
    burst : int
    persistent : PersistentTruth

    Yields
    ------
    (lines, samples, 2) int16
        Digital numbers of the next date, zero where the annotation says invalid.
    """
    options = plan.options
    tiles = _tiles(plan, swath, burst)
    density = options.scatterers_per_pixel
    line, sample, lasting = draw_ground(options.seed, tiles, density)
    position = np.empty((len(line), 3))
    height = locate(plan.ground, plan.elevation, line, sample, position)
    guess = plan.ground.first_line_s + line.astype(np.float64) * plan.ground.line_interval_s
    response = swath_response(plan, swath)
    weights = _weights(plan, response)
    fading = np.zeros_like(lasting)
    amplitude = np.empty_like(lasting)
    innovation = np.empty((len(line), 4), np.float32)
    path = np.empty_like(line)
    columns = 2 * transform_length(options.samples)
    real = np.empty((options.lines_per_burst, columns), np.float32)
    imaginary = np.empty_like(real)
    peaks = _persistent_amplitude(plan)
    for date in plan.dates:
        draw_innovation(options.seed, tiles, density, date.index, innovation)
        evolve_field(fading, lasting, innovation, weights[date.index], amplitude)
        path_over_ground(date.path, line, sample, height, path)
        signal = burst_signal(plan, swath, burst, date)
        real[:], imaginary[:] = 0.0, 0.0
        add_targets(real, imaginary, signal, response, Targets(position, amplitude, path, guess))
        delay = persistent.atmosphere_m[:, date.index] - persistent.displacement_m[:, date.index]
        points = Targets(persistent.position_m, peaks, delay.astype(np.float32), persistent.guess_s)
        add_targets(real, imaginary, signal, response, points)
        yield _finish(plan, real, imaginary, response)


def _finish(
    plan: ScenePlan,
    real: NDArray[np.float32],
    imaginary: NDArray[np.float32],
    response: Response,
) -> NDArray[np.int16]:
    options = plan.options
    top, bottom, left, right = valid_rectangle(plan)
    result = np.zeros((options.lines_per_burst, options.samples, 2), np.int16)
    for start in range(0, options.lines_per_burst, _BLOCK_LINES):
        rows = slice(start, start + _BLOCK_LINES)
        image = form_lines(real[rows], imaginary[rows], response, options.samples)
        inside = (max(top - start, 0), max(min(bottom - start, len(image)), 0), left, right)
        result[rows] = quantise(image, inside)
    return result


def _tiles(plan: ScenePlan, swath: SwathPlan, burst: int) -> list[tuple[int, int]]:
    ground, options = plan.ground, plan.options
    first = swath.first_lines[burst] + GROUND_MARGIN_LINES - _LINES_AROUND
    near_m = 0.5 * SPEED_OF_LIGHT_M_S * swath.near_range_time_s
    left = (near_m - ground.first_sample_m) / ground.sample_spacing_m
    # Relief and baselines move a scatterer in range by as much as the margin of the ground.
    before = (ground.samples - plan.frame.samples) / 2
    after = left + options.samples + before
    lines = (first, first + options.lines_per_burst + 2 * _LINES_AROUND)
    return tiles_within(lines, (left - before, after))


def _weights(plan: ScenePlan, response: Response) -> Array:
    days = np.array([date.day for date in plan.dates])
    options = plan.options
    scale = options.clutter_amplitude / np.sqrt(response.power * options.scatterers_per_pixel)
    return field_weights(plan.decorrelation, days, days_of_year(plan), float(scale))


def days_of_year(plan: ScenePlan) -> Array:
    """Return the day of the year of every date."""
    return np.array(
        [float((d.date - d.date.astype("datetime64[Y]")).astype(int)) for d in plan.dates]
    )


def _persistent_amplitude(plan: ScenePlan) -> NDArray[np.complex64]:
    drawn = plan.persistent
    size = plan.options.clutter_amplitude * np.sqrt(drawn.signal_to_clutter)
    return np.asarray(size * np.exp(1j * drawn.phase_rad)).astype(np.complex64)


def image_position(
    plan: ScenePlan, signal: BurstSignal, time_s: Array, range_m: Array
) -> tuple[Array, Array]:
    """Return line and sample at which points appear in a burst."""
    line = (time_s - signal.first_line_s) / signal.line_interval_s
    return line, (range_m - signal.first_sample_m) / signal.sample_spacing_m


__all__ = [
    "PAD_SAMPLES",
    "PersistentTruth",
    "burst_signal",
    "days_of_year",
    "image_position",
    "persistent_truth",
    "render_burst",
    "swath_response",
    "valid_rectangle",
]
