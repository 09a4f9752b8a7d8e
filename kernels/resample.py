"""Resampling of a TOPS burst onto the reference geometry: deramp, interpolate, reramp, flatten.

For every tile the source is deramped once, interpolated in azimuth (taps held over 32 source
samples, over which the azimuth offset changes by less than 1e-3 line) and in range (taps linear in
the offset over 32 or 16 output samples, one by one in extreme terrain), and given its carrier back
analytically at the resampled position. Azimuth comes first, because the range offset varies more
with height and is thus taken for each pixel's own line.

Offset and phase of the pixels come from series about the middle of each segment of 32 samples,
expanded in float64 (see ``segment_series``); only the small differences within a segment are
float32. Real and imaginary parts are kept in rows of their own, phases in turns.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bperp.kernels._jit import njit
from bperp.kernels.carrier import CarrierModel, carrier_terms
from bperp.kernels.chebyshev import evaluate_points
from bperp.kernels.offset_powers import OffsetPolynomial, to_powers
from bperp.kernels.resample_loops import (
    AFTER,
    BEFORE,
    BLOCK,
    ResamplePlan,
    SourceWindow,
    offset_bounds,
    resample_block,
)
from bperp.kernels.taps import FRACTIONS, TAPS
from bperp.kernels.zero_doppler import RadarGrid

__all__ = [
    "HALO_SAMPLES",
    "ResamplePlan",
    "SourceWindow",
    "plan_resampling",
    "resample_burst_exact",
    "resample_burst_points",
    "resample_burst_tile",
    "source_window",
]

HALO_SAMPLES = 64
"""Samples of height that ``resample_burst_tile`` can use on either side of its tile."""


def plan_resampling(
    offsets: tuple[OffsetPolynomial, OffsetPolynomial],
    shifts: tuple[float, float],
    taps: tuple[NDArray[np.float32], NDArray[np.float32]],
    carrier: CarrierModel,
    reference: RadarGrid,
    source: RadarGrid,
    wavelength_m: float,
) -> ResamplePlan:
    """Collect what the resampling of one burst on one date needs.

    Parameters
    ----------
    offsets : tuple of 2 OffsetPolynomial
        Azimuth offset in lines and range offset in samples: source minus reference position.
    shifts : tuple of 2 float
        Constant azimuth (lines) and range (samples) shift from spectral diversity and correlation,
        added to the source position; no part of the flattening.
    taps : tuple of 2 ndarray (2049, 16), float32
        Azimuth and range table from ``design_taps``.
    carrier : CarrierModel
        Carrier of the source.
    reference, source : RadarGrid
        Timing of the two images (only their ranges matter here).
    wavelength_m : float, m
        Radar wavelength.

    Returns
    -------
    ResamplePlan
        Argument of ``resample_burst_tile``.

    Raises
    ------
    ValueError
        If a table of taps has another shape.
    """
    for table in taps:
        if table.shape != (FRACTIONS + 1, TAPS):
            raise ValueError(f"taps must have the shape (2049, 16), got {table.shape}")
    flattening = (2.0 / wavelength_m) * np.array(
        [
            source.near_range_m - reference.near_range_m,
            source.range_spacing_m - reference.range_spacing_m,
            source.range_spacing_m,
        ]
    )
    return ResamplePlan(
        carrier,
        to_powers(offsets[0]),
        to_powers(offsets[1]),
        float(shifts[0]),
        float(shifts[1]),
        np.ascontiguousarray(taps[0], dtype=np.float32),
        np.ascontiguousarray(taps[1], dtype=np.float32),
        flattening,
    )


def _reach(taps: NDArray[np.float32]) -> int:
    """Return half the number of taps in a padded table: 4, 6 or 8."""
    used = np.flatnonzero(np.any(taps != 0.0, axis=0))
    return max(AFTER - int(used[0]), int(used[-1]) - BEFORE)


def resample_burst_tile(
    source: SourceWindow,
    plan: ResamplePlan,
    height_m: NDArray[np.float32],
    origin: tuple[int, int],
    shape: tuple[int, int],
    height_first_sample: int | None = None,
    out: NDArray[np.complex64] | None = None,
) -> NDArray[np.complex64]:
    """Resample a tile of a burst onto the reference geometry.

    Parameters
    ----------
    source : SourceWindow
        Pixels of the source burst that cover the tile (see ``source_window``).
    plan : ResamplePlan
        From ``plan_resampling``.
    height_m : ndarray (lines, columns), float32, m
        Ellipsoidal heights of the tile's lines; NaN where unknown. The columns may exceed the tile
        by up to ``HALO_SAMPLES`` on either side.
    origin, shape : tuple of 2 int
        First line and sample of the tile in the reference burst, and its size.
    height_first_sample : int, optional
        Burst sample of the first column of ``height_m``; by default that of the tile.
    out : ndarray (lines, samples), complex64, C-contiguous, optional
        Memory for the result.

    Returns
    -------
    ndarray (lines, samples), complex64
        Coregistered, flattened samples with their carrier, in digital numbers; zero where a tap
        leaves the valid rectangle of the source (or its window), or the height is unknown.

    Raises
    ------
    ValueError
        If shapes disagree.

    Notes
    -----
    ``out = exp(+2 pi j (carrier(y, x) + 2 (R_date - R_reference) / lambda)) *
    sum taps(y, x) source exp(-2 pi j carrier)`` at the source position
    ``y = line + azimuth offset + azimuth shift``, ``x = sample + range offset + range shift``.

    Tiles give identical bytes whatever the tiling, if their edges are multiples of 32 samples (or
    the edge of the burst) and the heights include the halo.
    """
    first_column = origin[1] if height_first_sample is None else height_first_sample
    if height_m.shape[0] != shape[0]:
        raise ValueError(f"height_m must have {shape[0]} lines, got {height_m.shape[0]}")
    if first_column > origin[1] or first_column + height_m.shape[1] < origin[1] + shape[1]:
        raise ValueError("height_m must cover the samples of the tile")
    if source.pixels.ndim != 3 or source.pixels.shape[2] != 2:
        raise ValueError(f"source pixels must be (lines, samples, 2), got {source.pixels.shape}")
    if out is None:
        out = np.empty(shape, dtype=np.complex64)
    heights = np.ascontiguousarray(height_m, dtype=np.float32)
    extremes = (float(np.fmin.reduce(heights, None)), float(np.fmax.reduce(heights, None)))
    if math.isnan(extremes[0]) or source.pixels.size == 0:
        out[...] = 0.0
        return out
    slopes = np.gradient(plan.range_taps, axis=0) * np.float32(FRACTIONS)
    table = np.concatenate([plan.range_taps, slopes.astype(np.float32)], axis=1)
    reach = (_reach(plan.azimuth_taps), _reach(plan.range_taps))
    # Two dimensions only: with a third, of unknown length 2, the compiled loops stay scalar.
    pixels = np.ascontiguousarray(source.pixels).reshape(source.pixels.shape[0], -1)
    window = SourceWindow(pixels, *source[1:])
    view = out.view(np.float32)
    start = origin[1]
    while start < origin[1] + shape[1]:
        stop = min(start + BLOCK - start % BLOCK, origin[1] + shape[1])
        area = (origin[0], start, stop, first_column, origin[1])
        resample_block(window, plan, table, heights, area, reach, extremes, view)
        start = stop
    return out


@njit
def _deramp_window(
    source: SourceWindow, carrier: CarrierModel, box: tuple[int, int, int, int]
) -> NDArray[np.complex128]:
    """Return the deramped pixels of a box ``(first line, stop line, first sample, stop sample)``.

    In float64 throughout, and without the series of the fast path.
    """
    out = np.empty((box[1] - box[0], box[3] - box[2]), dtype=np.complex128)
    for j in range(out.shape[1]):
        a, b, c = carrier_terms(carrier, np.float64(box[2] + j))
        for i in range(out.shape[0]):
            eta = (box[0] + i - carrier.middle_line) * carrier.line_interval_s
            angle = -2.0 * math.pi * (a + eta * (b + eta * c))
            pixel = source.pixels[box[0] + i - source.first_line, box[2] + j - source.first_sample]
            value = complex(pixel[0], pixel[1])
            out[i, j] = value * complex(math.cos(angle), math.sin(angle))
    return out


@njit
def _resample_points(
    image: NDArray[np.complex128],
    plan: ResamplePlan,
    positions: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
    reach: tuple[int, int],
    box: tuple[int, int, int, int],
    out: NDArray[np.complex64],
) -> None:
    """Sum all products of taps for every position (source line, source sample, flattening)."""
    lines, samples, flattening = positions
    top, bottom, left, right = box
    for i in range(out.size):
        out[i] = 0.0
        # Taps must lie within the box; NaN fails every comparison.
        if not (lines[i] >= top + reach[0] - 1 and lines[i] < bottom - reach[0]):
            continue
        if not (samples[i] >= left + reach[1] - 1 and samples[i] < right - reach[1]):
            continue
        if math.isnan(flattening[i]):
            continue
        row, column = math.floor(lines[i]), math.floor(samples[i])
        p = int((lines[i] - row) * FRACTIONS + 0.5)
        q = int((samples[i] - column) * FRACTIONS + 0.5)
        total = 0.0j
        for k in range(1 - reach[0], reach[0] + 1):
            value = 0.0j
            for m in range(1 - reach[1], reach[1] + 1):
                weight = np.float64(plan.range_taps[q, m + BEFORE])
                value += weight * image[row + k - top, column + m - left]
            total += np.float64(plan.azimuth_taps[p, k + BEFORE]) * value
        a, b, c = carrier_terms(plan.carrier, samples[i])
        eta = (lines[i] - plan.carrier.middle_line) * plan.carrier.line_interval_s
        angle = 2.0 * math.pi * (a + eta * (b + eta * c) + flattening[i])
        out[i] = total * complex(math.cos(angle), math.sin(angle))


def _box_of_taps(
    source: SourceWindow,
    positions: tuple[NDArray[np.float64], NDArray[np.float64]],
    reach: tuple[int, int],
) -> tuple[int, int, int, int]:
    """Return the part of the source, valid and in the window, that the taps of positions meet."""
    top, bottom, left, right = source.valid
    top, left = max(top, source.first_line), max(left, source.first_sample)
    bottom = min(bottom, source.first_line + source.pixels.shape[0])
    right = min(right, source.first_sample + source.pixels.shape[1])
    bounds = []
    for values, start, stop, margin in (
        (positions[0], top, bottom, reach[0] + 1),
        (positions[1], left, right, reach[1] + 1),
    ):
        known = values[(values >= start) & (values <= stop)]
        if known.size == 0:
            return 0, 0, 0, 0
        bounds.append(max(start, math.floor(known.min()) - margin))
        bounds.append(max(min(stop, math.ceil(known.max()) + margin), bounds[-1]))
    return bounds[0], bounds[1], bounds[2], bounds[3]


def resample_burst_points(
    source: SourceWindow,
    plan: ResamplePlan,
    line_positions: NDArray[np.float64],
    sample_positions: NDArray[np.float64],
    flattening_turns: NDArray[np.float64],
) -> NDArray[np.complex64]:
    """Resample a burst at given positions, each with its own taps in both directions.

    For where offsets are no polynomials, and as the reference of ``resample_burst_tile``, which is
    ten times faster.

    Parameters
    ----------
    source : SourceWindow
        Pixels of the source burst that hold all taps.
    plan : ResamplePlan
        From ``plan_resampling``; its offsets, shifts and flattening are not used.
    line_positions, sample_positions : ndarray (lines, samples), float64
        Positions in the source burst, shifts included; NaN where there is no data.
    flattening_turns : ndarray (lines, samples), float64, turns
        Phase ``2 (R_date - R_reference) / lambda`` to be added; NaN likewise.

    Returns
    -------
    ndarray (lines, samples), complex64
        Coregistered, flattened samples with their carrier; zero where there is no data, or a tap
        leaves the valid rectangle of the source or its window.

    Raises
    ------
    ValueError
        If the shapes of the positions disagree.
    """
    shapes = (line_positions.shape, sample_positions.shape, flattening_turns.shape)
    if len(set(shapes)) != 1:
        raise ValueError(f"positions and flattening_turns must have one shape, got {shapes}")
    out = np.zeros(line_positions.shape, dtype=np.complex64)
    positions = (
        np.ascontiguousarray(line_positions, dtype=np.float64).reshape(-1),
        np.ascontiguousarray(sample_positions, dtype=np.float64).reshape(-1),
        np.ascontiguousarray(flattening_turns, dtype=np.float64).reshape(-1),
    )
    reach = (_reach(plan.azimuth_taps), _reach(plan.range_taps))
    box = _box_of_taps(source, positions[:2], reach)
    image = _deramp_window(source, plan.carrier, box)
    _resample_points(image, plan, positions, reach, box, out.reshape(-1))
    return out


def resample_burst_exact(
    source: SourceWindow,
    plan: ResamplePlan,
    offsets: tuple[OffsetPolynomial, OffsetPolynomial],
    height_m: NDArray[np.float32],
    origin: tuple[int, int],
) -> NDArray[np.complex64]:
    """Resample a tile pixel by pixel in two dimensions: slow, for tests.

    Parameters are those of ``resample_burst_tile``; ``offsets`` are the polynomials from which the
    plan was made, ``height_m`` covers exactly the tile.

    Returns
    -------
    ndarray (lines, samples), complex64
        What ``resample_burst_tile`` approximates.
    """
    line = origin[0] + np.arange(height_m.shape[0], dtype=np.float64)[:, np.newaxis]
    sample = origin[1] + np.arange(height_m.shape[1], dtype=np.float64)[np.newaxis, :]
    heights = height_m.astype(np.float64)
    azimuth = evaluate_points(offsets[0], line, sample, heights)
    across = evaluate_points(offsets[1], line, sample, heights)
    constant, ramp, per_sample = plan.flattening
    return resample_burst_points(
        source,
        plan,
        line + azimuth + plan.azimuth_shift_lines,
        sample + across + plan.range_shift_samples,
        constant + ramp * sample + per_sample * across,
    )


def source_window(
    plan: ResamplePlan,
    origin: tuple[int, int],
    shape: tuple[int, int],
    height_range: tuple[float, float],
    source_shape: tuple[int, int],
) -> tuple[slice, slice]:
    """Return the source lines and samples that a tile needs, taps included.

    Parameters
    ----------
    plan : ResamplePlan
        From ``plan_resampling``.
    origin, shape : tuple of 2 int
        First line and sample of the tile in the reference burst, and its size.
    height_range : tuple of 2 float, m
        Lowest and highest height of the tile.
    source_shape : tuple of 2 int
        Lines and samples of the source burst.

    Returns
    -------
    tuple of 2 slice
        Lines and samples within the source burst; empty slices where the tile does not meet it.
    """
    lines, samples = ((start, start + size) for start, size in zip(origin, shape, strict=True))
    found = []
    for offsets, shift, span, size in (
        (plan.azimuth, plan.azimuth_shift_lines, lines, source_shape[0]),
        (plan.range, plan.range_shift_samples, samples, source_shape[1]),
    ):
        low, high = offset_bounds(offsets, lines, samples, height_range)
        start = math.floor(span[0] + low + shift) - TAPS
        stop = math.ceil(span[1] + high + shift) + TAPS
        found.append(slice(min(max(start, 0), size), min(max(stop, 0), size)))
    return found[0], found[1]
