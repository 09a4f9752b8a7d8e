"""Fit of the look-angle error: the phase term proportional to the perpendicular baseline.

References
----------
Hooper, Segall, Zebker, JGR 112, B07407, 2007; 51-stamps-algorithms, section 2.2 ("topofit").
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bperp.kernels._jit import njit


class LookAngleFit(NamedTuple):
    """Result of ``fit_look_angle_error``."""

    look_angle_error: NDArray[np.float64]
    offset: NDArray[np.float64]
    gamma: NDArray[np.float64]
    residual: NDArray[np.complex64]


@njit(fastmath={"contract", "reassoc"})
def _products(
    real: NDArray[np.float64],
    imaginary: NDArray[np.float64],
    cosine: NDArray[np.float64],
    sine: NDArray[np.float64],
    count: int,
) -> tuple[float, float, float, float]:
    # The four sums that give sum(x * rotation) and sum(x * conj(rotation)) at once.
    rr = ii = ri = ir = 0.0
    for k in range(np.uint64(count)):
        rr += real[k] * cosine[k]
        ii += imaginary[k] * sine[k]
        ri += real[k] * sine[k]
        ir += imaginary[k] * cosine[k]
    return rr, ii, ri, ir


@njit
def _best_trial(
    real: NDArray[np.float64],
    imaginary: NDArray[np.float64],
    baseline: NDArray[np.float64],
    power: NDArray[np.float64],
) -> float:
    size, trials = baseline.size, power.size // 2
    low = high = baseline[0]
    for k in range(size):
        low, high = min(low, baseline[k]), max(high, baseline[k])
    if high <= low or trials == 0:
        return 0.0
    step = 0.25 * math.pi / (high - low)
    cosine, sine = np.ones(size), np.zeros(size)
    step_cosine, step_sine = np.empty(size), np.empty(size)
    for k in range(size):
        step_cosine[k], step_sine[k] = math.cos(step * baseline[k]), math.sin(step * baseline[k])
    for q in range(trials + 1):
        rr, ii, ri, ir = _products(real, imaginary, cosine, sine, size)
        # cosine + j sine = exp(+j q step B); removing the trial +q takes its conjugate.
        power[trials + q] = (rr + ii) ** 2 + (ir - ri) ** 2
        power[trials - q] = (rr - ii) ** 2 + (ir + ri) ** 2
        for k in range(np.uint64(size)):
            turned = cosine[k] * step_cosine[k] - sine[k] * step_sine[k]
            sine[k] = cosine[k] * step_sine[k] + sine[k] * step_cosine[k]
            cosine[k] = turned
    best = 0
    for trial in range(power.size):
        if power[trial] > power[best]:  # the first maximum, as the text wants
            best = trial
    return float(step * (best - trials))


@njit
def _turn(
    real: NDArray[np.float64],
    imaginary: NDArray[np.float64],
    baseline: NDArray[np.float64],
    slope: float,
    turned: NDArray[np.complex128],
) -> complex:
    total = 0.0j
    for k in range(baseline.size):
        angle = -slope * baseline[k]
        turned[k] = complex(real[k], imaginary[k]) * complex(math.cos(angle), math.sin(angle))
        total += turned[k]
    return total


@njit
def _refine(
    real: NDArray[np.float64],
    imaginary: NDArray[np.float64],
    baseline: NDArray[np.float64],
    start: float,
) -> tuple[float, float, float]:
    turned = np.empty(baseline.size, np.complex128)
    centre = np.conj(_turn(real, imaginary, baseline, start, turned))
    numerator = denominator = length = 0.0
    for k in range(baseline.size):
        square = real[k] ** 2 + imaginary[k] ** 2
        angle = turned[k] * centre
        numerator += square * baseline[k] * math.atan2(angle.imag, angle.real)
        denominator += square * baseline[k] ** 2
        length += math.sqrt(square)
    slope = start + (numerator / denominator if denominator > 0.0 else 0.0)
    total = _turn(real, imaginary, baseline, slope, turned)
    return slope, math.atan2(total.imag, total.real), min(abs(total) / length, 1.0)


@njit
def _fit_kernel(
    phasor: NDArray[np.complex64],
    baseline: NDArray[np.float32],
    trials: int,
    fit: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
    residual: NDArray[np.complex64],
) -> None:
    candidates, dates = phasor.shape
    real, imaginary, used = np.empty(dates), np.empty(dates), np.empty(dates)
    power = np.empty(2 * trials + 1)
    for p in range(candidates):
        count = 0
        for k in range(dates):
            length = abs(phasor[p, k])
            residual[p, k] = 0.0
            if length > 0.0 and length < np.inf and math.isfinite(baseline[p, k]):
                real[count] = phasor[p, k].real
                imaginary[count] = phasor[p, k].imag
                used[count] = baseline[p, k]
                residual[p, k] = phasor[p, k]
                count += 1
        fit[0][p] = fit[1][p] = np.nan
        fit[2][p] = 0.0
        if count > 0:
            start = _best_trial(real[:count], imaginary[:count], used[:count], power)
            slope, fit[1][p], fit[2][p] = _refine(
                real[:count], imaginary[:count], used[:count], start
            )
            fit[0][p] = slope
            for k in range(dates):
                if residual[p, k] != 0.0:
                    angle = -slope * baseline[p, k]
                    residual[p, k] *= complex(math.cos(angle), math.sin(angle))


def fit_look_angle_error(
    phasor: NDArray[np.complex64],
    perpendicular_baseline_m: NDArray[np.float32],
    trial_wraps: float,
) -> LookAngleFit:
    """Fit phase = K * baseline + C to every candidate by maximal temporal coherence.

    Parameters
    ----------
    phasor : complex64 (n, m)
        Phase of candidate and date as a complex number; 0 or NaN = date missing.
    perpendicular_baseline_m : float32 (n, m)
        Perpendicular baseline, metres; NaN = date missing.
    trial_wraps : float
        Range of the search: cycles of K * baseline over the baseline span, >= 0.

    Returns
    -------
    LookAngleFit
        ``look_angle_error`` K (rad/m) and ``offset`` C (rad, [-pi, pi]), float64 (n,), NaN without
        any date; ``gamma`` float64 (n,) in [0, 1]; ``residual`` = phasor * exp(-j K B), complex64
        (n, m), 0 at missing dates.

    Raises
    ------
    ValueError
        If shapes differ or ``trial_wraps`` is negative.

    Notes
    -----
    Trial slopes are multiples q = -Q..Q, Q = ceil(8 trial_wraps), of pi/4 over the candidate's own
    baseline span; the first maximum of the coherence is refined by one weighted line fit through
    the origin. A candidate with a single baseline value gets the trial q = 0 only.

    References
    ----------
    51-stamps-algorithms, section 2.2.
    """
    if phasor.ndim != 2 or phasor.shape != perpendicular_baseline_m.shape:
        raise ValueError(
            "phasor and perpendicular_baseline_m must both be (candidate, date), instead got "
            f"{phasor.shape} and {perpendicular_baseline_m.shape}"
        )
    if not 0.0 <= trial_wraps < 1e4:
        raise ValueError(f"trial_wraps must lie in [0, 1e4), instead got {trial_wraps}")
    values = np.ascontiguousarray(phasor, np.complex64)
    size = values.shape[0]
    fit = (np.empty(size), np.empty(size), np.empty(size))
    residual = np.empty_like(values)
    baseline = np.ascontiguousarray(perpendicular_baseline_m, np.float32)
    _fit_kernel(values, baseline, math.ceil(8.0 * trial_wraps), fit, residual)
    return LookAngleFit(fit[0], fit[1], fit[2], residual)


def count_trial_wraps(
    baseline_span_m: float, maximum_dem_error_m: float, height_factor: float
) -> float:
    """Convert the largest expected DEM error into the search range of the fit.

    Parameters
    ----------
    baseline_span_m : float
        Largest minus smallest perpendicular baseline, metres.
    maximum_dem_error_m : float
        Largest DEM error to find, metres.
    height_factor : float
        4 pi / (lambda R sin(incidence)), rad per metre of height and metre of baseline.

    Returns
    -------
    float
        Cycles over the baseline span.

    References
    ----------
    51-stamps-algorithms, section 2.1.
    """
    return abs(baseline_span_m * maximum_dem_error_m * height_factor) / (2.0 * math.pi)
