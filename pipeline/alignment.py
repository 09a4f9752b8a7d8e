"""Step 4, alignment: where each date's pixels are relative to the reference date.

Product ``bursts/<burst_id>/alignment`` ``(date, ...)``: polynomials of the azimuth and range
offsets and of the perpendicular baseline in (line, sample, height), and the shifts that the
measurements of the step before add to the orbits' geometry. One task is one date.

A date's shift is the solution of the network of all dates between the reference date and itself: a
date that is appended later does not move the earlier ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bperp.kernels.azimuth_surface import (
    AzimuthSurface,
    evaluate_azimuth_surface,
    fit_azimuth_surface,
)
from bperp.kernels.chebyshev import TERMS, evaluate_points
from bperp.kernels.shift_network import ShiftNetwork, solve_shift_network
from bperp.pipeline.burst import BurstImage
from bperp.pipeline.date_network import earlier_dates, height_range_m
from bperp.pipeline.layout import date_coordinate
from bperp.pipeline.misregistration_table import BLOCKS, NO_DATE
from bperp.pipeline.misregistration_table import PRODUCT as MISREGISTRATION
from bperp.pipeline.registration import (
    Registration,
    Surface,
    fit_baseline,
    product,
    register_burst,
)
from bperp.pipeline.stack import Stack
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

SURFACE_DEGREE = 2
SURFACE_TERMS = 5
"""Terms of a polynomial of degree 2 in line and sample without its constant."""


def _plan(context: Context) -> Plan:
    stack: Stack = context.stack
    options = dict(context.options["alignment"])
    heights = height_range_m(context)
    tasks = [_task(stack, date, options, heights) for date in stack.dates]
    return Plan(tuple(_template(stack, burst) for burst in stack.burst_ids), tuple(tasks))


def _task(stack: Stack, date: str, options: dict[str, Any], heights: list[float]) -> Task:
    bursts = [burst for burst in stack.burst_ids if (burst, date) in stack.images]
    is_reference = date == stack.reference_date
    network = [] if is_reference else [date, *earlier_dates(stack, date)]
    places = {place.burst_id: place for place in stack.scene.placements}
    parameters = {
        "date": date,
        "reference_date": stack.reference_date,
        "network": network,
        "bursts": [
            {
                "reference": stack.reference(burst).as_parameters(),
                "secondary": stack.images[burst, date].as_parameters(),
                "origin": [places[burst].azimuth, places[burst].range],
            }
            for burst in bursts
        ],
        "swaths": list(stack.swaths),
        "overlaps": [list(overlap.rectangle) for overlap in stack.overlaps()],
        "height_range_m": heights,
        "options": options,
    }
    return Task(
        "alignment",
        date,
        parameters,
        tuple(f"misregistration/{other}" for other in network),
        tuple(product(burst) for burst in bursts),
        memory_bytes=128 << 20,
        batch=date,
        labels=(date,),
    )


def _template(stack: Stack, burst_id: str) -> Template:
    count = len(stack.dates)

    def array(
        name: str, tail: tuple[int, ...], dims: tuple[str, ...], units: str, text: str
    ) -> ArraySpec:
        return ArraySpec(
            name,
            ("date", *dims),
            (count, *tail),
            (1, *tail),
            "float64",
            float("nan"),
            {"units": units, "long_name": text},
        )

    coefficients = "Chebyshev coefficients of the {}"
    offset = "{} offset, secondary minus reference position"
    term = ((TERMS,), ("term",))
    arrays = (
        array("azimuth_coefficients", *term, "lines",
              coefficients.format(offset.format("azimuth"))),
        array("range_coefficients", *term, "samples",
              coefficients.format(offset.format("range"))),
        array("baseline_coefficients", *term, "m", coefficients.format("perpendicular baseline")),
        array("domain", (3, 2), ("axis", "bound"), "1",
              "centre and half width of line, sample and height (m)"),
        array("azimuth_shift", (), (), "lines", "azimuth shift of the date by spectral diversity"),
        array("azimuth_shift_sigma", (), (), "lines", "standard deviation of azimuth_shift"),
        array("range_shift", (), (), "samples", "range shift of date and swath by correlation"),
        array("range_shift_sigma", (), (), "samples", "standard deviation of range_shift"),
        array("range_timing", (), (), "samples", "range shift by timing corrections"),
        array("azimuth_surface", (SURFACE_TERMS,), ("surface_term",), "lines",
              "smooth azimuth shift beyond azimuth_shift, terms of line and sample of the scene"),
        array("perpendicular_baseline", (), (), "m",
              "perpendicular baseline relative to the reference date, burst centre"),
        ArraySpec("is_exact", ("date",), (count,), (1,), "uint8", 0,
                  {"long_name": "1: range polynomial true to 1e-6 sample, 0: solved per pixel"}),
    )  # fmt: skip
    return Template(
        product(burst_id),
        arrays,
        {"date": date_coordinate(stack)},
        {"burst_id": burst_id, "title": "Alignment of each date to the reference date"},
    )


@dataclass(frozen=True)
class _Shift:
    """Shift of the date with what the network says about it."""

    value: float
    sigma: float
    chi2: float
    used: int
    outliers: tuple[str, ...] = ()


REFERENCE = _Shift(0.0, 0.0, float("nan"), 0)


def _compute(parameters: Mapping[str, Any], source: Source) -> Computation:
    is_reference = parameters["date"] == parameters["reference_date"]
    rows = None if is_reference else _Rows(parameters, source)
    azimuth = REFERENCE if rows is None else rows.solve("azimuth_shift", None)
    ranges = {
        swath: REFERENCE if rows is None else rows.solve("range_shift", index)
        for index, swath in enumerate(parameters["swaths"])
    }
    surface = None if rows is None else rows.surface()
    applied = surface if parameters["options"]["azimuth_surface"] == "apply" else None
    registrations: dict[str, Registration] = {}
    baselines = {}
    for record in parameters["bursts"]:
        found = _register(record, parameters, applied)
        name = found.reference.burst_id
        registrations[name] = found
        fitted = fit_baseline(found)
        line, sample = 0.5 * (found.reference.lines - 1), 0.5 * (found.reference.samples - 1)
        baselines[name] = float(evaluate_points(fitted, *np.array([[line], [sample], [0.0]]))[0])
        values = {
            "azimuth_coefficients": found.azimuth.coefficients,
            "range_coefficients": found.range.coefficients,
            "baseline_coefficients": fitted.coefficients,
            "domain": found.azimuth.domain,
            "azimuth_shift": azimuth.value,
            "azimuth_shift_sigma": azimuth.sigma,
            "range_shift": ranges[found.reference.swath].value,
            "range_shift_sigma": ranges[found.reference.swath].sigma,
            "range_timing": found.range_timing,
            "azimuth_surface": np.zeros(SURFACE_TERMS) if applied is None else applied.coefficients,
            "perpendicular_baseline": baselines[name],
        }
        yield from _blocks(name, parameters["date"], values, exact=found.is_exact)
    return {
        "date": parameters["date"],
        "azimuth_shift_lines": azimuth.value,
        "azimuth_shift_sigma_lines": _finite(azimuth.sigma),
        "azimuth_shift_chi2": _finite(azimuth.chi2),
        "azimuth_pairs": azimuth.used,
        "range_shift": {
            swath: {"samples": shift.value, "sigma": _finite(shift.sigma), "pairs": shift.used}
            for swath, shift in ranges.items()
        },
        "azimuth_surface": _describe(surface, is_applied=applied is not None),
        "offset_error": {name: list(found.errors) for name, found in registrations.items()},
        "perpendicular_baseline_m": baselines,
        "outlier_pairs": sorted(
            {pair for shift in (azimuth, *ranges.values()) for pair in shift.outliers}
        ),
        "flags": _flags(registrations, azimuth, ranges, is_reference=is_reference),
    }  # fmt: skip


class _Rows:
    """Measurements of the dates between the reference date and one date."""

    def __init__(self, parameters: Mapping[str, Any], source: Source) -> None:
        self._parameters, self._source = parameters, source
        self._dates = [parameters["reference_date"], *parameters["network"]]
        self._days = [int(np.datetime64(date, "D").astype(np.int64)) for date in self._dates]
        self._partners = self._read("partner_date")
        self._range = self._read("range_shift"), self._read("range_shift_sigma")
        self._azimuth = self._read("azimuth_shift"), self._read("azimuth_shift_sigma")

    def _read(self, variable: str) -> list[NDArray[Any]]:
        """Return the rows of a variable in the order of the network."""
        return list(self._source.read(MISREGISTRATION, variable, (tuple(self._dates[1:]),)))

    def solve(self, name: str, swath: int | None) -> _Shift:
        """Return the shift of the date; ``swath`` selects a column of a range shift."""
        shifts, sigmas = self._azimuth if name == "azimuth_shift" else self._range
        pairs, values, errors = [], [], []
        for position, days in enumerate(self._partners, start=1):
            for column, day in enumerate(days):
                if int(day) == NO_DATE:
                    continue
                place = (column,) if swath is None else (column, swath)
                pairs.append((self._days.index(int(day)), position))
                values.append(float(shifts[position - 1][place]))
                errors.append(float(sigmas[position - 1][place]))
        network = solve_shift_network(
            np.array(pairs, np.int64).reshape(-1, 2),
            np.array(values),
            np.array(errors),
            len(self._dates),
            reference=0,
        )
        return self._own(network, pairs, np.isfinite(errors))

    def _own(
        self, network: ShiftNetwork, pairs: list[tuple[int, int]], used: NDArray[np.bool_]
    ) -> _Shift:
        """Pick out the date itself, which follows the reference date in the network."""
        mine = [k for k, pair in enumerate(pairs) if 1 in pair]
        outliers = tuple(
            f"{self._dates[pairs[k][0]]}/{self._dates[pairs[k][1]]}"
            for k in mine
            if network.outlier[k]
        )
        if not network.connected[1]:
            return _Shift(0.0, float("inf"), float("nan"), 0)
        return _Shift(
            float(network.shift[1]),
            float(network.sigma[1]),
            float(network.chi2),
            int(np.count_nonzero(used[mine])),
            outliers,
        )

    def surface(self) -> AzimuthSurface | None:
        """Fit a smooth azimuth shift to the parts of the overlaps, against the reference date."""
        if not self._parameters["overlaps"]:
            return None
        region = (self._parameters["date"], slice(0, 1))
        shifts = self._source.read(MISREGISTRATION, "block_shift", region)[0, 0]
        sigmas = self._source.read(MISREGISTRATION, "block_shift_sigma", region)[0, 0]
        edges = np.array(self._parameters["overlaps"], np.float64)
        share = (np.arange(BLOCKS) + 0.5) / BLOCKS
        line = np.repeat(0.5 * (edges[:, 0] + edges[:, 1])[:, np.newaxis], BLOCKS, axis=1)
        sample = edges[:, 2:3] + (edges[:, 3:4] - edges[:, 2:3]) * share
        return fit_azimuth_surface(
            line.ravel(),
            sample.ravel(),
            shifts.ravel(),
            sigmas.ravel(),
            degree=SURFACE_DEGREE,
        )


def _register(
    record: Mapping[str, Any], parameters: Mapping[str, Any], surface: AzimuthSurface | None
) -> Registration:
    low, high = parameters["height_range_m"]
    return register_burst(
        BurstImage.from_dict(record["reference"]),
        BurstImage.from_dict(record["secondary"]),
        (low, high),
        parameters["options"]["timing"],
        None if surface is None else _in_burst(surface, record["origin"]),
    )


def _in_burst(surface: AzimuthSurface, origin: list[int]) -> Surface:
    """Express a surface of the scene in lines and samples of a burst."""

    def evaluate(line: NDArray[np.float64], sample: NDArray[np.float64]) -> NDArray[np.float64]:
        return evaluate_azimuth_surface(surface, line + origin[0], sample + origin[1])

    return evaluate


def _blocks(name: str, date: str, values: Mapping[str, Any], *, exact: bool) -> Iterator[Block]:
    for variable, value in values.items():
        data = np.asarray(value, np.float64)[np.newaxis]
        yield Block(product(name), variable, (date, *[0] * (data.ndim - 1)), data)
    yield Block(product(name), "is_exact", (date,), np.array([exact], np.uint8))


def _describe(surface: AzimuthSurface | None, *, is_applied: bool) -> dict[str, Any] | None:
    if surface is None:
        return None
    return {
        "significant": bool(surface.significant),
        "chance": surface.chance,
        "applied": is_applied and bool(surface.significant),
        "coefficients_lines": [float(value) for value in surface.coefficients],
    }


def _flags(
    registrations: Mapping[str, Registration],
    azimuth: _Shift,
    ranges: Mapping[str, _Shift],
    *,
    is_reference: bool,
) -> list[str]:
    """Return the fallbacks of the date for report and readers."""
    flags = {flag for found in registrations.values() for flag in found.secondary.flags}
    if not is_reference and not azimuth.used:
        flags.add("azimuth-shift-not-estimated")
    if not is_reference and not any(shift.used for shift in ranges.values()):
        flags.add("range-shift-not-estimated")
    if not all(found.is_exact for found in registrations.values()):
        flags.add("offsets-per-pixel")
    return sorted(flags)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


STAGE = Stage("alignment", "3", "bperp.pipeline.alignment:STAGE", _plan, _compute)
