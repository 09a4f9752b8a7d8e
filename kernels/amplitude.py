"""Amplitude statistics of a coregistered stack: calibration, mean and dispersion.

The amplitude dispersion index is the cheap first filter for persistent scatterers (Ferretti et
al., "Permanent scatterers in SAR interferometry", IEEE TGRS 39(1), 2001): slowly decorrelating
clutter passes it too, so it only proposes candidates for the phase test in ``phase_noise``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bperp.kernels._jit import njit

MINIMUM_AMPLITUDE = 0.001
"""Samples up to this amplitude count as no data in the calibration."""

_QUANTUM_SHIFT = 1.5 * 2.0**36
"""Adding and subtracting it rounds a float64 below 2**36 to a multiple of 2**-16."""


@njit
def _calibration_kernel(
    samples: NDArray[Any], total: NDArray[np.float64], count: NDArray[np.int64]
) -> None:
    dates, lines, width, _ = samples.shape
    limit = np.float32(MINIMUM_AMPLITUDE**2)
    for date in range(dates):
        for line in range(lines):
            row = samples[date, line]
            row_total = 0.0
            row_count = 0
            for column in range(np.uint64(width)):
                real = np.float32(row[column, 0])
                imaginary = np.float32(row[column, 1])
                power = real * real + imaginary * imaginary
                if power > limit and power < np.inf:
                    amplitude = np.float64(np.sqrt(power))
                    # Multiples of 2**-16 add without rounding, so the order of summing is free.
                    row_total += (amplitude + _QUANTUM_SHIFT) - _QUANTUM_SHIFT
                    row_count += 1
            total[date] += row_total
            count[date] += row_count


@njit
def _dispersion_kernel(
    samples: NDArray[Any],
    gain: NDArray[np.float64],
    dispersion: NDArray[np.float32],
    mean: NDArray[np.float32],
) -> None:
    dates, lines, width, _ = samples.shape
    total = np.empty(width, np.float64)
    square = np.empty(width, np.float64)
    count = np.empty(width, np.float64)
    for line in range(lines):
        total[:] = 0.0
        square[:] = 0.0
        count[:] = 0.0
        for date in range(dates):
            row = samples[date, line]
            factor = gain[date]
            for column in range(np.uint64(width)):
                real = np.float32(row[column, 0])
                imaginary = np.float32(row[column, 1])
                power = real * real + imaginary * imaginary
                # Comparing with NaN is False: invalid samples add nothing, without a branch.
                is_valid = power > np.float32(0.0) and power < np.float32(np.inf)
                amplitude = factor * np.float64(np.sqrt(power if is_valid else np.float32(0.0)))
                total[column] += amplitude
                square[column] += amplitude * amplitude
                count[column] += 1.0 if is_valid else 0.0
        for column in range(np.uint64(width)):
            if count[column] > 0.0:
                mean[line, column] = total[column] / count[column]
            if count[column] == dates:
                ratio = dates * square[column] / (total[column] * total[column])
                dispersion[line, column] = np.sqrt(max(ratio - 1.0, 0.0))


def _as_samples(slc: NDArray[Any]) -> NDArray[Any]:
    """View a stack as (date, azimuth, range, iq), float32 or int16, without copying."""
    if slc.dtype == np.complex64 and slc.ndim == 3:
        parts = np.ascontiguousarray(slc).view(np.float32)
        return parts.reshape((*slc.shape, 2))
    if slc.dtype == np.int16 and slc.ndim == 4 and slc.shape[3] == 2:
        return np.ascontiguousarray(slc)
    raise ValueError(
        "slc must be complex64 (date, azimuth, range) or int16 (date, azimuth, range, iq), "
        f"instead got {slc.dtype} {slc.shape}"
    )


def accumulate_calibration(
    slc: NDArray[Any],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Sum the amplitudes of one tile, per date, for the radiometric calibration.

    The calibration constant of a date is the sum over all tiles divided by the count over all
    tiles. Amplitudes are rounded to 2**-16 before summing, so the sums are exact, and therefore
    the same for any tiling, up to 1.3e11 (3e7 samples of mean amplitude 4500).

    Parameters
    ----------
    slc : complex64 (date, azimuth, range) or int16 (date, azimuth, range, iq)
        Tile of the stack; zero, NaN and infinite samples are no data. An int16 stack is taken
        in counts: a scale factor cancels in the calibrated amplitude.

    Returns
    -------
    total : float64 (date,)
        Sum of the amplitudes above 0.001.
    count : int64 (date,)
        Number of such samples.

    Raises
    ------
    ValueError
        For another type or shape.

    References
    ----------
    51-stamps-algorithms, section 0: c_k = mean |s_k| over valid pixels.
    """
    samples = _as_samples(slc)
    total = np.zeros(samples.shape[0], np.float64)
    count = np.zeros(samples.shape[0], np.int64)
    _calibration_kernel(samples, total, count)
    return total, count


def amplitude_statistics(
    slc: NDArray[Any], calibration: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Compute amplitude dispersion and mean amplitude over the dates in one pass.

    Parameters
    ----------
    slc : complex64 (date, azimuth, range) or int16 (date, azimuth, range, iq)
        Coregistered stack, amplitudes below 1e18; zero, NaN and infinite samples are no data.
    calibration : float64 (date,)
        Constant that the amplitudes of a date are divided by, positive, in the unit of ``slc``
        (counts for int16).

    Returns
    -------
    amplitude_dispersion : float32 (azimuth, range)
        sigma/mean of the calibrated amplitude (population variance), NaN where any date has no
        data.
    mean_amplitude : float32 (azimuth, range)
        Mean calibrated amplitude (about 1 for average ground) over the dates with data, NaN where
        there is none.

    Raises
    ------
    ValueError
        For another type or shape, or a calibration constant that is not positive and finite.

    Notes
    -----
    D_A^2 = N * sum(a^2) / (sum a)^2 - 1 with float64 sums, one image line at a time. Rayleigh
    clutter has D_A = sqrt(4/pi - 1) = 0.523.

    References
    ----------
    Ferretti, Prati, Rocca (2001); 51-stamps-algorithms, section 0.
    """
    samples = _as_samples(slc)
    constants = np.asarray(calibration, np.float64)
    if constants.shape != samples.shape[:1]:
        raise ValueError(
            f"calibration needs one constant per date, {samples.shape[0]}, "
            f"instead got shape {constants.shape}"
        )
    if not np.all((constants > 0.0) & np.isfinite(constants)):
        raise ValueError("calibration must be positive and finite: leave such dates out first")
    dispersion = np.full(samples.shape[1:3], np.nan, np.float32)
    mean = np.full(samples.shape[1:3], np.nan, np.float32)
    _dispersion_kernel(samples, 1.0 / constants, dispersion, mean)
    return dispersion, mean
