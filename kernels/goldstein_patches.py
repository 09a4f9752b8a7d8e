"""Lines and patches of the adaptive filter: the loops below `bperp.kernels.goldstein`.

A strip is sixteen patches side by side, one per vector lane. Line by line it takes the samples
apart into columns (`bperp.kernels.patch_fourier`) and keeps their range spectra in a ring of as
many lines as a patch has; a patch row of the ring is weighed and added to a second ring, from
which finished lines leave. A patch row enters the transform in azimuth as it lies in the ring,
turned about itself: that changes no magnitude, and the way back undoes it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bperp.kernels._jit import njit
from bperp.kernels.patch_fourier import LANES

__all__ = [
    "PatchGrid",
    "StripWork",
    "add_coherence",
    "add_patches",
    "clear_spectra",
    "deal_line",
    "find_levels",
    "load_line",
    "pop_spectra",
    "push_spectra",
    "set_exponents",
    "spread_largest",
    "store_line",
    "turn_weights",
    "weigh_spectra",
]

BLOCKS = LANES + 3
"""Steps of samples below sixteen patches, at most."""

_LANES = np.uint64(LANES)
_BLOCKS = np.uint64(BLOCKS)
_ONE = np.uint64(1)
_TWO = np.uint64(2)

_ZERO_F4 = np.float32(0.0)
_ONE_F4 = np.float32(1.0)
_HALF_F4 = np.float32(0.5)
_INFINITE_F4 = np.float32(np.inf)
_FAINTEST_F4 = np.float32(1e-30)

# Chebyshev fits: log2(1 + t) / t for sqrt(1/2) <= 1 + t < sqrt(2), error 9e-8, and 2^t for |t| <=
# 1/2, error 1e-7. Calls of the C library, one value at a time, would cost more than the transforms.
_LOG2 = tuple(
    np.float32(c)
    for c in (1.4426949, -0.72135276, 0.48092404, -0.36024198,
              0.28707561, -0.24882181, 0.23420985, -0.14620353)
)  # fmt: skip
_EXP2 = tuple(
    np.float32(c) for c in (1.0, 0.69314718, 0.24022107, 0.05550327, 0.00967604, 0.00134004)
)
_ROOT_HALF_BITS = np.int32(0x3F3504F3)
_MANTISSA_BITS = np.int32(23)
_EXPONENT_BIAS = np.int32(127)
_LOWEST_EXPONENT = np.float32(-126.0)

Floats = NDArray[np.float32]


class PatchGrid(NamedTuple):
    """Patch grid of a call, in indices of the array."""

    window: int
    step: int
    line: int
    """First line of the first patch row; may be negative, as may `sample`."""
    sample: int
    rows: int
    columns: int
    slot: int
    """Place of `line` in the ring: the scene's line modulo window, whatever the tile."""
    weight: Floats


class StripWork(NamedTuple):
    """Buffers of a strip; columns as in `bperp.kernels.patch_fourier`."""

    line: Floats
    """``(2, blocks * step)``: real and imaginary part of a line."""
    block: Floats
    """``(2 * step * blocks)``: the line (or the result) with a step's samples far apart."""
    one: Floats
    two: Floats
    spectra: Floats
    """A column of `window` lines for each range frequency."""
    sums: Floats
    """The same for the weighted sum of filtered patches."""
    patch: Floats
    """A column of azimuth frequencies for each range frequency."""
    level: Floats
    """``(window + 2, window * LANES)``: smoothed magnitudes, range frequencies wrap around."""
    lane: Floats
    """``(4, window * LANES)``: magnitudes with their wrap, exponents, largest level, weights."""
    coherence: NDArray[np.float64]
    """``(2, window / step, blocks)``: sum and count over squares of a step."""
    scratch: tuple[Floats, Floats, Floats]


# ---- power function


@njit(inline="always")
def _log2(x: np.float32) -> np.float32:
    bits = np.float32(max(x, _FAINTEST_F4)).view(np.int32)
    exponent = (bits - _ROOT_HALF_BITS) >> _MANTISSA_BITS
    t = np.int32(bits - (exponent << _MANTISSA_BITS)).view(np.float32) - _ONE_F4
    a, b, c, d, e, f, g, h = _LOG2
    p = ((((((h * t + g) * t + f) * t + e) * t + d) * t + c) * t + b) * t + a
    return np.float32(exponent) + t * p


@njit(inline="always")
def _exp2(x: np.float32) -> np.float32:
    x = max(x, _LOWEST_EXPONENT)
    whole = np.floor(x + _HALF_F4)
    t = x - whole
    a, b, c, d, e, f = _EXP2
    p = ((((f * t + e) * t + d) * t + c) * t + b) * t + a
    scale: np.float32 = np.int32((np.int32(whole) + _EXPONENT_BIAS) << _MANTISSA_BITS).view(
        np.float32
    )
    return np.float32(p * scale)


# ---- lines in and out


@njit(error_model="numpy")
def load_line(
    z: Floats, line: int, grid: PatchGrid, strip: int, unit: bool, work: StripWork
) -> None:
    """Fill the strip's line with samples or phasors, zero where there are none."""
    re, im = work.line[0], work.line[1]
    re[:] = _ZERO_F4
    im[:] = _ZERO_F4
    start = grid.sample + strip * LANES * grid.step
    first, stop = max(0, start), min(z.shape[1] // 2, start + BLOCKS * grid.step)
    if stop <= first:
        return
    row = z[line, 2 * first : 2 * stop]
    re, im = re[first - start :], im[first - start :]
    for i in range(np.uint64(stop - first)):
        x, y = row[_TWO * i], row[_TWO * i + _ONE]
        power = x * x + y * y
        valid = (power > _ZERO_F4) & (power < _INFINITE_F4)
        scale = _ONE_F4 / np.sqrt(power) if unit else _ONE_F4
        re[i] = x * scale if valid else _ZERO_F4
        im[i] = y * scale if valid else _ZERO_F4


@njit(error_model="numpy")
def deal_line(grid: PatchGrid, work: StripWork) -> None:
    """Turn the line into one column of sixteen patches."""
    n, step = np.uint64(grid.window), np.uint64(grid.step)
    block, column = work.block, work.one
    for part in range(_TWO):
        line = work.line[part]
        base = part * step * _BLOCKS
        for b in range(_BLOCKS):
            for c in range(step):
                block[base + c * _BLOCKS + b] = line[b * step + c]
        for e in range(n):
            source = base + (e % step) * _BLOCKS + e // step
            target = (part * n + e) * _LANES
            for i in range(_LANES):
                column[target + i] = block[source + i]


@njit(error_model="numpy")
def push_spectra(work: StripWork, slot: np.uint64, grid: PatchGrid) -> None:
    """Put the range spectra of a line into the ring."""
    n = np.uint64(grid.window)
    column, spectra = work.two, work.spectra
    for part in range(_TWO):
        for k in range(n):
            source = (part * n + k) * _LANES
            target = ((_TWO * k + part) * n + slot) * _LANES
            for i in range(_LANES):
                spectra[target + i] = column[source + i]


@njit(error_model="numpy")
def clear_spectra(work: StripWork, slot: np.uint64, grid: PatchGrid) -> None:
    """Put an empty line into the ring."""
    n = np.uint64(grid.window)
    spectra = work.spectra
    for k in range(_TWO * n):
        target = (k * n + slot) * _LANES
        for i in range(_LANES):
            spectra[target + i] = _ZERO_F4


@njit(error_model="numpy")
def pop_spectra(work: StripWork, slot: np.uint64, grid: PatchGrid) -> None:
    """Take a finished line of range spectra out of the sums."""
    n = np.uint64(grid.window)
    column, sums = work.one, work.sums
    for part in range(_TWO):
        for k in range(n):
            target = (part * n + k) * _LANES
            source = ((_TWO * k + part) * n + slot) * _LANES
            for i in range(_LANES):
                column[target + i] = sums[source + i]
                sums[source + i] = _ZERO_F4


@njit(error_model="numpy")
def _join(grid: PatchGrid, work: StripWork) -> None:
    """Add the sixteen patches of a line to what earlier strips left there."""
    n, step = np.uint64(grid.window), np.uint64(grid.step)
    block, column = work.block, work.two
    for part in range(_TWO):
        line = work.line[part]
        base = part * step * _BLOCKS
        for b in range(_BLOCKS):
            for c in range(step):
                block[base + c * _BLOCKS + b] = line[b * step + c]
        # The last element of a patch comes first, so that a pixel adds up its patches from left
        # to right, across strips as well.
        for back in range(n):
            e = n - _ONE - back
            weight = grid.weight[e]
            source = (part * n + e) * _LANES
            target = base + (e % step) * _BLOCKS + e // step
            for i in range(_LANES):
                block[target + i] += weight * column[source + i]
        for b in range(_BLOCKS):
            for c in range(step):
                line[b * step + c] = block[base + c * _BLOCKS + b]


@njit(error_model="numpy")
def store_line(
    z: Floats,
    out: Floats,
    place: tuple[int, int, int],
    grid: PatchGrid,
    strip: int,
    work: StripWork,
) -> None:
    """Read earlier strips' sums from the result, add this strip, and write it back."""
    line, left, right = place
    start = grid.sample + strip * LANES * grid.step
    first, stop = max(left, start), min(right, start + BLOCKS * grid.step)
    if stop <= first:
        return
    row, values = z[line, 2 * first : 2 * stop], out[2 * (first - left) : 2 * (stop - left)]
    work.line[:] = _ZERO_F4
    re, im = work.line[0, first - start :], work.line[1, first - start :]
    shared = min(stop, start + grid.window - grid.step) - first
    for i in range(np.uint64(max(0, shared))):
        re[i], im[i] = values[_TWO * i], values[_TWO * i + _ONE]
    _join(grid, work)
    for i in range(np.uint64(stop - first)):
        x, y = row[_TWO * i], row[_TWO * i + _ONE]
        power = x * x + y * y
        valid = (power > _ZERO_F4) & (power < _INFINITE_F4)
        re[i] = re[i] if valid else _ZERO_F4
        im[i] = im[i] if valid else _ZERO_F4
    for i in range(np.uint64(stop - first)):
        values[_TWO * i], values[_TWO * i + _ONE] = re[i], im[i]


# ---- patches


@njit(error_model="numpy")
def find_levels(grid: PatchGrid, work: StripWork) -> None:
    """Take logarithms of the smoothed magnitudes of sixteen spectra."""
    n = np.uint64(grid.window)
    size = n * _LANES
    patch, level = work.patch, work.level
    power, top = work.lane[0], work.lane[2]
    for k in range(n):
        base = k * _TWO * size
        for i in range(size):
            x, y = patch[base + i], patch[base + size + i]
            power[_LANES + i] = np.sqrt(x * x + y * y)
        for i in range(_LANES):
            power[i] = power[size + i]
            power[size + _LANES + i] = power[_LANES + i]
        smooth = level[k + _ONE]
        for i in range(size):
            smooth[i] = power[i] + power[_LANES + i] + power[_TWO * _LANES + i]
    level[0, :] = level[n]
    level[n + _ONE, :] = level[_ONE]
    top[:] = _LOWEST_EXPONENT
    for k in range(n):
        above, here, below = level[k], level[k + _ONE], level[k + _TWO]
        # One loop less would leave LLVM in doubt whether rows overlap, and eight times slower.
        for i in range(size):
            power[i] = above[i] + here[i] + below[i]
        for i in range(size):
            above[i] = _log2(power[i])
        for i in range(size):
            top[i] = max(top[i], above[i])


@njit(error_model="numpy")
def spread_largest(grid: PatchGrid, work: StripWork) -> None:
    """Give every azimuth frequency the largest level of its patch."""
    n = np.uint64(grid.window)
    top = work.lane[2]
    for k in range(_ONE, n):
        for i in range(_LANES):
            top[i] = max(top[i], top[k * _LANES + i])
    for k in range(_ONE, n):
        for i in range(_LANES):
            top[k * _LANES + i] = top[i]


@njit(error_model="numpy")
def weigh_spectra(grid: PatchGrid, work: StripWork) -> None:
    """Raise the levels to their powers and multiply the spectra by them."""
    n = np.uint64(grid.window)
    size = n * _LANES
    patch, alpha, top = work.patch, work.lane[1], work.lane[2]
    for k in range(n):
        base = k * _TWO * size
        gain = work.level[k]
        for i in range(size):
            gain[i] = _exp2(alpha[i] * (gain[i] - top[i]))
        for i in range(size):
            patch[base + i] *= gain[i]
        for i in range(size):
            patch[base + size + i] *= gain[i]


@njit(error_model="numpy")
def add_patches(grid: PatchGrid, work: StripWork) -> None:
    """Add the patches, range spectra of lines again, to the sums."""
    n = np.uint64(grid.window)
    size = n * _LANES
    patch, sums, weight = work.patch, work.sums, work.lane[3]
    for k in range(n):
        base = k * _TWO * size
        for i in range(size):
            sums[base + i] += weight[i] * patch[base + i]
        for i in range(size):
            sums[base + size + i] += weight[i] * patch[base + size + i]


@njit(error_model="numpy")
def turn_weights(grid: PatchGrid, work: StripWork, slot: np.uint64) -> None:
    """Set the weights of the lines of a patch row that begins at `slot` of the ring."""
    n = np.uint64(grid.window)
    weight = work.lane[3]
    for e in range(n):
        target = ((slot + e) % n) * _LANES
        for i in range(_LANES):
            weight[target + i] = grid.weight[e]


@njit(error_model="numpy")
def set_exponents(grid: PatchGrid, work: StripWork) -> None:
    """Set alpha to one minus the mean coherence of each patch."""
    n = np.uint64(grid.window)
    alpha = work.lane[1]
    squares = grid.window // grid.step
    for i in range(LANES):
        total = count = 0.0
        for a in range(squares):
            for b in range(squares):
                total += work.coherence[0, a, i + b]
                count += work.coherence[1, a, i + b]
        mean = total / count if count > 0.0 else 1.0
        alpha[i] = np.float32(1.0 - min(1.0, max(0.0, mean)))
    for k in range(_ONE, n):
        for i in range(_LANES):
            alpha[k * _LANES + i] = alpha[i]


@njit(error_model="numpy")
def add_coherence(
    coherence: Floats, line: int, slot: int, grid: PatchGrid, strip: int, work: StripWork
) -> None:
    """Add a line's coherence to the squares; `work.line` says which pixels are valid."""
    start = grid.sample + strip * LANES * grid.step
    re, im = work.line[0], work.line[1]
    total, count = work.coherence[0, slot // grid.step], work.coherence[1, slot // grid.step]
    for b in range(BLOCKS):
        for c in range(grid.step):
            i = b * grid.step + c
            x = start + i
            if 0 <= x < coherence.shape[1] and (re[i] != _ZERO_F4 or im[i] != _ZERO_F4):
                value = coherence[line, x]
                if value == value:  # noqa: PLR0124 - NaN is unknown
                    total[b] += value
                    count[b] += 1.0
