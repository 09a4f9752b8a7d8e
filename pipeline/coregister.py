"""Step 5, coregister: every date on the grid of the reference date, flat earth and topography out.

Product ``bursts/<burst_id>/coregistered``, array ``slc`` ``(date, azimuth, range, iq)`` int16: the
product of any two dates is a flattened interferogram. The reference date is a bit-exact copy.
Samples are rounded to digital numbers: 0.29 rms against the 20 to 30 of thermal noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bperp.kernels.amplitude import accumulate_calibration
from bperp.kernels.quantise import quantise_samples
from bperp.pipeline.burst import BurstImage
from bperp.pipeline.layout import CHUNK_LINES, CHUNK_SAMPLES, date_coordinate, slc_array
from bperp.pipeline.registration import read_offsets
from bperp.pipeline.resampling import Resampler, read_numbers
from bperp.pipeline.scene import tile_windows
from bperp.pipeline.stack import Rectangle, Stack, meets_any
from bperp.pipeline.stage import Block, Computation, Context, Plan, Source, Stage, Task, Template

TASK_MEMORY = 320 << 20
"""A tile of 512 x 2048 pixels with its source window, filters and result, whatever the burst."""


def product(burst_id: str) -> str:
    """Return the name of the product of a burst."""
    return f"bursts/{burst_id}/coregistered"


def _plan(context: Context) -> Plan:
    stack: Stack = context.stack
    templates, tasks = [], []
    for burst_id in stack.burst_ids:
        reference = stack.reference(burst_id)
        shape = (len(stack.dates), reference.lines, reference.samples, 2)
        array = slc_array(shape, "coregistered and flattened burst", "1")
        attributes = {
            "burst_id": burst_id,
            "title": "Coregistered bursts, flat earth and topography removed",
            "reference_date": stack.reference_date,
        }
        coordinates = {"date": date_coordinate(stack)}
        templates.append(Template(product(burst_id), (array,), coordinates, attributes))
        taps = context.options["coregister"]["range_taps"]
        tasks += [_task(stack, burst_id, date, taps) for date in stack.dates_of(burst_id)]
    return Plan(tuple(templates), tuple(tasks))


def _task(stack: Stack, burst_id: str, date: str, range_taps: int | str) -> Task:
    reference = stack.reference(burst_id)
    parameters = {
        "reference": reference.as_parameters(),
        "secondary": stack.images[burst_id, date].as_parameters(),
        "is_reference": date == stack.reference_date,
        "range_taps": range_taps,
        "areas": [list(area) for area in stack.needed(burst_id, overlaps=False)],
    }
    return Task(
        "coregister",
        f"{burst_id}/{date}",
        parameters,
        (f"ingest/{burst_id}/{date}", f"geometry/{burst_id}", f"alignment/{date}"),
        (product(burst_id),),
        TASK_MEMORY,
        pixels=reference.lines * reference.samples,
        batch=f"{burst_id}/{date}",
        labels=(date,),
    )


def _compute(parameters: Mapping[str, Any], source: Source) -> Computation:
    reference = BurstImage.from_dict(parameters["reference"])
    secondary = BurstImage.from_dict(parameters["secondary"])
    name = product(reference.burst_id)
    resampler = None if parameters["is_reference"] else _resampler(parameters, source)
    amplitude, count, clipped = 0.0, 0, 0
    shape = (reference.lines, reference.samples)
    for _, window in tile_windows(shape, (CHUNK_LINES, CHUNK_SAMPLES)):
        origin = (secondary.date, window[0], window[2], 0)
        rows, columns = slice(window[0], window[1]), slice(window[2], window[3])
        if not meets_any(window, parameters["areas"]):
            yield Block(name, "slc", origin, _empty(window))
            continue
        if resampler is None:
            numbers = read_numbers(source, reference.burst_id, reference.date, rows, columns)
            pairs = numbers[np.newaxis]
        else:
            pairs, lost = _round(resampler.window(source, window))
            clipped += lost
        total, number = accumulate_calibration(pairs)
        amplitude, count = amplitude + float(total[0]), count + int(number[0])
        yield Block(name, "slc", origin, pairs)
    return {
        "amplitude_sum": amplitude,
        "amplitude_count": count,
        "clipped": clipped,
        "flags": list(secondary.flags),
    }


def _empty(window: Rectangle) -> NDArray[np.int16]:
    """Return a tile outside the area of interest."""
    return np.zeros((1, window[1] - window[0], window[3] - window[2], 2), np.int16)


def _resampler(parameters: Mapping[str, Any], source: Source) -> Resampler:
    images = (
        BurstImage.from_dict(parameters["reference"]),
        BurstImage.from_dict(parameters["secondary"]),
    )
    offsets = read_offsets(source, images[0].burst_id, images[1].date)
    return Resampler.prepare(images, offsets, parameters["range_taps"])


def _round(samples: NDArray[np.complex64]) -> tuple[NDArray[np.int16], int]:
    """Return int16 pairs ``(1, lines, samples, 2)`` and how many values did not fit."""
    pairs = np.empty((1, *samples.shape, 2), np.int16)
    return pairs, quantise_samples(samples, pairs[0])


STAGE = Stage("coregister", "3", "bperp.pipeline.coregister:STAGE", _plan, _compute)
