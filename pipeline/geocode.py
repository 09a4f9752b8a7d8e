"""Step geocode: the interferograms of the scene on a map, corrected for terrain.

Product ``scene/geocoded`` ``(pair, y, x)`` and ``(y, x)``: each cell of the map, at the height of
the elevation model, is looked up in the radar image of the burst that owns its place. A task is one
tile of the map and the pairs that end on one date; what does not depend on dates is a task of its
own. The tasks of a tile share the places of its cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    ElevationWindow,
    MapCells,
    PlacedBurst,
    cell_look,
    cell_masks,
    height_margin_m,
    locate_cells,
    read_elevation,
)
from bperp.pipeline.map_grid import MapGrid, boxes_on_map, plan_map_grid
from bperp.pipeline.pairs import Pair, pair_coordinates, pairs_by_date, selected_pairs
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
    pair_label,
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
    phase, stages = _phase_product(context)
    pairs = selected_pairs(context)
    groups = pairs_by_date(pairs, stack.reference_date)
    geometry = dict(context.options["geometry"])
    parameters = {
        "grid": [grid.crs, grid.spacing, grid.column, grid.row],
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
        for date, ending in {"map": [], **groups}.items():
            labels = tuple(pair_label(*pair) for pair in ending)
            tasks.append(
                Task(
                    "geocode",
                    f"{key}/{date}",
                    {**parameters, "window": list(window), "bursts": seen, "pairs": list(labels)},
                    _inputs(context, stages, date) if ending else (),
                    (PRODUCT,),
                    memory_bytes=_memory(stack, grid, pixels, parameters["relief_m"]),
                    pixels=pixels * max(1, len(ending)),
                    batch="scene",
                    labels=labels,
                    group=key,
                )
            )
    return Plan((_template(stack, pairs, grid, parameters),), tuple(tasks))


def _bursts(stack: Stack) -> list[dict[str, Any]]:
    """Return what ``PlacedBurst.from_dict`` takes, of the bursts that own a part of the scene."""
    return [
        {
            "image": stack.reference(place.burst_id).as_parameters(),
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


def _phase_product(context: Context) -> tuple[str, tuple[str, ...]]:
    """Return the product that holds the phase, and the stages that images come from."""
    if context.options.get("filter", {}).get("enabled", False):
        return FILTERED, ("interferogram", "filter")
    return INTERFEROGRAM, ("interferogram",)


def _inputs(context: Context, stages: Sequence[str], date: str) -> tuple[str, ...]:
    """Return the tasks that make the images of the pairs that end on a date."""
    return tuple(
        f"{stage}/{key}"
        for stage in stages
        for key in context.tasks(stage)
        if key.endswith(f"/{date}")
    )


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
        **pair_coordinates(pairs),
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
               long_name="1 where the radar saw the cell on the reference date",
               flag_values=[0, 1], flag_meanings="invalid valid"),
        raster("layover_shadow", shape, dtype="uint8", units="1", **image,
               long_name="layover and shadow at the radar pixel of the cell",
               flag_masks=[LAYOVER, SHADOW], flag_meanings="layover shadow"),
    )  # fmt: skip


def _compute(parameters: Mapping[str, Any], source: Source) -> Computation:
    bursts = [PlacedBurst.from_dict(record) for record in parameters["bursts"]]
    cells, elevation = source.shared("cells", lambda: _located(parameters, bursts, source))
    if parameters["pairs"]:
        return (yield from _radar_images(parameters, cells, source))
    return (yield from _map_layers(parameters, bursts, cells, elevation))


def _located(
    parameters: Mapping[str, Any], bursts: Sequence[PlacedBurst], source: Source
) -> tuple[MapCells, ElevationWindow | None]:
    """Return where the cells of a tile lie, and the ground around them."""
    latitude, longitude = _positions(parameters)
    elevation = None
    if bursts:
        margin_m = height_margin_m(bursts, parameters["relief_m"])
        limits = parameters["limits_deg"]
        elevation = read_elevation(source, latitude, longitude, limits, margin_m)
    cells = locate_cells(bursts, latitude, longitude, elevation, parameters["timing"])
    return cells, elevation


def _map_layers(
    parameters: Mapping[str, Any],
    bursts: Sequence[PlacedBurst],
    cells: MapCells,
    elevation: ElevationWindow | None,
) -> Computation:
    """Yield what does not depend on dates."""
    top, bottom, left, right = parameters["window"]
    shape = (bottom - top, right - left)
    seen = (np.isfinite(cells.line) & np.isfinite(cells.sample)).astype(np.uint8)
    masks = cell_masks(bursts, cells, elevation, parameters["looks"][0])
    sight, incidence = cell_look(bursts, cells)
    layers: dict[str, NDArray[Any]] = {
        "height": cells.height_m,
        "incidence_angle": incidence,
        "valid_mask": seen,
        "layover_shadow": masks,
    }
    for name, values in layers.items():
        yield Block(PRODUCT, name, (top, left), values.reshape(shape))
    for axis in range(3):
        yield Block(PRODUCT, "line_of_sight", (axis, top, left), sight[axis].reshape(1, *shape))
    return {
        "cells": int(seen.size),
        "valid": int(np.count_nonzero(seen)),
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


def _radar_images(parameters: Mapping[str, Any], cells: MapCells, source: Source) -> Computation:
    """Yield phase and coherence of the pairs."""
    azimuth_looks, range_looks = parameters["looks"]
    # A multilooked pixel lies in the middle of its looks.
    lines = (cells.line - 0.5 * (azimuth_looks - 1)) / azimuth_looks
    samples = (cells.sample - 0.5 * (range_looks - 1)) / range_looks
    rows, columns = _span(lines, parameters["shape"][0]), _span(samples, parameters["shape"][1])
    lines, samples = lines - rows.start, samples - columns.start
    method: Resampling = parameters["resampling"]
    top, bottom, left, right = parameters["window"]
    shape = (1, bottom - top, right - left)
    counts = {}
    for pair in parameters["pairs"]:
        phase = coherence = np.full(lines.size, np.nan, np.float32)
        if rows.start < rows.stop and columns.start < columns.stop:
            region = (pair, rows, columns)
            angle = source.read(parameters["phase"], "phase", region)[0]
            weight = source.read(INTERFEROGRAM, "coherence", region)[0]
            phase = _interpolate_phase(angle, weight, (lines, samples), method)
            coherence = interpolate_image(weight, lines, samples, method)
        yield Block(PRODUCT, "phase", (pair, top, left), phase.reshape(shape))
        yield Block(PRODUCT, "coherence", (pair, top, left), coherence.reshape(shape))
        counts[pair] = int(np.count_nonzero(np.isfinite(phase)))
    return {"valid": counts}


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


STAGE = Stage("geocode", "2", "bperp.pipeline.geocode:STAGE", _plan, _compute)
