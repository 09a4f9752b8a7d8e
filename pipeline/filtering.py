"""Step 8, filter: interferograms smoothed along their fringes (optional).

Product ``scene/filtered`` ``(pair, azimuth, range)``: phase after the adaptive filter of Goldstein
and Werner, and `phase_consistency`, the modulus of the filtered unit phasor. Of all layers this one
tells best where the filtered phase can be trusted: in simulated fringes of varying coherence it
parts errors above 0.5 rad from the rest with 0.97 of the area under the curve, the sample coherence
with 0.80.

A task is one spatial tile and the pairs that end on one date. Patches of the filter stand on a grid
fixed to the scene, so the result does not depend on tiles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bperp.kernels.goldstein import filter_goldstein
from bperp.pipeline.interferogram import PRODUCT as INTERFEROGRAM
from bperp.pipeline.interferogram import TILE as CHUNK
from bperp.pipeline.layout import raster
from bperp.pipeline.pairs import Pair, pair_coordinates, pairs_by_date, selected_pairs
from bperp.pipeline.scene import Window, tile_windows
from bperp.pipeline.stage import (
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

PRODUCT = "scene/filtered"
TILE = (4 * CHUNK[0], 4 * CHUNK[1])
"""Chunks are those of the interferograms; a task takes sixteen, as it reads the ring around them
as well: twice its own chunks instead of nine times."""

BYTES_PER_PIXEL = 44
"""Phase, coherence, cosine, sine, phasor (8) and mask with halo; filtered phasor (8), phase,
consistency and mask; rounded up."""

WORKSPACE_BYTES = 16 << 20
"""Spectra of sixteen patches, and chunks being decoded."""


def _plan(context: Context) -> Plan:
    options = context.options["filter"]
    if not options["enabled"]:
        return Plan((), ())
    scene = context.stack.scene
    shape = (scene.lines // scene.looks[0], scene.samples // scene.looks[1])
    pairs = selected_pairs(context)
    parameters = {
        "shape": list(shape),
        "strength": options["strength"],
        "patch": options["window"],
        "overlap": options["overlap"],
    }
    chunks = list(tile_windows(shape, CHUNK))
    tasks = []
    for key, window in tile_windows(shape, TILE):
        around = _around(window, parameters["patch"], shape)
        pixels = (window[1] - window[0]) * (window[3] - window[2])
        below = [name for name, chunk in chunks if _meet(around, chunk)]
        for date, ending in pairs_by_date(pairs, context.stack.reference_date).items():
            labels = tuple(pair_label(*pair) for pair in ending)
            tasks.append(
                Task(
                    "filter",
                    f"{key}/{date}",
                    {**parameters, "window": list(window), "pairs": list(labels)},
                    tuple(f"interferogram/{name}/{date}" for name in below),
                    (PRODUCT,),
                    memory_bytes=_memory(around),
                    pixels=pixels * len(ending),
                    batch="scene",
                    labels=labels,
                    group=key,
                )
            )
    return Plan((_template(pairs, shape, parameters),), tuple(tasks))


def _around(window: Window, halo: int, shape: tuple[int, int]) -> Window:
    """Return the window with its halo, cut at the edges of the scene."""
    return (
        max(0, window[0] - halo),
        min(shape[0], window[1] + halo),
        max(0, window[2] - halo),
        min(shape[1], window[3] + halo),
    )


def _meet(one: Window, other: Window) -> bool:
    lines = one[0] < other[1] and other[0] < one[1]
    return lines and one[2] < other[3] and other[2] < one[3]


def _memory(around: Window) -> int:
    """Predict the peak: the images of one pair, whatever the number of pairs."""
    pixels = (around[1] - around[0]) * (around[3] - around[2])
    return BYTES_PER_PIXEL * pixels + WORKSPACE_BYTES


def _template(
    pairs: Sequence[Pair], shape: tuple[int, int], parameters: Mapping[str, Any]
) -> Template:
    cube, dims = (len(pairs), *shape), ("pair", "azimuth", "range")
    chunks = (1, min(CHUNK[0], shape[0]), min(CHUNK[1], shape[1]))
    arrays = (
        raster("phase", cube, dims=dims, chunks=chunks, dtype="float32", units="rad",
               long_name="wrapped phase of the interferogram, adaptively filtered",
               positive="secondary farther away than reference"),
        raster("phase_consistency", cube, dims=dims, chunks=chunks, dtype="float32", units="1",
               long_name="modulus of the filtered unit phasor, 1 for noise-free fringes",
               valid_min=0.0, valid_max=1.0),
    )  # fmt: skip
    attributes = {
        "title": "Filtered interferograms",
        "filter": "Goldstein and Werner (1998)",
        "strength": parameters["strength"],
        "window": parameters["patch"],
        "overlap": parameters["overlap"],
    }
    return Template(PRODUCT, arrays, pair_coordinates(pairs), attributes)


def _compute(parameters: Mapping[str, Any], source: Source) -> Computation:
    top, bottom, left, right = window = tuple(parameters["window"])
    around = _around(window, parameters["patch"], tuple(parameters["shape"]))
    interior = (top - around[0], bottom - around[0], left - around[2], right - around[2])
    counts, sums = [], []
    for pair in parameters["pairs"]:
        region = (pair, slice(*around[:2]), slice(*around[2:]))
        strength = parameters["strength"]
        if strength == "coherence":
            strength = source.read(INTERFEROGRAM, "coherence", region)[0]
        filtered = filter_goldstein(
            _phasor(source.read(INTERFEROGRAM, "phase", region)[0]),
            strength,
            window=parameters["patch"],
            overlap=parameters["overlap"],
            origin=(around[0], around[2]),
            interior=interior,
        )
        missing = filtered == 0
        phase = np.angle(filtered)
        consistency = np.minimum(np.abs(filtered), np.float32(1.0))
        counts.append(int(missing.size - np.count_nonzero(missing)))
        sums.append(float(consistency.sum(dtype=np.float64)))
        phase[missing] = np.nan
        consistency[missing] = np.nan
        yield Block(PRODUCT, "phase", (pair, top, left), phase[None])
        yield Block(PRODUCT, "phase_consistency", (pair, top, left), consistency[None])
    return {
        "valid_pixels": dict(zip(parameters["pairs"], counts, strict=True)),
        "phase_consistency_sum": dict(zip(parameters["pairs"], sums, strict=True)),
    }


def _phasor(phase_rad: NDArray[np.float32]) -> NDArray[np.complex64]:
    """Return unit phasors; NaN stays NaN, which the filter takes for missing."""
    phasor = np.empty(phase_rad.shape, np.complex64)
    phasor.real = np.cos(phase_rad)
    phasor.imag = np.sin(phase_rad)
    return phasor


STAGE = Stage("filter", "2", "bperp.pipeline.filtering:STAGE", _plan, _compute)
