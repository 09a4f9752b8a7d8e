"""Spatial unwrapping of scatterers: whole cycles that agree with the arcs of the network.

Every arc and date states by how many cycles the unwrapped difference exceeds the difference of the
wrapped phases. Where these integers close around every loop, they are integrated exactly; where
they do not, some arcs are wrong. Weighted least squares for all dates together (one factorisation
of the graph Laplacian), reweighted towards least absolute residuals, finds arcs that are wrong
throughout; single wrong dates are then repaired cycle by cycle, largest disagreement first.

The unknown being a whole number of cycles per scatterer and date, the result is congruent with the
wrapped phase by construction.

References
----------
Ghiglia and Romero, "Minimum Lp-norm two-dimensional phase unwrapping", JOSA A 13(10), 1996
(reweighting); Kampes, "Radar Interferometry: Persistent Scatterer Technique", 2006, section 4.5
(sparse integration of arcs and tests on the misclosures).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csc_array, csr_array, diags_array
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import SuperLU, splu

CONSISTENT = 1e-6
"""Disagreement, in cycles, that is rounding only."""


class NetworkOptions(NamedTuple):
    """Which arcs count and how hard the solution tries.

    Attributes
    ----------
    minimum_coherence : float
        Arcs of less temporal coherence are dropped.
    minimum_size : int
        Smaller components are not unwrapped (label 0), at least 2.
    reweightings, repairs : int
        Largest number of robust rounds for all dates, and of repair rounds per date.
    """

    minimum_coherence: float = 0.6
    minimum_size: int = 3
    reweightings: int = 5
    repairs: int = 30


_DEFAULT = NetworkOptions()


class UnwrappedNetwork(NamedTuple):
    """Unwrapped phases of n scatterers on m dates from a arcs.

    Attributes
    ----------
    phase : float64 (n, m)
        rad; equal to the wrapped phase plus whole cycles. NaN for label 0 and where a date is not
        connected. Every component and date has its own unknown number of cycles: only differences
        within a component and date have a meaning.
    component : int32 (n,)
        1 = largest component, 0 = not connected.
    inconsistent_dates : int32 (a,)
        Dates on which the arc disagrees with the result by whole cycles; -1 for dropped arcs.
    corrected_share : float
        Share of the used (arc, date) pairs that disagree.
    """

    phase: NDArray[np.float64]
    component: NDArray[np.int32]
    inconsistent_dates: NDArray[np.int32]
    corrected_share: float


def _label(arcs: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    links = coo_array((np.ones(arcs.shape[0], np.int8), (arcs[:, 0], arcs[:, 1])), (size, size))
    return connected_components(links, directed=False)[1].astype(np.int64)


def _number_components(arcs: NDArray[np.int64], size: int, minimum_size: int) -> NDArray[np.int32]:
    """Label by falling size (equal sizes: by first member), 0 for what is too small."""
    label = _label(arcs, size)
    members = np.bincount(label)
    first = np.unique(label, return_index=True)[1]
    order = np.lexsort((first, -members))
    number = np.zeros(members.size, np.int32)
    number[order] = np.arange(1, members.size + 1)
    number[members < max(minimum_size, 2)] = 0
    return number[label]


def _incidence(arcs: NDArray[np.int64], size: int) -> tuple[csr_array, NDArray[np.int64]]:
    """Arc-by-node differences with the first node of every component left out (it stays 0)."""
    count = arcs.shape[0]
    free = np.ones(size, np.bool_)
    free[np.unique(_label(arcs, size), return_index=True)[1]] = False
    nodes = np.flatnonzero(free)
    sign = np.repeat((-1.0, 1.0), count)
    row = np.tile(np.arange(count), 2)
    full = csc_array(coo_array((sign, (row, arcs.T.reshape(-1))), (count, size)))
    return csr_array(full[:, nodes]), nodes


def _factorise(incidence: csr_array, weight: NDArray[np.float64]) -> SuperLU:
    normal = csc_array(incidence.T @ (diags_array(weight) @ incidence))
    # Symmetric and diagonally dominant: no pivoting, ordering of the symmetric pattern.
    options = {"SymmetricMode": True}
    return splu(normal, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options)


def _solve_robustly(
    incidence: csr_array,
    base_weight: NDArray[np.float64],
    cycles: NDArray[np.float64],
    reweightings: int,
) -> tuple[NDArray[np.float64], SuperLU, NDArray[np.float64]]:
    """Least squares for all dates, arcs that are wrong on many dates weighted down."""
    weight = base_weight
    for turn in range(reweightings + 1):
        factor = _factorise(incidence, weight)
        solution = factor.solve(incidence.T @ (weight[:, None] * cycles))
        misfit = np.mean(np.abs(cycles - incidence @ solution), axis=1)
        if turn == reweightings or np.max(misfit) < CONSISTENT:
            break
        weight = base_weight / (1.0 + misfit / 0.05)
    return solution, factor, weight


def _repair(
    incidence: csr_array,
    factor: SuperLU,
    weight: NDArray[np.float64],
    cycles: NDArray[np.float64],
    repairs: int,
) -> NDArray[np.float64]:
    """Take whole cycles off the arcs that disagree most, until none disagrees by half a cycle."""
    remaining = cycles.copy()
    solution = np.empty((incidence.shape[1], cycles.shape[1]))
    active = np.arange(cycles.shape[1])
    for _ in range(repairs + 1):
        solution[:, active] = factor.solve(incidence.T @ (weight[:, None] * remaining[:, active]))
        misfit = remaining[:, active] - incidence @ solution[:, active]
        worst = np.max(np.abs(misfit), axis=0)
        # A large error smears over its neighbours: those are judged after it is gone.
        is_wrong = np.abs(misfit) >= np.maximum(0.5, 0.5 * worst)
        remaining[:, active] -= np.where(is_wrong, np.round(misfit), 0.0)
        active = active[worst >= 0.5]
        if active.size == 0:
            break
    return solution


def _integrate(
    arcs: NDArray[np.int64],
    size: int,
    weight: NDArray[np.float64],
    cycles: NDArray[np.float64],
    options: NetworkOptions,
) -> NDArray[np.float64]:
    """Whole cycles of every node, (node, date), with as little disagreement as was found."""
    incidence, nodes = _incidence(arcs, size)
    result = np.zeros((size, cycles.shape[1]))
    if nodes.size == 0:
        return result
    solution, factor, robust = _solve_robustly(incidence, weight, cycles, options.reweightings)
    rounded = np.round(solution)
    wrong = np.flatnonzero(np.max(np.abs(cycles - incidence @ solution), axis=0) >= CONSISTENT)
    if wrong.size:
        target = cycles[:, wrong]
        repaired = np.round(_repair(incidence, factor, robust, target, options.repairs))
        cost = [
            weight @ np.abs(target - incidence @ trial) for trial in (repaired, rounded[:, wrong])
        ]
        rounded[:, wrong] = np.where(cost[0] <= cost[1], repaired, rounded[:, wrong])
    result[nodes] = rounded
    return result


def _largest_part(label: NDArray[np.int64], component: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Mark, within each component, the largest of the parts it falls into on a date."""
    members = np.bincount(label)
    part_component = np.zeros(members.size, np.int64)
    part_component[label] = component
    order = np.lexsort((np.arange(members.size), -members, part_component))
    leads = order[np.unique(part_component[order], return_index=True)[1]]
    chosen = np.zeros(members.size, np.bool_)
    chosen[leads] = True
    return chosen[label] & (members[label] > 1) & (component > 0)


def _solve_dates(
    arcs: NDArray[np.int64],
    weight: NDArray[np.float64],
    cycles: NDArray[np.float64],
    component: NDArray[np.int32],
    options: NetworkOptions,
) -> NDArray[np.float64]:
    """Whole cycles of every scatterer; dates with the same missing arcs are solved together."""
    size = component.size
    whole = np.full((size, cycles.shape[1]), np.nan)
    if arcs.shape[0] == 0:
        return whole
    patterns, pattern = np.unique(np.isfinite(cycles), axis=1, return_inverse=True)
    for index in range(patterns.shape[1]):
        here, when = patterns[:, index], np.flatnonzero(pattern.reshape(-1) == index)
        solved = _integrate(arcs[here], size, weight[here], cycles[np.ix_(here, when)], options)
        is_valid = _largest_part(_label(arcs[here], size), component)
        whole[np.ix_(is_valid, when)] = solved[is_valid]
    return whole


def unwrap_network(
    wrapped_phase: NDArray[np.floating[Any]],
    arcs: NDArray[np.int64],
    arc_phase: NDArray[np.floating[Any]],
    arc_coherence: NDArray[np.floating[Any]],
    options: NetworkOptions = _DEFAULT,
) -> UnwrappedNetwork:
    """Unwrap scatterers in space from the unwrapped differences along their arcs.

    Parameters
    ----------
    wrapped_phase : float (n, m)
        rad, NaN = missing.
    arcs : int64 (a, 2)
        Start and end scatterer.
    arc_phase : float (a, m)
        Unwrapped phase end minus start, rad; NaN = missing. Congruent with the wrapped phases up
        to less than half a cycle.
    arc_coherence : float (a,)
        Temporal coherence of the arc, 0..1; NaN counts as 0. Gives the weight 1/variance with
        variance = -2 ln(coherence), at least 0.1 rad^2.
    options : NetworkOptions
        Threshold, smallest component, effort.

    Returns
    -------
    UnwrappedNetwork
        Phases, components and what had to be corrected.

    Raises
    ------
    ValueError
        If shapes do not fit or an index is out of range.

    Notes
    -----
    Errors that close around all loops cannot be seen: a scatterer wrong against all its neighbours
    stays wrong. Where dates are missing for some arcs, those dates are solved separately and, in
    each component, only the largest part that still hangs together is given.
    """
    size, dates = wrapped_phase.shape
    if arc_phase.shape != (arcs.shape[0], dates) or arc_coherence.shape != (arcs.shape[0],):
        raise ValueError(
            f"arc phases {arc_phase.shape} and coherences {arc_coherence.shape} do not fit "
            f"{arcs.shape[0]} arcs on {dates} dates"
        )
    if arcs.size and not 0 <= arcs.min() <= arcs.max() < size:
        raise ValueError(f"arcs name scatterers outside 0..{size - 1}")
    wrapped = np.asarray(wrapped_phase, np.float64)
    kept = np.flatnonzero(np.asarray(arc_coherence) >= options.minimum_coherence)
    used = np.asarray(arcs, np.int64)[kept].reshape(-1, 2)
    component = _number_components(used, size, options.minimum_size)
    inside = component[used[:, 0]] > 0
    kept, used = kept[inside], used[inside]
    gamma = np.clip(np.asarray(arc_coherence, np.float64)[kept], 1e-3, 1.0)
    weight = 1.0 / np.maximum(-2.0 * np.log(gamma), 0.1)
    difference = wrapped[used[:, 1]] - wrapped[used[:, 0]]
    cycles = np.round((np.asarray(arc_phase, np.float64)[kept] - difference) / (2.0 * np.pi))
    whole = _solve_dates(used, weight, cycles, component, options)
    misfit = cycles - (whole[used[:, 1]] - whole[used[:, 0]])
    is_checked = np.isfinite(misfit)
    is_wrong = is_checked & (misfit != 0.0)
    inconsistent = np.full(arcs.shape[0], -1, np.int32)
    inconsistent[kept] = is_wrong.sum(axis=1)
    share = float(is_wrong.sum() / max(is_checked.sum(), 1))
    return UnwrappedNetwork(wrapped + 2.0 * np.pi * whole, component, inconsistent, share)
