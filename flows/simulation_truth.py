"""Truth of a simulated stack: what was put in, as a Zarr group that xarray opens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bperp.flows.simulation_ground import velocity_at
from bperp.flows.simulation_plan import ScenePlan, SwathPlan
from bperp.flows.simulation_render import (
    PersistentTruth,
    burst_signal,
    days_of_year,
    image_position,
    swath_response,
    valid_rectangle,
)
from bperp.kernels.simulation.noise import DAYS_PER_YEAR, coherence_matrix
from bperp.kernels.simulation.orbit import geodetic_to_ecef, zero_doppler
from bperp.kernels.simulation.passage import perpendicular_baseline

Array = NDArray[np.float64]

_MAP_POINTS = 100


def burst_names(plan: ScenePlan) -> list[str]:
    """Return the identifiers of all bursts, swath by swath, e.g. ``t052_110431_iw1``."""
    return [
        f"t{plan.frame.passage.track:03d}_{burst_id:06d}_{swath.name.lower()}"
        for swath in plan.swaths
        for burst_id in swath.burst_ids
    ]


def write_truth(plan: ScenePlan, persistent: PersistentTruth, path: Path) -> None:
    """Write the truth of the persistent scatterers that the reference date shows.

    Parameters
    ----------
    plan : ScenePlan
    persistent : PersistentTruth
    path : pathlib.Path
        Zarr group (format 3) to create.
    """
    burst, line, sample = _image_positions(plan, persistent)
    seen = burst >= 0
    point = ("scatterer",)
    series = ("scatterer", "date")
    drawn = plan.persistent
    variables: dict[str, Any] = {
        "longitude_deg": (point, np.degrees(persistent.longitude_rad)[seen]),
        "latitude_deg": (point, np.degrees(persistent.latitude_rad)[seen]),
        "height_m": (point, persistent.height_m[seen]),
        "dem_error_m": (point, drawn.height_error_m[seen]),
        "velocity_los_m_yr": (point, persistent.velocity_m_yr[seen]),
        "signal_to_clutter": (point, drawn.signal_to_clutter[seen]),
        "burst_index": (point, burst[seen].astype(np.int16)),
        "azimuth_line": (point, line[seen]),
        "range_sample": (point, sample[seen]),
        "displacement_m": (series, persistent.displacement_m[seen]),
        "atmosphere_m": (series, persistent.atmosphere_m[seen]),
        **_date_variables(plan),
        **_velocity_map(plan),
    }
    dates = np.array([date.date for date in plan.dates]).astype("datetime64[ns]")
    dataset = xr.Dataset(variables, coords={"date": ("date", dates)}, attrs=_attributes(plan))
    for name, text in _MEANING.items():
        dataset[name].attrs["long_name"] = text
    dataset.to_zarr(path, mode="w", zarr_format=3, consolidated=False)


_MEANING = {
    "height_m": "ellipsoidal height of the scatterer itself",
    "dem_error_m": "height of the scatterer minus elevation model at its position",
    "velocity_los_m_yr": "absolute velocity, positive towards the satellite",
    "displacement_m": "since the reference date, positive towards the satellite",
    "atmosphere_m": "slant one-way delay, positive lengthens the path",
    "signal_to_clutter": "peak power over mean power of ground and noise",
    "burst_index": "index into the attribute burst_ids, on the reference date",
    "azimuth_line": "line within the burst of the reference date",
    "range_sample": "sample within the burst of the reference date",
    "azimuth_misregistration_lines": "observed line minus line predicted from annotation and orbit",
    "range_misregistration_samples": "observed minus predicted sample",
    "perpendicular_baseline_m": "at the scene centre, from the reference date, positive when the "
    "orbit is displaced up and towards the look side; a height h adds "
    "-4 pi B h / (lambda R sin(incidence)) to reference * conj(date)",
    "coherence": "of the distributed ground between dates, including thermal noise",
}


def _attributes(plan: ScenePlan) -> dict[str, Any]:
    options = plan.options
    return {
        "title": "truth of a simulated Sentinel-1 stack",
        "options": options.as_json(),
        "reference_date": str(plan.dates[options.reference_index].date),
        "burst_ids": burst_names(plan),
        "track": plan.frame.passage.track,
        "orbit_direction": plan.frame.passage.orbit_direction,
        "wavelength_m": plan.radar.wavelength_m,
        "line_interval_s": plan.radar.line_interval_s,
        "clutter_power": options.clutter_amplitude**2,
        "signs": "SLC phase = -4 pi R / lambda; R includes the delay and excludes the displacement",
        "centre_deg": [float(np.degrees(v)) for v in plan.anchor[:2]],
        "mean_height_m": plan.anchor[2],
    }


def _date_variables(plan: ScenePlan) -> dict[str, Any]:
    days = np.array([date.day for date in plan.dates])
    target = geodetic_to_ecef(*(np.array([v]) for v in plan.anchor))
    guess = np.array([plan.frame.middle_s])
    reference = plan.dates[plan.options.reference_index].orbit
    baselines = [
        float(perpendicular_baseline(reference, date.orbit, target, guess)[0])
        for date in plan.dates
    ]
    coherence = coherence_matrix(plan.decorrelation, days, days_of_year(plan))
    return {
        "azimuth_misregistration_lines": (
            ("date",),
            np.array([date.azimuth_shift_lines for date in plan.dates]),
        ),
        "range_misregistration_samples": (
            ("date",),
            np.array([date.range_shift_samples for date in plan.dates]),
        ),
        "perpendicular_baseline_m": (("date",), np.array(baselines)),
        "coherence": (("date", "date2"), coherence),
    }


def _velocity_map(plan: ScenePlan) -> dict[str, Any]:
    raster = plan.elevation
    rows, columns = raster.values.shape
    latitude = raster.first_row + raster.row_step * np.linspace(0, rows - 1, _MAP_POINTS)
    longitude = raster.first_column + raster.column_step * np.linspace(0, columns - 1, _MAP_POINTS)
    grid = np.meshgrid(latitude, longitude, indexing="ij")
    velocity = velocity_at(plan.options, plan.anchor, grid[0], grid[1])
    return {
        "velocity_los": (
            ("latitude", "longitude"),
            velocity,
            {"units": "m yr-1", "long_name": "velocity of the ground towards the satellite"},
        ),
        "latitude": (("latitude",), np.degrees(latitude)),
        "longitude": (("longitude",), np.degrees(longitude)),
    }


def _image_positions(
    plan: ScenePlan, persistent: PersistentTruth
) -> tuple[NDArray[np.int64], Array, Array]:
    """Where the reference date shows each scatterer: the burst in which it is furthest inside."""
    date = plan.dates[plan.options.reference_index]
    time, distance = zero_doppler(date.orbit, persistent.position_m, persistent.guess_s)
    best = np.full(len(time), -1, dtype=np.int64)
    depth = np.zeros(len(time))
    line, sample = np.full(len(time), np.nan), np.full(len(time), np.nan)
    top, bottom, left, right = valid_rectangle(plan)
    for index, (swath, burst) in enumerate(_all_bursts(plan)):
        signal = burst_signal(plan, swath, burst, date)
        lines, samples = image_position(plan, signal, time, distance)
        inside = np.minimum.reduce(
            [lines - top, bottom - 1 - lines, samples - left, right - 1 - samples]
        )
        better = inside > depth
        best[better], depth[better] = index, inside[better]
        line[better], sample[better] = lines[better], samples[better]
    return best, line, sample


def _all_bursts(plan: ScenePlan) -> list[tuple[SwathPlan, int]]:
    return [(swath, b) for swath in plan.swaths for b in range(len(swath.burst_ids))]


def implied_velocity_floor(truth: xr.Dataset, azimuth_fraction: float = 0.672) -> Array:
    """Predict the scatter of least-squares velocities that the injected noise alone causes.

    Parameters
    ----------
    truth : xarray.Dataset
        Truth of a simulated stack.
    azimuth_fraction : float, default 0.672
        Azimuth bandwidth over line rate, for the loss between pixel centre and peak.

    Returns
    -------
    (scatterer,) float64
        Standard deviation in m/yr of the velocity of the model ``[1, t, B]``.

    Notes
    -----
    The clutter under a scatterer turns its phase by ``Im(c / a)``: a variance of half the clutter
    over the scatterer's power at the nearest pixel. Clutter that stays coherent turns all dates
    alike, so the covariance between dates is that variance times the coherence matrix.
    Atmosphere is not included.
    """
    days = (truth["date"].values - truth["date"].values[0]) / np.timedelta64(1, "D")
    design = np.stack(
        [np.ones(len(days)), days / DAYS_PER_YEAR, truth["perpendicular_baseline_m"].values], axis=1
    )
    if len(days) < 4 or np.ptp(design[:, 2]) == 0.0:
        design = design[:, :2]
    else:
        design[:, 2] /= np.abs(design[:, 2]).max()
    gain = np.linalg.pinv(design)[1]
    variance = gain @ truth["coherence"].values @ gain
    ratio = truth["signal_to_clutter"].values
    for name, fraction in (("azimuth_line", azimuth_fraction), ("range_sample", 0.878)):
        offset = truth[name].values - np.round(truth[name].values)
        x = offset * fraction
        side = 0.125 * (np.sinc(x - 1.0) + np.sinc(x + 1.0))
        ratio = ratio * ((0.75 * np.sinc(x) + side) / 0.75) ** 2
    scale = truth.attrs["wavelength_m"] / (4.0 * np.pi)
    result: Array = scale * np.sqrt(0.5 * variance / ratio)
    return result


__all__ = ["burst_names", "implied_velocity_floor", "swath_response", "write_truth"]
