"""Comparison of a processed simulation with its truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from bperp.flows.root import Root
from bperp.flows.simulation_truth import implied_velocity_floor
from bperp.kernels.ellipsoid import geodetic_to_ecef
from bperp.kernels.zero_doppler import geo2rdr
from bperp.pipeline.radar import burst_duration_s, burst_orbit
from bperp.pipeline.stack import Stack
from bperp.pipeline.timeseries import PRODUCT as TIMESERIES

MATCH_PIXELS = 1.0
"""A scatterer belongs to a true one if it lies this close to it."""

DAYS_PER_YEAR = 365.25


def open_truth(path: Path) -> xr.Dataset:
    """Open the truth of a simulated stack."""
    truth: xr.Dataset = xr.open_zarr(path, consolidated=False).load()
    return truth


def locate_truth(
    stack: Stack, truth: xr.Dataset
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return scene line and sample of the true scatterers on the reference date, NaN outside.

    Their longitude, latitude and height are solved with the orbit of the reference date: the
    simulator's own image positions are not used.
    """
    points = geodetic_to_ecef(
        np.radians(truth["latitude_deg"].values),
        np.radians(truth["longitude_deg"].values),
        truth["height_m"].values,
    )
    line = np.full(len(points[0]), np.nan)
    sample = np.full(len(points[0]), np.nan)
    for place in stack.scene.placements:
        image = stack.reference(place.burst_id)
        time, distance = geo2rdr(burst_orbit(image), *points, 0.5 * burst_duration_s(image))
        row = place.azimuth + time / image.azimuth_time_interval_s
        column = place.range + (distance - image.near_range_m) / image.range_spacing_m
        top, bottom, left, right = place.owned
        mine = (row >= top) & (row < bottom) & (column >= left) & (column < right)
        line[mine], sample[mine] = row[mine], column[mine]
    return line, sample


@dataclass(frozen=True)
class VelocityComparison:
    """Matched scatterers: estimate, truth and the scatter that the injected noise implies.

    All arrays are ``(match,)``; velocities in m/yr relative to the reference area of the run.
    ``estimated`` and ``true`` index the scatterers of the time series and of the truth.
    """

    estimated: NDArray[np.int64]
    true: NDArray[np.int64]
    velocity: NDArray[np.float64]
    truth: NDArray[np.float64]
    floor: NDArray[np.float64]
    atmosphere: NDArray[np.float64]

    @property
    def bias_mm_yr(self) -> float:
        """Mean difference in mm/yr."""
        return 1000 * float(np.mean(self.velocity - self.truth))

    @property
    def rmse_mm_yr(self) -> float:
        """Root mean square difference in mm/yr."""
        return 1000 * float(np.sqrt(np.mean((self.velocity - self.truth) ** 2)))

    @property
    def floor_mm_yr(self) -> float:
        """Root mean square of what clutter, noise and atmosphere make of a perfect fit, mm/yr."""
        return 1000 * float(np.sqrt(np.mean(self.floor**2 + self.atmosphere**2)))

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for reports."""
        return {
            "matched_scatterers": len(self.velocity),
            "bias_mm_yr": self.bias_mm_yr,
            "rmse_mm_yr": self.rmse_mm_yr,
            "implied_floor_mm_yr": self.floor_mm_yr,
        }


def compare_velocity(root: Root, truth: xr.Dataset) -> VelocityComparison:
    """Match the scatterers of a finished run with the truth and compare their velocities."""

    def read(name: str) -> NDArray[Any]:
        return np.asarray(root.source.read(TIMESERIES, name, (slice(None),)))

    velocity, area = read("velocity_los"), read("reference_mask") > 0
    solved = np.isfinite(velocity)
    estimated, true = match_truth(root.stack, truth, read("line"), read("sample"), solved)
    actual = truth["velocity_los_m_yr"].values[true]
    floor = implied_velocity_floor(truth)[true]
    atmosphere = _atmosphere_velocity(truth)[true]
    inside = area[estimated]
    return VelocityComparison(
        estimated,
        true,
        velocity[estimated],
        actual - actual[inside].mean(),
        floor,
        atmosphere - atmosphere[inside].mean(),
    )


def match_truth(
    stack: Stack,
    truth: xr.Dataset,
    line: NDArray[Any],
    sample: NDArray[Any],
    usable: NDArray[np.bool_],
    reach_pixels: float = MATCH_PIXELS,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Match table rows with the nearest true scatterer.

    Parameters
    ----------
    stack : Stack
        The processed stack.
    truth : xarray.Dataset
        Truth of the simulation.
    line, sample : ndarray (n,)
        Scene pixels of the rows.
    usable : ndarray of bool (n,)
        Rows to be matched.
    reach_pixels : float
        Largest distance along either axis, in lines and samples.

    Returns
    -------
    rows, points : ndarray of int64 (match,)
        Indices of the rows and of the true scatterers.
    """
    true_line, true_sample = locate_truth(stack, truth)
    known = np.flatnonzero(np.isfinite(true_line))
    tree = cKDTree(np.column_stack((true_line, true_sample))[known])
    rows = np.flatnonzero(usable)
    pixel = np.column_stack((line, sample))[rows]
    distance, nearest = tree.query(pixel, p=np.inf, distance_upper_bound=reach_pixels)
    found = np.isfinite(distance)
    return rows[found], known[np.asarray(nearest)[found]]


def _atmosphere_velocity(truth: xr.Dataset) -> NDArray[np.float64]:
    """Return the velocity that the injected delays feign in the same fit, m/yr per scatterer."""
    days = (truth["date"].values - truth["date"].values[0]) / np.timedelta64(1, "D")
    baseline = truth["perpendicular_baseline_m"].values
    design = np.column_stack((np.ones(len(days)), days / DAYS_PER_YEAR, baseline / 100.0))
    # A longer path looks like motion away from the satellite.
    rate: NDArray[np.float64] = -(truth["atmosphere_m"].values @ np.linalg.pinv(design)[1])
    return rate
