"""Cells of a map in the radar geometry: heights, position in the scene, look, layover.

Every burst has its own remainder below one line and sample against the integer grid of the scene,
so a cell is located with the timing of the burst that owns its place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bperp.kernels.ellipsoid import geodetic_to_ecef
from bperp.kernels.geocoding import interpolate_image
from bperp.kernels.geometry import geo2rdr, look_vectors, rdr2geo_at_height
from bperp.kernels.layover import layover_shadow
from bperp.pipeline.burst import BurstImage
from bperp.pipeline.radar import EARTH_RADIUS_M, burst_duration_s, burst_orbit, ground_spacing_m
from bperp.pipeline.stage import Source
from bperp.pipeline.timing import timing_corrections

__all__ = [
    "MARGIN_M",
    "ElevationWindow",
    "MapCells",
    "PlacedBurst",
    "cell_look",
    "cell_masks",
    "height_margin_m",
    "locate_cells",
    "read_elevation",
]

SEAM_PIXELS = 1.0
"""How far from what a burst owns its pixels may be taken: bursts are rounded to whole lines."""

MARGIN_M = 300.0
"""Heights are read at least this far around the cells."""

LEAN_RAD = 0.1
"""Incidence at the edges of a burst differs by less from that in its middle."""

OUTLINE_POINTS = 9
"""Along an edge of a burst, which is bent on the map."""

Window = tuple[int, int, int, int]


class ElevationWindow(NamedTuple):
    """Ellipsoidal heights (rows, columns), and ``(lat0, lon0, dlat, dlon)`` in degrees."""

    heights_m: NDArray[np.float32]
    origin: tuple[float, float, float, float]


@dataclass(frozen=True)
class PlacedBurst:
    """A burst of the reference date with its place in the scene.

    ``origin`` are the scene indices of its first line and sample, ``owned`` is a rectangle
    ``(first line, stop line, first sample, stop sample)`` in scene indices.
    """

    image: BurstImage
    origin: tuple[int, int]
    owned: Window

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> PlacedBurst:
        """Restore a burst from the parameters of a task."""
        line, sample = record["origin"]
        top, bottom, left, right = record["owned"]
        image = BurstImage.from_dict(record["image"])
        return cls(image, (line, sample), (top, bottom, left, right))

    def outline_deg(
        self, heights_m: tuple[float, float]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return latitudes and longitudes along the edges of what the burst owns.

        Parameters
        ----------
        heights_m : tuple of float, m
            Lowest and highest ground.
        """
        top, bottom, left, right = self.owned
        share = np.linspace(0.0, 1.0, OUTLINE_POINTS)
        line = top - 0.5 + share * (bottom - top) - self.origin[0]
        sample = left - 0.5 + share * (right - left) - self.origin[1]
        time_s, range_m, height_m = np.meshgrid(
            line * self.image.azimuth_time_interval_s,
            self.image.near_range_m + sample * self.image.range_spacing_m,
            np.array(heights_m),
            indexing="ij",
        )
        orbit = burst_orbit(self.image)
        latitude, longitude = rdr2geo_at_height(
            orbit, time_s.ravel(), range_m.ravel(), height_m.ravel()
        )
        return np.degrees(latitude), np.degrees(longitude)


@dataclass
class MapCells:
    """Cells of a map, in one row: where they lie on the ground and in the scene.

    ``line`` and ``sample`` count single-look pixels of the scene from the centre of the first
    one, ``time_s`` starts at the first line of the burst. ``burst`` is the index of the burst, -1
    where there is none; everything but latitude and longitude is NaN there.
    """

    latitude_rad: NDArray[np.float64]
    longitude_rad: NDArray[np.float64]
    height_m: NDArray[np.float32]
    time_s: NDArray[np.float64]
    line: NDArray[np.float64]
    sample: NDArray[np.float64]
    burst: NDArray[np.int16]

    @classmethod
    def nowhere(
        cls, latitude_rad: NDArray[np.float64], longitude_rad: NDArray[np.float64]
    ) -> MapCells:
        """Return cells that no burst has seen yet."""
        size = latitude_rad.size
        return cls(
            latitude_rad,
            longitude_rad,
            np.full(size, np.nan, np.float32),
            np.full(size, np.nan),
            np.full(size, np.nan),
            np.full(size, np.nan),
            np.full(size, -1, np.int16),
        )


def height_margin_m(bursts: Sequence[PlacedBurst], relief_m: float) -> float:
    """Return how far around cells heights are needed: mountains fall over and cast shadows.

    Parameters
    ----------
    bursts : sequence of PlacedBurst
        Those that see the cells.
    relief_m : float, m
        Highest minus lowest height of the scene.
    """
    aside = 0.0
    for burst in bursts:
        spacing = burst.image.range_spacing_m
        incidence = math.asin(min(spacing / ground_spacing_m(burst.image)[1], 1.0))
        steep, flat = max(incidence - LEAN_RAD, 0.1), min(incidence + LEAN_RAD, 1.4)
        aside = max(aside, 1.0 / math.tan(steep), math.tan(flat))
    return aside * relief_m + MARGIN_M


def read_elevation(
    source: Source,
    latitude_deg: NDArray[np.float64],
    longitude_deg: NDArray[np.float64],
    limits_deg: Sequence[float],
    margin_m: float,
) -> ElevationWindow | None:
    """Read the elevation model around cells.

    Parameters
    ----------
    source : Source
        Reader of the running task.
    latitude_deg, longitude_deg : ndarray (n,), float64, deg
        Cells, longitudes on the limits' side of the antimeridian; NaN = nowhere.
    limits_deg : sequence of 4 float, deg
        ``(south, west, north, east)`` of what may be read.
    margin_m : float, m
        From ``height_margin_m``.

    Returns
    -------
    ElevationWindow or None
        None if no cell lies within the limits.
    """
    known = np.isfinite(latitude_deg)
    if not known.any():
        return None
    aside = math.degrees(margin_m / EARTH_RADIUS_M)
    south = max(float(latitude_deg[known].min()) - aside, limits_deg[0])
    north = min(float(latitude_deg[known].max()) + aside, limits_deg[2])
    aside /= max(math.cos(math.radians(max(abs(south), abs(north)))), 0.01)
    west = max(float(longitude_deg[known].min()) - aside, limits_deg[1])
    east = min(float(longitude_deg[known].max()) + aside, limits_deg[3])
    if south >= north or west >= east:
        return None
    heights, origin = source.elevation(south, west, north, east)
    return ElevationWindow(heights, origin) if np.isfinite(heights).any() else None


def locate_cells(
    bursts: Sequence[PlacedBurst],
    latitude_deg: NDArray[np.float64],
    longitude_deg: NDArray[np.float64],
    elevation: ElevationWindow | None,
    timing: Mapping[str, bool],
) -> MapCells:
    """Find each cell in the burst that owns its place, or nearly so at a seam.

    Parameters
    ----------
    bursts : sequence of PlacedBurst
        Those that may see the cells.
    latitude_deg, longitude_deg : ndarray (n,), float64, deg
        Cell centres, NaN = nowhere.
    elevation : ElevationWindow or None
        Heights around the cells; cells without a height are nowhere.
    timing : mapping of str to bool
        Corrections of times and ranges, see ``bperp.pipeline.timing``.

    Returns
    -------
    MapCells
    """
    cells = MapCells.nowhere(np.radians(latitude_deg), np.radians(longitude_deg))
    if elevation is None or not bursts:
        return cells
    height = _heights_at(latitude_deg, longitude_deg, elevation)
    points = geodetic_to_ecef(cells.latitude_rad, cells.longitude_rad, height.astype(np.float64))
    nearest = np.full(height.size, np.inf)
    for index, burst in enumerate(bursts):
        middle_s = 0.5 * burst_duration_s(burst.image)
        time_s, range_m = geo2rdr(burst_orbit(burst.image), *points, middle_s)
        line, sample = _scene_position(burst, time_s, range_m, height, timing)
        beside = _distance(burst.owned, line, sample)
        better = np.flatnonzero((beside < nearest) & (beside <= SEAM_PIXELS))
        nearest[better], cells.burst[better] = beside[better], index
        cells.height_m[better], cells.time_s[better] = height[better], time_s[better]
        cells.line[better], cells.sample[better] = line[better], sample[better]
    return cells


def cell_look(
    bursts: Sequence[PlacedBurst], cells: MapCells
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return unit vectors ``(3, n)`` from the ground to the sensor, and incidence angles (rad).

    Parameters
    ----------
    bursts : sequence of PlacedBurst
        Those that ``cells.burst`` counts.
    cells : MapCells
        From ``locate_cells``.
    """
    sight = np.full((3, cells.line.size), np.nan, np.float32)
    incidence = np.full(cells.line.size, np.nan, np.float32)
    for index, burst in enumerate(bursts):
        chosen = np.flatnonzero(cells.burst == index)
        vectors, angles = look_vectors(
            burst_orbit(burst.image),
            cells.time_s[chosen],
            cells.latitude_rad[chosen, np.newaxis],
            cells.longitude_rad[chosen, np.newaxis],
            cells.height_m[chosen, np.newaxis],
        )
        sight[:, chosen], incidence[chosen] = vectors[..., 0], angles[:, 0]
    return sight, incidence


def cell_masks(
    bursts: Sequence[PlacedBurst],
    cells: MapCells,
    elevation: ElevationWindow | None,
    azimuth_looks: int,
) -> NDArray[np.uint8]:
    """Return layover and shadow at the sample of each cell, on the middle line of its looks.

    Parameters
    ----------
    bursts : sequence of PlacedBurst
        Those that ``cells.burst`` counts.
    cells : MapCells
        From ``locate_cells``.
    elevation : ElevationWindow or None
        Heights around the cells, with the margin of ``height_margin_m``.
    azimuth_looks : int
        One line in so many is looked at.

    Returns
    -------
    ndarray (n,), uint8
        Bits of ``bperp.kernels.layover``; 0 where there is no burst.
    """
    masks = np.zeros(cells.line.size, np.uint8)
    middle = 0.5 * (azimuth_looks - 1)
    for index, burst in enumerate(bursts):
        chosen = np.flatnonzero(cells.burst == index)
        if elevation is None or not chosen.size:
            continue
        image, (first_line, first_sample) = burst.image, burst.origin
        rows = np.floor((cells.line[chosen] - middle) / azimuth_looks + 0.5)
        columns = np.floor(cells.sample[chosen] + 0.5)
        top, left = rows.min(), columns.min()
        lines = np.arange(top, rows.max() + 1) * azimuth_looks + middle - first_line
        samples = np.arange(left, columns.max() + 1) - first_sample
        found = layover_shadow(
            burst_orbit(image),
            lines * image.azimuth_time_interval_s,
            image.near_range_m + samples * image.range_spacing_m,
            elevation.heights_m,
            elevation.origin,
        )
        masks[chosen] = interpolate_image(found, rows - top, columns - left, "nearest")
    return masks


def _scene_position(
    burst: PlacedBurst,
    time_s: NDArray[np.float64],
    range_m: NDArray[np.float64],
    height_m: NDArray[np.float32],
    timing: Mapping[str, bool],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return line and sample in the scene of zero-Doppler times and ranges."""
    image = burst.image
    line = time_s / image.azimuth_time_interval_s
    sample = (range_m - image.near_range_m) / image.range_spacing_m
    if any(timing.values()):
        # Corrections lead from annotated to true times; they are smooth, so once is enough.
        shape = (0, image.lines, 0, image.samples)
        inside = np.flatnonzero(_distance(shape, line, sample) <= SEAM_PIXELS + 1.0)
        part = (line[inside], sample[inside], height_m[inside].astype(np.float64))
        found = timing_corrections(image, *part, timing)
        line[inside] -= found.azimuth_s / image.azimuth_time_interval_s
        sample[inside] -= found.range_m / image.range_spacing_m
    return line + burst.origin[0], sample + burst.origin[1]


def _distance(
    rectangle: Window, line: NDArray[np.float64], sample: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return how many pixels positions lie outside of a rectangle of pixels; NaN stays."""
    top, bottom, left, right = rectangle
    beside = np.maximum(top - 0.5 - line, line - (bottom - 0.5))
    beside = np.maximum(beside, np.maximum(left - 0.5 - sample, sample - (right - 0.5)))
    return np.maximum(beside, 0.0)


def _heights_at(
    latitude_deg: NDArray[np.float64],
    longitude_deg: NDArray[np.float64],
    elevation: ElevationWindow,
) -> NDArray[np.float32]:
    """Interpolate heights bilinearly; a cell's bytes do not depend on the window."""
    heights, (latitude0, longitude0, row_step, column_step) = elevation
    middle = longitude0 + 0.5 * (heights.shape[1] - 1) * column_step
    turned = longitude_deg + 360.0 * np.round((middle - longitude_deg) / 360.0)
    rows = _lattice(latitude_deg, latitude0, row_step)
    columns = _lattice(turned, longitude0, column_step)
    values: NDArray[np.float32] = interpolate_image(heights, rows, columns, "bilinear")
    return values


def _lattice(place: NDArray[np.float64], first: float, step: float) -> NDArray[np.float64]:
    """Return indices of places; subtracting whole samples last keeps the fractions exact."""
    whole = math.floor(first / step + 0.5)
    fraction = round((first / step - whole) * 2**20) / 2**20
    indices: NDArray[np.float64] = (place / step - fraction) - whole
    return indices
