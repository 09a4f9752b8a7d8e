"""Resampling of a TOPS burst onto the reference geometry: deramp, interpolate, reramp, flatten.

For every tile the source is deramped once, interpolated in azimuth (taps held over 32 source
samples, over which the azimuth offset changes by less than 1e-3 line) and in range (taps linear in
the offset over 32 or 8 output samples, one by one in extreme terrain), and given its carrier back
analytically at the resampled position. Azimuth comes first, because the range offset varies more
with height and is thus taken for each pixel's own line.

Complex rows are kept as interleaved float32 ``re, im, re, im, ...``: all loops run over contiguous
memory. Phases are kept in turns, in float64 until they are wrapped.
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
    "resample_burst_tile",
    "source_window",
]

HALO_SAMPLES = 64
"""Samples of height that ``resample_burst_tile`` can use on either side of its tile."""

_BLOCK = 1024


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
    slopes = np.gradient(plan.range_taps, axis=0).astype(np.float32) * np.float32(FRACTIONS)
    reach = (_reach(plan.azimuth_taps), _reach(plan.range_taps))
    # Two dimensions only: with a third, of unknown length 2, the compiled loops stay scalar.
    pixels = np.ascontiguousarray(source.pixels).reshape(source.pixels.shape[0], -1)
    window = SourceWindow(pixels, *source[1:])
    view = out.view(np.float32)
    start = origin[1]
    while start < origin[1] + shape[1]:
        stop = min(start + _BLOCK - start % _BLOCK, origin[1] + shape[1])
        area = (origin[0], start, stop, first_column, origin[1])
        resample_block(window, plan, slopes, heights, area, reach, extremes, view)
        start = stop
    return out


@njit
def _resample_exact(
    source: SourceWindow,
    plan: ResamplePlan,
    positions: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
    reach: tuple[int, int],
    out: NDArray[np.complex128],
) -> None:
    """Sum all products of taps for every position (source line, source sample, flattening)."""
    lines, samples, flattening = positions
    top, bottom, left, right = source.valid
    for i in range(out.size):
        row, column = math.floor(lines[i]), math.floor(samples[i])
        p = int((lines[i] - row) * FRACTIONS + 0.5)
        q = int((samples[i] - column) * FRACTIONS + 0.5)
        out[i] = 0.0
        if row - reach[0] + 1 < top or row + reach[0] >= bottom:
            continue
        if column - reach[1] + 1 < left or column + reach[1] >= right:
            continue
        total = 0.0j
        for k in range(TAPS):
            for m in range(TAPS):
                weight = plan.azimuth_taps[p, k] * plan.range_taps[q, m]
                if weight != 0.0:
                    y, x = row - BEFORE + k, column - BEFORE + m
                    a, b, c = carrier_terms(plan.carrier, np.float64(x))
                    eta = (y - plan.carrier.middle_line) * plan.carrier.line_interval_s
                    angle = -2.0 * math.pi * (a + eta * (b + eta * c))
                    pixel = source.pixels[y - source.first_line, x - source.first_sample]
                    value = complex(pixel[0], pixel[1])
                    total += weight * value * complex(math.cos(angle), math.sin(angle))
        a, b, c = carrier_terms(plan.carrier, samples[i])
        eta = (lines[i] - plan.carrier.middle_line) * plan.carrier.line_interval_s
        angle = 2.0 * math.pi * (a + eta * (b + eta * c) + flattening[i])
        out[i] = total * complex(math.cos(angle), math.sin(angle))


def resample_burst_exact(
    source: SourceWindow,
    plan: ResamplePlan,
    offsets: tuple[OffsetPolynomial, OffsetPolynomial],
    height_m: NDArray[np.float32],
    origin: tuple[int, int],
) -> NDArray[np.complex128]:
    """Resample a tile pixel by pixel in two dimensions: slow, for tests.

    Parameters are those of ``resample_burst_tile``; ``offsets`` are the polynomials from which the
    plan was made, ``height_m`` covers exactly the tile. The window must hold all taps of pixels
    within the valid rectangle.

    Returns
    -------
    ndarray (lines, samples), complex128
        What ``resample_burst_tile`` approximates.
    """
    line = origin[0] + np.arange(height_m.shape[0], dtype=np.float64)[:, np.newaxis]
    sample = origin[1] + np.arange(height_m.shape[1], dtype=np.float64)[np.newaxis, :]
    heights = height_m.astype(np.float64)
    azimuth = evaluate_points(offsets[0], line, sample, heights)
    across = evaluate_points(offsets[1], line, sample, heights)
    positions = (
        (line + azimuth + plan.azimuth_shift_lines).ravel(),
        (sample + across + plan.range_shift_samples).ravel(),
        (plan.flattening[0] + plan.flattening[1] * sample + plan.flattening[2] * across).ravel(),
    )
    out = np.empty(height_m.shape, dtype=np.complex128)
    reach = (_reach(plan.azimuth_taps), _reach(plan.range_taps))
    _resample_exact(source, plan, positions, reach, out.reshape(-1))
    return out


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
