"""Step 3, alignment: where each date's pixels are relative to the reference date.

Product ``bursts/<burst_id>/alignment`` ``(date, ...)``: 92-term Chebyshev polynomials of the
azimuth and range offsets in (line, sample, height), and the azimuth shift that spectral diversity
in the burst overlaps adds to the orbits' geometry. One task is one date: the shift is one number
for the whole pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bperp.kernels.carrier import doppler_hz
from bperp.kernels.chebyshev import TERMS, OffsetPolynomial, fit_burst_offsets
from bperp.kernels.spectral_diversity import (
    AzimuthShift,
    combine_shifts,
    estimate_azimuth_shift,
)
from bperp.pipeline.baseline import center_baseline_m
from bperp.pipeline.burst import BurstImage
from bperp.pipeline.layout import date_coordinate
from bperp.pipeline.radar import burst_carrier, burst_grid, burst_orbit
from bperp.pipeline.resampling import Resampler, complex_numbers, read_numbers
from bperp.pipeline.stack import Overlap, Stack
from bperp.pipeline.stage import (
    ArraySpec,
    Block,
    Computation,
    Context,
    Plan,
    Source,
    Stage,
    Task,
    Template,
)

HEIGHT_MARGIN_M = 200.0


def product(burst_id: str) -> str:
    """Return the name of the product of a burst."""
    return f"bursts/{burst_id}/alignment"


def _plan(context: Context) -> Plan:
    stack: Stack = context.stack
    options = dict(context.options["alignment"])
    heights = _height_range(context)
    tasks = [_task(stack, date, options, heights) for date in stack.dates]
    return Plan(tuple(_template(stack, burst) for burst in stack.burst_ids), tuple(tasks))


def _height_range(context: Context) -> list[float]:
    """Return the heights of the whole scene with a margin for its own errors."""
    summaries = [receipt["summary"] for receipt in context.receipts("geometry").values()]
    low = [item["height_min_m"] for item in summaries if item["height_min_m"] is not None]
    high = [item["height_max_m"] for item in summaries if item["height_max_m"] is not None]
    return [min(low) - HEIGHT_MARGIN_M, max(high) + HEIGHT_MARGIN_M]


def _task(stack: Stack, date: str, options: dict[str, Any], heights: list[float]) -> Task:
    bursts = [burst for burst in stack.burst_ids if (burst, date) in stack.images]
    origins = {p.burst_id: (p.azimuth, p.range) for p in stack.scene.placements}
    overlaps = [
        {
            "bursts": [overlap.upper, overlap.lower],
            "windows": [_local(overlap, origins[name]) for name in (overlap.upper, overlap.lower)],
        }
        for overlap in stack.overlaps()
        if overlap.upper in bursts and overlap.lower in bursts
    ]
    parameters = {
        "date": date,
        "date_index": stack.date_index(date),
        "reference_index": stack.date_index(stack.reference_date),
        "bursts": [
            {
                "reference": stack.reference(burst).as_dict(),
                "secondary": stack.images[burst, date].as_dict(),
            }
            for burst in bursts
        ],
        "overlaps": overlaps if date != stack.reference_date else [],
        "height_range_m": heights,
        "options": options,
    }
    inputs = tuple(
        name
        for burst in bursts
        for name in dict.fromkeys(
            (
                f"geometry/{burst}",
                f"ingest/{burst}/{stack.reference_date}",
                f"ingest/{burst}/{date}",
            )
        )
    )
    largest = max((_pixels(item) for item in overlaps), default=0)
    return Task(
        "alignment",
        date,
        parameters,
        inputs,
        tuple(product(burst) for burst in bursts),
        memory_bytes=largest * 96 + (128 << 20),
        pixels=sum(_pixels(item) for item in overlaps),
        batch=date,
    )


def _local(overlap: Overlap, origin: tuple[int, int]) -> list[int]:
    top, bottom, left, right = overlap.rectangle
    return [top - origin[0], bottom - origin[0], left - origin[1], right - origin[1]]


def _pixels(overlap: Mapping[str, Any]) -> int:
    top, bottom, left, right = (int(edge) for edge in overlap["windows"][0])
    return max(0, bottom - top) * max(0, right - left)


def _template(stack: Stack, burst_id: str) -> Template:
    count = len(stack.dates)

    def array(
        name: str, tail: tuple[int, ...], dims: tuple[str, ...], units: str, text: str
    ) -> Any:
        return ArraySpec(
            name,
            ("date", *dims),
            (count, *tail),
            (1, *tail),
            "float64",
            float("nan"),
            {"units": units, "long_name": text},
        )

    coefficients = "Chebyshev coefficients of the {} offset, source minus output index"
    arrays = (
        array("azimuth_coefficients", (TERMS,), ("term",), "lines", coefficients.format("azimuth")),
        array("range_coefficients", (TERMS,), ("term",), "samples", coefficients.format("range")),
        array("domain", (3, 2), ("axis", "bound"), "1",
              "centre and half width of line, sample and height (m)"),
        array("azimuth_shift", (), (), "lines", "azimuth shift by spectral diversity"),
        array("azimuth_shift_sigma", (), (), "lines", "standard deviation of azimuth_shift"),
        array("perpendicular_baseline", (), (), "m",
              "perpendicular baseline relative to the reference date, burst centre"),
    )  # fmt: skip
    return Template(
        product(burst_id),
        arrays,
        {"date": date_coordinate(stack)},
        {"burst_id": burst_id, "title": "Alignment of each date to the reference date"},
    )


@dataclass(frozen=True)
class _Burst:
    """One burst of the date with its fitted offsets."""

    reference: BurstImage
    secondary: BurstImage
    offsets: tuple[OffsetPolynomial, OffsetPolynomial]
    errors: tuple[float, float]


def _compute(parameters: Mapping[str, Any], source: Source) -> Computation:
    bursts: dict[str, _Burst] = {}
    for record in parameters["bursts"]:
        burst = _fit(record, parameters["height_range_m"])
        bursts[burst.reference.burst_id] = burst
    overlaps = parameters["overlaps"] if parameters["options"]["esd"] else []
    estimates = [_estimate(overlap, bursts, parameters, source) for overlap in overlaps]
    is_reference = parameters["date_index"] == parameters["reference_index"]
    combined = combine_shifts(
        np.array([item.shift_lines for item in estimates], np.float64),
        np.array([item.sigma_lines for item in estimates], np.float64),
    )
    sigma = 0.0 if is_reference else combined.sigma_lines
    for name, burst in bursts.items():
        baseline = center_baseline_m(burst.reference, burst.secondary)
        values = (combined.shift_lines, sigma, baseline)
        yield from _blocks(name, burst, parameters["date_index"], values)
    return {
        "date": parameters["date"],
        "azimuth_shift_lines": combined.shift_lines,
        "azimuth_shift_sigma_lines": _finite(sigma),
        "azimuth_shift_chi2": _finite(combined.chi2),
        "overlaps": [
            {
                "bursts": overlap["bursts"],
                "shift_lines": item.shift_lines,
                "sigma_lines": _finite(item.sigma_lines),
                "coherence": item.coherence,
                "status": item.status,
            }
            for overlap, item in zip(overlaps, estimates, strict=True)
        ],
        "offset_error": {name: list(burst.errors) for name, burst in bursts.items()},
        "perpendicular_baseline_m": {
            name: center_baseline_m(burst.reference, burst.secondary)
            for name, burst in bursts.items()
        },
        "flags": _flags(bursts, is_reference=is_reference, used=combined.used),
    }


def _flags(bursts: Mapping[str, _Burst], *, is_reference: bool, used: int) -> list[str]:
    """Return the fallbacks of the date for report and readers."""
    flags = {flag for burst in bursts.values() for flag in burst.secondary.flags}
    if not is_reference and used == 0:
        flags.add("azimuth-shift-not-estimated")
    return sorted(flags)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _fit(record: Mapping[str, Any], height_range_m: tuple[float, float]) -> _Burst:
    reference = BurstImage.from_dict(record["reference"])
    secondary = BurstImage.from_dict(record["secondary"])
    fit = fit_burst_offsets(
        (burst_orbit(reference), burst_grid(reference)),
        (burst_orbit(secondary), burst_grid(secondary)),
        (height_range_m[0], height_range_m[1]),
    )
    return _Burst(
        reference, secondary, (fit.azimuth, fit.range), (fit.azimuth_error, fit.range_error)
    )


def _estimate(
    overlap: Mapping[str, Any],
    bursts: Mapping[str, _Burst],
    parameters: Mapping[str, Any],
    source: Source,
) -> AzimuthShift:
    """Read the overlap from both bursts on both dates and compare them."""
    options = parameters["options"]
    images: list[NDArray[np.complex64]] = []
    doppler = []
    for name, window in zip(overlap["bursts"], overlap["windows"], strict=True):
        burst = bursts[name]
        rows, columns = slice(window[0], window[1]), slice(window[2], window[3])
        reference = read_numbers(source, name, parameters["reference_index"], rows, columns)
        resampler = Resampler.prepare(
            burst.reference, burst.secondary, burst.offsets, (0.0, 0.0), parameters["date_index"]
        )
        images.append(complex_numbers(reference))
        images.append(resampler.window(source, tuple(window)))
        doppler.append(_mean_doppler_hz(burst.reference, window))
    return estimate_azimuth_shift(
        images[0],
        images[1],
        images[2],
        images[3],
        doppler[0] - doppler[1],
        bursts[overlap["bursts"][0]].reference.azimuth_time_interval_s,
        looks=tuple(options["looks"]),
        max_shift_lines=options["max_shift_lines"],
    )


def _mean_doppler_hz(reference: BurstImage, window: list[int]) -> NDArray[np.float64]:
    """Return the total Doppler centroid of the reference over a window."""
    carrier = burst_carrier(reference)
    line = np.arange(window[0], window[1], dtype=np.float64)[:, np.newaxis]
    sample = np.arange(window[2], window[3], dtype=np.float64)[np.newaxis, :]
    return doppler_hz(carrier, line, sample)


def _blocks(
    name: str, burst: _Burst, date_index: int, values: tuple[float, float, float]
) -> Iterator[Block]:
    azimuth, distance = burst.offsets
    rows = {
        "azimuth_coefficients": azimuth.coefficients,
        "range_coefficients": distance.coefficients,
        "domain": azimuth.domain,
        "azimuth_shift": np.float64(values[0]),
        "azimuth_shift_sigma": np.float64(values[1]),
        "perpendicular_baseline": np.float64(values[2]),
    }
    for variable, value in rows.items():
        data = np.asarray(value, np.float64)[np.newaxis]
        yield Block(product(name), variable, (date_index, *[0] * (data.ndim - 1)), data)


def read_offsets(
    source: Source, burst_id: str, date_index: int
) -> tuple[OffsetPolynomial, OffsetPolynomial]:
    """Return the azimuth (lines) and range (samples) offset polynomials of a burst and date."""
    name, row = product(burst_id), slice(date_index, date_index + 1)
    domain = source.read(name, "domain", (row, slice(None), slice(None)))[0]
    azimuth = source.read(name, "azimuth_coefficients", (row, slice(None)))[0]
    distance = source.read(name, "range_coefficients", (row, slice(None)))[0]
    return OffsetPolynomial(domain, azimuth), OffsetPolynomial(domain, distance)


def read_azimuth_shift(source: Source, burst_id: str, date_index: int) -> float:
    """Return the azimuth shift of a date in lines, to be added to the azimuth offset."""
    row = (slice(date_index, date_index + 1),)
    return float(source.read(product(burst_id), "azimuth_shift", row)[0])


STAGE = Stage("alignment", "1", "bperp.pipeline.alignment:STAGE", _plan, _compute)
