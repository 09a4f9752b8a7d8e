"""Step 7, interferogram: multilooked pairs of the scene.

Product ``scene/interferogram`` ``(pair, azimuth, range)``: phase of reference * conj(secondary),
coherence, effective looks. A task is one spatial tile and the pairs that end on one date, so that a
further date leaves the finished pairs alone; the tasks of a tile run one after the other in one
worker, which reads a date once and not once per pair. Look windows never straddle bursts because
owned rectangles end on multiples of the looks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bperp.kernels.coherence import debias_coherence
from bperp.kernels.interferogram import (
    effective_looks,
    multilook_interferogram,
    multilook_pairs,
)
from bperp.pipeline.burst import BurstImage
from bperp.pipeline.common_band import CommonBandReader, pairs_to_filter
from bperp.pipeline.layout import raster
from bperp.pipeline.pairs import Pair, pair_coordinates, pairs_by_date, selected_pairs
from bperp.pipeline.scene import SceneReader, Window, tile_windows
from bperp.pipeline.seams import PRODUCT as SEAMS
from bperp.pipeline.stack import Stack
from bperp.pipeline.stage import (
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

PRODUCT = "scene/interferogram"
TILE = (256, 256)
"""Multilooked pixels of a tile; also the chunk of the product."""

STRIP_PIXELS = 6 << 20
"""Single-look pixels of a date that a task holds at a time: a tile of 4 x 20 looks is one strip."""

COHERENCE_BINS = 50


def _plan(context: Context) -> Plan:
    stack: Stack = context.stack
    looks = stack.scene.looks
    pairs = selected_pairs(context)
    shape = (stack.scene.lines // looks[0], stack.scene.samples // looks[1])
    groups = pairs_by_date(pairs, stack.reference_date)
    filtered = pairs_to_filter(context, pairs)
    tasks = []
    for key, window in tile_windows(shape, TILE):
        tile = _tile(stack, window)
        tasks.append(_coordinates_task(key, tile))
        tasks += [
            _pairs_task(context, f"{key}/{date}", tile, ending, filtered)
            for date, ending in groups.items()
        ]
    return Plan((_template(pairs, shape, looks),), tuple(tasks))


def _tile(stack: Stack, window: Window) -> dict[str, Any]:
    """Return what all tasks of a tile are told."""
    azimuth_looks, range_looks = stack.scene.looks
    single_look = (
        window[0] * azimuth_looks,
        window[1] * azimuth_looks,
        window[2] * range_looks,
        window[3] * range_looks,
    )
    return {
        "scene": stack.scene.as_dict(single_look),
        "window": list(window),
        "looks": [azimuth_looks, range_looks],
    }


def _pixels(tile: Mapping[str, Any]) -> tuple[int, int]:
    """Return the multilooked and the single-look pixels of a tile."""
    top, bottom, left, right = tile["window"]
    pixels = (bottom - top) * (right - left)
    return pixels, pixels * tile["looks"][0] * tile["looks"][1]


def _bursts(tile: Mapping[str, Any]) -> list[str]:
    return [place["burst_id"] for place in tile["scene"]["placements"]]


def _coordinates_task(key: str, tile: Mapping[str, Any]) -> Task:
    pixels, single_look = _pixels(tile)
    return Task(
        "interferogram",
        f"{key}/coordinates",
        {**tile, "pairs": []},
        tuple(f"geometry/{burst}" for burst in _bursts(tile)),
        (PRODUCT,),
        memory_bytes=24 * _strip_pixels(single_look) + 32 * pixels + (64 << 20),
        pixels=single_look,
        batch="scene",
    )


def _pairs_task(
    context: Context,
    key: str,
    tile: Mapping[str, Any],
    pairs: Sequence[Pair],
    filtered: Sequence[Pair],
) -> Task:
    stack: Stack = context.stack
    removes = context.options["interferogram"]["burst_phase"] == "remove"
    measured = context.tasks("seams") if removes else ()
    bursts = _bursts(tile)
    dates = sorted({date for pair in pairs for date in pair})
    labels = tuple(pair_label(*pair) for pair in pairs)
    chosen = [pair_label(*pair) for pair in pairs if pair in filtered]
    parameters = {
        **tile,
        "pairs": [list(pair) for pair in pairs],
        "sampling": list(_sampling(stack.reference(stack.burst_ids[0]))),
        "burst_phase": "remove" if measured else "report",
        "numbers": [stack.burst_ids.index(burst) for burst in bursts],
        "filtered": chosen,
        "images": {b: stack.reference(b).as_parameters() for b in bursts} if chosen else {},
    }
    inputs = [f"coregister/{b}/{d}" for b in bursts for d in dates if (b, d) in stack.images]
    if chosen:
        inputs += [f"alignment/{date}" for date in dates]
    inputs += [f"seams/{label}" for label in labels if label in measured]
    pixels, single_look = _pixels(tile)
    return Task(
        "interferogram",
        key,
        parameters,
        tuple(inputs),
        (PRODUCT,),
        memory_bytes=_memory(pixels, single_look, len(pairs), len(dates)),
        pixels=single_look * len(pairs),
        batch="scene",
        labels=labels,
        group=key.partition("/")[0],
    )


def _memory(pixels: int, single_look: int, pairs: int, dates: int) -> int:
    """Predict the peak: a strip of the dates, one of them as it was read, outputs of the pairs."""
    return _strip_pixels(single_look) * (8 * dates + 16) + 32 * pixels * pairs + (64 << 20)


def _strip_pixels(single_look: int) -> int:
    return min(STRIP_PIXELS, single_look)


def _sampling(image: BurstImage) -> tuple[float, float, float, float]:
    """Return oversampling and spectral window in azimuth and range."""
    return (
        1.0 / (image.azimuth_time_interval_s * image.azimuth_bandwidth_hz),
        image.range_sampling_rate_hz / image.range_bandwidth_hz,
        image.azimuth_window_coefficient,
        image.range_window_coefficient,
    )


def _template(pairs: Sequence[Pair], shape: tuple[int, int], looks: tuple[int, int]) -> Template:
    chunks = (1, min(TILE[0], shape[0]), min(TILE[1], shape[1]))
    cube = (len(pairs), *shape)
    dims = ("pair", "azimuth", "range")
    arrays = (
        raster("phase", cube, dims=dims, chunks=chunks, dtype="float32", units="rad",
               long_name="wrapped phase of reference * conj(secondary), topography removed",
               positive="secondary farther away than reference"),
        raster("coherence", cube, dims=dims, chunks=chunks, dtype="float32", units="1",
               long_name="sample coherence magnitude, biased at low coherence"),
        raster("debiased_coherence", cube, dims=dims, chunks=chunks, dtype="float32", units="1",
               long_name="coherence without the bias of few looks"),
        raster("effective_looks", cube, dims=dims, chunks=chunks, dtype="float32", units="1",
               long_name="independent looks behind phase and coherence"),
        raster("latitude", shape, chunks=chunks[1:], dtype="float64", units="degrees_north",
               long_name="geodetic latitude of the look window", standard_name="latitude"),
        raster("longitude", shape, chunks=chunks[1:], dtype="float64", units="degrees_east",
               long_name="geodetic longitude of the look window", standard_name="longitude"),
    )  # fmt: skip
    attributes = {
        "title": "Multilooked interferograms",
        "azimuth_looks": looks[0],
        "range_looks": looks[1],
    }
    return Template(PRODUCT, arrays, pair_coordinates(pairs), attributes)


def _compute(parameters: Mapping[str, Any], source: Source) -> Computation:
    reader = SceneReader(source, parameters["scene"])
    if not parameters["pairs"]:
        corner = (parameters["window"][0], parameters["window"][2])
        for name in ("latitude", "longitude"):
            yield Block(PRODUCT, name, corner, _mean_geometry(reader, parameters, name))
        return {}
    images = _pair_images(parameters, source, reader)
    labels = [pair_label(*pair) for pair in parameters["pairs"]]
    for index, label in enumerate(labels):
        place = (label, parameters["window"][0], parameters["window"][2])
        for name, cube in images.items():
            yield Block(PRODUCT, name, place, cube[index : index + 1])
    histograms = [_histogram(image) for image in images["coherence"]]
    return {"coherence_histogram": dict(zip(labels, histograms, strict=True))}


def _pair_images(
    parameters: Mapping[str, Any], source: Source, reader: SceneReader
) -> dict[str, NDArray[np.float32]]:
    """Return the images of the pairs of a task, ``(pair, azimuth, range)``."""
    common = CommonBandReader(source, parameters["scene"], parameters["images"])
    looks = (parameters["looks"][0], parameters["looks"][1])
    independent = effective_looks(*looks, *parameters["sampling"])
    pairs = [(pair[0], pair[1]) for pair in parameters["pairs"]]
    dates = sorted({date for pair in pairs for date in pair})
    index = np.array([[dates.index(date) for date in pair] for pair in pairs], np.int64)
    constants = _burst_constants(parameters, source)
    top, bottom, left, right = parameters["window"]
    shape = (bottom - top, right - left)
    phase = np.full((len(pairs), *shape), np.nan, np.float32)
    coherence = np.full_like(phase, np.nan)
    effective = np.zeros_like(phase)
    rows = _strip_rows(shape[1] * looks[0] * looks[1])
    for first in range(0, shape[0], rows):
        stop = min(first + rows, shape[0])
        window = (
            (top + first) * looks[0],
            (top + stop) * looks[0],
            left * looks[1],
            right * looks[1],
        )
        result = multilook_pairs(reader.stack(window, dates), index, *looks)
        for number, pair in enumerate(pairs):
            if pair_label(*pair) in parameters["filtered"]:
                filtered = multilook_interferogram(*common.pair(window, pair), *looks)
                for whole, part in zip(result, filtered, strict=True):
                    whole[number] = part
        usable = np.isfinite(result.coherence)
        angle = np.angle(result.interferogram)
        if constants is not None:
            # Look windows never straddle bursts: the owner of the first pixel owns all.
            owner = reader.owners(window)[:: looks[0], :: looks[1]]
            angle = _wrapped(angle - constants[:, owner])
        phase[:, first:stop] = np.where(usable, angle, np.nan)
        coherence[:, first:stop] = result.coherence
        effective[:, first:stop] = result.valid_count * np.float32(independent / np.prod(looks))
    return {
        "phase": phase,
        "coherence": coherence,
        "debiased_coherence": debias_coherence(coherence, np.maximum(effective, 1.0)),
        "effective_looks": effective,
    }


def _burst_constants(parameters: Mapping[str, Any], source: Source) -> NDArray[np.float32] | None:
    """Return the phase to remove, ``(pair, burst + 1)``; the last column is for no burst at all."""
    if parameters["burst_phase"] != "remove":
        return None
    labels = tuple(pair_label(*pair) for pair in parameters["pairs"])
    numbers = parameters["numbers"]
    region = (labels, slice(0, max(numbers, default=-1) + 1))
    found = np.nan_to_num(source.read(SEAMS, "burst_phase", region))[:, numbers]
    return np.concatenate([found, np.zeros((len(found), 1))], axis=1).astype(np.float32)


def _wrapped(phase_rad: NDArray[np.float32]) -> NDArray[np.float32]:
    turns = phase_rad * np.float32(0.5 / np.pi)
    wrapped: NDArray[np.float32] = (turns - np.rint(turns)) * np.float32(2.0 * np.pi)
    return wrapped


def _histogram(coherence: NDArray[np.float32]) -> list[int]:
    """Count the valid coherences in bins of equal width over 0..1."""
    counts = np.histogram(coherence[np.isfinite(coherence)], COHERENCE_BINS, (0.0, 1.0))[0]
    return [int(count) for count in counts]


def _strip_rows(samples_per_row: int) -> int:
    return max(1, STRIP_PIXELS // samples_per_row)


def _mean_geometry(
    reader: SceneReader, parameters: Mapping[str, Any], name: str
) -> NDArray[np.float64]:
    """Average a coordinate over each look window, a strip of windows at a time."""
    top, bottom, left, right = parameters["window"]
    azimuth_looks, range_looks = parameters["looks"]
    result = np.empty((bottom - top, right - left))
    rows = _strip_rows((right - left) * azimuth_looks * range_looks)
    for first in range(top, bottom, rows):
        stop = min(first + rows, bottom)
        window = (first * azimuth_looks, stop * azimuth_looks, left * range_looks,
                  right * range_looks)  # fmt: skip
        values = reader.geometry(window, name)
        blocks = values.reshape(stop - first, azimuth_looks, right - left, range_looks)
        result[first - top : stop - top] = blocks.mean(axis=(1, 3))
    return result


STAGE = Stage("interferogram", "3", "bperp.pipeline.interferogram:STAGE", _plan, _compute)
