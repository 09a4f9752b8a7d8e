"""Step 7, interferogram: multilooked pairs of the scene.

Product ``scene/interferogram`` ``(pair, azimuth, range)``: phase of reference * conj(secondary),
coherence, effective looks. A task is one spatial tile over all pairs: every date is read once per
tile, not once per pair. Look windows never straddle bursts because owned rectangles end on
multiples of the looks.
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
from bperp.pipeline.pairs import Pair, pair_coordinates, selected_pairs
from bperp.pipeline.scene import SceneReader, tile_windows
from bperp.pipeline.seams import PRODUCT as SEAMS
from bperp.pipeline.stack import Stack
from bperp.pipeline.stage import Block, Computation, Context, Plan, Source, Stage, Task, Template

PRODUCT = "scene/interferogram"
TILE = (256, 256)
"""Multilooked pixels of a tile; also the chunk of the product."""

STRIP_BYTES = 256 << 20
"""Single-look samples of all dates that a task holds at a time."""

COHERENCE_BINS = 50


def _plan(context: Context) -> Plan:
    stack: Stack = context.stack
    options = context.options["interferogram"]
    looks = stack.scene.looks
    pairs = selected_pairs(context)
    shape = (stack.scene.lines // looks[0], stack.scene.samples // looks[1])
    image = stack.reference(stack.burst_ids[0])
    parameters = {
        "scene": stack.scene.as_dict(),
        "pairs": [list(pair) for pair in pairs],
        "dates": len(stack.dates),
        "looks": list(looks),
        "sampling": list(_sampling(image)),
        "burst_phase": options["burst_phase"],
        "filtered": pairs_to_filter(context, pairs),
        "images": {},
    }
    if parameters["filtered"]:
        parameters["images"] = {b: stack.reference(b).as_dict() for b in stack.burst_ids}
    inputs = tuple(
        f"coregister/{burst}/{date}" for burst in stack.burst_ids for date in stack.dates_of(burst)
    ) + tuple(f"geometry/{burst}" for burst in stack.burst_ids)
    if parameters["filtered"]:
        inputs += tuple(f"alignment/{date}" for date in stack.dates)
    if options["burst_phase"] == "remove":
        inputs += tuple(f"seams/{key}" for key in sorted(context.receipts("seams")))
    tasks = []
    for key, window in tile_windows(shape, TILE):
        pixels = (window[1] - window[0]) * (window[3] - window[2])
        single_look = pixels * looks[0] * looks[1] * len(stack.dates)
        tasks.append(
            Task(
                "interferogram",
                key,
                {**parameters, "window": list(window)},
                inputs,
                (PRODUCT,),
                memory_bytes=_memory(pixels, len(pairs), single_look),
                pixels=single_look,
                batch="scene",
            )
        )
    return Plan((_template(stack, pairs, shape, looks),), tuple(tasks))


def _memory(pixels: int, pairs: int, single_look: int) -> int:
    """Predict the peak: strip of all dates twice (read and powers), outputs of all pairs."""
    return 2 * min(STRIP_BYTES, 8 * single_look) + 32 * pixels * pairs + (64 << 20)


def _sampling(image: BurstImage) -> tuple[float, float, float, float]:
    """Return oversampling and spectral window in azimuth and range."""
    return (
        1.0 / (image.azimuth_time_interval_s * image.azimuth_bandwidth_hz),
        image.range_sampling_rate_hz / image.range_bandwidth_hz,
        image.azimuth_window_coefficient,
        image.range_window_coefficient,
    )


def _template(
    stack: Stack, pairs: Sequence[Pair], shape: tuple[int, int], looks: tuple[int, int]
) -> Template:
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
    return Template(PRODUCT, arrays, pair_coordinates(stack, pairs), attributes)


def _compute(parameters: Mapping[str, Any], source: Source) -> Computation:
    reader = SceneReader(source, parameters["scene"])
    common = CommonBandReader(source, parameters["scene"], parameters["images"])
    looks = tuple(parameters["looks"])
    independent = effective_looks(*looks, *parameters["sampling"])
    pairs = np.array(parameters["pairs"], np.int64).reshape(-1, 2)
    top, bottom, left, right = parameters["window"]
    shape = (bottom - top, right - left)
    dates = range(parameters["dates"])
    constants = _burst_constants(parameters, source)
    phase = np.full((len(pairs), *shape), np.nan, np.float32)
    coherence = np.full_like(phase, np.nan)
    effective = np.zeros_like(phase)
    rows = _strip_rows(shape[1] * looks[0] * looks[1] * len(dates))
    for first in range(0, shape[0], rows):
        stop = min(first + rows, shape[0])
        window = (
            (top + first) * looks[0],
            (top + stop) * looks[0],
            left * looks[1],
            right * looks[1],
        )
        result = multilook_pairs(reader.stack(window, dates), pairs, *looks)
        for index in parameters["filtered"]:
            filtered = multilook_interferogram(
                *common.pair(window, parameters["pairs"][index]), *looks
            )
            for whole, part in zip(result, filtered, strict=True):
                whole[index] = part
        usable = np.isfinite(result.coherence)
        angle = np.angle(result.interferogram)
        if constants is not None:
            # Look windows never straddle bursts: the owner of the first pixel owns all.
            owner = reader.owners(window)[:: looks[0], :: looks[1]]
            angle = _wrapped(angle - constants[:, owner])
        phase[:, first:stop] = np.where(usable, angle, np.nan)
        coherence[:, first:stop] = result.coherence
        effective[:, first:stop] = result.valid_count * np.float32(independent / np.prod(looks))
    images = {
        "phase": phase,
        "coherence": coherence,
        "debiased_coherence": debias_coherence(coherence, np.maximum(effective, 1.0)),
        "effective_looks": effective,
    }
    for index in range(len(pairs)):
        for name, cube in images.items():
            yield Block(PRODUCT, name, (index, top, left), cube[index : index + 1])
    for name in ("latitude", "longitude"):
        yield Block(PRODUCT, name, (top, left), _mean_geometry(reader, parameters, name))
    return {"coherence_histogram": [_histogram(image) for image in coherence]}


def _burst_constants(parameters: Mapping[str, Any], source: Source) -> NDArray[np.float32] | None:
    """Return the phase to remove, ``(pair, burst + 1)``; the last column is for no burst at all."""
    if parameters["burst_phase"] != "remove" or not parameters["pairs"]:
        return None
    count = len(parameters["scene"]["placements"])
    region = (slice(0, len(parameters["pairs"])), slice(0, count))
    found = np.nan_to_num(source.read(SEAMS, "burst_phase", region))
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
    return max(1, STRIP_BYTES // (8 * samples_per_row))


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


STAGE = Stage("interferogram", "2", "bperp.pipeline.interferogram:STAGE", _plan, _compute)
