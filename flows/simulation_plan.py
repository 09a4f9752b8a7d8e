"""Plan of a simulated stack: timing, orbits, ground, scatterers. No pixels, no files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bperp.flows.simulation_options import SimulationOptions
from bperp.flows.simulation_radar import (
    BEAM_CYCLE_S,
    BUILT_IN,
    Passage,
    Radar,
    RangePolynomial,
    SwathConstants,
    burst_count,
    geometric_fm_rate,
    place_passage,
    read_template,
)
from bperp.kernels.simulation.noise import (
    DAYS_PER_YEAR,
    Decorrelation,
    generator,
    power_law_surface,
)
from bperp.kernels.simulation.orbit import (
    SEMI_MAJOR_AXIS_M,
    SPEED_OF_LIGHT_M_S,
    OrbitPolynomial,
    displace_state,
    evaluate_orbit,
    fit_orbit,
    geodetic_to_ecef,
    intersect_ellipsoid,
    propagate,
)
from bperp.kernels.simulation.scene import (
    Field,
    Ground,
    PersistentScatterers,
    Raster,
    bowl_and_ramp,
    draw_persistent,
    ground_coordinates,
    ground_to_geodetic,
)

Array = NDArray[np.float64]

GROUND_MARGIN_LINES = 64
GROUND_MARGIN_SAMPLES = 48
FIELD_STEP = (8, 24)
"""Lines and samples between the nodes of smooth fields, about 110 m by 100 m."""
_STREAM_DATE_PLAN = 21
_STREAM_TERRAIN = 22
_STREAM_ATMOSPHERE = 23
_LINE_M = 13.98


@dataclass(frozen=True)
class SwathPlan:
    """One swath of the stack."""

    name: str
    constants: SwathConstants
    first_lines: tuple[int, ...]
    """Nominal first line of each burst, counted from ``ScenePlan.origin_s``."""
    near_range_time_s: float
    fm_rates: tuple[RangePolynomial, ...]
    """One before the first burst, one per burst, one after."""
    burst_ids: tuple[int, ...]


@dataclass(frozen=True)
class DatePlan:
    """One acquisition."""

    index: int
    date: np.datetime64
    day: float
    """Days since the first date."""
    node_ns: int
    absolute_orbit: int
    state: Array
    orbit: OrbitPolynomial
    azimuth_shift_lines: float
    range_shift_samples: float
    burst_times_ns: dict[str, tuple[int, ...]]
    """Annotated zero-Doppler time of the first line of each burst."""
    doppler_offset_hz: float
    turbulence: Raster
    path: Field
    """Delay minus displacement of the distributed ground."""


@dataclass(frozen=True)
class ScenePlan:
    """Everything the pixels follow from."""

    options: SimulationOptions
    radar: Radar
    passage: Passage
    origin_s: float
    """Time of line zero, seconds since the ascending node."""
    middle_s: float
    """Time at which the states of the dates hold."""
    swaths: tuple[SwathPlan, ...]
    dates: tuple[DatePlan, ...]
    ground: Ground
    anchor: tuple[float, float, float]
    """Latitude (rad), longitude (rad), height (m) of the scene centre."""
    elevation: Raster
    velocity: Raster
    """Of the distributed ground in m/yr over lines and samples."""
    persistent: PersistentScatterers
    decorrelation: Decorrelation

    @property
    def years(self) -> Array:
        """Years of all dates since the reference date."""
        days = np.array([date.day for date in self.dates])
        result: Array = (days - days[self.options.reference_index]) / DAYS_PER_YEAR
        return result


def plan_scene(options: SimulationOptions) -> ScenePlan:
    """Work out timing, orbits, ground and scatterers.

    Parameters
    ----------
    options : SimulationOptions

    Returns
    -------
    ScenePlan

    Raises
    ------
    ConfigurationError
        C102 for options out of range.
    """
    options.check()
    template = options.template
    radar = BUILT_IN if template is None else read_template(template, options.polarization)
    height = options.base_height_m + 0.5 * options.relief_m
    near = _near_times(options, radar)
    spacing = radar.sample_spacing_m
    far_m = 0.5 * SPEED_OF_LIGHT_M_S * near[-1] + options.samples * spacing
    near_m = 0.5 * SPEED_OF_LIGHT_M_S * near[0]
    passage = radar.passage or place_passage(options, 0.5 * (near_m + far_m), height)
    first_lines, origin = _burst_lines(options, radar, passage)
    last = max(max(lines) for lines in first_lines) + options.lines_per_burst
    middle = origin + 0.5 * last * radar.line_interval_s
    state = propagate(passage.state, passage.middle_s, np.array([middle]))[0]
    orbit = _fit(state, middle, origin, last * radar.line_interval_s)
    start = _first_place(state, height)
    centre = intersect_ellipsoid(
        orbit, np.array([middle]), np.array([0.5 * (near_m + far_m)]), np.array([height]), start
    )[:, 0]
    anchor = (float(centre[0]), float(centre[1]), height)
    margin = GROUND_MARGIN_SAMPLES + int(
        (0.5 * options.relief_m + 3.0 * options.parallel_baseline_std_m) / spacing
    )
    ground = ground_coordinates(
        orbit,
        (origin - GROUND_MARGIN_LINES * radar.line_interval_s, near_m - margin * spacing),
        (radar.line_interval_s, spacing),
        (last + 2 * GROUND_MARGIN_LINES, round((far_m - near_m) / spacing) + 2 * margin),
        anchor,
    )
    velocity = _velocity_field(options, ground, anchor)
    swaths = _swath_plans(options, radar, near, (first_lines, origin), (orbit, anchor, passage))
    target = geodetic_to_ecef(*(np.float64(v) for v in anchor))
    return ScenePlan(
        options,
        radar,
        passage,
        origin,
        middle,
        swaths,
        tuple(
            _plan_date(
                options,
                index,
                (radar, passage, swaths),
                (origin, middle, last),
                state,
                target,
                (ground, velocity),
            )
            for index in range(len(options.date_list()))
        ),
        ground,
        anchor,
        _terrain(options, ground, anchor),
        velocity,
        _persistent(options, ground, anchor),
        Decorrelation(
            options.coherence_initial,
            options.coherence_long_term,
            options.coherence_decay_days,
            options.coherence_seasonal_loss,
            options.coherence_worst_day_of_year,
            10.0 ** (0.1 * options.signal_to_noise_db),
        ),
    )


def _first_place(state: Array, height_m: float) -> Array:
    # Two hundred kilometres to the right of the nadir: on the side the antenna looks to.
    right = np.cross(state[3:], state[:3])
    spot = state[:3] + 0.3e6 * right / np.linalg.norm(right)
    spot *= (SEMI_MAJOR_AXIS_M + height_m) / np.linalg.norm(spot)
    return np.array([np.arcsin(spot[2] / np.linalg.norm(spot)), np.arctan2(spot[1], spot[0])])


def _fit(state: Array, middle_s: float, origin_s: float, duration_s: float) -> OrbitPolynomial:
    times = np.linspace(origin_s - 6.0, origin_s + duration_s + 6.0, 33)
    return fit_orbit(times, propagate(state, middle_s, times))


def _near_times(options: SimulationOptions, radar: Radar) -> list[float]:
    """Crop the swaths so that neighbours overlap; all lie on one grid of range samples."""
    rate = radar.sampling_rate_hz
    first = radar.swaths[options.swaths[0]]
    if len(options.swaths) == 1:
        start = first.slant_range_time_s + (first.full_samples - options.samples) // 2 / rate
        return [start]
    overlap = options.swath_overlap_samples + sum(options.invalid_samples)
    step = (options.samples - overlap) / rate
    second = radar.swaths[options.swaths[1]].slant_range_time_s + 200.0 / rate
    start = first.slant_range_time_s
    start += round((second - step - start) * rate) / rate
    return [start + k * step for k in range(len(options.swaths))]


def _burst_lines(
    options: SimulationOptions, radar: Radar, passage: Passage
) -> tuple[list[tuple[int, ...]], float]:
    """Place the bursts on the beam cycle; return first lines per swath and the time of line 0."""
    interval = radar.line_interval_s
    valid = options.lines_per_burst - sum(options.invalid_lines)
    long = options.overlap_lines is None and valid * interval > BEAM_CYCLE_S
    count = options.bursts_per_swath
    overlap = 80 if options.overlap_lines is None else options.overlap_lines
    spacing = BEAM_CYCLE_S if long else (valid - overlap) * interval
    delays = np.array([radar.swaths[name].delay_s for name in options.swaths])
    delays -= radar.swaths[options.swaths[0]].delay_s
    if not long:
        delays = np.abs(delays) * spacing / BEAM_CYCLE_S
        _refuse_many_short(count, spacing, float(delays.max()))
    wanted = passage.middle_s - 0.5 * (count - 1) * spacing
    first_delay = radar.swaths[options.swaths[0]].delay_s
    # Position of the first burst middle in the beam cycle: as in reality, or (short bursts) with
    # the change of identifier half-way between the last first and the first second burst.
    place = (radar.beam_fraction + first_delay / BEAM_CYCLE_S) % 1.0
    if not long:
        ahead = 0.5 * (float(delays.max()) + spacing) if count == 2 else 0.5 * BEAM_CYCLE_S
        place = 1.0 - ahead / BEAM_CYCLE_S
    cycles = burst_count(wanted, passage.track - 1)
    first = wanted + (round(cycles - place) + place - cycles) * BEAM_CYCLE_S
    middles = first + delays[:, None] + spacing * np.arange(count)[None, :]
    starts = middles - 0.5 * options.lines_per_burst * interval
    origin = float(starts.min())
    lines = np.rint((starts - origin) / interval).astype(int)
    return [tuple(int(n) for n in row) for row in lines], origin


def _refuse_many_short(count: int, spacing_s: float, delay_s: float) -> None:
    from bperp.stores.errors import ConfigurationError

    if count > 2 or spacing_s <= delay_s:
        raise ConfigurationError(
            "C102",
            "bursts that follow faster than the beam cycle would share burst identifiers",
            where="bursts_per_swath",
            expected="at most 2 short bursts, or 1380 lines and more per burst",
            found=f"{count} bursts every {spacing_s:.3f} s",
            remedy="use fewer bursts or lines_per_burst=1501 with overlap_lines=None",
        )


def _swath_plans(
    options: SimulationOptions,
    radar: Radar,
    near: list[float],
    timing: tuple[list[tuple[int, ...]], float],
    place: tuple[OrbitPolynomial, tuple[float, float, float], Passage],
) -> tuple[SwathPlan, ...]:
    first_lines, origin = timing
    orbit, anchor, passage = place
    interval = radar.line_interval_s
    plans = []
    for name, start, lines in zip(options.swaths, near, first_lines, strict=True):
        constants = radar.swaths[name]
        middles = [origin + (n + 0.5 * options.lines_per_burst) * interval for n in lines]
        step = middles[1] - middles[0] if len(middles) > 1 else BEAM_CYCLE_S
        around = [middles[0] - step, *middles, middles[-1] + step]
        rates = tuple(
            constants.fm_rate
            or geometric_fm_rate(orbit, time, radar.wavelength_m, constants, anchor)
            for time in around
        )
        ids = tuple(int(np.floor(burst_count(m, passage.track - 1))) + 1 for m in middles)
        plans.append(SwathPlan(name, constants, lines, start, rates, ids))
    return tuple(plans)


def _plan_date(
    options: SimulationOptions,
    index: int,
    design: tuple[Radar, Passage, tuple[SwathPlan, ...]],
    timing: tuple[float, float, int],
    state: Array,
    target: Array,
    fields: tuple[Ground, Raster],
) -> DatePlan:
    radar, passage, swaths = design
    origin, middle, last = timing
    random = generator(options.seed, _STREAM_DATE_PLAN, index)
    draws = np.clip(random.standard_normal(7), -2.5, 2.5)
    is_reference = index == options.reference_index
    perpendicular = 0.0 if is_reference else options.baseline_std_m * draws[0]
    if options.baselines_m:
        perpendicular = options.baselines_m[index]
    parallel = (
        0.0 if is_reference or options.baselines_m else options.parallel_baseline_std_m * draws[1]
    )
    azimuth = 0.0 if is_reference else options.azimuth_misregistration_std_lines * draws[2]
    if options.azimuth_misregistration_lines:
        azimuth = options.azimuth_misregistration_lines[index]
    shift = 0.0 if is_reference else options.range_misregistration_std_samples * draws[3]
    if options.range_misregistration_samples:
        shift = options.range_misregistration_samples[index]
    dates = options.date_list()
    own = displace_state(state, target, float(perpendicular), float(parallel))
    node = np.datetime64(f"{dates[index]}T{passage.node_time}", "ns").astype(np.int64)
    node_ns = int(node) + int(random.integers(0, 1_000_000)) * 1000
    sync = options.burst_sync_std_lines * draws[4]
    turbulence = _turbulence(options, index, fields[0])
    years = float((dates[index] - dates[options.reference_index]).astype(int)) / DAYS_PER_YEAR
    lengthening = turbulence.values - fields[1].values * np.float32(years)
    return DatePlan(
        index,
        dates[index],
        float((dates[index] - dates[0]).astype(int)),
        node_ns,
        _absolute_orbit(options, passage, dates[index]),
        own,
        _fit(own, middle, origin, last * radar.line_interval_s),
        float(azimuth),
        float(shift),
        {
            swath.name: _annotated_times(
                options, swath, node_ns, origin + sync * radar.line_interval_s, radar, random
            )
            for swath in swaths
        },
        4.0 * float(draws[5]),
        turbulence,
        Field(
            turbulence._replace(values=lengthening),
            options.stratified_std_per_km * 1e-3 * float(draws[6]),
            fields[0].height_m,
        ),
    )


def _annotated_times(
    options: SimulationOptions,
    swath: SwathPlan,
    node_ns: int,
    start_s: float,
    radar: Radar,
    random: np.random.Generator,
) -> tuple[int, ...]:
    jitter = options.burst_jitter_lines
    offsets = random.integers(-jitter, jitter + 1, len(swath.first_lines))
    times = []
    for first, offset in zip(swath.first_lines, offsets, strict=True):
        since_node = start_s + (first + int(offset)) * radar.line_interval_s
        times.append(node_ns + round(since_node * 1e6) * 1000)
    return tuple(times)


def _absolute_orbit(options: SimulationOptions, passage: Passage, date: np.datetime64) -> int:
    # 2014-04-15 is close to the first orbit of S1A; only the remainder of 175 must be right.
    cycles = round(float((date - np.datetime64("2014-04-15")).astype(int)) / 12.0)
    first = options.first_absolute_orbit() - options.track + passage.track
    return max(first, first + 175 * cycles)


def _field_grid(ground: Ground) -> tuple[Array, Array]:
    rows = np.arange(0, ground.lines + FIELD_STEP[0], FIELD_STEP[0], dtype=np.float64)
    columns = np.arange(0, ground.samples + FIELD_STEP[1], FIELD_STEP[1], dtype=np.float64)
    return rows, columns


def _velocity_field(
    options: SimulationOptions, ground: Ground, anchor: tuple[float, float, float]
) -> Raster:
    rows, columns = _field_grid(ground)
    line, sample = (grid.ravel() for grid in np.meshgrid(rows, columns, indexing="ij"))
    latitude, longitude = ground_to_geodetic(ground, line, sample)
    velocity = velocity_at(options, anchor, latitude, longitude)
    values = velocity.reshape(len(rows), len(columns)).astype(np.float32)
    return Raster(values, 0.0, float(FIELD_STEP[0]), 0.0, float(FIELD_STEP[1]))


def velocity_at(
    options: SimulationOptions,
    anchor: tuple[float, float, float],
    latitude_rad: Array,
    longitude_rad: Array,
) -> Array:
    """Return the line-of-sight velocity of the ground in m/yr, towards the satellite."""
    east = (longitude_rad - anchor[1]) * SEMI_MAJOR_AXIS_M * np.cos(anchor[0])
    north = (latitude_rad - anchor[0]) * SEMI_MAJOR_AXIS_M
    ramp = (options.ramp_m_yr_per_km[0] * 1e-3, options.ramp_m_yr_per_km[1] * 1e-3)
    bowl = (options.bowl_velocity_m_yr, options.bowl_radius_m)
    return np.asarray(bowl_and_ramp(east, north, bowl, ramp))


def _ground_spacing(ground: Ground) -> float:
    line = np.full(2, 0.5 * ground.lines)
    sample = 0.5 * ground.samples + np.array([-50.0, 50.0])
    latitude, longitude = ground_to_geodetic(ground, line, sample)
    ends = geodetic_to_ecef(latitude, longitude, np.full(2, ground.height_m))
    return float(np.linalg.norm(ends[1] - ends[0])) / 100.0


def _turbulence(options: SimulationOptions, index: int, ground: Ground) -> Raster:
    rows, columns = _field_grid(ground)
    spacing = (FIELD_STEP[0] * _LINE_M, FIELD_STEP[1] * _ground_spacing(ground))
    random = generator(options.seed, _STREAM_ATMOSPHERE, index)
    surface = power_law_surface((len(rows), len(columns)), spacing, 8.0 / 3.0, 0.0, random)
    values = (options.turbulence_rms_m * surface).astype(np.float32)
    return Raster(values, 0.0, float(FIELD_STEP[0]), 0.0, float(FIELD_STEP[1]))


def _terrain(
    options: SimulationOptions, ground: Ground, anchor: tuple[float, float, float]
) -> Raster:
    step = options.dem_posting_deg
    edge = np.linspace(0.0, 1.0, 20)
    line = np.concatenate([edge * 0, edge * 0 + 1, edge, edge]) * ground.lines
    sample = np.concatenate([edge, edge, edge * 0, edge * 0 + 1]) * ground.samples
    latitude, longitude = (np.degrees(v) for v in ground_to_geodetic(ground, line, sample))
    margin = np.degrees(options.dem_margin_m / SEMI_MAJOR_AXIS_M)
    wide = margin / np.cos(anchor[0])
    top, bottom = (
        np.ceil((latitude.max() + margin) / step),
        np.floor((latitude.min() - margin) / step),
    )
    left, right = (
        np.floor((longitude.min() - wide) / step),
        np.ceil((longitude.max() + wide) / step),
    )
    shape = (int(top - bottom) + 1, int(right - left) + 1)
    metres = np.radians(step) * SEMI_MAJOR_AXIS_M
    random = generator(options.seed, _STREAM_TERRAIN)
    surface = power_law_surface(
        shape, (metres, metres * float(np.cos(anchor[0]))), 4.0, options.relief_smoothing_m, random
    )
    surface -= surface.min()
    heights = options.base_height_m + options.relief_m * surface / surface.max()
    radians = float(np.radians(step))
    return Raster(
        heights.astype(np.float32), float(top) * radians, -radians, float(left) * radians, radians
    )


def _persistent(
    options: SimulationOptions, ground: Ground, anchor: tuple[float, float, float]
) -> PersistentScatterers:
    side = 1000.0 / np.sqrt(options.persistent_per_km2)
    return draw_persistent(
        options.seed,
        (ground.lines, ground.samples),
        (side / _LINE_M, side / _ground_spacing(ground)),
        (options.dem_error_std_m, options.own_velocity_std_m_yr),
        (*options.signal_to_clutter_db, *options.signal_to_clutter_limits_db),
    )
