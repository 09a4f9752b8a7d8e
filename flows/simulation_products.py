"""Files of a simulated stack: SAFE products, orbit files, elevation model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bperp.flows.simulation_plan import DatePlan, ScenePlan, SwathPlan
from bperp.flows.simulation_radar import burst_count
from bperp.flows.simulation_render import valid_rectangle
from bperp.kernels.simulation.noise import generator
from bperp.kernels.simulation.orbit import (
    SPEED_OF_LIGHT_M_S,
    evaluate_orbit,
    geodetic_to_ecef,
    intersect_ellipsoid,
    local_axes,
    propagate,
)
from bperp.kernels.simulation.scene import interpolate
from bperp.stores.eof_writer import write_orbit_file
from bperp.stores.geotiff_writer import write_elevation
from bperp.stores.safe_writer import (
    BurstRecord,
    GridPoint,
    PolynomialRecord,
    ProductRecord,
    SwathRecord,
)

Array = NDArray[np.float64]

_ORBIT_FILE_REACH_S = 610
_ANNOTATED_VECTORS = 17
_GRID_COLUMNS = 21
# The middle of the IW2 burst of a cycle, which carries the number, after the sensing of the burst's
# own first line; whatever the length of the simulated burst, its number follows from this time.
_SENSING_TO_CYCLE_MIDDLE_S = {"IW1": 1.371, "IW2": 0.539, "IW3": -0.539}
_STREAM_ANNOTATION = 31
_SECOND_NS = 1_000_000_000


def write_orbit(plan: ScenePlan, date: DatePlan, folder: Path) -> Path:
    """Write the precise orbit of a date: vectors every 10 s, ten minutes before and after."""
    middle_ns = date.node_ns + round(plan.frame.middle_s * 1e9)
    first = (middle_ns // (10 * _SECOND_NS)) * 10 * _SECOND_NS - _ORBIT_FILE_REACH_S * _SECOND_NS
    times = first + np.arange(2 * _ORBIT_FILE_REACH_S // 10 + 1, dtype=np.int64) * 10 * _SECOND_NS
    states = propagate(date.state, plan.frame.middle_s, _seconds(times - date.node_ns))
    return write_orbit_file(folder, plan.options.mission, times, states, date.absolute_orbit)


def write_terrain(plan: ScenePlan, path: Path) -> None:
    """Write the elevation model on its own grid."""
    raster = plan.elevation
    posting = float(np.degrees(raster.column_step))
    corner = (float(np.degrees(raster.first_row)), float(np.degrees(raster.first_column)))
    write_elevation(path, raster.values, corner, (posting, posting))


def product_record(plan: ScenePlan, date: DatePlan) -> ProductRecord:
    """Collect what the images of a date share."""
    times = [t for swath in date.burst_times_ns.values() for t in swath]
    duration = _burst_duration_ns(plan)
    ends = _corners(plan)
    return ProductRecord(
        plan.options.mission,
        plan.options.polarization,
        date.absolute_orbit,
        plan.frame.passage.track,
        plan.frame.passage.orbit_direction,
        (date.absolute_orbit * 8) & 0xFFFFFF,
        min(times),
        max(times) + duration,
        date.node_ns,
        plan.options.ipf_version,
        ends,
    )


def _seconds(elapsed_ns: NDArray[np.int64]) -> Array:
    return elapsed_ns.astype(np.float64) * 1e-9


def _burst_duration_ns(plan: ScenePlan) -> int:
    """From the first to the last line, in whole microseconds like every annotated time."""
    return round((plan.options.lines_per_burst - 1) * plan.radar.line_interval_s * 1e6) * 1000


def _corners(plan: ScenePlan) -> tuple[tuple[float, float], ...]:
    times = np.array([0.0, 0.0, 1.0, 1.0]) * plan.ground.lines * plan.ground.line_interval_s
    ranges = np.array([0.0, 1.0, 1.0, 0.0]) * plan.ground.samples * plan.ground.sample_spacing_m
    reference = plan.dates[plan.options.reference_index].orbit
    place = intersect_ellipsoid(
        reference,
        plan.ground.first_line_s + times,
        plan.ground.first_sample_m + ranges,
        np.full(4, plan.anchor[2]),
        np.array(plan.anchor[:2]),
    )
    return tuple((float(a), float(b)) for a, b in np.degrees(place).T)


def swath_record(
    plan: ScenePlan, date: DatePlan, swath: SwathPlan, product: ProductRecord
) -> SwathRecord:
    """Collect the annotation of one image; byte offsets are filled in by the writer."""
    constants, radar, options = swath.constants, plan.radar, plan.options
    noise = options.clutter_amplitude**2 / (1.0 + plan.decorrelation.signal_to_noise)
    times, states = _annotated_orbit(plan, date)
    return SwathRecord(
        product,
        swath.name,
        [s.name for s in plan.swaths].index(swath.name) + 1,
        options.lines_per_burst,
        options.samples,
        radar.line_interval_s,
        swath.near_range_time_s,
        radar.sampling_rate_hz,
        radar.frequency_hz,
        constants.steering_rate_deg_s,
        constants.pri_s,
        constants.rank,
        constants.pulse_length_s,
        constants.pulse_rate_hz_s,
        constants.window_start_s,
        (constants.range_bandwidth_hz, 0.75),
        constants.azimuth_band,
        _heading(plan, date),
        noise,
        _bursts(plan, date, swath),
        *_polynomials(plan, date, swath),
        times,
        states,
        _grid(plan, date, swath),
    )


def _annotated_orbit(plan: ScenePlan, date: DatePlan) -> tuple[NDArray[np.int64], Array]:
    """Predicted state vectors: the true orbit with a smooth error."""
    middle_ns = date.node_ns + round(plan.frame.middle_s * 1e6) * 1000
    steps = np.arange(_ANNOTATED_VECTORS, dtype=np.int64) - _ANNOTATED_VECTORS // 2
    times = middle_ns + steps * 10 * _SECOND_NS
    states = propagate(date.state, plan.frame.middle_s, _seconds(times - date.node_ns))
    random = generator(plan.options.seed, _STREAM_ANNOTATION, date.index)
    error = random.normal(0.0, plan.options.annotation_orbit_error_m / np.sqrt(3.0), 3)
    drift = random.normal(0.0, plan.options.annotation_orbit_error_m / 1000.0, 3)
    states[:, :3] += error + drift * (steps * 10.0)[:, None]
    states[:, 3:] += drift
    return times, np.round(states, 6)


def _heading(plan: ScenePlan, date: DatePlan) -> float:
    _, velocity, _ = evaluate_orbit(date.orbit, np.array([plan.frame.middle_s]))
    east, north, _ = local_axes(np.float64(plan.anchor[0]), np.float64(plan.anchor[1]))
    return float(np.degrees(np.arctan2(velocity[0] @ east, velocity[0] @ north)))


def _bursts(plan: ScenePlan, date: DatePlan, swath: SwathPlan) -> tuple[BurstRecord, ...]:
    half = 0.5 * plan.options.lines_per_burst * plan.radar.line_interval_s
    records = []
    for time, burst_id in zip(date.burst_times_ns[swath.name], swath.burst_ids, strict=True):
        middle = (time - date.node_ns) * 1e-9 + half
        absolute = int(np.floor(burst_count(middle, date.absolute_orbit - 1))) + 1
        ahead = half - _SENSING_TO_CYCLE_MIDDLE_S[swath.name]
        sensing = time + round(ahead * 1e6) * 1000
        records.append(BurstRecord(time, sensing, 0, burst_id, absolute, valid_rectangle(plan)))
    return tuple(records)


def _polynomials(
    plan: ScenePlan, date: DatePlan, swath: SwathPlan
) -> tuple[tuple[PolynomialRecord, ...], tuple[PolynomialRecord, ...]]:
    half = round(0.5e6 * plan.options.lines_per_burst * plan.radar.line_interval_s) * 1000
    middles = [time + half for time in date.burst_times_ns[swath.name]]
    step = middles[1] - middles[0] if len(middles) > 1 else 2_758_273_000
    times = [middles[0] - step, *middles, middles[-1] + step]
    rates = tuple(
        PolynomialRecord(time, rate.range_time_s, rate.coefficients)
        for time, rate in zip(times, swath.fm_rates, strict=True)
    )
    truth = swath.constants.doppler
    key = [s.name for s in plan.swaths].index(swath.name)
    random = generator(plan.options.seed, _STREAM_ANNOTATION, date.index, key)
    estimates = []
    for time in times:
        error = plan.options.doppler_noise_hz * float(random.standard_normal())
        shifted = truth.coefficients[0] + date.doppler_offset_hz + error
        estimates.append(
            PolynomialRecord(
                time,
                truth.range_time_s,
                (shifted, *truth.coefficients[1:]),
                (2.050891, -474.3369, 87534.53),
            )
        )
    return rates, tuple(estimates)


def _grid(plan: ScenePlan, date: DatePlan, swath: SwathPlan) -> tuple[GridPoint, ...]:
    options, radar = plan.options, plan.radar
    pixels = np.round(np.linspace(0, options.samples - 1, _GRID_COLUMNS)).astype(int)
    starts = list(date.burst_times_ns[swath.name])
    lines = [b * options.lines_per_burst for b in range(len(starts))]
    lines.append(len(starts) * options.lines_per_burst - 1)
    starts.append(starts[-1] + _burst_duration_ns(plan))
    count = len(lines) * len(pixels)
    time_ns = np.repeat(np.array(starts, dtype=np.int64), len(pixels))
    delay = np.tile(swath.near_range_time_s + pixels / radar.sampling_rate_hz, len(lines))
    time = _seconds(time_ns - date.node_ns)
    distance = 0.5 * SPEED_OF_LIGHT_M_S * delay
    height = np.full(count, plan.anchor[2])
    for _ in range(8):
        place = intersect_ellipsoid(date.orbit, time, distance, height, np.array(plan.anchor[:2]))
        height = interpolate(plan.elevation, place[0], place[1])
    place = intersect_ellipsoid(date.orbit, time, distance, height, np.array(plan.anchor[:2]))
    incidence, elevation = _angles(date, time, place, height)
    index = [(line, int(pixel)) for line in lines for pixel in pixels]
    return tuple(
        GridPoint(
            int(time_ns[i]),
            float(delay[i]),
            *index[i],
            float(np.degrees(place[0, i])),
            float(np.degrees(place[1, i])),
            float(height[i]),
            float(incidence[i]),
            float(elevation[i]),
        )
        for i in range(count)
    )


def _angles(date: DatePlan, time_s: Array, place: Array, height_m: Array) -> tuple[Array, Array]:
    """Incidence angle at the ground and elevation angle at the satellite, in degrees."""
    position, _, _ = evaluate_orbit(date.orbit, time_s)
    ground = geodetic_to_ecef(place[0], place[1], height_m)
    sight = position - ground
    sight /= np.linalg.norm(sight, axis=1, keepdims=True)
    _, _, up = local_axes(place[0], place[1])
    nadir = position / np.linalg.norm(position, axis=1, keepdims=True)
    incidence = np.degrees(np.arccos(np.sum(sight * up, axis=1)))
    return incidence, np.degrees(np.arccos(np.sum(sight * nadir, axis=1)))
