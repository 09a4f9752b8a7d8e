"""Step 11, scatterers: candidates by amplitude and their phase noise against the neighbours.

Product ``scene/scatterers``: a point table with one slot (one chunk) per scene tile, so that every
chunk has one writer; slots are padded, ``valid_mask`` tells the rows that count. Candidates within
a halo take part in the neighbour phase, so the result does not depend on the tiling. The threshold
on phase noise is one number for the scene; the next step sets it from the histograms of all tiles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bperp.kernels.chebyshev import OffsetPolynomial, evaluate_points
from bperp.kernels.look_angle_error import count_trial_wraps
from bperp.kernels.neighbour_phase import NeighbourFilter
from bperp.kernels.phase_noise import (
    PhaseNoiseOptions,
    estimate_phase_noise,
    phase_noise_halo_m,
)
from bperp.kernels.weeding import keep_local_best
from bperp.pipeline.amplitude import PRODUCT as AMPLITUDE
from bperp.pipeline.amplitude import complete_dates
from bperp.pipeline.burst import BurstImage
from bperp.pipeline.layout import (
    CHUNK_LINES,
    CHUNK_SAMPLES,
    column,
    date_coordinate,
    series,
)
from bperp.pipeline.radar import ground_spacing_m
from bperp.pipeline.registration import read_baseline
from bperp.pipeline.scene import SceneReader, Window, tile_windows
from bperp.pipeline.stack import Stack
from bperp.pipeline.stage import Block, Computation, Context, Plan, Source, Stage, Task, Template

PRODUCT = "scene/scatterers"
SLOT_STEP = 1024
OPTIONS = ("filter_grid_m", "low_pass_wavelength_m", "iterations", "weed_neighbours")
"""Options that the table depends on; the selection thresholds belong to the next step."""

GAMMA_BINS = 100
POINT_BLOCK = 8192
"""Points whose polynomial terms (92 float64 each) are held at a time."""

HALF_POWER = 0.1874
"""Sigma of a Gaussian over the wavelength at which its response is one half."""


def _plan(context: Context) -> Plan:
    stack: Stack = context.stack
    options = {name: context.options["scatterers"][name] for name in OPTIONS}
    limit = context.options["amplitude"]["max_amplitude_dispersion"]
    dates = complete_dates(stack)
    found = [r["summary"]["candidates"] for r in context.receipts("amplitude").values()]
    slot = max(1, -(-max(found, default=0) // SLOT_STEP)) * SLOT_STEP
    shape = (stack.scene.lines, stack.scene.samples)
    windows = list(tile_windows(shape, (CHUNK_LINES, CHUNK_SAMPLES)))
    spacing = ground_spacing_m(stack.reference(stack.burst_ids[0]))
    wraps = trial_wraps(context)
    halo_m = phase_noise_halo_m(_noise_options(options, wraps))
    halo = [int(np.ceil(halo_m / spacing[0])), int(np.ceil(halo_m / spacing[1]))]
    tasks = []
    for index, (key, window) in enumerate(windows):
        parameters = {
            "scene": stack.scene.as_dict(),
            "shape": list(shape),
            "window": list(window),
            "halo": halo,
            "spacing_m": list(spacing),
            "trial_wraps": wraps,
            "slot": slot,
            "slot_index": index,
            "dates": dates,
            "columns": [stack.date_index(date) for date in dates],
            "date_count": len(stack.dates),
            "reference_date": stack.reference_date,
            "max_amplitude_dispersion": limit,
            "images": {b: stack.reference(b).as_parameters() for b in stack.burst_ids},
            "options": options,
        }
        pixels = (window[1] - window[0] + 2 * halo[0]) * (window[3] - window[2] + 2 * halo[1])
        inputs = tuple(
            [f"amplitude/{other}" for other, _ in windows]
            + [f"coregister/{b}/{d}" for b in stack.burst_ids for d in dates]
            + [f"geometry/{b}" for b in stack.burst_ids]
            + [f"alignment/{d}" for d in dates]
        )
        memory = _memory(pixels, slot, _covered(window) / pixels, len(dates))
        tasks.append(
            Task("scatterers", key, parameters, inputs, (PRODUCT,), memory,
                 pixels=pixels * len(dates), batch="scene")
        )  # fmt: skip
    return Plan((_template(stack, slot, len(windows)),), tuple(tasks))


def _covered(window: Window) -> int:
    return (window[1] - window[0]) * (window[3] - window[2])


def _memory(pixels: int, slot: int, tile_share: float, dates: int) -> int:
    """Predict the peak of a task in bytes.

    Images of tile and halo one at a time (two float64, one complex64, indices); the candidates
    there, in proportion to the area, with five complex64 and two float32 tables; the padded slot.
    """
    candidates = int(slot / tile_share)
    return 40 * pixels + candidates * (48 * dates + 200) + slot * (8 * dates + 60) + (32 << 20)


def trial_wraps(context: Context) -> float:
    """Return the search range of the look-angle error, one number for the whole scene."""
    stack: Stack = context.stack
    baselines = [0.0]
    for receipt in context.receipts("alignment").values():
        baselines += receipt["summary"]["perpendicular_baseline_m"].values()
    image = stack.reference(stack.burst_ids[0])
    ratio = image.range_spacing_m / ground_spacing_m(image)[1]
    factor = 4 * np.pi / (image.wavelength_m * image.near_range_m * ratio)
    span = max(baselines) - min(baselines)
    return count_trial_wraps(span, context.options["scatterers"]["max_topo_error_m"], factor)


def _noise_options(options: Mapping[str, Any], wraps: float) -> PhaseNoiseOptions:
    cell = options["filter_grid_m"]
    sigma = HALF_POWER * options["low_pass_wavelength_m"]
    neighbours = NeighbourFilter(cell, sigma, exclusion_m=min(40.0, cell))
    return PhaseNoiseOptions(wraps, options["iterations"], neighbours)


def _template(stack: Stack, slot: int, tiles: int) -> Template:
    count = slot * tiles
    table = (count, len(stack.dates))

    def scalar(name: str, dtype: str, units: str, text: str) -> Any:
        return column(name, count, dtype=dtype, units=units, long_name=text, chunk=slot)

    arrays = (
        scalar("valid_mask", "uint8", "1", "1 where the row holds a candidate, 0 for padding"),
        scalar("kept_mask", "uint8", "1", "1 for the best of adjacent candidates"),
        scalar("line", "int32", "1", "scene line"),
        scalar("sample", "int32", "1", "scene sample"),
        scalar("latitude", "float64", "degrees_north", "geodetic latitude"),
        scalar("longitude", "float64", "degrees_east", "geodetic longitude"),
        scalar("height", "float32", "m", "height of the elevation model above the ellipsoid"),
        scalar("incidence_angle", "float32", "rad", "incidence angle at the ellipsoid"),
        scalar("slant_range", "float64", "m", "slant range on the reference date"),
        scalar("amplitude_dispersion", "float32", "1", "amplitude dispersion"),
        scalar("phase_noise", "float32", "1", "StaMPS-like gamma: coherence of the residual phase"),
        series("phase", table, dtype="float32", units="rad", chunk=slot,
               long_name="wrapped phase of reference * conj(date), topography removed"),
        series("perpendicular_baseline", table, dtype="float32", units="m", chunk=slot,
               long_name="perpendicular baseline of date relative to reference"),
    )  # fmt: skip
    attributes = {"title": "Persistent scatterers by tile", "rows_per_tile": slot}
    return Template(PRODUCT, arrays, {"date": date_coordinate(stack)}, attributes)


@dataclass(frozen=True)
class _Candidates:
    """Point table of a tile with its halo; ``m`` is the number of dates used."""

    line: NDArray[np.int64]
    sample: NDArray[np.int64]
    amplitude_dispersion: NDArray[np.float32]
    phasor: NDArray[np.complex64]
    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]
    height: NDArray[np.float32]
    incidence_angle: NDArray[np.float32]
    slant_range: NDArray[np.float64]
    perpendicular_baseline: NDArray[np.float32]


def _compute(parameters: Mapping[str, Any], source: Source) -> Computation:
    candidates = _load(parameters, source)
    noise_options = _noise_options(parameters["options"], parameters["trial_wraps"])
    used = [k for k, d in enumerate(parameters["dates"]) if d != parameters["reference_date"]]
    gamma = np.zeros(len(candidates.line), np.float32)
    if len(candidates.line):
        spacing = np.array(parameters["spacing_m"])
        position = np.column_stack((candidates.line, candidates.sample)) * spacing
        gamma = estimate_phase_noise(
            candidates.phasor[:, used],
            position,
            candidates.perpendicular_baseline[:, used],
            candidates.amplitude_dispersion,
            noise_options,
        ).gamma
    top, bottom, left, right = parameters["window"]
    inside = (candidates.line >= top) & (candidates.line < bottom)
    inside &= (candidates.sample >= left) & (candidates.sample < right)
    rows = np.flatnonzero(inside)
    kept = np.ones(len(gamma), np.bool_)
    if parameters["options"]["weed_neighbours"]:
        kept = keep_local_best(candidates.line, candidates.sample, gamma)
    origin = parameters["slot_index"] * parameters["slot"]
    for name, values in _columns(parameters, candidates, gamma, kept, rows).items():
        place = (origin,) if values.ndim == 1 else (origin, 0)
        yield Block(PRODUCT, name, place, values)
    return {
        "candidates": len(rows),
        "gamma_histogram": _histogram(gamma[rows]),
        "kept_histogram": _histogram(gamma[rows][kept[rows]]),
    }


def _histogram(gamma: NDArray[np.float32]) -> list[int]:
    """Count gamma in bins of 0.01; exactly 0 means not judged and is left out."""
    bins = np.minimum((gamma[gamma > 0] * GAMMA_BINS).astype(np.int64), GAMMA_BINS - 1)
    return [int(count) for count in np.bincount(bins, minlength=GAMMA_BINS)]


def _load(parameters: Mapping[str, Any], source: Source) -> _Candidates:
    """Read candidates of the tile and its halo, one date at a time."""
    window = _with_halo(parameters)
    reader = SceneReader(source, parameters["scene"])
    dispersion = source.read(
        AMPLITUDE, "amplitude_dispersion", (slice(*window[:2]), slice(*window[2:]))
    )
    line, sample = np.nonzero(dispersion < parameters["max_amplitude_dispersion"])
    values = {
        name: reader.geometry(window, name)[line, sample]
        for name in ("latitude", "longitude", "height", "incidence_angle")
    }
    owner = reader.owners(window)[line, sample]
    known = np.isfinite(values["height"])
    line, sample, owner = line[known], sample[known], owner[known]
    values = {name: array[known] for name, array in values.items()}
    phasor = _phasors(parameters, reader, window, (line, sample))
    baseline, slant_range = _baselines(
        parameters, source, (line + window[0], sample + window[2]), owner, values
    )
    return _Candidates(
        line=line + window[0],
        sample=sample + window[2],
        amplitude_dispersion=dispersion[line, sample],
        phasor=phasor,
        slant_range=slant_range,
        perpendicular_baseline=baseline,
        **values,
    )


def _with_halo(parameters: Mapping[str, Any]) -> Window:
    top, bottom, left, right = parameters["window"]
    lines, samples = parameters["shape"]
    halo = parameters["halo"]
    return (
        max(0, top - halo[0]),
        min(lines, bottom + halo[0]),
        max(0, left - halo[1]),
        min(samples, right + halo[1]),
    )


def _phasors(
    parameters: Mapping[str, Any],
    reader: SceneReader,
    window: Window,
    pixel: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> NDArray[np.complex64]:
    """Return unit phasors of reference * conj(date), ``(scatterer, date)``."""
    reference = reader.slc(window, parameters["reference_date"])[pixel]
    phasor = np.empty((len(pixel[0]), len(parameters["dates"])), np.complex64)
    for index, date in enumerate(parameters["dates"]):
        phasor[:, index] = reference * np.conj(reader.slc(window, date)[pixel])
    length = np.abs(phasor)
    return np.divide(phasor, length, out=np.zeros_like(phasor), where=length > 0)


def _baselines(
    parameters: Mapping[str, Any],
    source: Source,
    pixel: tuple[NDArray[np.int64], NDArray[np.int64]],
    owner: NDArray[np.int16],
    values: Mapping[str, NDArray[Any]],
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return perpendicular baselines ``(scatterer, date)`` and slant ranges ``(scatterer,)``."""
    baseline = np.zeros((len(owner), len(parameters["dates"])), np.float32)
    slant_range = np.zeros(len(owner))
    for index, place in enumerate(parameters["scene"]["placements"]):
        mine = np.flatnonzero(owner == index)
        if not mine.size:
            continue
        image = BurstImage.from_dict(parameters["images"][place["burst_id"]])
        line = (pixel[0][mine] - place["origin"][0]).astype(np.float64)
        sample = (pixel[1][mine] - place["origin"][1]).astype(np.float64)
        slant_range[mine] = image.near_range_m + sample * image.range_spacing_m
        height = values["height"][mine].astype(np.float64)
        found = [read_baseline(source, place["burst_id"], date) for date in parameters["dates"]]
        stacked = np.stack([polynomial.coefficients for polynomial in found], axis=1)
        together = OffsetPolynomial(found[0].domain, stacked)
        for start in range(0, len(mine), POINT_BLOCK):
            block = slice(start, start + POINT_BLOCK)
            metres = evaluate_points(together, line[block], sample[block], height[block])
            baseline[mine[block]] = metres
    return baseline, slant_range


def _columns(
    parameters: Mapping[str, Any],
    candidates: _Candidates,
    gamma: NDArray[np.float32],
    kept: NDArray[np.bool_],
    rows: NDArray[np.int64],
) -> dict[str, NDArray[Any]]:
    """Return the padded columns of the tile's slot."""
    slot, dates = parameters["slot"], parameters["date_count"]

    def padded(values: NDArray[Any], dtype: str, fill: float = 0) -> NDArray[Any]:
        column_values = np.full(slot, fill, dtype)
        column_values[: len(rows)] = values[rows]
        return column_values

    phase = np.full((slot, dates), np.nan, np.float32)
    baseline = np.full((slot, dates), np.nan, np.float32)
    phase[: len(rows), parameters["columns"]] = np.angle(candidates.phasor[rows])
    baseline[: len(rows), parameters["columns"]] = candidates.perpendicular_baseline[rows]
    nan = float("nan")
    return {
        "valid_mask": padded(np.ones(len(gamma)), "uint8"),
        "kept_mask": padded(kept, "uint8"),
        "line": padded(candidates.line, "int32"),
        "sample": padded(candidates.sample, "int32"),
        "latitude": padded(candidates.latitude, "float64", nan),
        "longitude": padded(candidates.longitude, "float64", nan),
        "height": padded(candidates.height, "float32", nan),
        "incidence_angle": padded(candidates.incidence_angle, "float32", nan),
        "slant_range": padded(candidates.slant_range, "float64", nan),
        "amplitude_dispersion": padded(candidates.amplitude_dispersion, "float32", nan),
        "phase_noise": padded(gamma, "float32", nan),
        "phase": phase,
        "perpendicular_baseline": baseline,
    }


STAGE = Stage("scatterers", "2", "bperp.pipeline.scatterers:STAGE", _plan, _compute)
