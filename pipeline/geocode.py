"""Step geocode: the interferograms of the scene on a map, corrected for terrain.

Product ``scene/geocoded`` ``(pair, y, x)`` and ``(y, x)``: each cell of the map, at the height of
the elevation model, is looked up in the radar image of the burst that owns its place. A task is
one tile of the map over all pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bperp.kernels.geocoding import Resampling, interpolate_image
from bperp.kernels.layover import LAYOVER, SHADOW
from bperp.pipeline.geometry import HEIGHT_LIMITS_M, burst_bounds
from bperp.pipeline.interferogram import PRODUCT as INTERFEROGRAM
from bperp.pipeline.layout import Coordinate, raster
from bperp.pipeline.map_cells import (
    MARGIN_M,
    MapCells,
    PlacedBurst,
    cell_look,
    cell_masks,
    height_margin_m,
    locate_cells,
    read_elevation,
)
from bperp.pipeline.map_grid import MapGrid, boxes_on_map, plan_map_grid
from bperp.pipeline.pairs import Pair, pair_coordinates, selected_pairs
from bperp.pipeline.radar import ground_spacing_m
from bperp.pipeline.scene import tile_windows
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

PRODUCT = "scene/geocoded"
FILTERED = "scene/filtered"
TILE = 512
"""Cells along an edge of a tile; also the chunk of the product."""

BYTES_PER_CELL = 220
BYTES_PER_PIXEL = 44
BYTES_PER_HEIGHT = 40
POSTING_M = 20.0
"""Posting of the elevation model for the prediction of memory."""

Bounds = tuple[float, float, float, float]


def _plan(context: Context) -> Plan:
    options = context.options["geocode"]
    if not options["enabled"]:
        return Plan((), ())
    stack: Stack = context.stack
    records = _bursts(stack)
    bursts = [PlacedBurst.from_dict(record) for record in records]
    heights = [_heights_of(context, burst.image.burst_id) for burst in bursts]
    outlines = [burst.outline_deg(span) for burst, span in zip(bursts, heights, strict=True)]
    grid = plan_map_grid(options, outlines, min(_pixel_m(stack)))
    boxes = boxes_on_map(grid.crs, outlines)
    phase, inputs = _inputs(context)
    pairs = selected_pairs(context)
    geometry = dict(context.options["geometry"])
    parameters = {
        "grid": [grid.crs, grid.spacing, grid.column, grid.row],
        "pairs": len(pairs),
        "looks": list(stack.scene.looks),
        "shape": _radar_shape(stack),
        "resampling": options["resampling"],
        "phase": phase,
        "elevation": geometry,
        "timing": dict(geometry.get("timing", {})),
        "limits_deg": _around([burst_bounds(burst.image) for burst in bursts]),
        "relief_m": max(high for _, high in heights) - min(low for low, _ in heights),
    }
    tasks = []
    for key, window in tile_windows((grid.rows, grid.columns), (TILE, TILE)):
        seen = [r for r, box in zip(records, boxes, strict=True) if grid.meets(window, box)]
        pixels = (window[1] - window[0]) * (window[3] - window[2])
        tasks.append(
            Task(
                "geocode",
                key,
                {**parameters, "window": list(window), "bursts": seen},
                inputs,
                (PRODUCT,),
                memory_bytes=_memory(stack, grid, pixels, parameters["relief_m"]),
                pixels=pixels,
                batch="scene",
            )
        )
    return Plan((_template(stack, pairs, grid, parameters),), tuple(tasks))


def _bursts(stack: Stack) -> list[dict[str, Any]]:
    """Return what ``PlacedBurst.from_dict`` takes, of the bursts that own a part of the scene."""
    return [
        {
            "image": stack.reference(place.burst_id).as_dict(),
            "origin": [place.azimuth, place.range],
            "owned": list(place.owned),
        }
        for place in stack.scene.placements
        if place.owned[0] < place.owned[1] and place.owned[2] < place.owned[3]
    ]


def _radar_shape(stack: Stack) -> list[int]:
    """Return lines and samples of the multilooked scene."""
    return [stack.scene.lines // stack.scene.looks[0], stack.scene.samples // stack.scene.looks[1]]


def _pixel_m(stack: Stack) -> tuple[float, float]:
    """Return the edges of a multilooked pixel on the ground."""
    line_m, sample_m = ground_spacing_m(stack.reference(stack.burst_ids[0]))
    return stack.scene.looks[0] * line_m, stack.scene.looks[1] * sample_m


def _inputs(context: Context) -> tuple[str, tuple[str, ...]]:
    """Return the product that holds the phase, and the tasks that have to be done."""
    stages = ["interferogram"]
    if context.options.get("filter", {}).get("enabled", False):
        stages.append("filter")
    names = tuple(f"{stage}/{key}" for stage in stages for key in context.receipts(stage))
    return (FILTERED if len(stages) > 1 else INTERFEROGRAM), names


def _heights_of(context: Context, burst_id: str) -> tuple[float, float]:
    """Return the lowest and highest ground of a burst, from its geometry."""
    summary = context.receipts("geometry").get(burst_id, {}).get("summary", {})
    low, high = summary.get("height_min_m"), summary.get("height_max_m")
    return HEIGHT_LIMITS_M if low is None or high is None else (float(low), float(high))


def _around(bounds: Sequence[Bounds]) -> Bounds:
    """Return the box around boxes in degrees, on the first one's side of the antimeridian."""
    turns = [360.0 * round((bounds[0][1] - box[1]) / 360.0) for box in bounds]
    return (
        min(box[0] for box in bounds),
        min(box[1] + turn for box, turn in zip(bounds, turns, strict=True)),
        max(box[2] for box in bounds),
        max(box[3] + turn for box, turn in zip(bounds, turns, strict=True)),
    )


def _memory(stack: Stack, grid: MapGrid, cells: int, relief_m: float) -> int:
    """Predict the peak: cells, heights around them, one pair below them (they may be turned)."""
    edge_m = TILE * grid.spacing * grid.projection.metres_per_unit
    heights = ((edge_m + 4.0 * relief_m + 2.0 * MARGIN_M) / POSTING_M) ** 2
    lines, samples = (
        min(1.5 * edge_m / size + 64.0, float(limit))
        for size, limit in zip(_pixel_m(stack), _radar_shape(stack), strict=True)
    )
    mask = lines * samples * stack.scene.looks[1]
    peak = BYTES_PER_CELL * cells + BYTES_PER_HEIGHT * heights + BYTES_PER_PIXEL * lines * samples
    return int(peak + mask) + (128 << 20)


def _template(
    stack: Stack, pairs: Sequence[Pair], grid: MapGrid, parameters: Mapping[str, Any]
) -> Template:
    projection, spacing = grid.projection, grid.spacing
    x_attributes, y_attributes = projection.axis_attributes()
    corner = (grid.column * spacing, grid.row * spacing)
    mapping = projection.grid_mapping(*corner, spacing)
    coordinates: dict[str, Coordinate] = {
        "x": (("x",), grid.x(0, grid.columns), {"long_name": "cell centre", **x_attributes}),
        "y": (("y",), grid.y(0, grid.rows), {"long_name": "cell centre", **y_attributes}),
        "spatial_ref": ((), np.zeros((), np.int32), mapping),
        **pair_coordinates(stack, pairs),
    }
    attributes = {
        "title": "Geocoded interferograms",
        "phase_product": parameters["phase"],
        "resampling": parameters["resampling"],
        "azimuth_looks": parameters["looks"][0],
        "range_looks": parameters["looks"][1],
        "crs": grid.crs,
        "spacing": spacing,
        **({"epsg": projection.epsg} if projection.epsg else {}),
    }
    return Template(
        PRODUCT, _arrays(len(pairs), (grid.rows, grid.columns)), coordinates, attributes
    )


def _arrays(pairs: int, shape: tuple[int, int]) -> tuple[ArraySpec, ...]:
    cube, edges = (pairs, *shape), (min(TILE, shape[0]), min(TILE, shape[1]))
    image: dict[str, Any] = {"dims": ("y", "x"), "chunks": edges, "grid_mapping": "spatial_ref"}
    layers: dict[str, Any] = {**image, "dims": ("pair", "y", "x"), "chunks": (1, *edges)}
    vectors: dict[str, Any] = {**layers, "dims": ("enu", "y", "x")}
    return (
        raster("phase", cube, dtype="float32", units="rad", **layers,
               long_name="wrapped phase of reference * conj(secondary), topography removed",
               positive="secondary farther away than reference"),
        raster("coherence", cube, dtype="float32", units="1", **layers,
               long_name="sample coherence magnitude, biased at low coherence"),
        raster("height", shape, dtype="float32", units="m", **image,
               long_name="height of the elevation model above the WGS84 ellipsoid"),
        raster("line_of_sight", (3, *shape), dtype="float32", units="1", **vectors,
               long_name="unit vector from the ground to the sensor"),
        raster("incidence_angle", shape, dtype="float32", units="rad", **image,
               long_name="angle between the ellipsoid's normal and the line of sight"),
        raster("valid_mask", shape, dtype="uint8", units="1", **image,
               long_name="1 where the nearest radar pixel has a value in some pair",
               flag_values=[0, 1], flag_meanings="invalid valid"),
        raster("layover_shadow", shape, dtype="uint8", units="1", **image,
               long_name="layover and shadow at the radar pixel of the cell",
               flag_masks=[LAYOVER, SHADOW], flag_meanings="layover shadow"),
    )  # fmt: skip


def _compute(parameters: Mapping[str, Any], source: Source) -> Computation:
    bursts = [PlacedBurst.from_dict(record) for record in parameters["bursts"]]
    top, bottom, left, right = parameters["window"]
    shape = (bottom - top, right - left)
    latitude, longitude = _positions(parameters)
    elevation = None
    if bursts:
        margin_m = height_margin_m(bursts, parameters["relief_m"])
        limits = parameters["limits_deg"]
        elevation = read_elevation(source, latitude, longitude, limits, margin_m)
    cells = locate_cells(bursts, latitude, longitude, elevation, parameters["timing"])
    usable = np.zeros(latitude.size, np.uint8)
    yield from _radar_images(parameters, cells, source, usable)
    masks = cell_masks(bursts, cells, elevation, parameters["looks"][0])
    sight, incidence = cell_look(bursts, cells)
    layers: dict[str, NDArray[Any]] = {
        "height": cells.height_m,
        "incidence_angle": incidence,
        "valid_mask": usable,
        "layover_shadow": masks,
    }
    for name, values in layers.items():
        yield Block(PRODUCT, name, (top, left), values.reshape(shape))
    for axis in range(3):
        yield Block(PRODUCT, "line_of_sight", (axis, top, left), sight[axis].reshape(1, *shape))
    return {
        "cells": int(usable.size),
        "valid": int(np.count_nonzero(usable)),
        "layover": int(np.count_nonzero(masks & LAYOVER)),
        "shadow": int(np.count_nonzero(masks & SHADOW)),
    }


def _positions(parameters: Mapping[str, Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return latitudes and longitudes (degrees) of the cells of a tile, in one row."""
    top, bottom, left, right = parameters["window"]
    crs, spacing, column, row = parameters["grid"]
    grid = MapGrid(crs, spacing, column, row, bottom, right)
    x, y = np.meshgrid(grid.x(left, right), grid.y(top, bottom))
    longitude, latitude = grid.projection.to_geographic(x.ravel(), y.ravel())
    _, west, _, east = parameters["limits_deg"]
    return latitude, longitude + 360.0 * np.round((0.5 * (west + east) - longitude) / 360.0)


def _radar_images(
    parameters: Mapping[str, Any], cells: MapCells, source: Source, usable: NDArray[np.uint8]
) -> Iterator[Block]:
    """Yield phase and coherence of all pairs; set ``usable`` where some pair has a value."""
    azimuth_looks, range_looks = parameters["looks"]
    # A multilooked pixel lies in the middle of its looks.
    lines = (cells.line - 0.5 * (azimuth_looks - 1)) / azimuth_looks
    samples = (cells.sample - 0.5 * (range_looks - 1)) / range_looks
    rows, columns = _span(lines, parameters["shape"][0]), _span(samples, parameters["shape"][1])
    lines, samples = lines - rows.start, samples - columns.start
    method: Resampling = parameters["resampling"]
    top, bottom, left, right = parameters["window"]
    shape = (1, bottom - top, right - left)
    for pair in range(parameters["pairs"]):
        phase = coherence = np.full(lines.size, np.nan, np.float32)
        if rows.start < rows.stop and columns.start < columns.stop:
            region = (slice(pair, pair + 1), rows, columns)
            angle = source.read(parameters["phase"], "phase", region)[0]
            weight = source.read(INTERFEROGRAM, "coherence", region)[0]
            phase = _interpolate_phase(angle, weight, (lines, samples), method)
            coherence = interpolate_image(weight, lines, samples, method)
            found = (np.isfinite(weight) & np.isfinite(angle)).astype(np.uint8)
            usable |= interpolate_image(found, lines, samples, "nearest")
        yield Block(PRODUCT, "phase", (pair, top, left), phase.reshape(shape))
        yield Block(PRODUCT, "coherence", (pair, top, left), coherence.reshape(shape))


def _interpolate_phase(
    phase: NDArray[np.float32],
    coherence: NDArray[np.float32],
    place: tuple[NDArray[np.float64], NDArray[np.float64]],
    method: Resampling,
) -> NDArray[np.float32]:
    """Interpolate ``coherence * exp(j phase)``: wrapped phases have no mean of their own."""
    if method == "nearest":
        nearest: NDArray[np.float32] = interpolate_image(phase, *place, method)
        return nearest
    phasor = np.empty(phase.shape, np.complex64)
    phasor.real, phasor.imag = coherence * np.cos(phase), coherence * np.sin(phase)
    between: NDArray[np.float32] = np.angle(interpolate_image(phasor, *place, method))
    return between


def _span(place: NDArray[np.float64], size: int) -> slice:
    """Return the pixels that interpolation at the places may touch."""
    known = place[np.isfinite(place)]
    if not known.size:
        return slice(0, 0)
    first = min(max(int(np.floor(known.min())) - 1, 0), size)
    return slice(first, max(min(int(np.floor(known.max())) + 3, size), first))


STAGE = Stage("geocode", "1", "bperp.pipeline.geocode:STAGE", _plan, _compute)
