"""Resampling of a TOPS burst onto the reference geometry: deramp, interpolate, reramp, flatten.

For every tile the source is deramped once, interpolated in azimuth (taps held over 32 source
samples, over which the azimuth offset changes by less than 1e-3 line) and in range (taps linear in
the offset over 32 output samples, or one by one in rough terrain), and given its carrier back
analytically at the resampled position. Azimuth comes first, because the range offset varies more
with height and is thus taken for each pixel's own line.

Complex rows are kept as interleaved float32 ``re, im, re, im, ...``: all loops run over contiguous
memory. Phases are kept in turns, in float64 until they are wrapped.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bperp.kernels._jit import njit
from bperp.kernels.carrier import CarrierModel, carrier_terms
from bperp.kernels.chebyshev import (
    OffsetPolynomial,
    OffsetPowers,
    collapse_line,
    evaluate_points,
    offset_at,
    offset_row,
    to_powers,
)
from bperp.kernels.orbit import FAST
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

_SEGMENT = 32
_BLOCK = 1024
_BEFORE = TAPS // 2 - 1
_AFTER = TAPS // 2
# Over a segment the range taps are linear in the offset; their curvature (below 4 per square
# sample) then costs less than 5e-4 of the amplitude.
_LINEAR = 1.0 / 64.0
_POLYNOMIAL_MARGIN = 2


class SourceWindow(NamedTuple):
    """Part of a burst: ``pixels`` (lines, samples, 2) int16 from ``(first_line, first_sample)``.

    ``valid`` is the burst's valid rectangle ``(first line, stop line, first sample, stop sample)``.
    All positions count from the burst's first pixel.
    """

    pixels: NDArray[np.int16]
    first_line: int
    first_sample: int
    valid: tuple[int, int, int, int]


class ResamplePlan(NamedTuple):
    """Everything about a burst on a date that does not depend on the tile.

    ``flattening`` holds three numbers in turns: ``2 (R_date - R_reference) / lambda`` equals
    ``flattening[0] + flattening[1] * sample + flattening[2] * range offset``. The shifts are added
    to the source position only: they correct timing, not geometry.
    """

    carrier: CarrierModel
    azimuth: OffsetPowers
    range: OffsetPowers
    azimuth_shift_lines: float
    range_shift_samples: float
    azimuth_taps: NDArray[np.float32]
    range_taps: NDArray[np.float32]
    flattening: NDArray[np.float64]


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
