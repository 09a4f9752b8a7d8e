"""Step 2, geometry: where each pixel of the reference date lies on the ground.

Product ``bursts/<burst_id>/geometry`` ``(azimuth, range)``: ellipsoidal height, latitude,
longitude, incidence, unit vector from the ground to the sensor, layover and shadow, status.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bperp.kernels.chebyshev import (
    evaluate_offsets,
    fit_offset_polynomials,
    offset_domain,
    offset_nodes,
)
from bperp.kernels.geometry import look_vectors
from bperp.kernels.layover import LAYOVER, SHADOW, layover_shadow
from bperp.kernels.orbit import OrbitPolynomial
from bperp.kernels.terrain import DEM_OUTSIDE, rdr2geo
from bperp.kernels.zero_doppler import rdr2geo_at_height
from bperp.pipeline.burst import BurstImage
from bperp.pipeline.layout import CHUNK_LINES, CHUNK_SAMPLES, image_memory, raster
from bperp.pipeline.radar import burst_orbit, line_times_s, slant_ranges_m
from bperp.pipeline.scene import tile_windows
from bperp.pipeline.stack import Rectangle, Stack, meets_any
from bperp.pipeline.stage import Block, Computation, Context, Plan, Source, Stage, Task, Template
from bperp.pipeline.timing import timing_corrections
from bperp.stores.errors import ElevationError

HEIGHT_LIMITS_M = (-500.0, 9000.0)
"""Lowest and highest ellipsoidal heights of land, with margin."""

NOT_WANTED = 255
"""Status of pixels outside the area of interest."""

MARGIN_DEG = 0.01
BYTES_PER_PIXEL = 42
SMALLEST_RADIUS_M = 6_335_000.0
"""Smallest radius of curvature of the ellipsoid: makes slopes rather too steep."""
STEEPNESS_MARGIN_RAD = 0.02
"""Incidence grows with height; the margin covers 9 km."""

Bounds = tuple[float, float, float, float]
Grid = tuple[float, float, float, float]


def product(burst_id: str) -> str:
    """Return the name of the product of a burst."""
    return f"bursts/{burst_id}/geometry"


def burst_bounds(image: BurstImage, heights_m: tuple[float, ...] = HEIGHT_LIMITS_M) -> Bounds:
    """Return ``(south, west, north, east)`` in degrees of a burst between heights.

    The corners are solved on inflated ellipsoids; ``east`` exceeds 180 where the burst crosses the
    antimeridian. A margin of 0.01 degrees covers the bend of the edges.
    """
    lines = line_times_s(image, 0, image.lines)[[0, -1]]
    samples = slant_ranges_m(image, 0, image.samples)[[0, -1]]
    time, distance, height = (
        axis.ravel() for axis in np.meshgrid(lines, samples, np.array(heights_m), indexing="ij")
    )
    latitude, longitude = rdr2geo_at_height(burst_orbit(image), time, distance, height)
    south, north = np.degrees([latitude.min(), latitude.max()])
    east_west = np.degrees(longitude)
    if np.ptp(east_west) > 180:
        east_west = np.where(east_west < 0, east_west + 360, east_west)
    return (
        float(south) - MARGIN_DEG,
        float(east_west.min()) - MARGIN_DEG,
        float(north) + MARGIN_DEG,
        float(east_west.max()) + MARGIN_DEG,
    )


def _plan(context: Context) -> Plan:
    stack: Stack = context.stack
    elevation = dict(context.options["geometry"])
    timing = elevation.pop("timing")
    templates, tasks = [], []
    for burst_id in stack.burst_ids:
        image = stack.reference(burst_id)
        shape = (image.lines, image.samples)
        templates.append(_template(burst_id, shape))
        parameters = {
            "image": image.as_parameters(),
            "elevation": elevation,
            "timing": timing,
            "areas": [list(area) for area in stack.needed(burst_id, overlaps=True)],
        }
        memory = image_memory((CHUNK_LINES, CHUNK_SAMPLES), 4 * BYTES_PER_PIXEL) + (256 << 20)
        tasks.append(
            Task(
                "geometry",
                burst_id,
                parameters,
                (),
                (product(burst_id),),
                memory,
                pixels=shape[0] * shape[1],
                batch=burst_id,
            )
        )
    return Plan(tuple(templates), tuple(tasks))


def _template(burst_id: str, shape: tuple[int, int]) -> Template:
    chunks = (1, min(CHUNK_LINES, shape[0]), min(CHUNK_SAMPLES, shape[1]))
    arrays = (
        raster("height", shape, dtype="float32", units="m",
               long_name="height above the WGS84 ellipsoid"),
        raster("latitude", shape, dtype="float64", units="degrees_north",
               long_name="geodetic latitude", standard_name="latitude"),
        raster("longitude", shape, dtype="float64", units="degrees_east",
               long_name="geodetic longitude", standard_name="longitude"),
        raster("incidence_angle", shape, dtype="float32", units="rad",
               long_name="angle between the ellipsoid's normal and the line of sight"),
        raster("line_of_sight", (3, *shape), dims=("enu", "azimuth", "range"), chunks=chunks,
               dtype="float32", units="1", long_name="unit vector from the ground to the sensor"),
        raster("layover_shadow", shape, dtype="uint8", units="1",
               long_name="layover (1) and shadow (2)", flag_masks=[LAYOVER, SHADOW],
               flag_meanings="layover shadow"),
        raster("status", shape, dtype="uint8", units="1",
               long_name="0 valid, 1 outside the elevation model, 2 no height there, "
               "255 outside the area of interest"),
    )  # fmt: skip
    return Template(
        product(burst_id), arrays, {}, {"burst_id": burst_id, "title": "Geometry of the burst"}
    )


def _compute(parameters: Mapping[str, Any], source: Source) -> Computation:
    image = BurstImage.from_dict(parameters["image"])
    ground = _Ground.under(image, source, parameters["timing"])
    name = product(image.burst_id)
    limits, invalid, solved = [np.inf, -np.inf], 0, 0
    shape = (image.lines, image.samples)
    for _, window in tile_windows(shape, (CHUNK_LINES, CHUNK_SAMPLES)):
        if not meets_any(window, parameters["areas"]):
            yield from _empty_tile(name, window)
            continue
        rows = ground.solve(window)
        status = rows["status"]
        _require_coverage(image, status, (window[0], window[2]))
        for variable, values in rows.items():
            yield from _blocks(name, variable, (window[0], window[2]), values)
        good = rows["height"][status == 0]
        invalid += status.size - good.size
        solved += status.size
        if good.size:
            limits = [min(limits[0], float(good.min())), max(limits[1], float(good.max()))]
    return {
        "height_min_m": limits[0] if np.isfinite(limits[0]) else None,
        "height_max_m": limits[1] if np.isfinite(limits[1]) else None,
        "invalid_share": invalid / max(1, solved),
    }


def _empty_tile(name: str, window: Rectangle) -> Iterator[Block]:
    """Yield a tile outside the wanted part of the burst: NaN, and its own status."""
    shape = (window[1] - window[0], window[3] - window[2])
    origin = (window[0], window[2])
    for variable, dtype in (("height", "f4"), ("latitude", "f8"), ("longitude", "f8"),
                            ("incidence_angle", "f4")):  # fmt: skip
        yield from _blocks(name, variable, origin, np.full(shape, np.nan, dtype))
    yield from _blocks(name, "line_of_sight", origin, np.full((3, *shape), np.nan, "f4"))
    yield from _blocks(name, "layover_shadow", origin, np.zeros(shape, np.uint8))
    yield from _blocks(name, "status", origin, np.full(shape, NOT_WANTED, np.uint8))


def _trim_unknown(heights: NDArray[np.float32], origin: Grid) -> tuple[NDArray[np.float32], Grid]:
    """Cut rows and columns without any height off the border.

    The window is generous, as the heights in it are not known yet; what lies beyond the model is
    then outside its grid and told apart from a void within.
    """
    known = np.isfinite(heights)
    rows, columns = np.flatnonzero(known.any(axis=1)), np.flatnonzero(known.any(axis=0))
    if len(rows) < 2 or len(columns) < 2:
        return heights, origin
    top, left = int(rows[0]), int(columns[0])
    latitude, longitude, row_step, column_step = origin
    inner = heights[top : rows[-1] + 1, left : columns[-1] + 1]
    return inner, (latitude + top * row_step, longitude + left * column_step, row_step, column_step)


def _require_coverage(
    image: BurstImage, status: NDArray[np.uint8], origin: tuple[int, int]
) -> None:
    """Refuse a burst that reaches beyond the elevation model: its phase would keep topography."""
    missing = np.argwhere(status == DEM_OUTSIDE)
    if not missing.size:
        return
    south, west, north, east = burst_bounds(image)
    raise ElevationError(
        "E605",
        "the elevation model does not cover the burst",
        where=f"{image.burst_id}, line {origin[0] + missing[0, 0]}, "
        f"sample {origin[1] + missing[0, 1]}",
        expected=f"heights within lat {south:.3f} to {north:.3f}, lon {west:.3f} to {east:.3f}",
        found=f"none at {len(missing)} pixels",
        remedy="give a larger elevation model, or geometry.missing_elevation: sea at a coast",
    )


@dataclass(frozen=True)
class _Ground:
    """The ground below a burst."""

    image: BurstImage
    orbit: OrbitPolynomial
    heights: NDArray[np.float32]
    origin: Grid
    timing: Mapping[str, bool]
    is_steep: bool
    """Whether slopes anywhere are steep enough for layover or shadow."""

    @classmethod
    def under(cls, image: BurstImage, source: Source, timing: Mapping[str, bool]) -> _Ground:
        """Read the heights below a burst."""
        heights, origin = _trim_unknown(*source.elevation(*burst_bounds(image)))
        orbit = burst_orbit(image)
        is_steep = _steepest_rad(heights, origin) > _least_slope_rad(image, orbit)
        return cls(image, orbit, heights, origin, timing, is_steep)

    def solve(self, window: Rectangle) -> dict[str, NDArray[Any]]:
        """Return all variables of a tile by name."""
        times = line_times_s(self.image, window[0], window[1])
        ranges = slant_ranges_m(self.image, window[2], window[3])
        grid = (self.heights, self.origin)
        latitude, longitude, height, status = rdr2geo(self.orbit, times, ranges, *grid)
        if any(self.timing.values()):
            latitude, longitude = self._corrected(window, height)
        sight, incidence = look_vectors(self.orbit, times, latitude, longitude, height)
        folds = (
            layover_shadow(self.orbit, times, ranges, *grid)
            if self.is_steep
            else np.zeros(status.shape, np.uint8)
        )
        return {
            "height": height,
            "latitude": np.degrees(latitude),
            "longitude": np.degrees(longitude),
            "incidence_angle": incidence,
            "line_of_sight": sight,
            "layover_shadow": folds,
            "status": status,
        }

    def _corrected(
        self, window: Rectangle, height: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Locate pixels at corrected times and ranges, each at the height it has without."""
        line, sample = np.meshgrid(
            np.arange(window[0], window[1], dtype=np.float64),
            np.arange(window[2], window[3], dtype=np.float64),
            indexing="ij",
        )
        level = height.astype(np.float64)
        # Corrections vary by millimetres over a few pixels: a coarse grid carries them.
        azimuth_s, range_m = self._corrections(line, sample, level)
        latitude, longitude = rdr2geo_at_height(
            self.orbit,
            (line * self.image.azimuth_time_interval_s + azimuth_s).ravel(),
            (self.image.near_range_m + sample * self.image.range_spacing_m + range_m).ravel(),
            level.ravel(),
        )
        return latitude.reshape(line.shape), longitude.reshape(line.shape)

    def _corrections(
        self, line: NDArray[np.float64], sample: NDArray[np.float64], height: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return corrections of time (s) and range (m) from polynomials over the burst."""
        domain = offset_domain(self.image.lines, self.image.samples, HEIGHT_LIMITS_M)
        nodes = offset_nodes(domain)
        found = timing_corrections(self.image, *nodes, self.timing)
        values = np.stack([found.azimuth_s, found.range_m], axis=1)
        azimuth, across = fit_offset_polynomials(*nodes, values, domain)
        first = (int(line[0, 0]), int(sample[0, 0]))
        level = height.astype(np.float32)
        return (
            evaluate_offsets(azimuth, *first, level),
            evaluate_offsets(across, *first, level),
        )


def _steepest_rad(heights: NDArray[np.float32], origin: Grid) -> float:
    """Return a slope that no part of an elevation model exceeds."""
    latitude, _, row_step, column_step = origin
    edge = np.radians(latitude + row_step * np.array([0, heights.shape[0] - 1]))
    row_m = np.radians(abs(row_step)) * SMALLEST_RADIUS_M
    column_m = np.radians(abs(column_step)) * SMALLEST_RADIUS_M * float(np.cos(edge).min())
    north, east = (
        float(np.nanmax(np.abs(np.diff(heights, axis=axis)), initial=0.0)) / step
        for axis, step in ((0, row_m), (1, column_m))
    )
    return float(np.arctan(np.hypot(north, east)))


def _least_slope_rad(image: BurstImage, orbit: OrbitPolynomial) -> float:
    """Return the slope below which there is neither layover nor shadow, with a margin."""
    times = line_times_s(image, 0, 1)
    ranges = slant_ranges_m(image, 0, image.samples)[[0, -1]]
    level = np.zeros(2)
    latitude, longitude = rdr2geo_at_height(orbit, np.repeat(times, 2), ranges, level)
    _, incidence = look_vectors(
        orbit, times, latitude[np.newaxis], longitude[np.newaxis], level[np.newaxis].astype("f4")
    )
    return float(min(incidence.min(), 0.5 * np.pi - incidence.max())) - STEEPNESS_MARGIN_RAD


def _blocks(
    name: str, variable: str, origin: tuple[int, int], values: NDArray[Any]
) -> Iterator[Block]:
    if values.ndim == 2:
        yield Block(name, variable, origin, values)
        return
    for index in range(values.shape[0]):
        yield Block(name, variable, (index, *origin), values[index : index + 1])


STAGE = Stage("geometry", "2", "bperp.pipeline.geometry:STAGE", _plan, _compute)
