"""Step 5, interferogram: multilooked pairs of the scene.

Product ``scene/interferogram`` ``(pair, azimuth, range)``: phase of reference * conj(secondary),
coherence, effective looks. A task is one spatial tile over all pairs: every date is read once per
tile, not once per pair. Look windows never straddle bursts because owned rectangles end on
multiples of the looks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bperp.kernels.interferogram import effective_looks, multilook_pairs
from bperp.pipeline.burst import BurstImage
from bperp.pipeline.layout import raster
from bperp.pipeline.scene import SceneReader, tile_windows
from bperp.pipeline.stack import Stack
from bperp.pipeline.stage import Block, Computation, Context, Plan, Source, Stage, Task, Template

PRODUCT = "scene/interferogram"
TILE = (128, 128)
"""Multilooked pixels of a tile; also the chunk of the product."""

STRIP_BYTES = 256 << 20
"""Single-look samples of all dates that a task holds at a time."""

COHERENCE_BINS = 50

Pair = tuple[int, int]


def select_pairs(
    dates: Sequence[str], reference_date: str, *, network: str, neighbours: int
) -> list[Pair]:
    """Return the pairs of a network as indices ``(earlier, later)`` or ``(reference, other)``.

    Parameters
    ----------
    dates : sequence of str
        ISO dates in ascending order.
    reference_date : str
        Hub of the single-reference network.
    network : {"single_reference", "nearest"}
        Topology.
    neighbours : int
        Number of later dates each date is paired with in the ``nearest`` network, >= 1.
    """
    if network == "single_reference":
        hub = dates.index(reference_date)
        return [(hub, other) for other in range(len(dates)) if other != hub]
    return [
        (first, second)
        for first, second in combinations(range(len(dates)), 2)
        if second - first <= neighbours
    ]


def _plan(context: Context) -> Plan:
    stack: Stack = context.stack
    options = context.options["interferogram"]
    looks = stack.scene.looks
    pairs = select_pairs(
        stack.dates,
        stack.reference_date,
        network=options["network"],
        neighbours=options["neighbours"],
    )
    shape = (stack.scene.lines // looks[0], stack.scene.samples // looks[1])
    image = stack.reference(stack.burst_ids[0])
    parameters = {
        "scene": stack.scene.as_dict(),
        "pairs": [list(pair) for pair in pairs],
        "dates": len(stack.dates),
        "looks": list(looks),
        "sampling": list(_sampling(image)),
    }
    inputs = tuple(
        f"coregister/{burst}/{date}" for burst in stack.burst_ids for date in stack.dates_of(burst)
    ) + tuple(f"geometry/{burst}" for burst in stack.burst_ids)
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
    return 2 * min(STRIP_BYTES, 8 * single_look) + 24 * pixels * pairs + (64 << 20)


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
    days = np.array(stack.dates, "datetime64[D]").astype(np.int64)
    time = {"units": "days since 1970-01-01", "calendar": "proleptic_gregorian"}
    arrays = (
        raster("phase", cube, dims=dims, chunks=chunks, dtype="float32", units="rad",
               long_name="wrapped phase of reference * conj(secondary), topography removed",
               positive="secondary farther away than reference"),
        raster("coherence", cube, dims=dims, chunks=chunks, dtype="float32", units="1",
               long_name="sample coherence magnitude, biased at low coherence"),
        raster("effective_looks", cube, dims=dims, chunks=chunks, dtype="float32", units="1",
               long_name="independent looks behind phase and coherence"),
        raster("latitude", shape, chunks=chunks[1:], dtype="float64", units="degrees_north",
               long_name="geodetic latitude of the look window", standard_name="latitude"),
        raster("longitude", shape, chunks=chunks[1:], dtype="float64", units="degrees_east",
               long_name="geodetic longitude of the look window", standard_name="longitude"),
    )  # fmt: skip
    coordinates = {
        "reference_date": (("pair",), days[[first for first, _ in pairs]], time),
        "secondary_date": (("pair",), days[[second for _, second in pairs]], time),
    }
    attributes = {
        "title": "Multilooked interferograms",
        "azimuth_looks": looks[0],
        "range_looks": looks[1],
    }
    return Template(PRODUCT, arrays, coordinates, attributes)


def _compute(parameters: Mapping[str, Any], source: Source) -> Computation:
    reader = SceneReader(source, parameters["scene"])
    looks = tuple(parameters["looks"])
    independent = effective_looks(*looks, *parameters["sampling"])
    pairs = np.array(parameters["pairs"], np.int64).reshape(-1, 2)
    top, bottom, left, right = parameters["window"]
    shape = (bottom - top, right - left)
    dates = range(parameters["dates"])
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
        usable = np.isfinite(result.coherence)
        phase[:, first:stop] = np.where(usable, np.angle(result.interferogram), np.nan)
        coherence[:, first:stop] = result.coherence
        effective[:, first:stop] = result.valid_count * np.float32(independent / np.prod(looks))
    for index in range(len(pairs)):
        origin = (index, top, left)
        yield Block(PRODUCT, "phase", origin, phase[index : index + 1])
        yield Block(PRODUCT, "coherence", origin, coherence[index : index + 1])
        yield Block(PRODUCT, "effective_looks", origin, effective[index : index + 1])
    for name in ("latitude", "longitude"):
        yield Block(PRODUCT, name, (top, left), _mean_geometry(reader, parameters, name))
    return {"coherence_histogram": [_histogram(image) for image in coherence]}


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


STAGE = Stage("interferogram", "1", "bperp.pipeline.interferogram:STAGE", _plan, _compute)
