"""Interferograms and their coherence over adjoining windows.

How the sums are formed, and what counts as an invalid pixel, is told in
`bperp.kernels.window_sums`; sliding boxes and the statistics of coherence are in
`bperp.kernels.coherence`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bperp.kernels._jit import njit
from bperp.kernels.coherence import debias_coherence, effective_looks, sliding_coherence
from bperp.kernels.window_sums import (
    STRIP,
    Interferogram,
    Part,
    Rows,
    Sums,
    allocate,
    as_floats,
    check_images,
    finish,
    minimum_count,
    sum_cross,
    sum_power,
    sum_windows,
)

__all__ = [
    "Interferogram",
    "debias_coherence",
    "effective_looks",
    "multilook_interferogram",
    "multilook_pairs",
    "phase_to_displacement",
    "sliding_coherence",
]


def multilook_interferogram(
    reference: NDArray[np.complex64],
    secondary: NDArray[np.complex64],
    azimuth_looks: int,
    range_looks: int,
    minimum_valid_fraction: float = 0.5,
    invalid_coherence: float = float("nan"),
    out: Interferogram | None = None,
) -> Interferogram:
    """Form an interferogram and its coherence over adjoining windows.

    Parameters
    ----------
    reference, secondary : ndarray
        complex64 ``(azimuth, range)``, coregistered; 0 + 0j and NaN mark missing pixels, and an
        amplitude below 1e-22 counts as zero.
    azimuth_looks, range_looks : int
        Window in lines and samples, at least 1; lines and samples that do not fill a window at the
        end are dropped.
    minimum_valid_fraction : float, default 0.5
        Windows with a smaller share of valid pixels, or none at all, are invalid; 0 to 1.
    invalid_coherence : float, default NaN
        Coherence to write into invalid windows.
    out : Interferogram, optional
        Arrays to write into, of the type and shape of the result: an earlier result of an image of
        the same shape. Fresh memory costs as much as the sums of small windows.

    Returns
    -------
    Interferogram
        Arrays ``(azimuth // azimuth_looks, range // range_looks)``; `out` if it was given.

    Raises
    ------
    ValueError
        If shapes, looks, the fraction or `out` make no sense.

    Notes
    -----
    ``I = mean(r conj(s))``, ``coherence = |sum r conj(s)| / sqrt(sum |r|^2 sum |s|^2)``, all over
    pixels valid in both. The phase of ``I`` is ``+4 pi (R_secondary - R_reference) / lambda``.
    """
    check_images(reference, secondary)
    result = allocate((), reference.shape, azimuth_looks, range_looks, out)
    threshold = minimum_count(azimuth_looks * range_looks, minimum_valid_fraction)
    _multilook(
        as_floats(reference),
        as_floats(secondary),
        (azimuth_looks, range_looks),
        (threshold, invalid_coherence),
        result,
    )
    return result


def multilook_pairs(
    slc: NDArray[np.complex64],
    pair_index: NDArray[np.integer[Any]],
    azimuth_looks: int,
    range_looks: int,
    minimum_valid_fraction: float = 0.5,
    invalid_coherence: float = float("nan"),
) -> Interferogram:
    """Form the interferograms of many pairs of a stack; each date's power is summed once.

    Parameters
    ----------
    slc : ndarray
        complex64 ``(date, azimuth, range)``, coregistered (and flattened).
    pair_index : ndarray
        integer ``(pair, 2)``: reference and secondary index along ``date``.
    azimuth_looks, range_looks, minimum_valid_fraction, invalid_coherence
        As in `multilook_interferogram`.

    Returns
    -------
    Interferogram
        Arrays ``(pair, azimuth // azimuth_looks, range // range_looks)``, bit by bit those of
        `multilook_interferogram` pair by pair.

    Raises
    ------
    ValueError
        If shapes, looks, indices or the fraction make no sense.
    """
    if slc.ndim != 3 or slc.dtype != np.complex64:
        raise ValueError(f"slc must be complex64 (date, azimuth, range), instead got {slc.shape}")
    pairs = np.ascontiguousarray(pair_index, dtype=np.int64)
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise ValueError(f"pair_index must be (pair, 2), instead got {pairs.shape}")
    if pairs.size and not (pairs.min() >= 0 and pairs.max() < slc.shape[0]):
        raise ValueError(f"pair_index must lie in [0, {slc.shape[0]}), got {pairs.tolist()}")
    result = allocate((len(pairs),), slc.shape[1:], azimuth_looks, range_looks)
    threshold = minimum_count(azimuth_looks * range_looks, minimum_valid_fraction)
    looks = (azimuth_looks, range_looks)
    _multilook_pairs(as_floats(slc), pairs, looks, (threshold, invalid_coherence), result)
    return result


def phase_to_displacement(
    phase_rad: NDArray[np.float32], wavelength_m: float
) -> NDArray[np.float32]:
    """Turn unwrapped interferometric phase into displacement along the line of sight.

    Parameters
    ----------
    phase_rad : ndarray
        float32, any shape, rad: unwrapped phase of ``reference * conj(secondary)`` without
        topography; NaN stays NaN.
    wavelength_m : float, m
        Radar wavelength, positive.

    Returns
    -------
    ndarray
        float32, m: displacement of the ground at the secondary's date relative to that of the
        reference, positive towards the satellite.

    Raises
    ------
    ValueError
        If the type is not float32 or the wavelength is not positive.

    Notes
    -----
    The phase of an image is ``-4 pi R / lambda``, hence that of ``reference * conj(secondary)`` is
    ``4 pi (R_secondary - R_reference) / lambda``. Ground that has come nearer by ``d`` has
    ``R_secondary = R_reference - d`` and the phase ``-4 pi d / lambda``:
    ``d = -lambda / (4 pi) phase``. One fringe is half a wavelength.
    """
    if phase_rad.dtype != np.float32:
        raise ValueError(f"phase_rad must be float32, instead got {phase_rad.dtype}")
    if not wavelength_m > 0.0:
        raise ValueError(f"wavelength_m must be positive, instead got {wavelength_m}")
    return phase_rad * np.float32(-wavelength_m / (4.0 * np.pi))


@njit
def _multilook(
    r: Rows,
    s: Rows,
    looks: tuple[int, int],
    rule: tuple[float, float],
    result: Interferogram,
) -> None:
    azimuth_looks, range_looks = looks
    height, width = result.coherence.shape
    strip = max(1, STRIP // range_looks)
    rows = np.empty((5, strip * range_looks), np.float32)
    sums = np.empty((5, strip), np.float64)
    for row in range(height):
        top, bottom = row * azimuth_looks, (row + 1) * azimuth_looks
        for left in range(0, width, strip):
            right = min(width, left + strip)
            part = (top, bottom, 2 * left * range_looks, 2 * right * range_looks, range_looks)
            sum_windows(r, s, part, rows, sums)
            finish(
                sums,
                rule,
                result.interferogram[row, left:right],
                result.coherence[row, left:right],
                result.valid_count[row, left:right],
            )


@njit
def _sum_pair(
    r: Rows, s: Rows, part: Part, rows: Rows, powers: tuple[Sums, Sums], sums: Sums
) -> None:
    # Dates' own powers serve wherever both dates fill the window; else the pair is summed anew.
    top, bottom, left, right, looks = part
    full = np.float64((bottom - top) * looks)
    single = np.empty((5, 1), np.float64)
    sum_cross(r, s, part, rows, sums)
    for w in range((right - left) // (2 * looks)):
        if powers[0][1, w] == full and powers[1][1, w] == full:
            sums[2, w], sums[3, w], sums[4, w] = powers[0][0, w], powers[1][0, w], full
        else:
            start = left + 2 * w * looks
            sum_windows(r, s, (top, bottom, start, start + 2 * looks, looks), rows, single)
            sums[:, w] = single[:, 0]


@njit
def _multilook_pairs(
    slc: Rows,
    pairs: NDArray[np.int64],
    looks: tuple[int, int],
    rule: tuple[float, float],
    result: Interferogram,
) -> None:
    azimuth_looks, range_looks = looks
    _, height, width = result.coherence.shape
    strip = max(1, STRIP // range_looks)
    rows = np.empty((5, strip * range_looks), np.float32)
    sums = np.empty((5, strip), np.float64)
    power = np.empty((slc.shape[0], 2, strip), np.float64)
    for row in range(height):
        top, bottom = row * azimuth_looks, (row + 1) * azimuth_looks
        for left in range(0, width, strip):
            right = min(width, left + strip)
            part = (top, bottom, 2 * left * range_looks, 2 * right * range_looks, range_looks)
            for date in range(slc.shape[0]):
                sum_power(slc[date], part, rows, power[date])
            for pair in range(pairs.shape[0]):
                i, j = pairs[pair, 0], pairs[pair, 1]
                _sum_pair(slc[i], slc[j], part, rows, (power[i], power[j]), sums)
                finish(
                    sums,
                    rule,
                    result.interferogram[pair, row, left:right],
                    result.coherence[pair, row, left:right],
                    result.valid_count[pair, row, left:right],
                )
