"""Adaptive filter of interferograms after Goldstein and Werner.

The image is cut into overlapping square patches. Each patch's spectrum is multiplied by a power of
its own smoothed magnitude, which favours the few frequencies that make up the local fringes; the
patches return through triangular weights that add up to one.

Patches stand on a grid that begins at the scene's first pixel, and missing pixels (those outside
the array included) count as zero. A pixel therefore depends on nothing but its surroundings, and
every tile with a halo of ``window`` pixels gives the bytes of the whole image.

Range transforms are shared: the transform of a line within a patch does not depend on the patch
row, and neither does its inverse once patch rows are added up in the (line, range frequency)
domain. Sixteen neighbours in range form a *strip* and are worked on together, one per vector lane,
see `bperp.kernels.goldstein_patches`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bperp.kernels._jit import njit
from bperp.kernels.goldstein_patches import (
    BLOCKS,
    PatchGrid,
    StripWork,
    add_coherence,
    add_patches,
    clear_spectra,
    deal_line,
    find_levels,
    load_line,
    pop_spectra,
    push_spectra,
    set_exponents,
    spread_largest,
    store_line,
    turn_weights,
    weigh_spectra,
)
from bperp.kernels.patch_fourier import LANES, POINTS, transform, transform_back, turning_factors

__all__ = ["filter_goldstein"]

OVERLAPS = (0.5, 0.75)

_ZERO = np.uint64(0)
_ZERO_F4 = np.float32(0.0)

Floats = NDArray[np.float32]


def filter_goldstein(
    interferogram: NDArray[np.complex64],
    strength: float | NDArray[np.float32],
    *,
    window: int = 32,
    overlap: float = 0.5,
    unit_modulus: bool = True,
    origin: tuple[int, int] = (0, 0),
    interior: tuple[int, int, int, int] | None = None,
) -> NDArray[np.complex64]:
    """Filter an interferogram by the smoothed magnitude of its local spectrum.

    Parameters
    ----------
    interferogram : ndarray
        complex64 ``(azimuth, range)``; 0 + 0j, NaN and infinity mark missing pixels, and so does
        an amplitude outside 1e-22 .. 1e19.
    strength : float or ndarray
        Exponent alpha in [0, 1], 0 leaves the image as it is; or the coherence, float32 of the
        shape of `interferogram` in [0, 1] (NaN where unknown): then alpha is one minus its mean
        over the valid pixels of each patch.
    window : {32, 16, 64}
        Edge of a patch.
    overlap : {0.5, 0.75}
        Share of a patch that it has in common with the next.
    unit_modulus : bool, default True
        Filter phasors of modulus one instead of the samples themselves (whose amplitudes should
        then lie within 1e-15 .. 1e15: spectra are float32).
    origin : tuple of int, default (0, 0)
        Line and sample of the scene at which the array begins.
    interior : tuple of int, optional
        ``(first line, stop line, first sample, stop sample)`` of the array: the part to be
        returned. The rest is halo and costs nothing where no patch of the part reaches it.

    Returns
    -------
    ndarray
        complex64 of the shape of the part, exactly 0 + 0j at missing pixels. With `unit_modulus`
        the modulus tells how much of the pixel's surroundings the fringes explain, about 1 for
        pure fringes.

    Raises
    ------
    ValueError
        If shape, type or one of the options makes no sense.

    Notes
    -----
    ``F = S (M / max M)^alpha`` for each patch with the spectrum ``S``, where ``M`` is ``|S|``
    averaged over 3 x 3 frequencies, cyclically [1]_; alpha from coherence as in [2]_. The largest
    value in the denominator changes no phase within a patch; it makes patches of different
    brightness weigh alike where they overlap.

    Modulus one is the default because the weight of a sample in the spectrum should not depend on
    its backscatter: one bright scatterer has a flat spectrum and would switch the filter off for
    its whole patch [3]_ (and stored products carry phases only). The original works on multilooked
    samples with their modulus, which is what ``unit_modulus=False`` does.

    The halo that makes tiles independent is ``window - 1`` pixels on each side, or ``window *
    overlap`` where the interior begins and ends on multiples of ``window * (1 - overlap)``.

    References
    ----------
    .. [1] Goldstein, Werner, "Radar interferogram filtering for geophysical applications",
       Geophysical Research Letters 25, 1998.
    .. [2] Baran, Stewart, Kampes, Perski, Lilly, "A modification to the Goldstein radar
       interferogram filter", IEEE TGRS 41, 2003.
    """
    part = _check(interferogram, strength, interior)
    grid = _patch_grid(part, origin, window, overlap)
    if isinstance(strength, np.ndarray):
        coherence, alpha = np.ascontiguousarray(strength), np.float32(-1.0)
    else:
        coherence, alpha = np.empty((0, 0), np.float32), np.float32(strength)
    result = np.zeros((part[1] - part[0], part[3] - part[2]), np.complex64)
    _filter(
        np.ascontiguousarray(interferogram).view(np.float32),
        coherence,
        (alpha, unit_modulus),
        part,
        grid,
        _allocate(window, grid.step),
        result.view(np.float32),
    )
    return result


def _check(
    interferogram: NDArray[Any],
    strength: float | NDArray[Any],
    interior: tuple[int, int, int, int] | None,
) -> tuple[int, int, int, int]:
    """Return the part to be computed."""
    if interferogram.ndim != 2 or interferogram.dtype != np.complex64:
        raise ValueError(
            "interferogram must be complex64 (azimuth, range), instead got "
            f"{interferogram.dtype} {interferogram.shape}"
        )
    lines, samples = interferogram.shape
    if isinstance(strength, np.ndarray):
        if strength.shape != interferogram.shape or strength.dtype != np.float32:
            raise ValueError(
                f"strength must be a number or float32 coherence {interferogram.shape}, instead "
                f"got {strength.dtype} {strength.shape}"
            )
    elif not 0.0 <= strength <= 1.0:
        raise ValueError(f"strength must be in [0, 1], instead got {strength}")
    top, bottom, left, right = part = interior or (0, lines, 0, samples)
    if not (0 <= top <= bottom <= lines and 0 <= left <= right <= samples):
        raise ValueError(f"interior must lie in {lines} x {samples}, instead got {interior}")
    return part


def _patch_grid(
    part: tuple[int, int, int, int], origin: tuple[int, int], window: int, overlap: float
) -> PatchGrid:
    if window not in POINTS:
        raise ValueError(f"window must be one of {POINTS}, instead got {window}")
    if overlap not in OVERLAPS:
        raise ValueError(f"overlap must be one of {OVERLAPS}, instead got {overlap}")
    step = window // 2 if overlap == 0.5 else window // 4
    line, rows = _patches(part[0], part[1], origin[0], (window, step))
    sample, columns = _patches(part[2], part[3], origin[1], (window, step))
    ramp = (np.arange(window // 2) + 0.5) / (window // 2)
    weight = np.concatenate([ramp, ramp[::-1]]) * (2 * step / window / window)
    slot = (line + origin[0]) % window
    return PatchGrid(window, step, line, sample, rows, columns, slot, weight.astype(np.float32))


def _patches(first: int, stop: int, origin: int, size: tuple[int, int]) -> tuple[int, int]:
    """Return where the patches that touch an interval begin, and how many there are."""
    window, step = size
    start = ((first + origin - window) // step + 1) * step - origin
    return start, -((start - stop) // step) if stop > first else 0


def _allocate(window: int, step: int) -> StripWork:
    column = 2 * window * LANES

    def zeros(*shape: int) -> Floats:
        return np.zeros(shape, np.float32)

    return StripWork(
        line=zeros(2, BLOCKS * step),
        block=zeros(2 * step * BLOCKS),
        one=zeros(column),
        two=zeros(column),
        spectra=zeros(window * column),
        sums=zeros(window * column),
        patch=zeros(window * column),
        level=zeros(window + 2, window * LANES),
        lane=zeros(4, (window + 2) * LANES),
        coherence=np.zeros((2, window // step, BLOCKS)),
        scratch=(zeros(column), zeros(column), turning_factors(window)),
    )


@njit(error_model="numpy")
def _take_line(
    z: Floats,
    coherence: Floats,
    where: tuple[int, int, int],
    unit: bool,
    grid: PatchGrid,
    work: StripWork,
) -> bool:
    """Make a column of one line; return whether the array has it."""
    line, slot, strip = where
    if slot % grid.step == 0:
        work.coherence[:, slot // grid.step] = 0.0
    if not 0 <= line < z.shape[0]:
        clear_spectra(work, np.uint64(slot), grid)
        return False
    load_line(z, line, grid, strip, unit, work)
    if coherence.size:
        add_coherence(coherence, line, slot, grid, strip, work)
    deal_line(grid, work)
    return True


# The transforms are called from here only: every function that calls them, directly or not, has
# them compiled once more.


@njit(error_model="numpy")
def _filter(
    z: Floats,
    coherence: Floats,
    rule: tuple[np.float32, bool],
    part: tuple[int, int, int, int],
    grid: PatchGrid,
    work: StripWork,
    out: Floats,
) -> None:
    alpha, unit = rule
    n, step = grid.window, grid.step
    work.lane[1, :] = alpha
    for strip in range((grid.columns + LANES - 1) // LANES):
        work.sums[:] = _ZERO_F4
        # Lines enter one patch ahead of the row that is computed: the first row waits for them.
        for i in range(n - step + grid.rows * step):
            slot = (grid.slot + i) % n
            if _take_line(z, coherence, (grid.line + i, slot, strip), unit, grid, work):
                transform(work.one, _ZERO, work.two, _ZERO, n, work.scratch)
                push_spectra(work, np.uint64(slot), grid)
            first = i + 1 - n
            if first < 0 or first % step != 0:
                continue
            if coherence.size:
                set_exponents(grid, work)
            turn_weights(grid, work, np.uint64((grid.slot + first) % n))
            for k in range(n):
                base = np.uint64(k * n * 2 * LANES)
                transform(work.spectra, base, work.patch, base, n, work.scratch)
            find_levels(grid, work)
            spread_largest(grid, work)
            weigh_spectra(grid, work)
            for k in range(n):
                base = np.uint64(k * n * 2 * LANES)
                transform_back(work.patch, base, work.patch, base, n, work.scratch)
            add_patches(grid, work)
            for k in range(first, first + step):
                pop_spectra(work, np.uint64((grid.slot + k) % n), grid)
                line = grid.line + k
                if part[0] <= line < part[1]:
                    transform_back(work.one, _ZERO, work.two, _ZERO, n, work.scratch)
                    place = (line, part[2], part[3])
                    store_line(z, out[line - part[0]], place, grid, strip, work)
