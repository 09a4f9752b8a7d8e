"""Thinning of scatterers: one of a group of adjacent pixels, one of several at one position.

References
----------
51-stamps-algorithms, section 4.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def _best_of_groups(
    group: NDArray[np.int64], quality: NDArray[np.floating[Any]]
) -> NDArray[np.bool_]:
    # Highest quality of each group, the first of equals; NaN is the lowest quality.
    rank = np.where(np.isnan(quality), -np.inf, quality).astype(np.float64)
    order = np.lexsort((np.arange(group.size), -rank, group))
    is_first = np.ones(group.size, np.bool_)
    is_first[1:] = group[order][1:] != group[order][:-1]
    keep = np.zeros(group.size, np.bool_)
    keep[order[is_first]] = True
    return keep


def keep_best_neighbour(
    azimuth: NDArray[np.int64], range_: NDArray[np.int64], quality: NDArray[np.floating[Any]]
) -> NDArray[np.bool_]:
    """Keep the best scatterer of every group of adjacent pixels.

    A strong scatterer shows in the pixels around it too; groups are 8-connected.

    Parameters
    ----------
    azimuth, range_ : int (n,)
        Pixel of a scatterer, >= 0.
    quality : float (n,)
        Larger is better (gamma); NaN is worst.

    Returns
    -------
    bool (n,)
        True = keep; among equals the first is kept.

    References
    ----------
    51-stamps-algorithms, section 4.1.
    """
    line = np.asarray(azimuth, np.int64)
    # Three more columns than samples: the sample left of column 0 must not meet a real one.
    sample = np.asarray(range_, np.int64) + 1
    width = int(sample.max(initial=0)) + 2
    key = line * width + sample
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    starts, ends = [], []
    for step in (0, 1, width - 1, width, width + 1):
        # Duplicates of one pixel: everybody is tied to the first of the neighbouring pixel.
        place = np.searchsorted(ordered, key + step)
        found = np.flatnonzero(ordered[np.minimum(place, key.size - 1)] == key + step)
        starts.append(found)
        ends.append(order[place[found]])
    group = _label(np.concatenate(starts), np.concatenate(ends), key.size)
    return _best_of_groups(group, quality)


def keep_best_duplicate(
    position_m: NDArray[np.float64], quality: NDArray[np.floating[Any]], resolution_m: float = 1.0
) -> NDArray[np.bool_]:
    """Keep the best of the scatterers whose rounded positions coincide.

    Parameters
    ----------
    position_m : float64 (n, 2)
        Metric coordinates.
    quality : float (n,)
        Larger is better; NaN is worst.
    resolution_m : float
        Unit to which positions are rounded, metres.

    Returns
    -------
    bool (n,)
        True = keep; among equals the first is kept.

    References
    ----------
    51-stamps-algorithms, section 4.3.
    """
    if position_m.shape[0] == 0:
        return np.zeros(0, np.bool_)
    rounded = np.round(np.asarray(position_m, np.float64) / resolution_m)
    group = np.unique(rounded, axis=0, return_inverse=True)[1]
    return _best_of_groups(group.reshape(-1).astype(np.int64), quality)


def _label(start: NDArray[np.int64], end: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    links = coo_array((np.ones(start.size, np.int8), (start, end)), shape=(size, size))
    return connected_components(links, directed=False)[1].astype(np.int64)


def keep_local_best(
    azimuth: NDArray[np.int64], range_: NDArray[np.int64], quality: NDArray[np.floating[Any]]
) -> NDArray[np.bool_]:
    """Keep the scatterers that are better than their eight neighbouring pixels.

    Unlike ``keep_best_neighbour`` this looks one pixel far only, so a tile with a halo of one
    pixel gives what the whole scene would, and a chain of good pixels keeps more than one.

    Parameters
    ----------
    azimuth, range_ : int (n,)
        Pixel of a scatterer, >= 0, each pixel at most once.
    quality : float (n,)
        Larger is better (gamma); NaN is worst.

    Returns
    -------
    bool (n,)
        True = keep; among equal neighbours the first in image order is kept.
    """
    line = np.asarray(azimuth, np.int64)
    sample = np.asarray(range_, np.int64) + 1
    width = int(sample.max(initial=0)) + 2
    key = line * width + sample
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    rank = np.where(np.isnan(quality), -np.inf, quality).astype(np.float64)[order]
    keep = np.ones(key.size, np.bool_)
    for step in (1, width - 1, width, width + 1):
        place = np.minimum(np.searchsorted(ordered, ordered + step), max(key.size - 1, 0))
        first = np.flatnonzero(ordered[place] == ordered + step)
        second = place[first]
        first_wins = rank[first] >= rank[second]
        keep[order[second[first_wins]]] = False
        keep[order[first[~first_wins]]] = False
    return keep
