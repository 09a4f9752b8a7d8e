"""Step 2, geometry: where each pixel of the reference date lies on the ground.

Product ``bursts/<burst_id>/geometry`` ``(azimuth, range)``: ellipsoidal height, latitude,
longitude, incidence, unit vector from the ground to the sensor, status.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bperp.kernels.geometry import look_vectors
from bperp.kernels.orbit import OrbitPolynomial
from bperp.kernels.terrain import DEM_OUTSIDE, rdr2geo
from bperp.kernels.zero_doppler import rdr2geo_at_height
from bperp.pipeline.burst import BurstImage
from bperp.pipeline.layout import CHUNK_LINES, CHUNK_SAMPLES, image_memory, raster
from bperp.pipeline.radar import burst_orbit, line_times_s, slant_ranges_m
from bperp.pipeline.scene import tile_windows
from bperp.pipeline.stack import Stack
from bperp.pipeline.stage import Block, Computation, Context, Plan, Source, Stage, Task, Template
from bperp.stores.errors import ElevationError

HEIGHT_LIMITS_M = (-500.0, 9000.0)
"""Lowest and highest ellipsoidal heights of land, with margin."""

MARGIN_DEG = 0.01
BYTES_PER_PIXEL = 41

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
    templates, tasks = [], []
    for burst_id in stack.burst_ids:
        image = stack.reference(burst_id)
        shape = (image.lines, image.samples)
        templates.append(_template(burst_id, shape))
        parameters = {
            "image": image.as_dict(),
            "elevation": dict(context.options["geometry"]),
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
    chunks = (1, min(512, shape[0]), min(2048, shape[1]))
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
        raster("status", shape, dtype="uint8", units="1",
               long_name="how the pixel was solved, 0 is valid"),
    )  # fmt: skip
    return Template(
        product(burst_id), arrays, {}, {"burst_id": burst_id, "title": "Geometry of the burst"}
    )


def _compute(parameters: Mapping[str, Any], source: Source) -> Computation:
    image = BurstImage.from_dict(parameters["image"])
    heights, origin = _trim_unknown(*source.elevation(*burst_bounds(image)))
    orbit = burst_orbit(image)
    name = product(image.burst_id)
    limits, invalid = [np.inf, -np.inf], 0
    shape = (image.lines, image.samples)
    for _, window in tile_windows(shape, (CHUNK_LINES, CHUNK_SAMPLES)):
        rows, status = _solve_tile(image, orbit, window, heights, origin)
        _require_coverage(image, status, (window[0], window[2]))
        for variable, values in {**rows, "status": status}.items():
            yield from _blocks(name, variable, (window[0], window[2]), values)
        good = rows["height"][status == 0]
        invalid += status.size - good.size
        if good.size:
            limits = [min(limits[0], float(good.min())), max(limits[1], float(good.max()))]
    return {
        "height_min_m": limits[0] if np.isfinite(limits[0]) else None,
        "height_max_m": limits[1] if np.isfinite(limits[1]) else None,
        "invalid_share": invalid / (image.lines * image.samples),
    }


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


def _solve_tile(
    image: BurstImage,
    orbit: OrbitPolynomial,
    window: tuple[int, int, int, int],
    heights: NDArray[np.float32],
    origin: Grid,
) -> tuple[dict[str, NDArray[Any]], NDArray[np.uint8]]:
    times = line_times_s(image, window[0], window[1])
    ranges = slant_ranges_m(image, window[2], window[3])
    latitude, longitude, height, status = rdr2geo(orbit, times, ranges, heights, origin)
    sight, incidence = look_vectors(orbit, times, latitude, longitude, height)
    rows: dict[str, NDArray[Any]] = {
        "height": height,
        "latitude": np.degrees(latitude),
        "longitude": np.degrees(longitude),
        "incidence_angle": incidence,
        "line_of_sight": sight,
    }
    return rows, status


def _blocks(
    name: str, variable: str, origin: tuple[int, int], values: NDArray[Any]
) -> Iterator[Block]:
    if values.ndim == 2:
        yield Block(name, variable, origin, values)
        return
    for index in range(values.shape[0]):
        yield Block(name, variable, (index, *origin), values[index : index + 1])


STAGE = Stage("geometry", "1", "bperp.pipeline.geometry:STAGE", _plan, _compute)
