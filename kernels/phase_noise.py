"""Phase noise of scatterer candidates: stability of a pixel against its neighbourhood.

The phase of a candidate is compared with the spatially correlated phase of its neighbours (own
contribution removed); what is left may contain a term proportional to the perpendicular baseline
(look-angle error) and an offset (noise of the reference date). ``gamma`` is the temporal coherence
after removing those. Pure noise also reaches some gamma; its distribution is simulated.

References
----------
Hooper, Segall, Zebker, "Persistent scatterer InSAR for crustal deformation analysis", JGR 112,
B07407, 2007; 51-stamps-algorithms, sections 2 and 3. Different from those: the neighbour phase
comes from a Gaussian instead of the adaptive CLAP filter, and a candidate's weight depends on its
own gamma only, not on the histogram of its patch, so that tiles do not show in the result.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bperp.kernels.look_angle_error import count_trial_wraps, fit_look_angle_error
from bperp.kernels.neighbour_phase import (
    NeighbourFilter,
    filter_neighbour_phase,
    neighbour_reach_m,
)

__all__ = [
    "HISTOGRAM_BINS",
    "RANDOM_SHARE",
    "NeighbourFilter",
    "PhaseNoise",
    "PhaseNoiseOptions",
    "count_trial_wraps",
    "estimate_phase_noise",
    "filter_neighbour_phase",
    "fit_look_angle_error",
    "gamma_threshold",
    "phase_noise_halo_m",
    "random_phase_gamma",
    "weigh_by_gamma",
]

HISTOGRAM_BINS = 100
"""Bins of width 0.01 over gamma 0..1."""

RANDOM_SHARE = 0.8
"""Share of pure noise among the candidates assumed by the weights: usual for D_A < 0.4."""


class PhaseNoiseOptions(NamedTuple):
    """How candidates are compared with their neighbours.

    Attributes
    ----------
    trial_wraps : float
        Cycles that the largest look-angle error makes over the baseline span, see
        ``count_trial_wraps``.
    iterations : int
        Rounds of filtering and fitting; a fixed number, as a global stop test would couple tiles.
    neighbours : NeighbourFilter
        Scale of the neighbourhood.
    """

    trial_wraps: float = 1.0
    iterations: int = 3
    neighbours: NeighbourFilter = NeighbourFilter()


_DEFAULT = PhaseNoiseOptions()


class PhaseNoise(NamedTuple):
    """Phase stability of n candidates over m dates.

    Attributes
    ----------
    gamma : float32 (n,)
        Temporal coherence 0..1; 0 where a candidate cannot be judged (missing date, no neighbour).
    look_angle_error : float32 (n,)
        K in rad per metre of perpendicular baseline, NaN where not judged. A DEM error h gives
        K = -4 pi h / (lambda R sin(incidence)), but relative to the neighbourhood: the part that
        neighbours have in common may stay in the neighbour phase. Heights: ``fit_velocity``.
    offset : float32 (n,)
        C in rad: phase noise of the reference date, NaN where not judged.
    residual : complex64 (n, m)
        Phasors after removing neighbour phase and look-angle error; still contain C.
    neighbour_phase : complex64 (n, m)
        Unit phasors of the spatially correlated phase, 0 where there is no neighbour.
    """

    gamma: NDArray[np.float32]
    look_angle_error: NDArray[np.float32]
    offset: NDArray[np.float32]
    residual: NDArray[np.complex64]
    neighbour_phase: NDArray[np.complex64]


def random_phase_gamma(
    perpendicular_baseline_m: NDArray[np.float64], trial_wraps: float, draws: int, seed: int
) -> NDArray[np.int64]:
    """Simulate the distribution of gamma for pure noise.

    Parameters
    ----------
    perpendicular_baseline_m : float64 (m,)
        Mean perpendicular baseline of each date, metres.
    trial_wraps : float
        Range of the search, as for the candidates.
    draws : int
        Number of simulated candidates, 300 000 in StaMPS; relative error of a bin 1/sqrt(count).
    seed : int
        Seed of the PCG64 generator.

    Returns
    -------
    int64 (100,)
        Counts in bins of width 0.01.

    References
    ----------
    51-stamps-algorithms, section 2.3.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    baseline = np.asarray(perpendicular_baseline_m, np.float32).reshape(1, -1)
    histogram = np.zeros(HISTOGRAM_BINS, np.int64)
    for first in range(0, draws, 8192):
        shape = (min(8192, draws - first), baseline.shape[1])
        turns = generator.random(shape, np.float32)
        noise = np.exp(2j * np.pi * turns).astype(np.complex64)
        fit = fit_look_angle_error(noise, np.broadcast_to(baseline, shape), trial_wraps)
        histogram += _histogram(fit.gamma)
    return histogram


def _histogram(gamma: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    # Judged candidates only: gamma is exactly 0 where there was nothing to judge.
    values = np.asarray(gamma, np.float64)
    judged = values[values > 0.0]
    index = np.minimum((judged * HISTOGRAM_BINS).astype(np.int64), HISTOGRAM_BINS - 1)
    return np.bincount(index, minlength=HISTOGRAM_BINS).astype(np.int64)


@functools.lru_cache(maxsize=32)
def _weight_curve(dates: int, trial_wraps: float) -> tuple[float, ...]:
    # Evenly spread baselines: the noise distribution hardly depends on their pattern, and the
    # weights of a candidate must not depend on the tile it is computed in.
    baseline = np.arange(dates, dtype=np.float64)
    counts = random_phase_gamma(baseline, trial_wraps, 40_000, seed=2007)
    density = counts * (HISTOGRAM_BINS / counts.sum())
    falling = np.maximum.accumulate(density[::-1])[::-1]
    noise = RANDOM_SHARE * falling
    return tuple(
        float(value) for value in ((1.0 - RANDOM_SHARE) / (noise + 1.0 - RANDOM_SHARE)) ** 2
    )


def weigh_by_gamma(
    gamma: NDArray[np.float64], dates: int, trial_wraps: float
) -> NDArray[np.float64]:
    """Weigh candidates by the squared probability that they are not noise.

    Parameters
    ----------
    gamma : float64 (n,)
        Temporal coherence; 0 (not judged) gives weight 0.
    dates : int
        Number of dates m.
    trial_wraps : float
        Range of the search for the look-angle error.

    Returns
    -------
    float64 (n,)
        Weights in [0, 1], rising with gamma.

    Notes
    -----
    w = (1 - P)^2 with P = s f0(gamma) / (s f0(gamma) + 1 - s): f0 is the density of gamma for pure
    noise, stable scatterers are taken as uniform in gamma, s = 0.8.

    References
    ----------
    51-stamps-algorithms, section 2.4e, there with the histogram of the patch in place of s.
    """
    centres = (np.arange(HISTOGRAM_BINS) + 0.5) / HISTOGRAM_BINS
    weight = np.interp(gamma, centres, np.array(_weight_curve(dates, trial_wraps)))
    return np.where(gamma > 0.0, weight, 0.0)


def phase_noise_halo_m(options: PhaseNoiseOptions) -> float:
    """Return the halo, in metres, that makes ``estimate_phase_noise`` independent of the tile.

    Parameters
    ----------
    options : PhaseNoiseOptions
        Options of the estimate; every iteration looks one filter reach further.

    Returns
    -------
    float
        Width in either coordinate, metres.
    """
    return options.iterations * neighbour_reach_m(options.neighbours)


def estimate_phase_noise(
    phasor: NDArray[np.complex64],
    position_m: NDArray[np.float64],
    perpendicular_baseline_m: NDArray[np.float32],
    amplitude_dispersion: NDArray[np.float32],
    options: PhaseNoiseOptions = _DEFAULT,
) -> PhaseNoise:
    """Estimate the phase stability of scatterer candidates against their neighbourhood.

    Parameters
    ----------
    phasor : complex64 (n, m)
        Flattened interferometric phase reference * conj(secondary) of candidate and date, without
        the reference date; amplitude irrelevant, 0 or NaN = missing. In image order.
    position_m : float64 (n, 2)
        Metric coordinates common to all tiles of the scene.
    perpendicular_baseline_m : float32 (n, m)
        Perpendicular baseline, metres.
    amplitude_dispersion : float32 (n,)
        D_A; first weights are 1/D_A (D_A at least 0.05), NaN gives weight 0.
    options : PhaseNoiseOptions
        Search range, iterations and neighbourhood.

    Returns
    -------
    PhaseNoise
        For the tile and its halo; exact for candidates further than ``phase_noise_halo_m`` from
        the edge of what was passed in.

    Notes
    -----
    In the first round gamma of pure noise is distributed exactly as for random phases. Later
    rounds weigh neighbours by how well they fit, which in areas without any stable scatterer makes
    noise fit itself a little: with 300 (60) candidates per km2 the share above the 1 percent point
    of random phases becomes 1.2 (2.2) percent. Among stable scatterers no such excess was found.

    Raises
    ------
    ValueError
        If shapes do not fit or an option is out of range.

    References
    ----------
    51-stamps-algorithms, section 2.4 with the leave-one-out of 3.5 in every round.
    """
    size, dates = phasor.shape
    if options.iterations < 1 or np.shape(amplitude_dispersion) != (size,):
        raise ValueError(
            f"need at least one iteration ({options.iterations}) and one amplitude dispersion per "
            f"candidate ({size}), instead got {np.shape(amplitude_dispersion)}"
        )
    length = np.abs(phasor)
    usable = (length > 0.0) & np.isfinite(length)
    unit = np.divide(phasor, length, out=np.zeros_like(phasor), where=usable)
    dispersion = np.asarray(amplitude_dispersion, np.float64)
    weight = np.where(np.isfinite(dispersion), 1.0 / np.fmax(dispersion, 0.05), 0.0)
    slope = np.zeros(size)
    for _ in range(options.iterations):
        neighbour = filter_neighbour_phase(
            unit, position_m, perpendicular_baseline_m, slope, weight, options.neighbours
        )
        fit = fit_look_angle_error(
            unit * np.conj(neighbour), perpendicular_baseline_m, options.trial_wraps
        )
        judged = np.all((neighbour != 0.0) & usable, axis=1)
        gamma = np.where(judged, fit.gamma, 0.0)
        slope = np.where(judged, fit.look_angle_error, 0.0)
        weight = weigh_by_gamma(gamma, dates, options.trial_wraps)
    return PhaseNoise(
        gamma.astype(np.float32),
        np.where(judged, slope, np.nan).astype(np.float32),
        np.where(judged, fit.offset, np.nan).astype(np.float32),
        fit.residual,
        neighbour,
    )


def gamma_threshold(
    gamma: NDArray[np.float32],
    random_histogram: NDArray[np.int64],
    maximum_random_percent: float = 1.0,
    maximum_random_count: float = math.inf,
) -> float:
    """Find the smallest threshold above which few of the candidates are pure noise.

    Parameters
    ----------
    gamma : float32 (n,)
        Temporal coherence of all candidates; 0 = not judged, left out.
    random_histogram : int64 (100,)
        From ``random_phase_gamma`` with the baselines and search range of the candidates.
    maximum_random_percent : float
        Largest expected share of noise among the accepted, percent.
    maximum_random_count : float
        Largest expected number of noise candidates (a density times the area).

    Returns
    -------
    float
        A multiple of 0.01; accept ``gamma > threshold``. 1 accepts nobody.

    Raises
    ------
    ValueError
        If the histogram has another shape or is empty.

    Notes
    -----
    The simulated histogram is scaled so that both agree below its median, where there are hardly
    any stable scatterers. Then the expected number of noise candidates above a bin edge is
    compared with the number of candidates above it.

    References
    ----------
    51-stamps-algorithms, section 3.2 (DENSITY and PERCENT), there scaled below gamma = 0.31 and
    interpolated between bins by a cubic.
    """
    noise = np.asarray(random_histogram, np.float64)
    if noise.shape != (HISTOGRAM_BINS,) or not noise.sum() > 0.0:
        raise ValueError(f"random_histogram must hold {HISTOGRAM_BINS} counts, not all zero")
    found = _histogram(gamma).astype(np.float64)
    low = int(np.searchsorted(np.cumsum(noise), 0.5 * noise.sum())) + 1
    scale = min(found[:low].sum() / noise[:low].sum(), found.sum() / noise.sum())
    expected = np.cumsum((scale * noise)[::-1])[::-1]
    accepted = np.cumsum(found[::-1])[::-1]
    is_enough = (100.0 * expected <= maximum_random_percent * accepted) & (
        expected <= maximum_random_count
    )
    edges = np.flatnonzero(is_enough & (accepted > 0.0))
    return float(edges[0]) / HISTOGRAM_BINS if edges.size else 1.0
