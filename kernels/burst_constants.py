"""Phase constants of the bursts of one interferogram.

Pairs of different satellites show offsets of 1.4 to 1.65 rad from burst to burst that neither
geometry nor ground explains. Neighbouring bursts see the same ground where they overlap, in azimuth
(next burst) and in range (next swath). There

    ``phase(I_i conj(I_j)) = constant_i - constant_j``

plus what misregistration leaves in azimuth overlaps, which must be corrected first: 0.001 line is
0.06 rad. The seams form a network; its least-squares solution gives one constant per burst, and
its loops tell how well constants describe the data at all.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bperp.kernels.window_averages import score_variance

__all__ = ["BurstConstants", "SeamPhase", "seam_phase", "solve_burst_constants"]

MINIMUM_WINDOWS = 50
"""Fewest windows for a standard error to be trusted."""
MINIMUM_SIGNIFICANCE = 6.0
"""Signal over its standard error below which a seam has no phase."""
LARGEST_WEIGHTED_COHERENCE = 0.75
"""Beyond it the weight stays: one bright pixel alone has coherence 1."""
_TURN = 2.0 * np.pi


class SeamPhase(NamedTuple):
    """Phase difference of two bursts over their common ground.

    Parameters
    ----------
    phase_rad : float
        Phase of the upper minus phase of the lower burst's interferogram, (-pi, pi]; 0 without
        significance.
    coherence : float
        Root of the mean product of both interferograms' coherences, [0, 1]. From interferograms
        alone: for single looks of low coherence 4 / pi times the coherence of the images.
    sigma_rad : float
        Standard error; inf without significance.
    looks : int
        Pixels of the input that took part.
    """

    phase_rad: float
    coherence: float
    sigma_rad: float
    looks: int


class BurstConstants(NamedTuple):
    """Phase constants of n bursts from m seams.

    Parameters
    ----------
    constant_rad : ndarray
        float64 ``(burst,)`` in (-pi, pi]: phase to subtract from each burst's interferogram. The
        circular mean (phase of the sum of unit phasors) of every connected part is zero.
    sigma_rad : ndarray
        float64 ``(burst,)``: standard error relative to that mean; inf (and phase 0) for a burst
        without any seam, but 0 for a burst that is alone in the scene.
    residual_rad : ndarray
        float64 ``(seam,)`` in (-pi, pi]: measured minus fitted phase difference; NaN where not
        measured.
    component : ndarray
        int64 ``(burst,)``: number of the connected part, from 0 in the order of the first bursts;
        constants of different parts do not compare.
    chi2 : float
        Squared residuals over sigma per degree of freedom; NaN without loops.
    """

    constant_rad: NDArray[np.float64]
    sigma_rad: NDArray[np.float64]
    residual_rad: NDArray[np.float64]
    component: NDArray[np.int64]
    chi2: float


def seam_phase(
    upper: NDArray[np.complex64],
    lower: NDArray[np.complex64],
    looks: tuple[int, int] = (5, 15),
) -> SeamPhase:
    """Measure the phase difference of two interferograms over the same pixels.

    Parameters
    ----------
    upper, lower : ndarray
        complex64 ``(lines, samples)``: interferograms of the earlier (or nearer) and the later (or
        farther) burst on one grid, single-look or averaged; 0 + 0j and NaN are no data.
    looks : tuple of int, default (5, 15)
        Window ``(azimuth, range)`` in pixels of the input, over which each interferogram is
        averaged before the product; at least a few pixels, as coherence comes from their scatter.

    Returns
    -------
    SeamPhase
        Phase difference, coherence and standard error. Never a random number: without common
        pixels or coherence the phase is 0 and sigma is inf.

    Raises
    ------
    ValueError
        If shapes differ or looks are not positive.

    Notes
    -----
    Windows enter as complex coherences ``z = sum I / sum |I|`` of both, as
    ``phase = arg sum w z_upper conj(z_lower)`` with ``w = 1 / (1 - |z_upper z_lower|)``.
    The standard error is ``sqrt(sum (w Im)^2) / sum w Re`` of the derotated products, with the
    covariance of adjoining windows added.
    """
    if upper.ndim != 2 or upper.shape != lower.shape:
        raise ValueError(
            "upper and lower must be (lines, samples) of one shape, instead got "
            f"{upper.shape} and {lower.shape}"
        )
    if min(looks) <= 0:
        raise ValueError(f"looks must be positive, instead got {looks}")
    window = (min(looks[0], max(1, upper.shape[0])), min(looks[1], max(1, upper.shape[1])))
    valid = np.isfinite(upper) & np.isfinite(lower) & (upper != 0) & (lower != 0)
    count = _sum_windows(valid, window)
    enough = 2.0 * count >= window[0] * window[1]
    if np.count_nonzero(enough) < MINIMUM_WINDOWS:
        return SeamPhase(0.0, 0.0, np.inf, 0)
    product = _average(upper, valid, window) * np.conj(_average(lower, valid, window)) * enough
    coherence_square = float(np.abs(product.sum())) / int(np.count_nonzero(enough))
    product /= 1.0 - np.minimum(np.abs(product), LARGEST_WEIGHTED_COHERENCE**2)
    total = complex(product.sum())
    if total == 0:
        return SeamPhase(0.0, 0.0, np.inf, 0)
    rotated = product * (np.conj(total) / abs(total))
    sigma = float(np.sqrt(score_variance(rotated.imag))) / abs(total)
    pixels = int(count[enough].sum())
    if not sigma * MINIMUM_SIGNIFICANCE < 1.0:
        return SeamPhase(0.0, 0.0, np.inf, pixels)
    return SeamPhase(float(np.angle(total)), float(np.sqrt(coherence_square)), sigma, pixels)


def solve_burst_constants(
    seams: NDArray[np.integer[Any]],
    phase_rad: NDArray[np.floating[Any]],
    sigma_rad: NDArray[np.floating[Any]],
    bursts: int,
) -> BurstConstants:
    """Solve for one phase constant per burst.

    Parameters
    ----------
    seams : ndarray
        integer ``(seam, 2)``: the two bursts of each seam, in [0, bursts).
    phase_rad : ndarray
        float ``(seam,)``, rad: constant of the first minus constant of the second burst, any number
        of turns; as `phase_rad` of `seam_phase` with the first burst as upper.
    sigma_rad : ndarray
        float ``(seam,)``, rad, positive; inf or NaN leaves a seam out.
    bursts : int
        Number of bursts, at least 1.

    Returns
    -------
    BurstConstants
        Constants with standard errors, residuals of the seams and connected parts.

    Raises
    ------
    ValueError
        If lengths differ, an index is outside, a seam joins a burst with itself, or a sigma is not
        positive.

    Notes
    -----
    A spanning tree of the seams with the smallest sigma gives first values; weighted least squares
    of the residuals, wrapped to (-pi, pi], improves them until nothing changes.
    """
    seam, phase, sigma = _check(seams, phase_rad, sigma_rad, bursts)
    usable = np.isfinite(phase) & np.isfinite(sigma)
    ends, measured, precision = seam[usable], phase[usable], sigma[usable] ** -2.0
    constant, component = _spanning_tree(ends, measured, precision, bursts)
    design = np.zeros((len(ends), bursts))
    design[np.arange(len(ends)), ends[:, 0]] = 1.0
    design[np.arange(len(ends)), ends[:, 1]] = -1.0
    # Steps of mean zero: on every connected part the inverse is that of the matrix plus ones.
    together = component[:, None] == component
    ones = together / together.sum(axis=1)
    scale = float(np.mean(precision)) if precision.size else 1.0
    normal = design.T @ (precision[:, None] * design) / scale
    covariance = (np.linalg.inv(normal + ones) - ones) / scale
    for _ in range(20):
        residual = _wrap(measured - design @ constant)
        step = covariance @ (design.T @ (precision * residual))
        constant += step
        if np.abs(step).max(initial=0.0) < 1e-12:
            break
    for number in range(component.max() + 1):
        members = component == number
        constant[members] -= np.angle(np.sum(np.exp(1j * constant[members])))
    residual = _wrap(measured - design @ constant)
    freedom = len(ends) - bursts + int(component.max()) + 1
    chi2 = float(np.sum(precision * residual**2)) / freedom if freedom > 0 else float("nan")
    sigma_out = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    sigma_out[(together.sum(axis=1) == 1) & (bursts > 1)] = np.inf
    residuals = np.full(len(seam), np.nan)
    residuals[usable] = residual
    return BurstConstants(_wrap(constant), sigma_out, residuals, component, chi2)


def _wrap(phase: NDArray[np.float64]) -> NDArray[np.float64]:
    # (-pi, pi]
    wrapped: NDArray[np.float64] = phase - _TURN * np.ceil(phase / _TURN - 0.5)
    return wrapped


def _check(
    seams: NDArray[np.integer[Any]],
    phase_rad: NDArray[np.floating[Any]],
    sigma_rad: NDArray[np.floating[Any]],
    bursts: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    seam = np.asarray(seams, np.int64)
    seam = seam.reshape(-1, 2) if seam.size == 0 else seam
    phase, sigma = np.asarray(phase_rad, np.float64), np.asarray(sigma_rad, np.float64)
    if seam.ndim != 2 or seam.shape[1] != 2 or not seam.shape[:1] == phase.shape == sigma.shape:
        raise ValueError(
            "seams must be (seam, 2), phase_rad and sigma_rad (seam,), instead got "
            f"{seam.shape}, {phase.shape} and {sigma.shape}"
        )
    if bursts < 1 or (seam.size and not (seam.min() >= 0 and seam.max() < bursts)):
        raise ValueError(f"seams must lie in [0, {bursts}) and bursts be at least 1")
    if np.any(seam[:, 0] == seam[:, 1]):
        raise ValueError("seams must join two different bursts")
    if np.any(sigma <= 0):
        raise ValueError("sigma_rad must be positive")
    return seam, phase, sigma


def _spanning_tree(
    ends: NDArray[np.int64],
    measured: NDArray[np.float64],
    precision: NDArray[np.float64],
    bursts: int,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    # Kruskal: the best seams first, each if it joins two parts; the joined part is turned to fit.
    constant = np.zeros(bursts)
    part = np.arange(bursts)
    for seam in np.argsort(-precision, kind="stable"):
        first, second = ends[seam]
        if part[first] == part[second]:
            continue
        joined = part == part[second]
        constant[joined] += constant[first] - constant[second] - measured[seam]
        part[joined] = part[first]
    names: dict[int, int] = {}
    component = np.array([names.setdefault(int(item), len(names)) for item in part], np.int64)
    return constant, component


def _sum_windows(values: NDArray[Any], window: tuple[int, int]) -> NDArray[Any]:
    rows, columns = values.shape[0] // window[0], values.shape[1] // window[1]
    cut = values[: rows * window[0], : columns * window[1]]
    blocks = cut.reshape(rows, window[0], columns, window[1])
    kind = np.complex128 if np.iscomplexobj(values) else np.float64
    result: NDArray[Any] = blocks.sum(axis=(1, 3), dtype=kind)
    return result


def _average(
    interferogram: NDArray[np.complex64], valid: NDArray[np.bool_], window: tuple[int, int]
) -> NDArray[np.complex128]:
    magnitude = _sum_windows(np.where(valid, np.abs(interferogram), np.float32(0)), window)
    total = _sum_windows(np.where(valid, interferogram, np.complex64(0)), window)
    return np.asarray(total / np.where(magnitude > 0.0, magnitude, 1.0), np.complex128)
