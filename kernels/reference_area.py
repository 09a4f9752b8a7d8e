"""Reference area: the scatterers whose mean motion is taken as zero.

A single reference scatterer would put its noise on everybody, hence an area.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree


def select_reference(
    position_m: NDArray[np.float64],
    quality: NDArray[np.floating[Any]],
    radius_m: float,
    best_share: float = 0.25,
) -> NDArray[np.int64]:
    """Choose a reference area: where the best scatterers stand densest.

    Parameters
    ----------
    position_m : float64 (n, 2)
        Metric coordinates.
    quality : float (n,)
        Larger is better (temporal coherence); NaN excludes a scatterer, for instance one of
        another component of the network.
    radius_m : float
        Radius of the area, metres.
    best_share : float
        Share of the scatterers, by quality, that count as best.

    Returns
    -------
    int64 (k,)
        Sorted indices of the best scatterers within the radius of the chosen one; empty if no
        quality is finite. Equal counts: the larger sum of quality, then the smaller index decides.

    Raises
    ------
    ValueError
        If the radius is not positive or the share not in (0, 1].
    """
    if not (radius_m > 0.0 and 0.0 < best_share <= 1.0):
        raise ValueError(f"need radius_m > 0 and 0 < best_share <= 1: {radius_m}, {best_share}")
    values = np.asarray(quality, np.float64)
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(0, np.int64)
    limit = np.quantile(values[finite], 1.0 - best_share)
    best = np.flatnonzero(finite & (values >= limit))
    points = np.asarray(position_m, np.float64)[best]
    tree = cKDTree(points)
    counts = tree.query_ball_point(points, radius_m, return_length=True)
    tied = np.flatnonzero(counts == counts.max())
    around = tree.query_ball_point(points[tied], radius_m, return_sorted=True)
    sums = [values[best[members]].sum() for members in around]
    chosen: NDArray[np.int64] = best[around[int(np.argmax(sums))]].astype(np.int64)
    return chosen


def reference_phase(
    phase_rad: NDArray[np.floating[Any]],
    indices: NDArray[np.int64],
    weight: NDArray[np.floating[Any]] | None = None,
    is_wrapped: bool = False,
) -> NDArray[np.float64]:
    """Subtract, date by date, the mean phase of the reference area.

    Parameters
    ----------
    phase_rad : float (n, m)
        Phase, rad; NaN = missing.
    indices : int64 (k,)
        Scatterers of the reference area; unwrapped: of one component of the network.
    weight : float (k,), optional
        Their weights; default all alike.
    is_wrapped : bool
        True: the mean is that of the phasors and the result is wrapped to (-pi, pi]. False: the
        mean is that of the values, NaN left out.

    Returns
    -------
    float64 (n, m)
        Referenced phase; NaN on dates on which no scatterer of the area has a phase.

    Raises
    ------
    ValueError
        If the number of weights differs from the number of indices.
    """
    phase = np.asarray(phase_rad, np.float64)
    weights = np.ones(indices.size) if weight is None else np.asarray(weight, np.float64)
    if weights.shape != indices.shape:
        raise ValueError(f"{indices.size} scatterers but weights {weights.shape}")
    area = phase[indices]
    shares = np.where(np.isfinite(area), weights[:, None], 0.0)
    total = shares.sum(axis=0)
    known = np.where(total > 0.0, total, np.nan)
    area = np.where(np.isfinite(area), area, 0.0)
    if not is_wrapped:
        difference: NDArray[np.float64] = phase - (shares * area).sum(axis=0) / known
        return difference
    mean = np.angle((shares * np.exp(1j * area)).sum(axis=0))
    turned = phase - np.where(total > 0.0, mean, np.nan)
    wrapped: NDArray[np.float64] = np.pi - np.mod(np.pi - turned, 2.0 * np.pi)
    return wrapped
