"""Plan of a simulated stack: swaths, acquisitions, ground. No pixels, no files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bperp.flows.simulation_ground import (
    Anchor,
    persistent_scatterers,
    terrain,
    turbulence,
    velocity_field,
)
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
from bperp.flows.simulation_timing import (
    absolute_orbit,
    annotated_times,
    burst_lines,
    near_range_times,
)
from bperp.kernels.simulation.noise import DAYS_PER_YEAR, Decorrelation, generator
from bperp.kernels.simulation.orbit import (
    SEMI_MAJOR_AXIS_M,
    SPEED_OF_LIGHT_M_S,
    OrbitPolynomial,
    fit_orbit,
    geodetic_to_ecef,
    intersect_ellipsoid,
    propagate,
)
from bperp.kernels.simulation.passage import displace_state
from bperp.kernels.simulation.scene import (
    Field,
    Ground,
    PersistentScatterers,
    Raster,
    ground_coordinates,
)

Array = NDArray[np.float64]

GROUND_MARGIN_LINES = 64
GROUND_MARGIN_SAMPLES = 48
_STREAM_DATE_PLAN = 21
_CLIP = 2.5
"""Random properties of a date stay within so many standard deviations."""


@dataclass(frozen=True)
class SwathPlan:
    """One swath of the stack."""

    name: str
    constants: SwathConstants
    first_lines: tuple[int, ...]
    """Nominal first line of each burst, counted from ``Frame.origin_s``."""
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
    """At ``Frame.middle_s``."""
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
class Frame:
    """Extent of the scene in time and range, and the orbit that all dates share."""

    radar: Radar
    passage: Passage
    near_times_s: tuple[float, ...]
    first_lines: tuple[tuple[int, ...], ...]
    origin_s: float
    """Time of line zero, seconds since the ascending node."""
    lines: int
    near_m: float
    samples: int
    """From the first sample of the first swath to the last of the last."""
    state: Array
    """Reference orbit at ``middle_s``."""

    @property
    def middle_s(self) -> float:
        """Time at which the states hold."""
        return self.origin_s + 0.5 * self.lines * self.radar.line_interval_s

    def fit(self, state: Array) -> OrbitPolynomial:
        """Fit the orbit through a state around the scene."""
        reach = 0.5 * self.lines * self.radar.line_interval_s + 6.0
        times = self.middle_s + np.linspace(-reach, reach, 33)
        # Seven coefficients follow the orbit to 1e-8 m over 20 s and are quick to evaluate.
        return fit_orbit(times, propagate(state, self.middle_s, times), order=7)


@dataclass(frozen=True)
class ScenePlan:
    """Everything the pixels follow from."""

    options: SimulationOptions
    frame: Frame
    swaths: tuple[SwathPlan, ...]
    dates: tuple[DatePlan, ...]
    ground: Ground
    anchor: Anchor
    elevation: Raster
    velocity: Raster
    """Of the distributed ground in m/yr over lines and samples."""
    persistent: PersistentScatterers
    decorrelation: Decorrelation

    @property
    def radar(self) -> Radar:
        """Constants of the instrument."""
        return self.frame.radar

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
    frame = _frame(options)
    orbit = frame.fit(frame.state)
    anchor = _anchor(options, frame, orbit)
    ground = _ground(options, frame, orbit, anchor)
    velocity = velocity_field(options, ground, anchor)
    swaths = _swath_plans(options, frame, orbit, anchor)
    return ScenePlan(
        options,
        frame,
        swaths,
        tuple(
            _plan_date(options, frame, swaths, (ground, velocity, anchor), index)
            for index in range(len(options.date_list()))
        ),
        ground,
        anchor,
        terrain(options, ground, anchor),
        velocity,
        persistent_scatterers(options, ground),
        Decorrelation(
            options.coherence_initial,
            options.coherence_long_term,
            options.coherence_decay_days,
            options.coherence_seasonal_loss,
            options.coherence_worst_day_of_year,
            10.0 ** (0.1 * options.signal_to_noise_db),
        ),
    )


def _mean_height(options: SimulationOptions) -> float:
    return options.base_height_m + 0.5 * options.relief_m


def _frame(options: SimulationOptions) -> Frame:
    template = options.template
    radar = BUILT_IN if template is None else read_template(template, options.polarization)
    near = near_range_times(options, radar)
    near_m = 0.5 * SPEED_OF_LIGHT_M_S * near[0]
    samples = options.samples + round((near[-1] - near[0]) * radar.sampling_rate_hz)
    centre_m = near_m + 0.5 * samples * radar.sample_spacing_m
    passage = radar.passage or place_passage(options, centre_m, _mean_height(options))
    first_lines, origin = burst_lines(options, radar, passage)
    lines = max(max(row) for row in first_lines) + options.lines_per_burst
    middle = origin + 0.5 * lines * radar.line_interval_s
    state = propagate(passage.state, passage.middle_s, np.array([middle]))[0]
    return Frame(radar, passage, near, first_lines, origin, lines, near_m, samples, state)


def _anchor(options: SimulationOptions, frame: Frame, orbit: OrbitPolynomial) -> Anchor:
    height = _mean_height(options)
    centre_m = frame.near_m + 0.5 * frame.samples * frame.radar.sample_spacing_m
    # Three hundred kilometres to the right of the nadir: the side the antenna looks to.
    right = np.cross(frame.state[3:], frame.state[:3])
    spot = frame.state[:3] + 3e5 * right / np.linalg.norm(right)
    spot *= (SEMI_MAJOR_AXIS_M + height) / np.linalg.norm(spot)
    start = np.array([np.arcsin(spot[2] / np.linalg.norm(spot)), np.arctan2(spot[1], spot[0])])
    place = intersect_ellipsoid(
        orbit, np.array([frame.middle_s]), np.array([centre_m]), np.array([height]), start
    )
    return float(place[0, 0]), float(place[1, 0]), height


def _ground(
    options: SimulationOptions, frame: Frame, orbit: OrbitPolynomial, anchor: Anchor
) -> Ground:
    interval, spacing = frame.radar.line_interval_s, frame.radar.sample_spacing_m
    reach = 0.5 * options.relief_m + _CLIP * options.parallel_baseline_std_m
    margin = GROUND_MARGIN_SAMPLES + int(reach / spacing)
    return ground_coordinates(
        orbit,
        (frame.origin_s - GROUND_MARGIN_LINES * interval, frame.near_m - margin * spacing),
        (interval, spacing),
        (frame.lines + 2 * GROUND_MARGIN_LINES, frame.samples + 2 * margin),
        anchor,
    )


def _swath_plans(
    options: SimulationOptions, frame: Frame, orbit: OrbitPolynomial, anchor: Anchor
) -> tuple[SwathPlan, ...]:
    radar, orbits_before = frame.radar, frame.passage.track - 1
    plans = []
    for name, near, lines in zip(
        options.swaths, frame.near_times_s, frame.first_lines, strict=True
    ):
        constants = radar.swaths[name]
        middles = [
            frame.origin_s + (n + 0.5 * options.lines_per_burst) * radar.line_interval_s
            for n in lines
        ]
        step = middles[1] - middles[0] if len(middles) > 1 else BEAM_CYCLE_S
        rates = tuple(
            constants.fm_rate
            or geometric_fm_rate(orbit, time, radar.wavelength_m, constants, anchor)
            for time in (middles[0] - step, *middles, middles[-1] + step)
        )
        ids = tuple(int(np.floor(burst_count(m, orbits_before))) + 1 for m in middles)
        plans.append(SwathPlan(name, constants, lines, near, rates, ids))
    return tuple(plans)


def _given_or_drawn(
    given: tuple[float, ...], index: int, scale: float, draw: float, is_reference: bool
) -> float:
    if given:
        return float(given[index])
    return 0.0 if is_reference else scale * draw


def _plan_date(
    options: SimulationOptions,
    frame: Frame,
    swaths: tuple[SwathPlan, ...],
    fields: tuple[Ground, Raster, Anchor],
    index: int,
) -> DatePlan:
    ground, velocity, anchor = fields
    dates, reference = options.date_list(), options.reference_index
    random = generator(options.seed, _STREAM_DATE_PLAN, index)
    draws = [float(d) for d in np.clip(random.standard_normal(7), -_CLIP, _CLIP)]

    def choose(given: tuple[float, ...], scale: float, draw: float) -> float:
        return _given_or_drawn(given, index, scale, draw, index == reference)

    perpendicular = choose(options.baselines_m, options.baseline_std_m, draws[0])
    parallel = choose((), options.parallel_baseline_std_m, draws[1])
    state = displace_state(
        frame.state,
        geodetic_to_ecef(*(np.float64(v) for v in anchor)),
        perpendicular,
        0.0 if options.baselines_m else parallel,
    )
    node = np.datetime64(f"{dates[index]}T{frame.passage.node_time}", "ns").astype(np.int64)
    node_ns = int(node) + int(random.integers(0, 1_000_000)) * 1000
    interval = frame.radar.line_interval_s
    start = frame.origin_s + options.burst_sync_std_lines * draws[4] * interval
    jitter = (options.burst_jitter_lines, random)
    return DatePlan(
        index,
        dates[index],
        float((dates[index] - dates[0]).astype(int)),
        node_ns,
        absolute_orbit(options, frame.passage, dates[index]),
        state,
        frame.fit(state),
        choose(
            options.azimuth_misregistration_lines,
            options.azimuth_misregistration_std_lines,
            draws[2],
        ),
        choose(
            options.range_misregistration_samples,
            options.range_misregistration_std_samples,
            draws[3],
        ),
        {
            swath.name: annotated_times(swath.first_lines, node_ns, start, interval, jitter)
            for swath in swaths
        },
        4.0 * draws[5],
        *_fields(options, (ground, velocity), index, draws[6]),
    )


def _fields(
    options: SimulationOptions, ground: tuple[Ground, Raster], index: int, draw: float
) -> tuple[Raster, Field]:
    dates = options.date_list()
    days = (dates[index] - dates[options.reference_index]).astype(int)
    screen = turbulence(options, ground[0], index)
    path = screen.values - ground[1].values * np.float32(days / DAYS_PER_YEAR)
    per_height = options.stratified_std_per_km * 1e-3 * draw
    return screen, Field(screen._replace(values=path), per_height, ground[0].height_m)
