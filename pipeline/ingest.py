"""Step 1, ingest: measurement files become burst cubes, bit for bit.

Product ``bursts/<burst_id>/slc``, array ``slc`` ``(date, azimuth, range, iq)`` int16: digital
numbers as in the SAFE, zero beyond the burst. A date without the burst stays a hole: its chunks are
never written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bperp.kernels.digital_numbers import survey_numbers
from bperp.pipeline.burst import BurstImage
from bperp.pipeline.layout import (
    CHUNK_LINES,
    burst_sizes,
    date_coordinate,
    image_memory,
    slc_array,
)
from bperp.pipeline.stack import Stack
from bperp.pipeline.stage import Block, Computation, Context, Plan, Source, Stage, Task, Template
from bperp.stores.errors import ProductError


def product(burst_id: str) -> str:
    """Return the name of the product of a burst."""
    return f"bursts/{burst_id}/slc"


def _plan(context: Context) -> Plan:
    stack: Stack = context.stack
    templates, tasks = [], []
    for burst_id in stack.burst_ids:
        shape = (len(stack.dates), *burst_sizes(stack, burst_id))
        array = slc_array(shape, "digital numbers of the focused burst", "1")
        templates.append(
            Template(
                product(burst_id),
                (array,),
                {"date": date_coordinate(stack)},
                {"burst_id": burst_id, "title": "Sentinel-1 burst, single look complex"},
            )
        )
        for date in stack.dates_of(burst_id):
            image = stack.images[burst_id, date]
            tasks.append(
                Task(
                    "ingest",
                    f"{burst_id}/{date}",
                    {**_parameters(image), "shape": list(shape[1:3])},
                    (),
                    (product(burst_id),),
                    memory_bytes=4 * image_memory((CHUNK_LINES, shape[2]), bytes_per_pixel=4),
                    pixels=image.lines * image.samples,
                    batch=f"{burst_id}/{date}",
                    labels=(date,),
                    locations={"url": image.url},
                )
            )
    return Plan(tuple(templates), tuple(tasks))


def _parameters(image: BurstImage) -> dict[str, Any]:
    """Return what the copied numbers depend on: neither orbit nor timing do."""
    return {
        "burst_id": image.burst_id,
        "date": image.date,
        "product": image.product,
        "member": image.member,
        "content_id": image.content_id,
        "first_line": image.first_line,
        "size": [image.lines, image.samples],
        "valid": list(image.valid),
    }


def _compute(parameters: Mapping[str, Any], source: Source) -> Computation:
    name, date = product(parameters["burst_id"]), parameters["date"]
    lines, samples = parameters["shape"]
    top, bottom, left, right = valid = tuple(parameters["valid"])
    zeros = saturated = 0
    # A strip is a row of chunks: memory does not grow with the burst.
    for start in range(0, lines, CHUNK_LINES):
        rows = min(CHUNK_LINES, lines - start)
        numbers = _read_strip(parameters, source, start, min(rows, parameters["size"][0] - start))
        found = survey_numbers(numbers, _within_strip(valid, start, numbers.shape[0]))
        zeros, saturated = zeros + found.zero_count, saturated + found.saturated_count
        yield Block(name, "slc", (date, start, 0, 0), _padded(numbers, rows, samples))
    zero_share = zeros / max(1, (bottom - top) * (right - left))
    if zero_share == 1.0:
        raise ProductError(
            "D306",
            f"burst {parameters['burst_id']} of {date} holds only zeros",
            where=f"{parameters['product']}/{parameters['member']}",
            expected="pixels inside the annotated valid samples",
            found="0 non-zero pixels",
            remedy="fetch the product again or exclude the date (dates.exclude)",
        )
    return {"zero_share": zero_share, "saturated": saturated}


def _read_strip(
    parameters: Mapping[str, Any], source: Source, start: int, lines: int
) -> NDArray[np.int16]:
    samples = parameters["size"][1]
    if lines <= 0:
        return np.zeros((0, samples, 2), np.int16)
    first = parameters["first_line"] + start
    numbers = source.measurement(parameters["url"], parameters["member"], first, lines)
    if numbers.shape != (lines, samples, 2):
        raise ProductError(
            "D308",
            "the measurement differs in size from its annotation",
            where=f"{parameters['product']}/{parameters['member']}",
            expected=f"{lines} lines x {samples} samples",
            found=f"{numbers.shape[0]} x {numbers.shape[1]}",
            remedy="fetch the product again",
        )
    return numbers


def _within_strip(
    valid: tuple[int, int, int, int], start: int, lines: int
) -> tuple[int, int, int, int]:
    """Return the part of the valid rectangle in a strip, counted from its first line."""
    top, bottom = (min(max(edge - start, 0), lines) for edge in valid[:2])
    return top, bottom, valid[2], valid[3]


def _padded(numbers: NDArray[np.int16], lines: int, samples: int) -> NDArray[np.int16]:
    """Return ``(1, lines, samples, 2)``, with zeros where this date's burst is smaller."""
    if numbers.shape[:2] == (lines, samples):
        return numbers[np.newaxis]
    padded = np.zeros((1, lines, samples, 2), np.int16)
    padded[0, : numbers.shape[0], : numbers.shape[1]] = numbers
    return padded


STAGE = Stage("ingest", "3", "bperp.pipeline.ingest:STAGE", _plan, _compute)
