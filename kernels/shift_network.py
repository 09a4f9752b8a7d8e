"""Shifts of dates from shifts of pairs, and one shift from several: robust weighted means.

A pair measures the difference of its dates' shifts. A date may be low in coherence with the
reference but not with its neighbours in time, and a pair may be wrong without knowing it (its own
sigma tells of noise only); the network brings the first over and finds the second by the residuals.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

__all__ = ["CombinedShift", "ShiftNetwork", "combine_shifts", "solve_shift_network"]

OUTLIER_THRESHOLD = 3.29
"""Studentised residual beyond which a pair is flagged: one good pair in a thousand."""
_TUKEY = 1.4  # 4.6 at the default threshold: the usual constant of the biweight
_LEAST_WEIGHT = 1e-4
_HARDLY_CHECKED = 0.02


class ShiftNetwork(NamedTuple):
    """Shifts of n dates from m pairs.

    Parameters
    ----------
    shift : ndarray
        float64 ``(date,)``, in the unit of the measurements; 0 at the reference date and at dates
        that no measured pair connects to it.
    sigma : ndarray
        float64 ``(date,)``: standard error relative to the reference date; 0 there, inf at dates
        that are not connected.
    residual : ndarray
        float64 ``(pair,)``: measurement minus difference of the shifts; NaN where not measured or
        not connected to the reference.
    outlier : ndarray
        bool ``(pair,)``: fails the test on its residual. Never true where nothing checks the pair.
    redundancy : ndarray
        float64 ``(pair,)`` in [0, 1]: share of an error of the pair that shows in its residual;
        0 where nothing checks it or it was not used.
    chi2 : float
        Squared residuals over sigma of the pairs that are no outliers, per degree of freedom; of
        all pairs if the others have none; NaN without redundancy.
    connected : ndarray
        bool ``(date,)``: linked to the reference date by measured pairs.
    """

    shift: NDArray[np.float64]
    sigma: NDArray[np.float64]
    residual: NDArray[np.float64]
    outlier: NDArray[np.bool_]
    redundancy: NDArray[np.float64]
    chi2: float
    connected: NDArray[np.bool_]


class CombinedShift(NamedTuple):
    """Weighted mean of several shifts.

    Parameters
    ----------
    shift_lines, sigma_lines : float
        Robust weighted mean and its formal standard error in lines; 0 and inf without input.
    chi2 : float
        Sum of squared residuals over sigma, per degree of freedom; NaN with fewer than two.
    used : int
        Shifts with a finite sigma.
    """

    shift_lines: float
    sigma_lines: float
    chi2: float
    used: int


def solve_shift_network(
    pairs: NDArray[np.integer[Any]],
    shifts: NDArray[np.floating[Any]],
    sigmas: NDArray[np.floating[Any]],
    dates: int,
    reference: int = 0,
    outlier_threshold: float = OUTLIER_THRESHOLD,
) -> ShiftNetwork:
    """Solve for the shift of every date, robust against wrong pairs.

    Parameters
    ----------
    pairs : ndarray
        integer ``(pair, 2)``: first and second date of each pair, in [0, dates).
    shifts : ndarray
        float ``(pair,)``: shift of the second date minus shift of the first (lines or samples).
    sigmas : ndarray
        float ``(pair,)``, same unit, positive; inf or NaN leaves a pair out, and so does a shift
        that is not finite.
    dates : int
        Number of dates, at least 1.
    reference : int, default 0
        Date whose shift is 0.
    outlier_threshold : float, default 3.29
        Studentised residual beyond which a pair is an outlier.

    Returns
    -------
    ShiftNetwork
        Shifts with standard errors, and a verdict on every pair; independent of the order of pairs.

    Raises
    ------
    ValueError
        If lengths differ, an index is outside, a pair joins a date with itself, or a sigma or the
        threshold is not positive.

    Notes
    -----
    Weighted least squares ``y = d[second] - d[first]``, reweighted by Geman and McClure's function
    that starts wide and is narrowed (graduated non-convexity), then by Tukey's biweight until
    steady; both take what is clearly wrong out altogether. The residual of pair i is divided by its
    own deviation ``sqrt(sigma_i^2 (1 - 2 h_i) + a_i C a_i')`` with the leverage ``h_i`` and the
    covariance ``C`` of the dates under the present weights.

    What cannot be known is not decided: in a single loop that does not close all pairs are flagged,
    none is believed more than the others, and their residuals enter the sigmas. So they do where
    flagged pairs leave one alone to link some dates to the rest: nothing says that it is the right
    one.

    If the scatter of the residuals (median) exceeds the sigmas by more than chance, these are
    scaled up in tests and results; smaller scatter does not make better dates.

    References
    ----------
    Blake and Zisserman, "Visual reconstruction", 1987 (graduated non-convexity); Baarda, "A testing
    procedure for use in geodetic networks", 1968.
    """
    pair, shift, sigma = _check(pairs, shifts, sigmas, dates, reference, outlier_threshold)
    usable = np.isfinite(shift) & np.isfinite(sigma)
    graph = coo_array((np.ones(usable.sum()), pair[usable].T), shape=(dates, dates))
    label = connected_components(graph, directed=False)[1]
    connected = label == label[reference]
    usable &= connected[pair[:, 0]]
    column = np.cumsum(connected) - 1
    column -= np.where(np.arange(dates) > reference, 1, 0)
    column[reference] = -1
    network = _Network(column[pair[usable]], shift[usable], sigma[usable], int(connected.sum()) - 1)
    fit = _solve_robustly(network, outlier_threshold)
    result_shift, result_sigma = np.zeros(dates), np.full(dates, np.inf)
    unknown = connected & (np.arange(dates) != reference)
    wrong = np.abs(fit.score) > outlier_threshold * fit.scale
    result_shift[unknown] = fit.shift
    result_sigma[unknown] = np.sqrt(np.diag(_covariance(network, fit, wrong)))
    result_sigma[reference] = 0.0
    residual = np.full(len(pair), np.nan)
    outlier = np.zeros(len(pair), np.bool_)
    redundancy = np.zeros(len(pair))
    residual[usable], redundancy[usable] = fit.residual, fit.redundancy
    outlier[usable] = wrong
    chi2 = _chi2(network, fit, ~wrong)
    return ShiftNetwork(result_shift, result_sigma, residual, outlier, redundancy, chi2, connected)


def combine_shifts(
    shifts: NDArray[np.floating[Any]], sigmas: NDArray[np.floating[Any]], tuning: float = 1.345
) -> CombinedShift:
    """Combine shifts of several overlaps into one, robust against outliers.

    Parameters
    ----------
    shifts : ndarray
        float ``(overlap,)``, lines.
    sigmas : ndarray
        float ``(overlap,)``, lines, positive; inf or NaN leaves an overlap out.
    tuning : float, default 1.345
        Residual in sigmas beyond which the Huber weight falls (95 % efficient for normal errors).

    Returns
    -------
    CombinedShift
        Weighted mean, sigma, chi-square per degree of freedom and number of shifts used.

    Raises
    ------
    ValueError
        If shapes differ or a sigma is not positive.

    Notes
    -----
    Iteratively reweighted mean from the weighted median. Sigma is formal: it does not grow with
    the scatter, which `chi2` tells (ionosphere or wrong geometry when far above 1).

    References
    ----------
    Huber, "Robust estimation of a location parameter", Annals of Mathematical Statistics 35, 1964.
    """
    shift, sigma = np.asarray(shifts, np.float64), np.asarray(sigmas, np.float64)
    if shift.shape != sigma.shape or shift.ndim != 1 or np.any(sigma <= 0):
        raise ValueError("shifts and sigmas must be (overlap,) of one length, sigmas positive")
    usable = np.isfinite(shift) & np.isfinite(sigma)
    shift, sigma = shift[usable], sigma[usable]
    if not shift.size:
        return CombinedShift(0.0, np.inf, np.nan, 0)
    precision = sigma**-2.0
    mean = _weighted_median(shift, precision)
    weight = precision
    for _ in range(100):
        residual = np.abs(shift - mean) / sigma
        weight = precision * np.minimum(1.0, tuning / np.maximum(residual, tuning))
        previous, mean = mean, float(np.sum(weight * shift) / np.sum(weight))
        if abs(mean - previous) <= 1e-12:
            break
    sigma_mean = float(np.sqrt(np.sum(weight**2 / precision)) / np.sum(weight))
    freedom = shift.size - 1
    scatter = float(np.sum(((shift - mean) / sigma) ** 2))
    return CombinedShift(mean, sigma_mean, scatter / freedom if freedom else np.nan, shift.size)


class _Network(NamedTuple):
    column: NDArray[np.int64]
    measured: NDArray[np.float64]
    sigma: NDArray[np.float64]
    unknowns: int


class _Fit(NamedTuple):
    shift: NDArray[np.float64]
    weight: NDArray[np.float64]
    inverse: NDArray[np.float64]
    residual: NDArray[np.float64]
    score: NDArray[np.float64]
    redundancy: NDArray[np.float64]
    scale: float


def _check(
    pairs: NDArray[np.integer[Any]],
    shifts: NDArray[np.floating[Any]],
    sigmas: NDArray[np.floating[Any]],
    dates: int,
    reference: int,
    threshold: float,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    pair = np.asarray(pairs, np.int64).reshape(-1, 2) if np.size(pairs) == 0 else np.asarray(pairs)
    shift, sigma = np.asarray(shifts, np.float64), np.asarray(sigmas, np.float64)
    if pair.ndim != 2 or pair.shape[1] != 2 or not pair.shape[:1] == shift.shape == sigma.shape:
        raise ValueError(
            "pairs must be (pair, 2), shifts and sigmas (pair,), instead got "
            f"{pair.shape}, {shift.shape} and {sigma.shape}"
        )
    if not 0 <= reference < dates:
        raise ValueError(f"reference must lie in [0, {dates}), instead got {reference}")
    if pair.size and not (pair.min() >= 0 and pair.max() < dates):
        raise ValueError(f"pairs must lie in [0, {dates}), instead got {pair.min()}..{pair.max()}")
    if np.any(pair[:, 0] == pair[:, 1]):
        raise ValueError("pairs must join two different dates")
    if np.any(sigma <= 0) or not threshold > 0:
        raise ValueError("sigmas and outlier_threshold must be positive")
    return pair.astype(np.int64), shift, sigma


def _solve_robustly(network: _Network, threshold: float) -> _Fit:
    weight = _annealed_weights(network, threshold)
    fit = _solve(network, weight)
    for _ in range(30):
        ratio = np.minimum(np.abs(fit.score) / (_TUKEY * threshold * fit.scale), 1.0)
        new = np.maximum((1.0 - ratio**2) ** 2, _LEAST_WEIGHT)
        change = float(np.max(np.abs(new - weight), initial=0.0))
        weight = new
        fit = _solve(network, weight)
        if change < 1e-4:
            break
    return fit


def _annealed_weights(network: _Network, threshold: float) -> NDArray[np.float64]:
    # So wide a loss that it is convex finds the rough place; narrowed step by step, it lets go of
    # the pairs that disagree most. Huber's function from the start ends in a wrong valley in one
    # network of four if a tenth of the pairs is wrong by hundreds of sigmas.
    weight = np.ones(network.measured.size)
    freedom = network.measured.size - network.unknowns
    width = np.inf
    while True:
        precision = weight / network.sigma**2
        matrix = _normal_matrix(network, precision)
        shift = np.append(np.linalg.solve(matrix, _right_side(network, precision)), 0.0)
        score = np.abs(_residual(network, shift)) / network.sigma
        narrow = threshold * _scale(score * np.sqrt(score.size / max(freedom, 1)), freedom)
        if not width > narrow:
            return weight
        width = max(narrow, min(width / 1.2, 1.4 * float(np.max(score, initial=0.0))))
        weight = np.maximum((1.0 + (score / width) ** 2) ** -2.0, _LEAST_WEIGHT)
        width *= 1.0 - 1e-12  # ends the last round also where the scale has not changed


def _solve(network: _Network, weight: NDArray[np.float64]) -> _Fit:
    precision = weight / network.sigma**2
    inverse = np.asarray(np.linalg.inv(_normal_matrix(network, precision)), np.float64)
    # The reference date is the last element here (column -1).
    shift = np.append(inverse @ _right_side(network, precision), 0.0)
    residual = _residual(network, shift)
    leverage = precision * _variance_of_pairs(inverse, network.column)
    noise = _normal_matrix(network, precision * weight)
    covariance = np.asarray(inverse @ noise @ inverse, np.float64)
    variance = network.sigma**2 * (1.0 - 2.0 * leverage)
    variance += _variance_of_pairs(covariance, network.column)
    redundancy = np.where(1.0 - leverage > 1e-9, 1.0 - leverage, 0.0)
    testable = (redundancy > 0.0) & (variance > 1e-9 * network.sigma**2)
    deviation = np.sqrt(np.where(testable, variance, 1.0))
    score = np.where(testable, residual / deviation, 0.0)
    scale = _scale(np.abs(score[testable]), float(np.sum(redundancy)))
    return _Fit(shift[:-1], weight, inverse, residual, score, redundancy, scale)


def _covariance(network: _Network, fit: _Fit, wrong: NDArray[np.bool_]) -> NDArray[np.float64]:
    precision = fit.weight / network.sigma**2
    # Where outliers are all there is, they are good for their disagreement; elsewhere their weight
    # is next to nothing.
    variance = (fit.scale * network.sigma) ** 2 + np.where(wrong, fit.residual**2, 0.0)
    # Outliers keep a little weight, so a pair that only they contradict is nearly free of checks.
    alone = ~wrong & (fit.redundancy > 0.0) & (fit.redundancy < _HARDLY_CHECKED)
    padded = np.pad(fit.inverse, ((0, 1), (0, 1)))
    first, second = network.column[wrong, 0], network.column[wrong, 1]
    for pair in np.flatnonzero(alone):
        start, end = network.column[pair]
        change = padded[:, end] - padded[:, start]
        through = np.abs(change[second] - change[first]) * precision[pair] > 0.5
        if through.any():
            variance[pair] += float(np.mean(fit.residual[wrong][through] ** 2))
    noise = _normal_matrix(network, precision**2 * variance)
    return np.asarray(fit.inverse @ noise @ fit.inverse, np.float64)


def _scale(score: NDArray[np.float64], freedom: float) -> float:
    if freedom < 10.0:
        return 1.0
    # The median of n absolute values of a normal variable is known to 1.17 / sqrt(n) only.
    scale = 1.4826 * float(np.median(score))
    return scale if scale > 1.0 + 2.5 / np.sqrt(score.size) else 1.0


def _residual(network: _Network, shift: NDArray[np.float64]) -> NDArray[np.float64]:
    difference = shift[network.column[:, 1]] - shift[network.column[:, 0]]
    return network.measured - difference


def _right_side(network: _Network, precision: NDArray[np.float64]) -> NDArray[np.float64]:
    right = np.zeros(network.unknowns + 1)
    np.add.at(right, network.column[:, 1], precision * network.measured)
    np.add.at(right, network.column[:, 0], -precision * network.measured)
    return right[:-1]


def _normal_matrix(network: _Network, precision: NDArray[np.float64]) -> NDArray[np.float64]:
    size = network.unknowns + 1
    first, second = network.column[:, 0], network.column[:, 1]
    matrix = np.zeros((size, size))
    np.add.at(matrix, (first, first), precision)
    np.add.at(matrix, (second, second), precision)
    np.add.at(matrix, (first, second), -precision)
    np.add.at(matrix, (second, first), -precision)
    return matrix[:-1, :-1]


def _variance_of_pairs(
    covariance: NDArray[np.float64], column: NDArray[np.int64]
) -> NDArray[np.float64]:
    padded = np.pad(covariance, ((0, 1), (0, 1)))
    first, second = column[:, 0], column[:, 1]
    variance: NDArray[np.float64] = (
        padded[first, first] + padded[second, second] - 2.0 * padded[first, second]
    )
    return variance


def _chi2(network: _Network, fit: _Fit, good: NDArray[np.bool_]) -> float:
    square = (fit.residual / network.sigma) ** 2
    freedom = int(good.sum()) - network.unknowns
    if freedom > 0:
        return float(np.sum(square[good])) / freedom
    # So much contradicts that nothing is left to check the rest: judge all of it.
    freedom = good.size - network.unknowns
    return float(np.sum(square)) / freedom if freedom > 0 else float("nan")


def _weighted_median(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    order = np.argsort(values)
    cumulative = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(cumulative, 0.5 * cumulative[-1])])
