"""Shapes, chunks and shards of the published cubes, and what is written into their metadata.

What a request costs decides the shapes; a cell is 100 m wide, a frame about 2500 x 1700 cells.

Series form ``results/series``: opening it with xarray takes six requests (the group document,
``x``, ``y``, and ``date`` three times, because xarray looks at its first and last value before it
decodes all of it), the series of a pixel one for the index of its shard and one for its chunk:
eight. A second shard along time would make it ten, so a shard holds ``SERIES_DATES`` = 768 dates,
25 years at 12 days, in chunks that are as long; 8 x 8 cells of 384 dates are 98 kB before packing.
128 x 128 cells in a shard keep its index at 4 kB and a frame at 280 objects. The length is fixed:
an appended date writes the last shard of each place anew and leaves full ones alone; beyond 768
dates a pixel costs ten requests.

Image form ``results/displacement``: a date is one shard of the whole map, so that one request
fetches it, in chunks of 256 x 256 cells for those who look at a part (index and one chunk). An
appended date is a new object. Beyond ``TILE`` = 4096 cells along an edge the map is cut into tiles
of that size, each an object of at most 67 MB before packing.

Overviews ``results/overviews``: the map itself and its halvings, each like an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from bperp.pipeline.layout import Coordinate, date_coordinate
from bperp.pipeline.map_grid import MapGrid
from bperp.pipeline.publish_cells import DISPLACEMENT_STEP_M
from bperp.pipeline.stack import Stack
from bperp.pipeline.stage import ArraySpec, Template
from bperp.stores.geozarr import GridPlace, grid_attributes, multiscale_attributes

__all__ = [
    "DISPLACEMENT",
    "MAPS",
    "OVERVIEWS",
    "SERIES",
    "SERIES_DATES",
    "SERIES_TILE",
    "TILE",
    "level_count",
    "published_templates",
]

DISPLACEMENT, SERIES, OVERVIEWS = "results/displacement", "results/series", "results/overviews"

TILE, CHUNK = 4096, 256
SERIES_DATES, SERIES_TILE, SERIES_CHUNK = 768, 128, 8

SMALLEST_OVERVIEW = 512
"""Halving ends when both edges are shorter."""


class MapVariable(NamedTuple):
    """A variable of the map: its name in the table of scatterers too."""

    name: str
    units: str
    long_name: str
    attributes: dict[str, Any]


MAPS = (
    MapVariable("velocity_los", "m year-1", "line-of-sight velocity", {
        "positive": "towards the satellite",
        "ancillary_variables": "velocity_sigma scatterer_count temporal_coherence"}),
    MapVariable("velocity_sigma", "m year-1", "standard deviation of velocity_los", {
        "comment": "mean over the scatterers of the cell, as if their errors were the same: most "
        "of them come from the atmosphere"}),
    MapVariable("dem_error", "m", "height of the scatterers above the elevation model", {}),
    MapVariable("height", "m", "height of the elevation model above the ellipsoid", {
        "standard_name": "height_above_reference_ellipsoid"}),
    MapVariable("temporal_coherence", "1", "coherence of the phase with the model", {
        "valid_range": [0.0, 1.0]}),
    MapVariable("phase_noise", "1", "StaMPS-like gamma of the selection", {
        "valid_range": [0.0, 1.0]}),
)  # fmt: skip
"""Means over the scatterers of a cell, float32 (y, x)."""

_MEAN = "area: mean (weighted by the inverse variance of velocity_los)"


def published_templates(
    stack: Stack, grid: MapGrid, latest: str
) -> tuple[Template, Template, Template]:
    """Describe the published products.

    Parameters
    ----------
    stack : Stack
        Gives the dates.
    grid : MapGrid
        The map.
    latest : str
        Date of the displacement in the overviews.

    Returns
    -------
    tuple of Template
        Images and maps, series, overviews.
    """
    place = _place(grid)
    shape, dates = (grid.rows, grid.columns), len(stack.dates)
    attributes = {
        "source": "persistent scatterers in Sentinel-1 bursts, processed by bperp",
        "reference_date": stack.reference_date,
        "crs": grid.crs,
        "spacing": grid.spacing,
    }
    coordinates = {"date": date_coordinate(stack), **_coordinates(grid, place)}
    images = (
        _displacement((dates, *shape), *_image_edges(shape)),
        *(_map(v.name, shape, v.units, v.long_name, **v.attributes) for v in MAPS),
        _count(shape),
    )
    series_edges = [_edges(size, SERIES_CHUNK, SERIES_TILE) for size in shape]
    chunk, shard = zip((SERIES_DATES, SERIES_DATES), *series_edges, strict=True)
    title = "Line-of-sight displacement on a map"
    return (
        Template(DISPLACEMENT, images, coordinates,
                 {"title": title, **attributes, **grid_attributes(place)}),
        Template(SERIES, (_displacement((dates, *shape), chunk, shard),), coordinates,
                 {"title": f"{title}, by pixel", **attributes, **grid_attributes(place)}),
        _overviews(grid, latest, {"title": f"{title}, overviews", **attributes}),
    )  # fmt: skip


def level_count(shape: tuple[int, int]) -> int:
    """Return how many levels the overviews of a map have, the map itself counted."""
    levels = 1
    while max(shape) >= SMALLEST_OVERVIEW:
        shape = (-(-shape[0] // 2), -(-shape[1] // 2))
        levels += 1
    return levels


def _overviews(grid: MapGrid, latest: str, attributes: dict[str, Any]) -> Template:
    levels = level_count((grid.rows, grid.columns))
    places = [_place(grid).halved(level) for level in range(levels)]
    days = np.array(latest, "datetime64[D]").astype(np.int64)
    time = {"standard_name": "time", "units": "days since 1970-01-01",
            "calendar": "proleptic_gregorian"}  # fmt: skip
    arrays: list[ArraySpec] = []
    coordinates: dict[str, Coordinate] = {}
    for level, place in enumerate(places):
        velocity = MAPS[0]
        shown = {"positive": velocity.attributes["positive"]}
        arrays += [
            _map(f"{level}/velocity_los", place.shape, velocity.units, velocity.long_name,
                 level=level, **shown),
            _map(f"{level}/displacement", place.shape, "m", "line-of-sight displacement from the "
                 f"reference date to {latest}", level=level, **shown),
        ]  # fmt: skip
        level_grid = grid._replace(rows=place.shape[0], columns=place.shape[1])
        coordinates |= {
            f"{level}/{name}": item for name, item in _coordinates(level_grid, place).items()
        }
        coordinates[f"{level}/date"] = ((), days, time)
    inner = {str(level): grid_attributes(place) for level, place in enumerate(places)}
    described = {**attributes, **multiscale_attributes(places, "average"), "groups": inner}
    return Template(OVERVIEWS, tuple(arrays), coordinates, described)


def _place(grid: MapGrid) -> GridPlace:
    left, top = grid.column * grid.spacing, grid.row * grid.spacing
    projection = grid.projection
    wkt2 = str(projection.grid_mapping(left, top, grid.spacing)["crs_wkt"])
    return GridPlace(left, top, grid.spacing, (grid.rows, grid.columns), wkt2, projection.epsg)


def _coordinates(grid: MapGrid, place: GridPlace) -> dict[str, Coordinate]:
    x_attributes, y_attributes = grid.projection.axis_attributes()
    rows, columns = place.shape
    x = place.left + (np.arange(columns, dtype=np.float64) + 0.5) * place.spacing
    y = place.top - (np.arange(rows, dtype=np.float64) + 0.5) * place.spacing
    mapping = grid.projection.grid_mapping(place.left, place.top, place.spacing)
    return {
        "y": (("y",), y, {"long_name": "cell centre", **y_attributes}),
        "x": (("x",), x, {"long_name": "cell centre", **x_attributes}),
        "spatial_ref": ((), np.zeros((), np.int32), mapping),
    }


def _displacement(
    shape: tuple[int, ...], chunks: Sequence[int], shards: Sequence[int]
) -> ArraySpec:
    attributes = {
        "units": "m",
        "long_name": "line-of-sight displacement since the reference date",
        "positive": "towards the satellite",
        "grid_mapping": "spatial_ref",
        "cell_methods": _MEAN,
        "comment": f"rounded to multiples of 2**{int(np.log2(DISPLACEMENT_STEP_M))} m, by less "
        "than 0.004 mm",
    }
    return ArraySpec("displacement", ("date", "y", "x"), shape, tuple(chunks), "float32",
                     float("nan"), attributes, tuple(shards))  # fmt: skip


def _map(
    name: str,
    shape: tuple[int, int],
    units: str,
    long_name: str,
    *,
    level: int = 0,
    **attributes: Any,
) -> ArraySpec:
    described = {"units": units, "long_name": long_name, "grid_mapping": "spatial_ref",
                 "cell_methods": _MEAN, **attributes}  # fmt: skip
    chunks, shards = zip(*(_edges(size, CHUNK, TILE >> level) for size in shape), strict=True)
    return ArraySpec(name, ("y", "x"), shape, chunks, "float32", float("nan"), described, shards)


def _count(shape: tuple[int, int]) -> ArraySpec:
    attributes = {
        "standard_name": "number_of_observations",
        "units": "1",
        "long_name": "connected scatterers in the cell",
        "grid_mapping": "spatial_ref",
        "cell_methods": "area: sum",
        "valid_range": [0, 2**31 - 1],
    }
    chunks, shards = zip(*(_edges(size, CHUNK, TILE) for size in shape), strict=True)
    return ArraySpec("scatterer_count", ("y", "x"), shape, chunks, "int32", 0, attributes, shards)


def _image_edges(shape: tuple[int, int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    chunks, shards = zip((1, 1), *(_edges(size, CHUNK, TILE) for size in shape), strict=True)
    return chunks, shards


def _edges(size: int, chunk: int, largest: int) -> tuple[int, int]:
    """Return the edges of a chunk and of a shard along an axis.

    A shard that ends with its axis has no chunks beyond it: whoever reads all of it gets it in one
    request.
    """
    inner = min(chunk, size, largest)
    return inner, min(largest, -(-size // inner) * inner)
