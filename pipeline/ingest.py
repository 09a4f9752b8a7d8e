"""Step 1, ingest: measurement files become burst cubes, bit for bit.

Product ``bursts/<burst_id>/slc``, array ``slc`` ``(date, azimuth, range, iq)`` int16: digital
numbers as in the SAFE. A date without the burst stays a hole: its chunks are never written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bperp.pipeline.burst import BurstImage
from bperp.pipeline.layout import (
    blocks_of,
    burst_sizes,
    date_coordinate,
    image_memory,
    slc_array,
)
from bperp.pipeline.stack import Stack
from bperp.pipeline.stage import Computation, Context, Plan, Source, Stage, Task, Template
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
            parameters = {
                "image": image.as_dict(),
                "date_index": stack.date_index(date),
                "shape": list(shape[1:3]),
            }
            tasks.append(
                Task(
                    "ingest",
                    f"{burst_id}/{date}",
                    parameters,
                    (),
                    (product(burst_id),),
                    memory_bytes=3 * image_memory(shape[1:], bytes_per_pixel=4),
                    pixels=image.lines * image.samples,
                    batch=f"{burst_id}/{date}",
                )
            )
    return Plan(tuple(templates), tuple(tasks))


def _compute(parameters: Mapping[str, Any], source: Source) -> Computation:
    image = BurstImage.from_dict(parameters["image"])
    lines, samples = parameters["shape"]
    numbers = source.measurement(image.url, image.member, image.first_line, image.lines)
    if numbers.shape != (image.lines, image.samples, 2):
        raise ProductError(
            "D308",
            "the measurement differs in size from its annotation",
            where=f"{image.product}/{image.member}",
            expected=f"{image.lines} lines x {image.samples} samples",
            found=f"{numbers.shape[0]} x {numbers.shape[1]}",
            remedy="fetch the product again",
        )
    top, bottom, left, right = image.valid
    inside = numbers[top:bottom, left:right]
    zero_share = 1.0 - np.count_nonzero(inside.any(axis=2)) / max(1, inside.size // 2)
    if zero_share == 1.0:
        raise ProductError(
            "D306",
            f"burst {image.burst_id} of {image.date} holds only zeros",
            where=f"{image.product}/{image.member}",
            expected="pixels inside the annotated valid samples",
            found="0 non-zero pixels",
            remedy="fetch the product again or exclude the date (dates.exclude)",
        )
    padded = np.zeros((1, lines, samples, 2), np.int16)
    padded[0, : image.lines, : image.samples] = numbers
    yield from blocks_of(
        product(image.burst_id), "slc", (parameters["date_index"], 0, 0, 0), padded
    )
    saturated = int(np.count_nonzero(np.abs(inside.astype(np.int32)) >= np.iinfo(np.int16).max))
    return {"zero_share": zero_share, "saturated": saturated, "image": parameters["image"]}


STAGE = Stage("ingest", "1", "bperp.pipeline.ingest:STAGE", _plan, _compute)
