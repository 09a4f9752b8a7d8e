"""Step publish: displacement and velocity on a map, for readers without bperp.

Products ``results/displacement`` (an image per date, and maps), ``results/series`` (the same
displacement, pixel by pixel) and ``results/overviews`` (velocity and latest displacement, coarser
and coarser). ``bperp.pipeline.publish_layout`` explains their chunks.

A cell holds the mean of the connected scatterers in it, each weighted by the inverse variance of
its velocity: the better known count more, and all variables of a cell describe the same mean
scatterer, so that the slope of its series is its velocity. ``velocity_sigma`` is a mean as well:
averaging is not credited, because the errors of neighbours are much the same. Cells without a
scatterer are NaN with a count of 0. There is no interpolation between cells.

A task is a date of a tile (image), a block of dates of a small tile (series), or a tile (maps and
overviews). Scatterers are read piece by piece; the images of consecutive dates share the pieces.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bperp.pipeline.amplitude import complete_dates
from bperp.pipeline.geometry import HEIGHT_LIMITS_M
from bperp.pipeline.layout import SCATTERER_CHUNK
from bperp.pipeline.map_cells import PlacedBurst
from bperp.pipeline.map_grid import MapGrid, plan_map_grid
from bperp.pipeline.publish_cells import (
    CellMeans,
    Scatterers,
    halve,
    locate_scatterers,
    read_pieces,
    round_displacement,
)
from bperp.pipeline.publish_layout import (
    DISPLACEMENT,
    MAPS,
    OVERVIEWS,
    SERIES,
    SERIES_DATES,
    SERIES_TILE,
    TILE,
    level_count,
    published_templates,
)
from bperp.pipeline.scene import Window, tile_windows
from bperp.pipeline.stack import Stack
from bperp.pipeline.stage import Block, Computation, Context, Plan, Source, Stage, Task
from bperp.pipeline.timeseries import PRODUCT as TIMESERIES
from bperp.stores.errors import ConfigurationError

CELL_M = 100.0
"""Edge of a cell by default, as the PSI services of ESA's Geohazards Exploitation Platform use."""

DATES_TOGETHER = 16
"""Images whose values are read at once: a chunk of the table holds all dates of its scatterers."""

BYTES_PER_SCATTERER = 150
"""Coordinates, cells and weights while they are found."""


def _plan(context: Context) -> Plan:
    options = context.options["publish"]
    if not options["enabled"]:
        return Plan((), ())
    stack: Stack = context.stack
    grid = _grid(context, options)
    latest = complete_dates(stack)[-1]
    receipts = context.receipts("timeseries")
    count = int(receipts["scene"]["summary"]["scatterers"])
    common = {"grid": list(grid), "scatterers": count}
    inputs = tuple(f"timeseries/{key}" for key in receipts)
    reading = _reading_bytes(count, len(stack.dates))
    tasks = [
        *_map_tasks(grid, {**common, "latest": latest}, inputs, reading),
        *_image_tasks(grid, common, inputs, reading, stack.dates),
        *_series_tasks(grid, common, inputs, reading, stack.dates),
    ]
    return Plan(published_templates(stack, grid, latest), tuple(tasks))


def _grid(context: Context, options: Mapping[str, Any]) -> MapGrid:
    """Return the map of the whole scene: it does not depend on which scatterers are selected."""
    stack: Stack = context.stack
    outlines = []
    for place in stack.scene.placements:
        if place.owned[0] < place.owned[1] and place.owned[2] < place.owned[3]:
            image = stack.reference(place.burst_id)
            burst = PlacedBurst(image, (place.azimuth, place.range), place.owned)
            outlines.append(burst.outline_deg(_heights_of(context, place.burst_id)))
    try:
        return plan_map_grid(options, outlines, CELL_M)
    except ConfigurationError as error:
        # The map of the interferograms has options of the same names.
        where, remedy = (
            (text or "").replace("geocode.", "publish.") for text in (error.where, error.remedy)
        )
        raise ConfigurationError(
            error.code,
            error.cause,
            where=where,
            expected=error.expected,
            found=error.found,
            remedy=remedy,
        ) from error


def _heights_of(context: Context, burst_id: str) -> tuple[float, float]:
    summary = context.receipts("geometry").get(burst_id, {}).get("summary", {})
    low, high = summary.get("height_min_m"), summary.get("height_max_m")
    return HEIGHT_LIMITS_M if low is None or high is None else (float(low), float(high))


def _map_tasks(
    grid: MapGrid, common: Mapping[str, Any], inputs: tuple[str, ...], reading: int
) -> Iterator[Task]:
    for tile, window in tile_windows((grid.rows, grid.columns), (TILE, TILE)):
        cells = _cells(window)
        parameters = {**common, "form": "map", "window": list(window)}
        yield Task("publish", f"map/{tile}", parameters, inputs, (DISPLACEMENT, OVERVIEWS),
                   memory_bytes=reading + cells * 60, pixels=cells * len(MAPS),
                   batch="maps")  # fmt: skip


def _image_tasks(
    grid: MapGrid,
    common: Mapping[str, Any],
    inputs: tuple[str, ...],
    reading: int,
    dates: Sequence[str],
) -> Iterator[Task]:
    columns = 4 * DATES_TOGETHER * int(common["scatterers"])
    for tile, window in tile_windows((grid.rows, grid.columns), (TILE, TILE)):
        cells = _cells(window)
        for index, date in enumerate(dates):
            first = index - index % DATES_TOGETHER
            parameters = {**common, "form": "image", "window": list(window), "date": date}
            yield Task("publish", f"image/{tile}/{date}", parameters, inputs, (DISPLACEMENT,),
                       memory_bytes=reading + columns + cells * 50, pixels=cells, batch="images",
                       labels=(date,),
                       locations={"together": list(dates[first : first + DATES_TOGETHER])},
                       group=f"{tile}/{dates[first]}")  # fmt: skip


def _series_tasks(
    grid: MapGrid,
    common: Mapping[str, Any],
    inputs: tuple[str, ...],
    reading: int,
    dates: Sequence[str],
) -> Iterator[Task]:
    for block, first in enumerate(range(0, len(dates), SERIES_DATES)):
        chosen = list(dates[first : first + SERIES_DATES])
        shape = (grid.rows, grid.columns)
        for tile, window in tile_windows(shape, (SERIES_TILE, SERIES_TILE)):
            values = _cells(window) * len(chosen)
            parameters = {**common, "form": "series", "window": list(window), "block": block,
                          "dates": chosen}  # fmt: skip
            yield Task("publish", f"series/{block:03d}/{tile}", parameters, inputs, (SERIES,),
                       memory_bytes=reading + values * 40, pixels=values,
                       batch="series")  # fmt: skip


def _cells(window: Window) -> int:
    return (window[1] - window[0]) * (window[3] - window[2])


def _reading_bytes(scatterers: int, dates: int) -> int:
    """Predict the peak of reading: a chunk of the table packed, unpacked and cut."""
    piece = min(scatterers, SCATTERER_CHUNK) * dates * 4
    return 3 * piece + scatterers * BYTES_PER_SCATTERER + (64 << 20)


def _compute(parameters: Mapping[str, Any], source: Source) -> Computation:
    forms = {"map": _maps, "image": _image, "series": _series}
    return (yield from forms[parameters["form"]](parameters, source))


def _in_window(parameters: Mapping[str, Any], source: Source) -> Scatterers:
    grid = MapGrid(*parameters["grid"])
    found = locate_scatterers(source, grid, parameters["scatterers"])
    return found.within(parameters["window"])


def _shape(parameters: Mapping[str, Any]) -> tuple[int, int]:
    top, bottom, left, right = parameters["window"]
    return bottom - top, right - left


def _columns(source: Source, dates: Sequence[str]) -> slice:
    """Return where dates lie in the table; they follow each other there as in the stack."""
    days = source.read(TIMESERIES, "date", (slice(None),))
    wanted = np.array(dates, "datetime64[D]").astype(np.int64)
    first = int(np.searchsorted(days, wanted[0]))
    found = slice(first, first + len(wanted))
    if not np.array_equal(days[found], wanted):
        raise ValueError(f"dates {dates[0]} to {dates[-1]} must follow each other in {TIMESERIES}")
    return found


def _image(parameters: Mapping[str, Any], source: Source) -> Computation:
    """Yield the displacement of one date."""
    together = parameters["together"]

    def read() -> tuple[Scatterers, NDArray[np.float32]]:
        scatterers = _in_window(parameters, source)
        values = np.empty((len(together), scatterers.index.size), np.float32)
        columns = _columns(source, together)
        for chosen, piece in read_pieces(source, "displacement", scatterers, columns):
            values[:, chosen] = piece.T
        return scatterers, values

    scatterers, values = source.shared("displacement", read)
    means = CellMeans(scatterers, _shape(parameters))
    means.add(slice(None), values[together.index(parameters["date"])])
    top, _, left, _ = parameters["window"]
    image = round_displacement(means.means())
    yield Block(DISPLACEMENT, "displacement", (parameters["date"], top, left), image)
    return {"cells": int(np.count_nonzero(np.isfinite(image)))}


def _series(parameters: Mapping[str, Any], source: Source) -> Computation:
    """Yield the displacement of a block of dates, pixel by pixel."""
    scatterers = _in_window(parameters, source)
    dates = parameters["dates"]
    means = CellMeans(scatterers, _shape(parameters), len(dates))
    columns = _columns(source, dates)
    for chosen, values in read_pieces(source, "displacement", scatterers, columns):
        means.add(chosen, values)
    top, _, left, _ = parameters["window"]
    origin = (parameters["block"] * SERIES_DATES, top, left)
    yield Block(SERIES, "displacement", origin, round_displacement(means.means()))
    return {"scatterers": int(scatterers.index.size)}


def _maps(parameters: Mapping[str, Any], source: Source) -> Computation:
    """Yield what does not change from date to date, and the overviews."""
    scatterers, shape = _in_window(parameters, source), _shape(parameters)
    top, _, left, _ = parameters["window"]
    cells = scatterers.row.astype(np.int64) * shape[1] + scatterers.column
    count = np.bincount(cells, minlength=shape[0] * shape[1]).astype(np.int32).reshape(shape)
    yield Block(DISPLACEMENT, "scatterer_count", (top, left), count)
    for variable in MAPS:
        means = CellMeans(scatterers, shape)
        for chosen, values in read_pieces(source, variable.name, scatterers):
            means.add(chosen, values)
        image = means.means()[0]
        yield Block(DISPLACEMENT, variable.name, (top, left), image)
        if variable.name == "velocity_los":
            yield from _levels(parameters, variable.name, image)
    means = CellMeans(scatterers, shape)
    columns = _columns(source, [parameters["latest"]])
    for chosen, values in read_pieces(source, "displacement", scatterers, columns):
        means.add(chosen, values)
    yield from _levels(parameters, "displacement", round_displacement(means.means())[0])
    return {"scatterers": int(scatterers.index.size), "cells": int(np.count_nonzero(count))}


def _levels(
    parameters: Mapping[str, Any], name: str, image: NDArray[np.float32]
) -> Iterator[Block]:
    """Yield an image and its halvings: tiles begin at multiples of all of them."""
    grid = MapGrid(*parameters["grid"])
    top, _, left, _ = parameters["window"]
    for level in range(level_count((grid.rows, grid.columns))):
        if level > 0:
            image = halve(image)
        yield Block(OVERVIEWS, f"{level}/{name}", (top >> level, left >> level), image)


STAGE = Stage("publish", "1", "bperp.pipeline.publish:STAGE", _plan, _compute)
