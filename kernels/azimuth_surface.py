"""Azimuth shifts that vary over the scene, kept apart from the constant.

A misregistration (timing, orbit) is one number per date: it is corrected by resampling. What varies
smoothly over the scene is the ionosphere, whose gradients along track displace targets in azimuth:
it is a signal of its own and no fault of the geometry. A polynomial of low degree is fitted to the
shifts of blocks (parts of burst overlaps); the constant is its mean over the blocks, the surface
what is left, and it counts only if it explains more than chance does.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["AzimuthSurface", "evaluate_azimuth_surface", "fit_azimuth_surface"]

LARGEST_CHANCE = 0.01
"""Chance of a surface from noise alone that is accepted (F test)."""
MINIMUM_FREEDOM = 5
"""Fewest blocks more than unknowns for a surface to be tried."""
OUTLIER_THRESHOLD = 4.0
"""Residual beyond which a block is left out, in robust standard deviations."""
_HUBER = 1.345
_POWERS = {1: ((1, 0), (0, 1)), 2: ((1, 0), (0, 1), (2, 0), (1, 1), (0, 2))}


class AzimuthSurface(NamedTuple):
    """Constant and smooth part of azimuth shifts.

    Parameters
    ----------
    constant_lines : float
        Mean of the fitted shift over the blocks, lines; 0 without blocks.
    sigma_lines : float
        Standard error of `constant_lines`, lines; inf without blocks.
    coefficients : ndarray
        float64 ``(term,)``, lines: factors of line, sample, line^2, line sample and sample^2, each
        axis in [-1, 1] over the blocks; all 0 unless `significant`.
    coefficient_sigmas : ndarray
        float64 ``(term,)``, lines: standard errors; 0 for terms that are not in the surface.
    offsets : ndarray
        float64 ``(term,)``: mean of each term over the blocks, which evaluation takes off.
    domain : ndarray
        float64 ``(2, 2)``: centre and half width of line and sample.
    degree : int
        0 (no surface), 1 or 2.
    significant : bool
        Whether the surface is more than noise.
    chance : float
        Chance that noise alone explains as much as the surface that was chosen or, without one, the
        best of those rejected; 1 if none could be tried.
    chi2 : float
        Squared residuals over sigma per degree of freedom; NaN without freedom.
    used : int
        Blocks that took part: those with a finite sigma and not far off all others.
    """

    constant_lines: float
    sigma_lines: float
    coefficients: NDArray[np.float64]
    coefficient_sigmas: NDArray[np.float64]
    offsets: NDArray[np.float64]
    domain: NDArray[np.float64]
    degree: int
    significant: bool
    chance: float
    chi2: float
    used: int


class _Model(NamedTuple):
    terms: tuple[int, ...]
    solution: NDArray[np.float64]
    covariance: NDArray[np.float64]
    square_sum: float
    freedom: int


def fit_azimuth_surface(
    line: NDArray[np.floating[Any]],
    sample: NDArray[np.floating[Any]],
    shifts: NDArray[np.floating[Any]],
    sigmas: NDArray[np.floating[Any]],
    degree: int = 2,
) -> AzimuthSurface:
    """Split azimuth shifts of blocks into a constant and a smooth surface.

    Parameters
    ----------
    line, sample : ndarray
        float ``(block,)``: position of each block in any unit that is common to all bursts and
        swaths, e.g. azimuth time and slant range, or lines and samples of the common grid.
    shifts : ndarray
        float ``(block,)``: azimuth shifts, lines.
    sigmas : ndarray
        float ``(block,)``, positive, lines; inf or NaN leaves a block out.
    degree : int, default 2
        Largest degree to try, 0 to 2.

    Returns
    -------
    AzimuthSurface
        Constant, surface of mean zero over the blocks, and whether the surface is significant.

    Raises
    ------
    ValueError
        If shapes differ, a sigma is not positive, or the degree is not 0, 1 or 2.

    Notes
    -----
    Outliers are found in the residuals of the largest model that the blocks can carry, fitted with
    Huber's weights, and left out of all models, so that the sums of squares ``S`` compare: the
    smallest ``n log(S / n) + p log(n)`` is chosen (BIC) and has to pass the F test against the
    constant. Terms that the positions cannot tell apart (one overlap only, one block per overlap)
    are left out. Standard errors grow with the root of chi2 where that is above 1.

    References
    ----------
    Schwarz, "Estimating the dimension of a model", Annals of Statistics 6, 1978; Gomba et al.,
    "Ionospheric phase screen compensation for the Sentinel-1 TOPS and ALOS-2 ScanSAR modes", IEEE
    TGRS 55, 2017 (azimuth shifts from gradients of the ionosphere).
    """
    arrays = [np.asarray(array, np.float64) for array in (line, sample, shifts, sigmas)]
    if any(array.shape != arrays[0].shape or array.ndim != 1 for array in arrays):
        raise ValueError("line, sample, shifts and sigmas must be (block,) of one length")
    if np.any(arrays[3] <= 0) or degree not in {0, 1, 2}:
        raise ValueError(f"sigmas must be positive and degree 0, 1 or 2, instead got {degree}")
    usable = np.isfinite(arrays).all(axis=0)
    row, column, shift, sigma = (array[usable] for array in arrays)
    if not shift.size:
        return _without_blocks()
    design = _design(row, column)[0]
    good = _inliers(design[:, _candidates(design, degree)[-1]], shift, sigma)
    design, offsets, domain = _design(row[good], column[good])
    models = [
        _solve(design, columns, shift[good], sigma[good] ** -2.0)
        for columns in _candidates(design, degree)
    ]
    best, chance = _choose(models)
    return _result(best, chance, (offsets, domain))


def evaluate_azimuth_surface(
    surface: AzimuthSurface,
    line: NDArray[np.floating[Any]],
    sample: NDArray[np.floating[Any]],
) -> NDArray[np.float64]:
    """Return the surface without its constant.

    Parameters
    ----------
    surface : AzimuthSurface
        As from `fit_azimuth_surface`.
    line, sample : ndarray
        float, broadcast against each other, in the unit of the fit. Outside the blocks a surface
        goes on as on the nearest edge of their rectangle: a parabola must not run away.

    Returns
    -------
    ndarray
        float64, lines; 0 everywhere if the surface is not significant.
    """
    row, column = np.broadcast_arrays(np.asarray(line, float), np.asarray(sample, float))
    terms = _terms(row, column, surface.domain)
    result: NDArray[np.float64] = (terms - surface.offsets) @ surface.coefficients
    return result


def _without_blocks() -> AzimuthSurface:
    zeros = np.zeros(len(_POWERS[2]))
    domain = np.array([[0.0, 1.0], [0.0, 1.0]])
    return AzimuthSurface(0.0, np.inf, zeros, zeros, zeros, domain, 0, False, 1.0, float("nan"), 0)


def _centre_and_half_width(axis: NDArray[np.float64]) -> tuple[float, float]:
    low, high = float(axis.min()), float(axis.max())
    return 0.5 * (low + high), 0.5 * (high - low) or 1.0


def _design(
    row: NDArray[np.float64], column: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    # Constant and terms of mean zero; the means; centre and half width of the axes.
    domain = np.array([_centre_and_half_width(axis) for axis in (row, column)])
    terms = _terms(row, column, domain)
    offsets = terms.mean(axis=0)
    return np.column_stack([np.ones(row.size), terms - offsets]), offsets, domain


def _terms(
    row: NDArray[np.float64], column: NDArray[np.float64], domain: NDArray[np.float64]
) -> NDArray[np.float64]:
    y = np.clip((row - domain[0, 0]) / domain[0, 1], -1.0, 1.0)
    x = np.clip((column - domain[1, 0]) / domain[1, 1], -1.0, 1.0)
    return np.stack([y**m * x**n for m, n in _POWERS[2]], axis=-1)


def _candidates(design: NDArray[np.float64], degree: int) -> list[list[int]]:
    # Columns of the constant and of every surface that the blocks can carry.
    candidates = [[0]]
    for order in range(1, degree + 1):
        columns = [0]
        for column in range(1, 1 + len(_POWERS[order])):
            trial = [*columns, column]
            singular = np.linalg.svd(design[:, trial], compute_uv=False)
            if len(trial) <= len(design) and singular[-1] > 1e-3 * singular[0]:
                columns = trial
        if columns != candidates[-1] and len(design) - len(columns) >= MINIMUM_FREEDOM:
            candidates.append(columns)
    return candidates


def _inliers(
    design: NDArray[np.float64], shift: NDArray[np.float64], sigma: NDArray[np.float64]
) -> NDArray[np.bool_]:
    weight = np.ones_like(sigma)
    for _ in range(50):
        root = np.sqrt(weight) / sigma
        solution = np.linalg.lstsq(design * root[:, None], shift * root, rcond=None)[0]
        score = np.abs(shift - design @ solution) / sigma
        # Residuals of few blocks are smaller than the errors.
        freedom = max(1, sigma.size - design.shape[1])
        scale = max(1.0, 1.4826 * float(np.median(score)) * np.sqrt(sigma.size / freedom))
        new = 1.0 / np.maximum(score / (_HUBER * scale), 1.0)
        change = float(np.abs(new - weight).max())
        weight = new
        if change < 1e-6:
            break
    good: NDArray[np.bool_] = score <= OUTLIER_THRESHOLD * scale
    return good


def _solve(
    design: NDArray[np.float64],
    columns: list[int],
    shift: NDArray[np.float64],
    weight: NDArray[np.float64],
) -> _Model:
    matrix = design[:, columns]
    covariance = np.asarray(np.linalg.inv(matrix.T @ (weight[:, None] * matrix)), np.float64)
    solution = covariance @ (matrix.T @ (weight * shift))
    square_sum = float(np.sum(weight * (shift - matrix @ solution) ** 2))
    return _Model(tuple(columns), solution, covariance, square_sum, len(shift) - len(columns))


def _choose(models: list[_Model]) -> tuple[_Model, float]:
    # Imported late: half a second that few tasks need.
    from scipy.special import fdtrc

    constant = models[0]
    if len(models) == 1:
        return constant, 1.0
    count = constant.freedom + 1

    def criterion(model: _Model) -> float:
        likelihood = count * np.log(max(model.square_sum, 1e-30) / count)
        return float(likelihood + len(model.terms) * np.log(count))

    def chance(model: _Model) -> float:
        more = len(model.terms) - 1
        gain = (constant.square_sum - model.square_sum) / more
        return float(
            fdtrc(more, model.freedom, gain * model.freedom / max(model.square_sum, 1e-30))
        )

    best = min(models[1:], key=criterion)
    significant = criterion(best) < criterion(constant) and chance(best) < LARGEST_CHANCE
    return (best if significant else constant), chance(best)


def _result(
    model: _Model,
    chance: float,
    basis: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> AzimuthSurface:
    chi2 = model.square_sum / model.freedom if model.freedom else float("nan")
    deviation = np.sqrt(np.diag(model.covariance) * max(1.0, np.nan_to_num(chi2, nan=1.0)))
    coefficients, sigmas = np.zeros(len(_POWERS[2])), np.zeros(len(_POWERS[2]))
    terms = np.array(model.terms[1:], np.int64) - 1
    coefficients[terms], sigmas[terms] = model.solution[1:], deviation[1:]
    degree = max((sum(_POWERS[2][term]) for term in terms), default=0)
    return AzimuthSurface(
        float(model.solution[0]),
        float(deviation[0]),
        coefficients,
        sigmas,
        *basis,
        degree,
        degree > 0,
        chance,
        chi2,
        model.freedom + len(model.terms),
    )
