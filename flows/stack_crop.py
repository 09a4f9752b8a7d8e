"""The part of the scene that an area of interest covers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bperp.flows.check_elevation import open_elevation
from bperp.kernels.ellipsoid import geodetic_to_ecef
from bperp.kernels.orbit import fit_orbit
from bperp.kernels.zero_doppler import geo2rdr
from bperp.pipeline.geometry import HEIGHT_LIMITS_M
from bperp.pipeline.stack import Rectangle

if TYPE_CHECKING:
    from bperp.flows.config import StackConfig
    from bperp.flows.config_types import BoundingBox
    from bperp.pipeline.burst import BurstImage

__all__ = ["scene_crop"]

HEIGHT_MARGIN_M = 50.0
PIXEL_MARGIN = 16
_POINTS_PER_EDGE = 21


def scene_crop(config: StackConfig, references: Sequence[BurstImage]) -> Rectangle | None:
    """Return the lines and samples of the whole scene that cover the area of interest.

    Parameters
    ----------
    config : StackConfig
        Gives the area and the elevation model, whose heights in the area move its image in range.
    references : sequence of BurstImage
        Bursts of the reference date.

    Returns
    -------
    tuple of int or None
        ``(first line, stop line, first sample, stop sample)``, which may reach beyond the scene;
        ``None`` without an area, or if whole bursts are wanted.

    Raises
    ------
    ElevationError
        E602 to E606: file, geoid, reference system, units.
    """
    if config.aoi is None or config.aoi_subset == "bursts":
        return None
    first = min(references, key=lambda image: image.first_line_time_ns)
    near_m = min(image.near_range_m for image in references)
    last_ns = max(image.first_line_time_ns for image in references)
    duration_s = (last_ns - first.first_line_time_ns) * 1e-9
    duration_s += first.lines * first.azimuth_time_interval_s
    arc = first.orbit
    times = np.array(arc.time_s)
    # A wide arc: the area may reach beyond the bursts. Its error of centimetres is no matter here.
    orbit = fit_orbit(
        times,
        np.array(arc.position_m),
        np.array(arc.velocity_m_s),
        max(float(times[0]), -10.0),
        min(float(times[-1]), duration_s + 10.0),
    )
    points = _outline(config.aoi, _height_range_m(config))
    time_s, range_m = geo2rdr(orbit, *geodetic_to_ecef(*points), 0.5 * duration_s)
    line = time_s / first.azimuth_time_interval_s
    sample = (range_m - near_m) / first.range_spacing_m
    return (
        int(np.floor(line.min())) - PIXEL_MARGIN,
        int(np.ceil(line.max())) + PIXEL_MARGIN,
        int(np.floor(sample.min())) - PIXEL_MARGIN,
        int(np.ceil(sample.max())) + PIXEL_MARGIN,
    )


def _height_range_m(config: StackConfig) -> tuple[float, float]:
    """Return the lowest and highest ellipsoidal height in the area, with a margin."""
    area = config.aoi
    assert area is not None, "only called with an area"
    east = area.lon_max + (360.0 if area.crosses_antimeridian else 0.0)
    heights, _ = open_elevation(config).window(area.lat_min, area.lon_min, area.lat_max, east)
    known = heights[np.isfinite(heights)]
    if not known.size:
        return HEIGHT_LIMITS_M
    return float(known.min()) - HEIGHT_MARGIN_M, float(known.max()) + HEIGHT_MARGIN_M


def _outline(
    area: BoundingBox, heights_m: tuple[float, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return latitudes, longitudes (rad) and heights of points along the edges of the area."""
    share = np.linspace(0.0, 1.0, _POINTS_PER_EDGE)
    east = area.lon_max + (360.0 if area.crosses_antimeridian else 0.0)
    latitude, longitude, height = np.meshgrid(
        area.lat_min + share * (area.lat_max - area.lat_min),
        area.lon_min + share * (east - area.lon_min),
        np.array(heights_m),
        indexing="ij",
    )
    return np.radians(latitude).ravel(), np.radians(longitude).ravel(), height.ravel()
