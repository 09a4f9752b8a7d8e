"""Does the elevation model lie under the bursts: asked at a few points, before the run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bperp.stores.elevation import ElevationModel

if TYPE_CHECKING:
    from bperp.flows.config import StackConfig
    from bperp.pipeline.burst import BurstImage

__all__ = ["Uncovered", "open_elevation", "uncovered_points"]

_LINES, _SAMPLES = 9, 17
_ROUNDS = 8

Floats = NDArray[np.float64]


class Uncovered(NamedTuple):
    """Points of a burst without height; the position is that of the first one, in degrees."""

    points: int
    of: int
    latitude_deg: float
    longitude_deg: float


def open_elevation(config: StackConfig) -> ElevationModel:
    """Open the elevation model as a run does.

    Raises
    ------
    ElevationError
        E602 to E606: file, geoid, reference system, units.
    """
    is_sea = config.geometry.missing_elevation == "sea"
    absent: Literal["sea", "mask"] = "sea" if is_sea else "mask"
    dem = config.dem
    return ElevationModel.open(dem.path, dem.vertical_datum, dem.geoid, absent=absent)


def uncovered_points(model: ElevationModel, image: BurstImage) -> Uncovered | None:
    """Look for points of a burst without height on a grid of 9 lines by 17 samples.

    Parameters
    ----------
    model : ElevationModel
        Opened elevation model.
    image : BurstImage
        The burst on the reference date.

    Returns
    -------
    Uncovered or None
        None if all points have a height.

    Notes
    -----
    Where a pixel lies depends on its height: each point is located at the height found at its last
    position, starting from the median of the surroundings.
    """
    from bperp.kernels.zero_doppler import rdr2geo_at_height
    from bperp.pipeline.geometry import burst_bounds
    from bperp.pipeline.radar import burst_orbit, line_times_s, slant_ranges_m

    heights, grid = replace(model, absent="mask").window(*burst_bounds(image))
    orbit = burst_orbit(image)
    times, ranges = line_times_s(image, 0, image.lines), slant_ranges_m(image, 0, image.samples)
    axes = np.meshgrid(
        np.linspace(times[0], times[-1], _LINES),
        np.linspace(ranges[0], ranges[-1], _SAMPLES),
        indexing="ij",
    )
    time, distance = (axis.ravel() for axis in axes)
    known = heights[np.isfinite(heights)]
    usual = float(np.median(known)) if known.size else 0.0
    height = np.full(time.shape, usual)
    for _ in range(_ROUNDS):
        latitude, longitude = np.degrees(rdr2geo_at_height(orbit, time, distance, height))
        found = sample_heights(heights, grid, latitude, longitude)
        height = np.where(np.isnan(found), usual, found)
    missing = np.flatnonzero(np.isnan(found))
    if not missing.size:
        return None
    first = missing[0]
    return Uncovered(missing.size, time.size, float(latitude[first]), float(longitude[first]))


def sample_heights(
    heights: NDArray[np.float32],
    grid: tuple[float, float, float, float],
    latitude_deg: Floats,
    longitude_deg: Floats,
) -> Floats:
    """Return the nearest heights of a window, NaN outside.

    Parameters
    ----------
    heights : ndarray (rows, columns), float32, m
        Window of an elevation model.
    grid : tuple of float
        ``(lat0, lon0, dlat, dlon)`` of its samples in degrees.
    latitude_deg, longitude_deg : ndarray (n,), float64
        Positions; longitudes may differ from the window's by 360 degrees.
    """
    lat0, lon0, dlat, dlon = grid
    east = (longitude_deg - lon0 + 180.0) % 360.0 - 180.0
    row = np.rint((latitude_deg - lat0) / dlat).astype(np.int64)
    column = np.rint(east / dlon).astype(np.int64)
    rows, columns = heights.shape
    is_inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    found = heights[np.clip(row, 0, rows - 1), np.clip(column, 0, columns - 1)].astype(np.float64)
    return np.where(is_inside, found, np.nan)
