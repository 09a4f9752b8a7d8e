"""Step 12, timeseries: selected scatterers, unwrapped, as displacement and velocity.

Product ``scene/timeseries``: ``(scatterer)`` and ``(scatterer, date)``. Scatterers are selected by
one threshold on phase noise, connected by arcs, unwrapped along arcs in time and over the network
in space, referenced to an area, and fitted by velocity and elevation error.

One task for the scene: the network is global. Its memory grows with scatterers x dates and is
checked before the run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bperp.kernels.arcs import ArcSearch, MotionDesign, build_arcs, estimate_arcs
from bperp.kernels.phase_noise import gamma_threshold, random_phase_gamma
from bperp.kernels.reference_area import reference_phase, select_reference
from bperp.kernels.timeseries import displacement_from_phase, fit_velocity
from bperp.kernels.unwrapping import NetworkOptions, UnwrappedNetwork, unwrap_network
from bperp.pipeline.amplitude import complete_dates
from bperp.pipeline.layout import SCATTERER_CHUNK, column, date_coordinate, series
from bperp.pipeline.radar import EARTH_RADIUS_M, ground_spacing_m
from bperp.pipeline.scatterers import GAMMA_BINS, trial_wraps
from bperp.pipeline.scatterers import PRODUCT as SCATTERERS
from bperp.pipeline.stack import Stack
from bperp.pipeline.stage import (
    ArraySpec,
    Block,
    Computation,
    Context,
    Plan,
    Source,
    Stage,
    Task,
    Template,
)
from bperp.stores.errors import NumericsError

PRODUCT = "scene/timeseries"
RANDOM_DRAWS = 300_000
RANDOM_SEED = 2005
BYTES_PER_VALUE, BYTES_PER_SCATTERER = 400, 4000
"""Peak bytes per scatterer and date (tables, three arcs each, results) and per scatterer (graph,
factors of the network)."""

NETWORK_ROUNDS = 4
"""A network is made at most this often: each round drops scatterers without a coherent arc."""

AUTO_RADIUS_M = 500.0
"""Radius of the reference area that is chosen automatically."""

DAYS_PER_YEAR = 365.25


def _plan(context: Context) -> Plan:
    stack: Stack = context.stack
    options = dict(context.options["timeseries"])
    receipts = context.receipts("scatterers")
    dates = complete_dates(stack)
    bin_threshold, count = _select(context, dates)
    parameters = {
        "dates": [stack.date_index(date) for date in dates],
        "date_days": _days(stack),
        "reference_index": stack.date_index(stack.reference_date),
        "spacing_m": list(ground_spacing_m(stack.reference(stack.burst_ids[0]))),
        "wavelength_m": stack.reference(stack.burst_ids[0]).wavelength_m,
        "bin_threshold": bin_threshold,
        "count": count,
        "options": options,
    }
    task = Task(
        "timeseries",
        "scene",
        parameters,
        tuple(f"scatterers/{key}" for key in receipts),
        (PRODUCT,),
        memory_bytes=count * (len(dates) * BYTES_PER_VALUE + BYTES_PER_SCATTERER) + (64 << 20),
        pixels=count * len(dates),
        batch="scene",
    )
    return Plan((_template(stack, count),), (task,))


def _days(stack: Stack) -> list[int]:
    days = np.array(stack.dates, "datetime64[D]").astype(np.int64)
    return [int(day) for day in days]


def _select(context: Context, dates: list[str]) -> tuple[int, int]:
    """Return the threshold as a histogram bin, and how many scatterers reach it.

    Raises
    ------
    NumericsError
        N701 if no scatterer is stable enough.
    """
    stack: Stack = context.stack
    summaries = [receipt["summary"] for receipt in context.receipts("scatterers").values()]
    found = np.sum([item["gamma_histogram"] for item in summaries], axis=0)
    kept = np.sum([item["kept_histogram"] for item in summaries], axis=0)
    baselines = _mean_baselines(context, dates)
    noise = random_phase_gamma(baselines, trial_wraps(context), RANDOM_DRAWS, RANDOM_SEED)
    centres = (np.arange(GAMMA_BINS) + 0.5) / GAMMA_BINS
    options = context.options["scatterers"]
    percent, least = options["max_percent_random"], options["min_phase_stability"]
    gamma = np.repeat(centres, found).astype(np.float32)
    threshold = max(gamma_threshold(gamma, noise, percent), least, 1.0 / GAMMA_BINS)
    bin_threshold = min(round(threshold * GAMMA_BINS), GAMMA_BINS)
    count = int(kept[bin_threshold:].sum())
    if count == 0:
        raise NumericsError(
            "N701",
            "no scatterer is stable enough",
            where=f"{int(found.sum())} candidates on {len(dates)} dates of {stack.reference_date}",
            expected=f"phase stability of at least {threshold:.2f}",
            found="none",
            remedy="add dates, raise amplitude.max_amplitude_dispersion or "
            "scatterers.max_percent_random, or lower scatterers.min_phase_stability",
        )
    return bin_threshold, count


def _mean_baselines(context: Context, dates: list[str]) -> NDArray[np.float64]:
    """Return the mean perpendicular baseline of each date but the reference, in m."""
    stack: Stack = context.stack
    receipts = context.receipts("alignment")
    others = [date for date in dates if date != stack.reference_date]
    values = [
        list(receipts[date]["summary"]["perpendicular_baseline_m"].values()) for date in others
    ]
    return np.array([float(np.mean(bursts)) for bursts in values])


def _template(stack: Stack, count: int) -> Template:
    table = (count, len(stack.dates))

    def scalar(name: str, dtype: str, units: str, text: str, **attributes: Any) -> ArraySpec:
        return column(name, count, dtype=dtype, units=units, long_name=text, **attributes)

    arrays = (
        scalar("line", "int32", "1", "scene line"),
        scalar("sample", "int32", "1", "scene sample"),
        scalar("latitude", "float64", "degrees_north", "geodetic latitude of the elevation model",
               standard_name="latitude"),
        scalar("longitude", "float64", "degrees_east", "geodetic longitude of the elevation model",
               standard_name="longitude"),
        scalar("height", "float32", "m", "height of the elevation model above the ellipsoid"),
        scalar("incidence_angle", "float32", "rad", "incidence angle at the ellipsoid"),
        scalar("amplitude_dispersion", "float32", "1", "amplitude dispersion"),
        scalar("phase_noise", "float32", "1", "StaMPS-like gamma of the selection"),
        scalar("velocity_los", "float64", "m year-1", "line-of-sight velocity",
               positive="towards the satellite"),
        scalar("velocity_sigma", "float64", "m year-1", "standard deviation of velocity_los"),
        scalar("dem_error", "float64", "m", "height of the scatterer above the elevation model"),
        scalar("temporal_coherence", "float32", "1", "coherence of the phase with the model"),
        scalar("residual_rms", "float32", "rad", "rms phase residual of the model"),
        scalar("component", "int32", "1", "connected component of the network, 0 = none"),
        scalar("reference_mask", "uint8", "1", "1 for scatterers of the reference area"),
        series("displacement", table, dtype="float32", units="m",
               long_name="line-of-sight displacement since the reference date",
               positive="towards the satellite"),
    )  # fmt: skip
    attributes = {
        "title": "Displacement of persistent scatterers",
        "reference_date": stack.reference_date,
    }
    return Template(PRODUCT, arrays, {"date": date_coordinate(stack)}, attributes)


@dataclass(frozen=True)
class _Table:
    """Selected scatterers with the dates used."""

    columns: dict[str, NDArray[Any]]
    phase: NDArray[np.float32]
    baseline: NDArray[np.float32]

    @property
    def phasor(self) -> NDArray[np.complex64]:
        phasor: NDArray[np.complex64] = np.exp(1j * self.phase).astype(np.complex64)
        return phasor


COPIED = (
    "line",
    "sample",
    "latitude",
    "longitude",
    "height",
    "incidence_angle",
    "amplitude_dispersion",
    "phase_noise",
)


def _read(parameters: Mapping[str, Any], source: Source) -> _Table:
    everything = (slice(None),)
    kept = source.read(SCATTERERS, "kept_mask", everything) > 0
    gamma = np.nan_to_num(source.read(SCATTERERS, "phase_noise", everything))
    # The same binning as in the histograms: exactly `count` rows are left.
    selected = (gamma * GAMMA_BINS).astype(np.int64) >= parameters["bin_threshold"]
    rows = np.flatnonzero(kept & selected)
    names = (*COPIED, "slant_range")
    columns = {name: source.read(SCATTERERS, name, everything)[rows] for name in names}
    dates = parameters["dates"]
    table = (slice(None), slice(None))
    phase = source.read(SCATTERERS, "phase", table)[rows][:, dates]
    baseline = source.read(SCATTERERS, "perpendicular_baseline", table)[rows][:, dates]
    return _Table(columns, phase, baseline)


def _compute(parameters: Mapping[str, Any], source: Source) -> Computation:
    table = _read(parameters, source)
    design = _design(parameters, table)
    network = _unwrap(parameters, table, design)
    main = network.component == 1
    area = _reference_area(parameters, table, main)
    phase = np.where(main[:, np.newaxis], network.phase, np.nan)
    phase = reference_phase(phase, area)
    # The reference date takes part with its phase of zero: all dates share its noise, which the
    # free intercept absorbs, so this is the fit to the absolute phases of all dates.
    fit = fit_velocity(phase, design)
    displacement = _displacement(parameters, phase, design, fit.dem_error_m)
    in_area = np.zeros(len(main), np.uint8)
    in_area[area] = 1
    columns = {name: table.columns[name] for name in COPIED} | {
        "velocity_los": fit.velocity_m_yr,
        "velocity_sigma": fit.velocity_sigma_m_yr,
        "dem_error": fit.dem_error_m,
        "temporal_coherence": fit.temporal_coherence.astype(np.float32),
        "residual_rms": fit.residual_rms_rad.astype(np.float32),
        "component": network.component,
        "reference_mask": in_area,
        "displacement": displacement,
    }
    for name, values in columns.items():
        yield from _blocks(name, values)
    return {
        "scatterers": len(main),
        "connected": int(main.sum()),
        "components": int(network.component.max(initial=0)),
        "corrected_share": network.corrected_share,
        "phase_noise_threshold": parameters["bin_threshold"] / GAMMA_BINS,
        "reference": {
            "scatterers": len(area),
            "latitude": float(table.columns["latitude"][area].mean()),
            "longitude": float(table.columns["longitude"][area].mean()),
        },
        "flagged": {
            str(int(flag)): int(count)
            for flag, count in zip(*np.unique(fit.flags[main], return_counts=True), strict=True)
        },
    }


def _design(parameters: Mapping[str, Any], table: _Table) -> MotionDesign:
    days = np.array(parameters["date_days"], np.float64)
    years = (days - days[parameters["reference_index"]]) / DAYS_PER_YEAR
    lever = table.columns["slant_range"] * np.sin(table.columns["incidence_angle"])
    wavelength = parameters["wavelength_m"]
    return MotionDesign(
        years[parameters["dates"]], table.baseline, 4 * np.pi / (wavelength * lever), wavelength
    )


def _unwrap(parameters: Mapping[str, Any], table: _Table, design: MotionDesign) -> UnwrappedNetwork:
    """Connect the scatterers, drop those without a coherent arc, connect again, unwrap."""
    options = parameters["options"]
    position = _position_m(parameters, table)
    search = ArcSearch(options["max_arc_velocity_m_yr"], options["max_arc_dem_error_m"])
    kept = np.arange(len(position))
    for _ in range(NETWORK_ROUNDS):
        arcs = kept[build_arcs(position[kept], options["max_arc_length_m"])]
        estimates = estimate_arcs(table.phasor, arcs, design, search)
        best = np.zeros(len(position))
        for end in (0, 1):
            np.maximum.at(best, arcs[:, end], estimates.temporal_coherence)
        stable = kept[best[kept] >= options["min_arc_coherence"]]
        if len(stable) == len(kept):
            break
        kept = stable
    return unwrap_network(
        table.phase,
        arcs,
        estimates.unwrapped_phase,
        estimates.temporal_coherence,
        NetworkOptions(minimum_coherence=options["min_arc_coherence"]),
    )


def _position_m(parameters: Mapping[str, Any], table: _Table) -> NDArray[np.float64]:
    pixel = np.column_stack((table.columns["line"], table.columns["sample"]))
    metres: NDArray[np.float64] = pixel * np.array(parameters["spacing_m"])
    return metres


def _reference_area(
    parameters: Mapping[str, Any], table: _Table, main: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Return the scatterers of the reference area, all in the main component."""
    wanted = parameters["options"]["reference"]
    if wanted == "auto":
        quality = np.where(main, table.columns["phase_noise"], np.nan)
        area = select_reference(_position_m(parameters, table), quality, AUTO_RADIUS_M)
    else:
        north = np.radians(table.columns["latitude"] - wanted["lat"]) * EARTH_RADIUS_M
        east = np.radians((table.columns["longitude"] - wanted["lon"] + 180) % 360 - 180)
        east *= EARTH_RADIUS_M * np.cos(np.radians(wanted["lat"]))
        area = np.flatnonzero(main & (np.hypot(north, east) <= wanted["radius_m"]))
    if not area.size:
        best = int(np.argmax(np.where(main, table.columns["phase_noise"], -1)))
        place = f"{table.columns['longitude'][best]:.5f}, {table.columns['latitude'][best]:.5f}"
        raise NumericsError(
            "N705",
            "no connected scatterer lies in the reference area",
            where="timeseries.reference",
            expected=f"at least one of the {int(main.sum())} connected scatterers",
            found=str(wanted),
            remedy=f"use auto, a larger radius_m, or a place like lon, lat = {place}",
        )
    return area


def _displacement(
    parameters: Mapping[str, Any],
    phase: NDArray[np.float64],
    design: MotionDesign,
    dem_error_m: NDArray[np.float64],
) -> NDArray[np.float32]:
    """Return displacements in m for all dates of the stack, DEM error removed."""
    height = np.nan_to_num(dem_error_m) * design.height_factor
    flat = phase + height[:, np.newaxis] * design.perpendicular_baseline_m
    result = np.full((len(phase), len(parameters["date_days"])), np.nan, np.float32)
    # Adding zero turns the -0.0 of the reference date into 0.0.
    result[:, parameters["dates"]] = displacement_from_phase(flat, design.wavelength_m) + 0.0
    return result


def _blocks(name: str, values: NDArray[Any]) -> Iterator[Block]:
    for start in range(0, len(values), SCATTERER_CHUNK):
        part = values[start : start + SCATTERER_CHUNK]
        yield Block(PRODUCT, name, (start, *[0] * (values.ndim - 1)), part)


STAGE = Stage("timeseries", "1", "bperp.pipeline.timeseries:STAGE", _plan, _compute)
