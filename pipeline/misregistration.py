"""Step 3, misregistration: what orbits and time stamps leave between the dates, measured.

Product ``scene/misregistration`` ``(date, partner, ...)``: shifts of each date against the
reference date and against its neighbours in time: in azimuth by spectral diversity in the burst
overlaps, in range by cross-correlation in the same windows. One task is one date.

A date's partners lie between the reference date and itself, so a date that is appended changes no
measurement of the dates before it. The alignment stage turns the measurements into one shift per
date.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bperp.kernels.carrier import doppler_hz
from bperp.kernels.range_shift import RangeShift, estimate_range_shift
from bperp.kernels.spectral_diversity import (
    estimate_block_shifts,
)
from bperp.pipeline.burst import BurstImage
from bperp.pipeline.date_network import height_range_m, partners
from bperp.pipeline.misregistration_table import (
    BLOCKS,
    PRODUCT,
    MeasuredShifts,
    MeasurementRows,
    misregistration_template,
)
from bperp.pipeline.radar import burst_carrier
from bperp.pipeline.registration import Registration, register_burst
from bperp.pipeline.resampling import Resampler, complex_numbers, read_numbers
from bperp.pipeline.stack import Overlap, Stack
from bperp.pipeline.stage import (
    Computation,
    Context,
    Plan,
    Source,
    Stage,
    Task,
)

RANGE_LINES = 64
STRIP_LINES = 128
"""Lines of a burst without overlaps that serve the range shift."""
BYTES_PER_PIXEL = 128


def _plan(context: Context) -> Plan:
    stack: Stack = context.stack
    options = dict(context.options["misregistration"])
    others = [date for date in stack.dates if date != stack.reference_date]
    if not others:
        return Plan((), ())
    heights = height_range_m(context)
    tasks = [_task(stack, date, options, heights) for date in others]
    return Plan((misregistration_template(stack, options),), tuple(tasks))


def _task(stack: Stack, date: str, options: dict[str, Any], heights: list[float]) -> Task:
    chosen = partners(stack, date, options["neighbours"])
    overlaps = _overlaps(stack, date)
    strips = _strips(stack, date, {item["bursts"][0] for item in overlaps})
    used = sorted({name for item in overlaps for name in item["bursts"]} | {s[0] for s in strips})
    parameters: dict[str, Any] = {
        "date": date,
        "partners": chosen,
        "bursts": {
            burst: {
                d: stack.images[burst, d].as_parameters()
                for d in {stack.reference_date, date, *chosen}
                if (burst, d) in stack.images
            }
            for burst in used
        },
        "overlaps": overlaps,
        "strips": strips,
        "swaths": list(stack.swaths),
        "shape": [options["neighbours"] + 1, max(1, len(stack.overlaps()))],
        "height_range_m": heights,
        "reference_date": stack.reference_date,
        "options": options,
    }
    inputs = [f"geometry/{burst}" for burst in used]
    inputs += [f"ingest/{burst}/{d}" for burst in used for d in sorted(parameters["bursts"][burst])]
    pixels = [_pixels(item["windows"][0]) for item in overlaps]
    pixels += [_pixels(window) for _, window in strips]
    return Task(
        "misregistration",
        date,
        parameters,
        tuple(inputs),
        (PRODUCT,),
        memory_bytes=max(pixels, default=0) * BYTES_PER_PIXEL + (128 << 20),
        pixels=2 * sum(pixels) * (len(chosen) + 1),
        batch=date,
        labels=(date,),
    )


def _overlaps(stack: Stack, date: str) -> list[dict[str, Any]]:
    """Return the overlaps that exist on a date, with windows in each burst's own indices."""
    origins = {p.burst_id: (p.azimuth, p.range) for p in stack.scene.placements}
    return [
        {
            "index": index,
            "bursts": [overlap.upper, overlap.lower],
            "windows": [_local(overlap, origins[name]) for name in (overlap.upper, overlap.lower)],
        }
        for index, overlap in enumerate(stack.overlaps())
        if all((name, date) in stack.images for name in (overlap.upper, overlap.lower))
    ]


def _strips(stack: Stack, date: str, covered: set[str]) -> list[tuple[str, list[int]]]:
    """Return a strip amid a burst of each swath that has no overlap on a date."""
    with_overlap = {stack.reference(burst).swath for burst in covered}
    found: dict[str, tuple[str, list[int]]] = {}
    for burst in stack.burst_ids:
        image = stack.reference(burst)
        if image.swath in with_overlap or (burst, date) not in stack.images:
            continue
        top, bottom, left, right = image.valid
        first = max(top, (top + bottom - STRIP_LINES) // 2)
        window = [first, min(bottom, first + STRIP_LINES), left, right]
        found.setdefault(image.swath, (burst, window))
    return list(found.values())


def _local(overlap: Overlap, origin: tuple[int, int]) -> list[int]:
    top, bottom, left, right = overlap.rectangle
    return [top - origin[0], bottom - origin[0], left - origin[1], right - origin[1]]


def _pixels(window: Sequence[int]) -> int:
    return max(0, window[1] - window[0]) * max(0, window[3] - window[2])


class _Dates:
    """Windows of the bursts on the dates of one task, on the reference geometry."""

    def __init__(self, parameters: Mapping[str, Any], source: Source) -> None:
        self._parameters, self._source = parameters, source
        self._registrations: dict[tuple[str, str], Registration] = {}

    def image(self, burst: str, date: str) -> BurstImage | None:
        """Return a burst on a date, ``None`` for a hole."""
        record = self._parameters["bursts"][burst].get(date)
        return None if record is None else BurstImage.from_dict(record)

    def window(self, burst: str, date: str, window: Sequence[int]) -> NDArray[np.complex64] | None:
        """Return the flattened samples of a window, ``None`` where the date lacks the burst."""
        if self.image(burst, date) is None:
            return None
        top, bottom, left, right = window
        if date == self._parameters["reference_date"]:
            region = slice(top, bottom), slice(left, right)
            return complex_numbers(read_numbers(self._source, burst, date, *region))
        found = self._registration(burst, date)
        images = (found.reference, found.secondary)
        resampler = Resampler.prepare(images, found.offsets)
        return resampler.window(self._source, (top, bottom, left, right))

    def doppler_hz(self, burst: str, window: Sequence[int]) -> NDArray[np.float64]:
        """Return the total Doppler centroid of the reference over a window."""
        reference = self.image(burst, self._parameters["reference_date"])
        assert reference is not None, "the stack consists of the bursts of the reference date"
        line = np.arange(window[0], window[1], dtype=np.float64)[:, np.newaxis]
        sample = np.arange(window[2], window[3], dtype=np.float64)[np.newaxis, :]
        return doppler_hz(burst_carrier(reference), line, sample)

    def _registration(self, burst: str, date: str) -> Registration:
        if (burst, date) not in self._registrations:
            reference = self.image(burst, self._parameters["reference_date"])
            secondary = self.image(burst, date)
            assert reference is not None
            assert secondary is not None
            low, high = self._parameters["height_range_m"]
            timing = self._parameters["options"]["timing"]
            found = register_burst(reference, secondary, (low, high), timing)
            self._registrations[burst, date] = found
        return self._registrations[burst, date]


def _compute(parameters: Mapping[str, Any], source: Source) -> Computation:
    dates = _Dates(parameters, source)
    shifts = {partner: MeasuredShifts() for partner in parameters["partners"]}
    for overlap in parameters["overlaps"]:
        _measure_overlap(parameters, dates, overlap, shifts)
    if parameters["options"]["range_correlation"]:
        for burst, window in parameters["strips"]:
            _measure_strip(parameters, dates, (burst, window), shifts)
    table = MeasurementRows(parameters)
    for row, partner in enumerate(parameters["partners"]):
        table.fill(row, partner, shifts[partner])
    yield from table.blocks()
    return table.summary


def _measure_overlap(
    parameters: Mapping[str, Any],
    dates: _Dates,
    overlap: Mapping[str, Any],
    shifts: Mapping[str, MeasuredShifts],
) -> None:
    """Compare the date with all partners in one overlap."""
    options = parameters["options"]
    sides = list(zip(overlap["bursts"], overlap["windows"], strict=True))
    images = _present([dates.window(burst, parameters["date"], window) for burst, window in sides])
    doppler = [dates.doppler_hz(burst, window) for burst, window in sides]
    difference_hz = doppler[0] - doppler[1]
    first = dates.image(sides[0][0], parameters["reference_date"])
    assert first is not None
    for partner in parameters["partners"]:
        others = _present([dates.window(burst, partner, window) for burst, window in sides])
        if images is None or others is None:
            continue
        found = shifts[partner]
        if options["esd"]:
            found.overlaps[overlap["index"]] = estimate_block_shifts(
                (others[0], images[0], others[1], images[1]),
                difference_hz,
                first.azimuth_time_interval_s,
                BLOCKS,
                looks=(options["looks"][0], options["looks"][1]),
                max_shift_lines=options["max_shift_lines"],
            )
        if options["range_correlation"]:
            estimates = found.ranges.setdefault(first.swath, [])
            for before, after in zip(others, images, strict=True):
                estimates.append(_range_shift(before, after, options))


def _measure_strip(
    parameters: Mapping[str, Any],
    dates: _Dates,
    strip: tuple[str, Sequence[int]],
    shifts: Mapping[str, MeasuredShifts],
) -> None:
    burst, window = strip
    image = dates.window(burst, parameters["date"], window)
    first = dates.image(burst, parameters["reference_date"])
    assert first is not None
    for partner in parameters["partners"]:
        other = dates.window(burst, partner, window)
        if image is None or other is None:
            continue
        estimate = _range_shift(other, image, parameters["options"])
        shifts[partner].ranges.setdefault(first.swath, []).append(estimate)


def _present(images: list[NDArray[np.complex64] | None]) -> list[NDArray[np.complex64]] | None:
    """Return the images, or nothing at all if one of them is missing."""
    found = [image for image in images if image is not None]
    return found if len(found) == len(images) else None


def _range_shift(
    before: NDArray[np.complex64], after: NDArray[np.complex64], options: Mapping[str, Any]
) -> RangeShift:
    """Correlate the lines amid a window: they are enough for 1e-3 sample at low coherence."""
    first = max(0, (before.shape[0] - RANGE_LINES) // 2)
    lines = slice(first, first + RANGE_LINES)
    limit = options["max_range_shift_samples"]
    return estimate_range_shift(before[lines], after[lines], max_shift_samples=limit)


STAGE = Stage("misregistration", "2", "bperp.pipeline.misregistration:STAGE", _plan, _compute)
