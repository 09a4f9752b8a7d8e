"""What the tasks of each stage read from the store: the one part of a plan that plans do not tell.

One rule per stage says which windows a task reads; chunks are counted from the templates. A test
compares the rules with the reads of a real run, stage by stage, so a stage that changes its ways
without its rule is noticed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bperp.flows.bundles import LARGEST_BUNDLE
from bperp.kernels.resample import HALO_SAMPLES
from bperp.pipeline import (
    alignment,
    amplitude,
    coregister,
    filtering,
    geocode,
    geometry,
    ingest,
    interferogram,
    misregistration,
    misregistration_table,
    publish,
    registration,
    scatterers,
    seams,
    timeseries,
)
from bperp.pipeline.publish_layout import MAPS
from bperp.pipeline.scene import SceneReader, tile_windows
from bperp.pipeline.stack import Rectangle, meets_any
from bperp.pipeline.stage import ArraySpec, Plan, Task

__all__ = ["READERS", "Reads", "count_reads"]

_SOURCE_LINES, _SOURCE_SAMPLES = 10, 24
"""How far beyond a tile the resampler reads: half its filters, and the shift between two dates."""
_OFFSETS = (
    "domain",
    "azimuth_coefficients",
    "range_coefficients",
    "azimuth_shift",
    "range_shift",
    "range_timing",
    "is_exact",
)
_BASELINE = ("domain", "baseline_coefficients")
_COORDINATES = ("latitude", "longitude", "height", "incidence_angle")
_LOCATED = ("longitude", "latitude", "velocity_los", "velocity_sigma")
_TURNED = 1.2
"""Edge of the box around a map tile, turned by the track's heading, over the tile's own."""


@dataclass(frozen=True)
class Window:
    """A window that a task reads: of an image, or of whole rows of a table.

    ``rows`` are entries of the growing axis, ``rectangle`` the lines and samples; ``None`` is all
    of them.
    """

    product: str
    variable: str
    rows: int = 1
    rectangle: Rectangle | None = None
    identity: str = ""
    """What tells windows of one group apart that lie at the same place."""


@dataclass(frozen=True)
class Reads:
    """Chunks that a stage reads, and their size before packing."""

    chunks: int
    bytes: int


Reader = Callable[[Task, Plan], Iterator[Window]]


def count_reads(
    plan: Plan, arrays: Mapping[tuple[str, str], ArraySpec], reader: Reader
) -> dict[tuple[str, str], Reads]:
    """Count the chunks that the tasks of a stage read.

    Parameters
    ----------
    plan : Plan
        Plan of the stage.
    arrays : mapping
        ``(product, variable)`` to the arrays of all stages so far.
    reader : callable
        Rule of the stage, from ``READERS``.

    Returns
    -------
    dict of (product, variable) to Reads
        A window that several tasks of a bundle read counts once: a group remembers it.
    """
    found: dict[tuple[str, str], Reads] = {}
    for bundle in _bundles(plan.tasks):
        windows = [window for task in bundle for window in reader(task, plan)]
        for window in dict.fromkeys(windows) if bundle[0].group else windows:
            name = window.product, window.variable
            chunks, size = _chunks(arrays[name], window)
            known = found.get(name, Reads(0, 0))
            found[name] = Reads(known.chunks + chunks, known.bytes + size)
    return found


def _bundles(tasks: Sequence[Task]) -> Iterator[Sequence[Task]]:
    """Yield what one worker is given at a time."""
    first = 0
    for index in range(1, len(tasks) + 1):
        apart = index == len(tasks) or tasks[index].group != tasks[first].group
        if apart or not tasks[first].group or index - first == LARGEST_BUNDLE:
            yield tasks[first:index]
            first = index


def _chunks(spec: ArraySpec, window: Window) -> tuple[int, int]:
    """Return how many chunks a window touches, and their bytes as they lie in memory."""
    edges = list(zip(spec.shape, spec.chunks, strict=True))
    axes = [(0, size) for size, _ in edges]
    if window.rectangle is not None:
        first = spec.dims.index("azimuth") if "azimuth" in spec.dims else len(axes) - 2
        top, bottom, left, right = window.rectangle
        axes[first], axes[first + 1] = (top, bottom), (left, right)
    growing = spec.dims[:1] in (("date",), ("pair",))
    number, elements = (window.rows, window.rows) if growing else (1, 1)
    for axis, (start, stop) in enumerate(axes):
        if axis == 0 and growing:
            continue
        size, chunk = edges[axis]
        low, high = max(0, start) // chunk, -(-min(stop, size) // chunk)
        number *= max(0, high - low)
        elements *= max(0, min(high * chunk, size) - low * chunk)
    return number, elements * np.dtype(spec.dtype).itemsize


def _nothing(_task: Task, _plan: Plan) -> Iterator[Window]:
    yield from ()


def _resampled(
    burst: str, date: str, window: Sequence[int], *, is_reference: bool
) -> Iterator[Window]:
    """Yield what ``Resampler.window`` reads, or the same of the reference date."""
    top, bottom, left, right = window
    name = ingest.product(burst)
    if is_reference:
        yield Window(name, "slc", 1, (top, bottom, left, right), date)
        return
    wide = (top, bottom, left - HALO_SAMPLES, right + HALO_SAMPLES)
    yield Window(geometry.product(burst), "height", 1, wide, date)
    lines, samples = _SOURCE_LINES, _SOURCE_SAMPLES
    around = (top - lines, bottom + lines, left - samples, right + samples)
    yield Window(name, "slc", 1, around, date)


def _misregistration(task: Task, _plan: Plan) -> Iterator[Window]:
    parameters = task.parameters
    places = [
        (burst, window)
        for overlap in parameters["overlaps"]
        for burst, window in zip(overlap["bursts"], overlap["windows"], strict=True)
    ]
    places += [(burst, window) for burst, window in parameters["strips"]]
    for burst, window in places:
        for date in (parameters["date"], *parameters["partners"]):
            if date in parameters["bursts"][burst]:
                is_reference = date == parameters["reference_date"]
                yield from _resampled(burst, date, window, is_reference=is_reference)


def _alignment(task: Task, _plan: Plan) -> Iterator[Window]:
    rows = len(task.parameters["network"])
    if not rows:
        return
    product = misregistration_table.PRODUCT
    for name in ("partner_date", "range_shift", "azimuth_shift"):
        yield Window(product, name, rows)
        if name != "partner_date":
            yield Window(product, f"{name}_sigma", rows)
    if task.parameters["overlaps"]:
        yield Window(product, "block_shift")
        yield Window(product, "block_shift_sigma")


def _coregister(task: Task, plan: Plan) -> Iterator[Window]:
    parameters = task.parameters
    burst, date = parameters["reference"]["burst_id"], parameters["secondary"]["date"]
    is_reference = parameters["is_reference"]
    if not is_reference:
        for name in _OFFSETS:
            yield Window(registration.product(burst), name)
    shape = parameters["reference"]["lines"], parameters["reference"]["samples"]
    spec = next(t for t in plan.templates if t.product == coregister.product(burst)).arrays[0]
    for _, window in tile_windows(shape, (spec.chunks[1], spec.chunks[2])):
        if meets_any(window, parameters["areas"]):
            yield from _resampled(burst, date, window, is_reference=is_reference)


def _seams(task: Task, _plan: Plan) -> Iterator[Window]:
    for seam in task.parameters["seams"]:
        top, bottom, left, right = seam["window"]
        for burst, (line, sample) in zip(seam["bursts"], seam["origins"], strict=True):
            place = (top - line, bottom - line, left - sample, right - sample)
            for date in task.parameters["pair"]:
                yield Window(coregister.product(burst), "slc", 1, place, date)


def _pieces(task: Task, window: Sequence[int]) -> Iterator[tuple[str, Rectangle]]:
    """Yield the bursts below a window of the scene, and their own part of it."""
    reader = SceneReader(_NoSource(), task.parameters["scene"])
    for piece in reader.pieces((window[0], window[1], window[2], window[3])):
        rows, columns = piece.origin
        yield piece.burst_id, (rows.start, rows.stop, columns.start, columns.stop)


class _NoSource:
    """Stands where a scene reader wants a source; windows are only planned."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"plans read nothing, {name} was asked for")


def _strips(window: Sequence[int], rows: int, looks: Sequence[int]) -> Iterator[list[int]]:
    """Yield a multilooked window in strips of so many rows, in single-look pixels."""
    for first in range(window[0], window[1], rows):
        stop = min(first + rows, window[1])
        yield [first * looks[0], stop * looks[0], window[2] * looks[1], window[3] * looks[1]]


def _interferogram(task: Task, _plan: Plan) -> Iterator[Window]:
    parameters = task.parameters
    window, looks = parameters["window"], parameters["looks"]
    width = (window[3] - window[2]) * looks[0] * looks[1]
    rows = max(1, interferogram.STRIP_PIXELS // width)
    dates = sorted({date for pair in parameters["pairs"] for date in pair})
    for strip in _strips(window, rows, looks):
        for burst, place in _pieces(task, strip):
            for name in () if dates else ("latitude", "longitude"):
                yield Window(geometry.product(burst), name, 1, place)
            for date in dates:
                yield Window(coregister.product(burst), "slc", 1, place, date)


def _filter(task: Task, _plan: Plan) -> Iterator[Window]:
    parameters = task.parameters
    halo, shape = parameters["patch"], parameters["shape"]
    top, bottom, left, right = parameters["window"]
    around = (top - halo, min(bottom + halo, shape[0]), left - halo, min(right + halo, shape[1]))
    names = ["phase"] + ["coherence"] * (parameters["strength"] == "coherence")
    for pair in parameters["pairs"]:
        for name in names:
            yield Window(interferogram.PRODUCT, name, 1, around, pair)


def _geocode(task: Task, _plan: Plan) -> Iterator[Window]:
    parameters = task.parameters
    lines, samples = parameters["shape"]
    if not parameters["bursts"]:
        return
    # Where the cells lie follows from orbit and heights; a tile in the middle has the same size.
    row, column = (_map_span(task, axis) for axis in (0, 1))
    top, left = max(0, (lines - row) // 2), max(0, (samples - column) // 2)
    place = (top, min(top + row, lines), left, min(left + column, samples))
    for pair in parameters["pairs"]:
        yield Window(parameters["phase"], "phase", 1, place, pair)
        yield Window(interferogram.PRODUCT, "coherence", 1, place, pair)


def _map_span(task: Task, axis: int) -> int:
    """Return the multilooked lines or samples below a map tile whose cells are as large."""
    top, bottom, left, right = task.parameters["window"]
    cells = float(max(bottom - top, right - left))
    chunk: int = interferogram.TILE[axis]
    # A window of this length, anywhere among the chunks, touches so many of them on average.
    return round(_TURNED * cells / chunk + 0.5) * chunk


def _amplitude(task: Task, _plan: Plan) -> Iterator[Window]:
    top, bottom, left, right = task.parameters["window"]
    dates = task.parameters["dates"]
    rows = max(1, amplitude.STRIP_BYTES // (8 * (right - left) * max(1, len(dates))))
    for first in range(top, bottom, rows):
        strip = (first, min(first + rows, bottom), left, right)
        for burst, place in _pieces(task, strip):
            yield Window(coregister.product(burst), "slc", len(dates), place)


def _scatterers(task: Task, _plan: Plan) -> Iterator[Window]:
    parameters = task.parameters
    (top, bottom, left, right), halo = parameters["window"], parameters["halo"]
    lines, samples = parameters["shape"]
    around = (
        max(0, top - halo[0]),
        min(lines, bottom + halo[0]),
        max(0, left - halo[1]),
        min(samples, right + halo[1]),
    )
    dates = len(parameters["dates"])
    yield Window(amplitude.PRODUCT, "amplitude_dispersion", 1, around)
    for burst, place in _pieces(task, around):
        for name in _COORDINATES:
            yield Window(geometry.product(burst), name, 1, place)
        # The reference date is read once more, for the reference itself.
        yield Window(coregister.product(burst), "slc", dates + 1, place)
        for name in _BASELINE:
            yield Window(registration.product(burst), name, dates)


def _timeseries(_task: Task, _plan: Plan) -> Iterator[Window]:
    for name in ("kept_mask", "phase_noise", *timeseries.COPIED, "slant_range"):
        yield Window(scatterers.PRODUCT, name)
    for name in ("phase", "perpendicular_baseline"):
        yield Window(scatterers.PRODUCT, name)


def _publish(task: Task, _plan: Plan) -> Iterator[Window]:
    # An upper bound: scatterers of a small tile lie in few pieces of the table.
    parameters, product = task.parameters, timeseries.PRODUCT
    for name in _LOCATED:
        yield Window(product, name)
    if parameters["form"] == "map":
        for variable in MAPS:
            yield Window(product, variable.name)
    yield Window(product, "displacement")


READERS: Mapping[str, Reader] = {
    ingest.STAGE.name: _nothing,
    geometry.STAGE.name: _nothing,
    misregistration.STAGE.name: _misregistration,
    alignment.STAGE.name: _alignment,
    coregister.STAGE.name: _coregister,
    seams.STAGE.name: _seams,
    interferogram.STAGE.name: _interferogram,
    filtering.STAGE.name: _filter,
    geocode.STAGE.name: _geocode,
    amplitude.STAGE.name: _amplitude,
    scatterers.STAGE.name: _scatterers,
    timeseries.STAGE.name: _timeseries,
    publish.STAGE.name: _publish,
}
"""Rule of each stage."""
