"""Averaged interferograms as complex coherences: larger windows, and the error of their sums.

Every window enters a larger one with the same weight, whatever its power: one bright target then
decides one small window and not the large one around it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["coarsen", "complex_coherence", "score_variance"]

_FEWEST_CELLS = 50


def complex_coherence(
    interferogram: NDArray[np.complex64], coherence: NDArray[np.float32]
) -> NDArray[np.complex128]:
    """Return averaged interferograms scaled to their coherence.

    Parameters
    ----------
    interferogram, coherence : ndarray
        complex64 and float32 of one shape, as from `multilook_interferogram`.

    Returns
    -------
    ndarray
        complex128: phase of the interferogram, magnitude of the coherence; 0 where either is 0.
    """
    magnitude = np.abs(interferogram, dtype=np.float64)
    scale = np.divide(coherence, magnitude, out=np.zeros_like(magnitude), where=magnitude > 0)
    result: NDArray[np.complex128] = interferogram.astype(np.complex128) * scale
    return result


def coarsen(values: NDArray[Any], factor: int) -> NDArray[Any]:
    """Average windows in squares; 0 is no data.

    Parameters
    ----------
    values : ndarray
        complex128 or float64 ``(rows, columns)``.
    factor : int
        Windows along each axis that become one, at least 1.

    Returns
    -------
    ndarray
        ``(ceil(rows / factor), ceil(columns / factor))``: means of what is not 0, or 0 where that
        is less than half of ``factor x factor``.
    """
    squares = _squares(values, factor)
    count = np.count_nonzero(squares, axis=(1, 3))
    mean = squares.sum(axis=(1, 3)) / np.maximum(count, 1)
    return np.where(2 * count >= factor * factor, mean, 0.0)


def score_variance(score: NDArray[np.float64], cell: int = 1) -> float:
    """Return the variance of a sum over windows of which neighbours share speckle.

    Parameters
    ----------
    score : ndarray
        float64 ``(rows, columns)``: terms of mean 0, 0 where there is none.
    cell : int, default 1
        Windows along each axis that are added up first, which covers what they share; halved
        until at least 50 cells are left.

    Returns
    -------
    float
        Sum of squares and of twice the products of adjoining cells where that is positive: shared
        speckle has the same sign, so below zero it is chance.
    """
    while cell > 1 and np.prod([-(-size // cell) for size in score.shape]) < _FEWEST_CELLS:
        cell //= 2
    if cell > 1:
        score = _squares(score, cell).sum(axis=(1, 3))
    own = float(np.sum(score * score))
    neighbours = float(np.sum(score[1:] * score[:-1]) + np.sum(score[:, 1:] * score[:, :-1]))
    return own + 2.0 * max(neighbours, 0.0)


def _squares(values: NDArray[Any], size: int) -> NDArray[Any]:
    # (row, line, column, sample) views of squares, filled up with zeros.
    rows, columns = (-(-length // size) for length in values.shape)
    padded = np.zeros((rows * size, columns * size), values.dtype)
    padded[: values.shape[0], : values.shape[1]] = values
    return padded.reshape(rows, size, columns, size)
