"""Step 6, seams: how the phase of a pair fits together where bursts overlap.

Product ``scene/seams`` ``(pair, ...)``: phase difference of the two interferograms of every
overlap, of successive bursts and of adjoining swaths, and the constant of each burst that explains
them best. Between dates of one satellite the differences are the quality of the alignment; between
satellites bursts may have constants of their own. One task is one pair.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bperp.kernels.burst_constants import (
    BurstConstants,
    SeamPhase,
    seam_phase,
    solve_burst_constants,
)
from bperp.pipeline.coregister import product as coregistered
from bperp.pipeline.pairs import Pair, pair_coordinates, selected_pairs
from bperp.pipeline.resampling import complex_numbers
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
    pair_label,
)

PRODUCT = "scene/seams"
LOOKS = (5, 15)
SMALLEST_SEAM = 5_000
"""Pixels below which an overlap (a corner of two swaths) is no seam."""
LARGEST_WINDOW = 4_000_000
"""Pixels of a seam that are looked at; lines beyond are left out evenly at both ends."""
BYTES_PER_PIXEL = 64


def _seams(stack: Stack) -> list[Overlap]:
    return [seam for seam in stack.seams() if _pixels(seam.rectangle) >= SMALLEST_SEAM]


def _pixels(rectangle: Sequence[int]) -> int:
    return (rectangle[1] - rectangle[0]) * (rectangle[3] - rectangle[2])


def _plan(context: Context) -> Plan:
    stack: Stack = context.stack
    pairs = selected_pairs(context)
    seams = _seams(stack)
    if not seams or not pairs:
        return Plan((), ())
    tasks = [_task(stack, pair, seams) for pair in pairs]
    return Plan((_template(stack, pairs, seams),), tuple(tasks))


def _task(stack: Stack, pair: Pair, seams: Sequence[Overlap]) -> Task:
    places = {p.burst_id: (p.azimuth, p.range) for p in stack.scene.placements}
    bursts = sorted({name for seam in seams for name in (seam.upper, seam.lower)})
    present = [b for b in bursts if all((b, date) in stack.images for date in pair)]
    records: list[dict[str, Any]] = [
        {"index": number, "bursts": [seam.upper, seam.lower], "window": _window(seam),
         "origins": [places[seam.upper], places[seam.lower]]}
        for number, seam in enumerate(seams)
        if seam.upper in present and seam.lower in present
    ]  # fmt: skip
    parameters = {
        "pair": list(pair),
        "seams": records,
        "seam_count": len(seams),
        "burst_ids": list(stack.burst_ids),
    }
    largest = max((_pixels(item["window"]) for item in records), default=0)
    return Task(
        "seams",
        pair_label(*pair),
        parameters,
        tuple(f"coregister/{burst}/{date}" for burst in present for date in pair),
        (PRODUCT,),
        memory_bytes=BYTES_PER_PIXEL * largest + (64 << 20),
        pixels=4 * sum(_pixels(item["window"]) for item in records),
        batch="scene",
        labels=(pair_label(*pair),),
    )


def _window(seam: Overlap) -> list[int]:
    """Return the part of a seam that is looked at."""
    top, bottom, left, right = seam.rectangle
    excess = max(0, bottom - top - max(1, LARGEST_WINDOW // (right - left)))
    return [top + excess // 2, bottom - (excess - excess // 2), left, right]


def _template(stack: Stack, pairs: Sequence[Pair], seams: Sequence[Overlap]) -> Template:
    def array(name: str, dim: str, count: int, units: str, text: str) -> ArraySpec:
        return ArraySpec(name, ("pair", dim), (len(pairs), count), (1, count), "float64",
                         float("nan"), {"units": units, "long_name": text})  # fmt: skip

    count, bursts = len(seams), len(stack.burst_ids)
    arrays = (
        array("phase_difference", "seam", count, "rad",
              "phase of the first burst's interferogram minus the second's"),
        array("phase_difference_sigma", "seam", count, "rad", "standard deviation"),
        array("coherence", "seam", count, "1", "coherence of the overlap"),
        array("residual", "seam", count, "rad", "phase difference less the burst constants"),
        array("burst_phase", "burst", bursts, "rad",
              "constant phase of each burst, circular mean zero over those that connect"),
        array("burst_phase_sigma", "burst", bursts, "rad", "standard deviation"),
    )  # fmt: skip
    names = np.array([f"{seam.upper}/{seam.lower}" for seam in seams])
    coordinates = {
        **pair_coordinates(pairs),
        "seam": (("seam",), names, {"long_name": "first and second burst"}),
        "burst": (("burst",), np.array(stack.burst_ids), {"long_name": "burst identifier"}),
    }
    return Template(PRODUCT, arrays, coordinates, {"title": "Phase where bursts overlap"})


def _compute(parameters: Mapping[str, Any], source: Source) -> Computation:
    found: dict[int, SeamPhase] = {
        seam["index"]: seam_phase(*_interferograms(parameters, seam, source), looks=LOOKS)
        for seam in parameters["seams"]
    }
    bursts = parameters["burst_ids"]
    edges = [[bursts.index(name) for name in seam["bursts"]] for seam in parameters["seams"]]
    constants = solve_burst_constants(
        np.array(edges, np.int64).reshape(-1, 2),
        np.array([item.phase_rad for item in found.values()]),
        np.array([item.sigma_rad for item in found.values()]),
        len(bursts),
    )
    yield from _blocks(parameters, found, constants)
    usable = [item for item in found.values() if np.isfinite(item.sigma_rad)]
    phases = np.array([item.phase_rad for item in usable])
    return {
        "seams": len(found),
        "measured": len(usable),
        "phase_rms_rad": float(np.sqrt(np.mean(phases**2))) if usable else None,
        "residual_rms_rad": _rms(constants.residual_rad),
        "burst_phase_rad": {
            name: float(value)
            for name, value in zip(bursts, constants.constant_rad, strict=True)
            if np.isfinite(value)
        },
    }


def _interferograms(
    parameters: Mapping[str, Any], seam: Mapping[str, Any], source: Source
) -> tuple[NDArray[np.complex64], NDArray[np.complex64]]:
    """Return the interferograms of both bursts over the pixels of a seam."""
    images = []
    top, bottom, left, right = seam["window"]
    for burst, (line, sample) in zip(seam["bursts"], seam["origins"], strict=True):
        rows, columns = slice(top - line, bottom - line), slice(left - sample, right - sample)
        first, second = (
            complex_numbers(
                source.read(coregistered(burst), "slc", (date, rows, columns, slice(0, 2)))[0]
            )
            for date in parameters["pair"]
        )
        images.append(np.multiply(first, np.conj(second), out=first))
    return images[0], images[1]


def _blocks(
    parameters: Mapping[str, Any], found: Mapping[int, SeamPhase], constants: BurstConstants
) -> Iterator[Block]:
    count = parameters["seam_count"]
    rows = {name: np.full((1, count), np.nan) for name in
            ("phase_difference", "phase_difference_sigma", "coherence", "residual")}  # fmt: skip
    for (index, item), residual in zip(found.items(), constants.residual_rad, strict=True):
        rows["phase_difference"][0, index] = item.phase_rad
        rows["phase_difference_sigma"][0, index] = item.sigma_rad
        rows["coherence"][0, index] = item.coherence
        rows["residual"][0, index] = residual
    rows["burst_phase"] = constants.constant_rad[np.newaxis]
    rows["burst_phase_sigma"] = constants.sigma_rad[np.newaxis]
    for name, values in rows.items():
        yield Block(PRODUCT, name, (pair_label(*parameters["pair"]), 0), values)


def _rms(values: NDArray[np.float64]) -> float | None:
    finite = values[np.isfinite(values)]
    return float(np.sqrt(np.mean(finite**2))) if finite.size else None


STAGE = Stage("seams", "2", "bperp.pipeline.seams:STAGE", _plan, _compute)
