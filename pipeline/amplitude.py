"""Step 10, amplitude: how stable each pixel of the scene is over the dates.

Product ``scene/amplitude`` ``(azimuth, range)``: amplitude dispersion and mean amplitude after
calibration of each date by its scene mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bperp.kernels.amplitude import amplitude_statistics
from bperp.pipeline.layout import CHUNK_LINES, CHUNK_SAMPLES, raster
from bperp.pipeline.scene import SceneReader, tile_windows
from bperp.pipeline.stack import Stack
from bperp.pipeline.stage import Block, Computation, Context, Plan, Source, Stage, Task, Template

PRODUCT = "scene/amplitude"
STRIP_BYTES = 256 << 20


def calibration(context: Context, dates: Sequence[str]) -> list[float]:
    """Return the mean amplitude of dates over all their bursts (StaMPS calamp)."""
    stack: Stack = context.stack
    receipts = context.receipts("coregister")
    factors = []
    for date in dates:
        sums = [
            receipts[f"{burst}/{date}"]["summary"]
            for burst in stack.burst_ids
            if (burst, date) in stack.images
        ]
        total = sum(item["amplitude_sum"] for item in sums)
        count = sum(item["amplitude_count"] for item in sums)
        factors.append(total / count if count else 0.0)
    return factors


def complete_dates(stack: Stack) -> list[str]:
    """Return the dates on which every burst exists."""
    return [
        date
        for date in stack.dates
        if all((burst, date) in stack.images for burst in stack.burst_ids)
    ]


def _plan(context: Context) -> Plan:
    stack: Stack = context.stack
    shape = (stack.scene.lines, stack.scene.samples)
    threshold = context.options["amplitude"]["max_amplitude_dispersion"]
    dates = complete_dates(stack)
    factors = calibration(context, dates)
    arrays = (
        raster(
            "amplitude_dispersion",
            shape,
            dtype="float32",
            units="1",
            long_name="standard deviation over mean of the calibrated amplitude",
        ),
        raster(
            "mean_amplitude",
            shape,
            dtype="float32",
            units="1",
            long_name="mean calibrated amplitude, scene mean is 1",
        ),
    )
    tasks = []
    for key, window in tile_windows(shape, (CHUNK_LINES, CHUNK_SAMPLES)):
        pixels = (window[1] - window[0]) * (window[3] - window[2])
        parameters = {
            "scene": stack.scene.as_dict(),
            "window": list(window),
            "dates": dates,
            "calibration": factors,
            "max_amplitude_dispersion": threshold,
        }
        inputs = tuple(f"coregister/{burst}/{date}" for burst in stack.burst_ids for date in dates)
        memory = 2 * min(STRIP_BYTES, 8 * pixels * len(dates)) + 8 * pixels + (64 << 20)
        tasks.append(
            Task("amplitude", key, parameters, inputs, (PRODUCT,), memory,
                 pixels=pixels * len(dates), batch="scene")
        )  # fmt: skip
    template = Template(PRODUCT, arrays, {}, {"title": "Amplitude statistics of the scene"})
    return Plan((template,), tuple(tasks))


def _compute(parameters: Mapping[str, Any], source: Source) -> Computation:
    reader = SceneReader(source, parameters["scene"])
    top, bottom, left, right = parameters["window"]
    dates = parameters["dates"]
    factors = np.array(parameters["calibration"], np.float64)
    dispersion = np.full((bottom - top, right - left), np.nan, np.float32)
    mean = np.full_like(dispersion, np.nan)
    rows = max(1, STRIP_BYTES // (8 * (right - left) * max(1, len(dates))))
    for first in range(0, bottom - top, rows):
        stop = min(first + rows, bottom - top)
        stack = reader.stack((top + first, top + stop, left, right), dates)
        dispersion[first:stop], mean[first:stop] = amplitude_statistics(stack, factors)
    yield Block(PRODUCT, "amplitude_dispersion", (top, left), dispersion)
    yield Block(PRODUCT, "mean_amplitude", (top, left), mean)
    below = dispersion < parameters["max_amplitude_dispersion"]
    return {"candidates": int(np.count_nonzero(below))}


STAGE = Stage("amplitude", "2", "bperp.pipeline.amplitude:STAGE", _plan, _compute)
