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
    trials = power.size // 2
    span = np.max(baseline) - np.min(baseline)
    if span <= 0.0 or trials == 0:
        return 0.0
    step = 0.25 * math.pi / span
    step_cosine = np.cos(step * baseline)
    step_sine = np.sin(step * baseline)
    cosine = np.ones(baseline.size)
    sine = np.zeros(baseline.size)
    for q in range(trials + 1):
        rr, ii, ri, ir = _products(real, imaginary, cosine, sine, baseline.size)
        # cosine + j sine = exp(+j q step B); removing the trial +q takes its conjugate.
        power[trials + q] = (rr + ii) ** 2 + (ir - ri) ** 2
        power[trials - q] = (rr - ii) ** 2 + (ir + ri) ** 2
        for k in range(np.uint64(baseline.size)):
            turned = cosine[k] * step_cosine[k] - sine[k] * step_sine[k]
            sine[k] = cosine[k] * step_sine[k] + sine[k] * step_cosine[k]
            cosine[k] = turned
    return step * (np.argmax(power) - trials)  # argmax: the first maximum, as the text wants


@njit
def _refine(
    real: NDArray[np.float64],
    imaginary: NDArray[np.float64],
    baseline: NDArray[np.float64],
    start: float,
) -> tuple[float, float, float]:
    value = real + 1j * imaginary
    turned = value * np.exp(-1j * start * baseline)
    centre = np.conj(np.sum(turned))
    numerator = denominator = 0.0
    for k in range(baseline.size):
        weight = (real[k] ** 2 + imaginary[k] ** 2) * baseline[k]
        angle = turned[k] * centre
        numerator += weight * math.atan2(angle.imag, angle.real)
        denominator += weight * baseline[k]
    slope = start + (numerator / denominator if denominator > 0.0 else 0.0)
    total = np.sum(value * np.exp(-1j * slope * baseline))
    gamma = min(abs(total) / np.sum(np.abs(value)), 1.0)
    return slope, math.atan2(total.imag, total.real), gamma


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
