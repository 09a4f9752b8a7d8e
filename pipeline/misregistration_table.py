"""The product of the step misregistration: its layout, and how its rows are filled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bperp.kernels.range_shift import RangeShift
from bperp.kernels.spectral_diversity import (
    AzimuthShift,
    BlockShifts,
    CombinedShift,
    combine_shifts,
)
from bperp.pipeline.layout import date_coordinate
from bperp.pipeline.stack import Stack
from bperp.pipeline.stage import ArraySpec, Block, Summary, Template

PRODUCT = "scene/misregistration"
BLOCKS = 4
"""Parts of an overlap along range that get an azimuth shift of their own (for smooth surfaces)."""
NO_DATE = -(2**31)


def misregistration_template(stack: Stack, options: Mapping[str, Any]) -> Template:
    """Describe the product: one row per date, one column per partner."""
    dates, count = len(stack.dates), options["neighbours"] + 1
    names, swaths = (
        [f"{o.upper}/{o.lower}" for o in stack.overlaps()] or ["none"],
        list(stack.swaths),
    )
    sizes = {"partner": count, "overlap": len(names), "block": BLOCKS, "swath": len(swaths)}

    def array(name: str, dims: tuple[str, ...], units: str, text: str) -> ArraySpec:
        tail = tuple(sizes[dim] for dim in dims)
        attributes = {"units": units, "long_name": text}
        return ArraySpec(name, ("date", *dims), (dates, *tail), (1, *tail), "float64",
                         float("nan"), attributes)  # fmt: skip

    sigma = "standard deviation of {}, infinite where nothing could be measured"
    pair, seam, part = ("partner",), ("partner", "overlap"), ("partner", "overlap", "block")
    lines = [("azimuth_shift", pair, "all overlaps"), ("overlap_shift", seam, "one overlap"),
             ("block_shift", part, "a part of an overlap along range")]  # fmt: skip
    arrays = [
        ArraySpec("partner_date", ("date", "partner"), (dates, count), (1, count), "int32", NO_DATE,
                  {"long_name": "days since 1970-01-01 of the date that shifts are relative to"}),
    ]  # fmt: skip
    for name, dims, text in lines:
        arrays.append(array(name, dims, "lines", f"azimuth shift by spectral diversity, {text}"))
        arrays.append(array(f"{name}_sigma", dims, "lines", sigma.format(name)))
    arrays.append(array("overlap_coherence", seam, "1", "coherence of the overlap"))
    swath = ("partner", "swath")
    arrays.append(array("range_shift", swath, "samples", "range shift by cross-correlation"))
    arrays.append(array("range_shift_sigma", swath, "samples", sigma.format("range_shift")))
    coordinates = {
        "date": date_coordinate(stack),
        "overlap": (("overlap",), np.array(names), {"long_name": "upper and lower burst"}),
        "swath": (("swath",), np.array(swaths), {"long_name": "sub-swath"}),
    }
    attributes = {"title": "Shifts between dates that orbits and time stamps leave"}
    return Template(PRODUCT, tuple(arrays), coordinates, attributes)


@dataclass
class MeasuredShifts:
    """What was measured against one partner."""

    overlaps: dict[int, BlockShifts] = field(default_factory=dict)
    ranges: dict[str, list[RangeShift]] = field(default_factory=dict)


class MeasurementRows:
    """The rows of one date in the product."""

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self._parameters = parameters
        partners_, overlaps = parameters["shape"]
        seam, swaths = (partners_, overlaps), len(parameters["swaths"])
        self._dates = np.full(partners_, NO_DATE, np.int32)
        self._values = {
            "azimuth_shift": np.full(partners_, np.nan),
            "azimuth_shift_sigma": np.full(partners_, np.inf),
            "overlap_shift": np.full(seam, np.nan),
            "overlap_shift_sigma": np.full(seam, np.inf),
            "overlap_coherence": np.full(seam, np.nan),
            "block_shift": np.full((*seam, BLOCKS), np.nan),
            "block_shift_sigma": np.full((*seam, BLOCKS), np.inf),
            "range_shift": np.full((partners_, swaths), np.nan),
            "range_shift_sigma": np.full((partners_, swaths), np.inf),
        }
        self.summary: Summary = {"date": parameters["date"], "pairs": []}

    def fill(self, row: int, date: str, shifts: MeasuredShifts) -> None:
        """Enter what was measured against one partner."""
        self._dates[row] = np.datetime64(date, "D").astype(np.int32)
        combined = _combine([estimate.whole for estimate in shifts.overlaps.values()])
        self._enter("azimuth_shift", row, combined)
        for index, estimate in shifts.overlaps.items():
            self._enter("overlap_shift", (row, index), estimate.whole)
            self._values["overlap_coherence"][row, index] = estimate.whole.coherence
            self._values["block_shift"][row, index] = estimate.shift_lines
            self._values["block_shift_sigma"][row, index] = estimate.sigma_lines
        ranges = []
        for column, swath in enumerate(self._parameters["swaths"]):
            across = _combine(shifts.ranges.get(swath, []))
            self._enter("range_shift", (row, column), across)
            ranges.append({"swath": swath, **_figures(across)})
        names = {item["index"]: item["bursts"] for item in self._parameters["overlaps"]}
        self.summary["pairs"].append(
            {
                "partner": date,
                **_figures(combined),
                "chi2": _finite(combined.chi2),
                "overlaps": [
                    {
                        "bursts": names[index],
                        **_figures(estimate.whole),
                        "coherence": estimate.whole.coherence,
                        "status": estimate.whole.status,
                    }
                    for index, estimate in shifts.overlaps.items()
                ],
                "ranges": ranges,
            }
        )

    def blocks(self) -> Iterator[Block]:
        """Yield the rows."""
        date = self._parameters["date"]
        for variable, values in {"partner_date": self._dates, **self._values}.items():
            data = values[np.newaxis]
            yield Block(PRODUCT, variable, (date, *[0] * (data.ndim - 1)), data)

    def _enter(self, name: str, place: Any, estimate: Any) -> None:
        shift, sigma = _shift_and_sigma(estimate)
        self._values[name][place] = shift if np.isfinite(sigma) else np.nan
        self._values[f"{name}_sigma"][place] = sigma


def _shift_and_sigma(estimate: Any) -> tuple[float, float]:
    """Return shift and sigma of an estimate in lines or in samples: its first two fields."""
    return float(estimate[0]), float(estimate[1])


def _figures(estimate: Any) -> dict[str, float | None]:
    shift, sigma = _shift_and_sigma(estimate)
    return {"shift": shift, "sigma": _finite(sigma)}


def _combine(estimates: Sequence[AzimuthShift | RangeShift]) -> CombinedShift:
    """Combine estimates of one shift; their scatter, if larger, goes into sigma."""
    usable = [item for item in estimates if getattr(item, "status", "ok") == "ok"]
    values = np.array([_shift_and_sigma(item) for item in usable]).reshape(-1, 2)
    combined = combine_shifts(values[:, 0], values[:, 1])
    growth = np.sqrt(max(1.0, combined.chi2)) if np.isfinite(combined.chi2) else 1.0
    return combined._replace(sigma_lines=combined.sigma_lines * growth)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
