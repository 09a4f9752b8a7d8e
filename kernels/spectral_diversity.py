"""Azimuth misregistration from the overlap of two TOPS bursts (enhanced spectral diversity).

A target at zero-Doppler time ``eta0`` has in burst ``b`` the signal
``exp(+2 pi j f_b(eta0) (eta - eta0))``: in the overlap the earlier ("upper") burst sees it at the
high end of its Doppler sweep and the later ("lower") burst at the low end, 4 to 5 kHz apart. If
the target stands ``shift`` lines later in the secondary than the geometry says, resampling at the
geometric position leaves ``exp(-2 pi j f_b shift dt)``, the interferogram of burst ``b`` has
``exp(+2 pi j f_b shift dt)`` on top of everything that both bursts see alike, and

    ``D = I_upper conj(I_lower)`` has the phase ``+2 pi (f_upper - f_lower) shift dt``.

So ``source position = geometric position + shift``.

Each interferogram is averaged over windows *before* the product: at coherence 0.15 that is five
times better than a product of single looks, and forty times better than a median of thresholded
pixels. Windows enter as complex coherences and not as powers, so that a few bright targets do not
outvote the ground; their weight grows with the coherence as the information does, up to a limit
for the same reason.

No estimator can do better than ``sqrt(1 - c^2) / (c k sqrt(n))`` (Cramer-Rao for coherence ``c``,
``n`` independent pixels, ``k = 2 pi (f_upper - f_lower) dt``): 1.90e-4 line at coherence 0.15 for
100 x 3000 pixels and 4.9 kHz. The estimate here stays within 2 % of that.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bperp.kernels.interferogram import multilook_interferogram
from bperp.kernels.shift_network import CombinedShift, combine_shifts
from bperp.kernels.window_averages import coarsen, complex_coherence, score_variance

__all__ = [
    "AzimuthShift",
    "BlockShifts",
    "CombinedShift",
    "combine_shifts",
    "estimate_azimuth_shift",
    "estimate_block_shifts",
]

MINIMUM_SIGNIFICANCE = 6.0
"""Signal over its standard error below which nothing is reported."""
MINIMUM_WINDOWS = 50
"""Fewest windows for a standard error to be trusted: together a chance of 1e-5 in pure noise."""
WINDOW_FACTORS = (1, 2, 4)
"""Multiples of the looks that are tried: the lower the coherence, the larger the best window."""
LARGEST_WEIGHTED_COHERENCE = 0.75
"""Beyond it the weight ``1 / (1 - coherence^2)`` stays: one pixel alone has coherence 1."""

_TURN = 2.0 * np.pi


class AzimuthShift(NamedTuple):
    """Azimuth shift from one overlap.

    Parameters
    ----------
    shift_lines : float
        Lines to add to the geometric position in the secondary; 0 unless `status` is ``ok`` or
        ``ambiguous``.
    sigma_lines : float
        Standard error in lines; inf unless `status` is ``ok`` or ``ambiguous``.
    coherence : float
        Geometric mean of the two interferograms' coherences, free of noise bias, [0, 1].
    windows : int
        Windows that took part.
    looks : tuple of int
        Window in lines and samples that gave the smallest sigma.
    status : str
        ``ok``; ``ambiguous``: the shift is too near the edge of the unambiguous interval, or an
        alias outside fits better; ``no-overlap``: fewer than 50 windows with enough valid pixels;
        ``no-coherence``: nothing above the noise.
    """

    shift_lines: float
    sigma_lines: float
    coherence: float
    windows: int
    looks: tuple[int, int]
    status: str

    @property
    def ambiguous(self) -> bool:
        """Whether the shift may be off by a whole cycle."""
        return self.status == "ambiguous"


class BlockShifts(NamedTuple):
    """Azimuth shifts along one overlap.

    Parameters
    ----------
    whole : AzimuthShift
        Shift of the whole overlap.
    shift_lines, sigma_lines : ndarray
        float64 ``(block,)``, lines: shift and standard error of each part; 0 and inf where the
        part alone has none (its status would not be ``ok``).
    centre_sample : ndarray
        float64 ``(block,)``: middle of each part, in samples from the first of the overlap.
    """

    whole: AzimuthShift
    shift_lines: NDArray[np.float64]
    sigma_lines: NDArray[np.float64]
    centre_sample: NDArray[np.float64]


class _Windows(NamedTuple):
    upper: NDArray[np.complex128]
    lower: NDArray[np.complex128]
    sensitivity: NDArray[np.float64]
    looks: tuple[int, int]


def estimate_azimuth_shift(
    upper_reference: NDArray[np.complex64],
    upper_secondary: NDArray[np.complex64],
    lower_reference: NDArray[np.complex64],
    lower_secondary: NDArray[np.complex64],
    doppler_difference_hz: NDArray[np.floating[Any]],
    azimuth_time_interval_s: float,
    looks: tuple[int, int] = (5, 15),
    max_shift_lines: float = 0.05,
) -> AzimuthShift:
    """Estimate the azimuth shift of a secondary date in the overlap of two bursts.

    Parameters
    ----------
    upper_reference, upper_secondary : ndarray
        complex64 ``(lines, samples)``: the overlap as seen by the earlier burst, coregistered to
        the reference grid by geometry and flattened; 0 + 0j is no data.
    lower_reference, lower_secondary : ndarray
        complex64 ``(lines, samples)``: the same ground as seen by the later burst.
    doppler_difference_hz : ndarray
        float ``(lines, samples)``, Hz: total Doppler centroid of the upper burst minus that of the
        lower burst at each pixel; positive for Sentinel-1 IW and EW.
    azimuth_time_interval_s : float
        Line interval in s.
    looks : tuple of int, default (5, 15)
        Smallest window ``(azimuth, range)``; cut to the overlap if that is smaller.
    max_shift_lines : float, default 0.05
        Largest shift to believe, lines; never more than half the ambiguity
        ``1 / (doppler_difference_hz * azimuth_time_interval_s)``.

    Returns
    -------
    AzimuthShift
        Shift, standard error and status. Never a random number: without overlap or coherence the
        shift is 0 and sigma is inf.

    Raises
    ------
    ValueError
        If shapes differ or the interval, looks or limit are not positive.

    Notes
    -----
    Maximum likelihood: ``argmax_d Re sum w D exp(-j k d)`` with ``k = 2 pi df dt`` per window and
    ``w = 1 / (1 - |D|)``. Larger windows are means of the smallest ones, all of one weight. The
    standard error is the sandwich ``sqrt(sum k^2 Im(D')^2) / sum k^2 Re(D')`` of the
    derotated products ``D'``, with the covariance of adjoining windows (oversampled speckle)
    added; in a homogeneous scene that is ``1 / (k^2 N_eff SNR)``.

    References
    ----------
    Prats-Iraola et al., "TOPS interferometry with TerraSAR-X", IEEE TGRS 50, 2012;
    Yague-Martinez et al., "Interferometric processing of Sentinel-1 TOPS data", IEEE TGRS 54, 2016.
    """
    images = (upper_reference, upper_secondary, lower_reference, lower_secondary)
    windows = _average(images, doppler_difference_hz, azimuth_time_interval_s, looks)
    return _best_fit(windows, max_shift_lines)


def estimate_block_shifts(
    images: tuple[NDArray[np.complex64], ...],
    doppler_difference_hz: NDArray[np.floating[Any]],
    azimuth_time_interval_s: float,
    blocks: int,
    looks: tuple[int, int] = (5, 15),
    max_shift_lines: float = 0.05,
) -> BlockShifts:
    """Estimate the azimuth shift of an overlap and of equal parts of it along range.

    The images are averaged once for both.

    Parameters
    ----------
    images : tuple of ndarray
        Upper reference, upper secondary, lower reference and lower secondary, as in
        `estimate_azimuth_shift`.
    doppler_difference_hz, azimuth_time_interval_s, looks, max_shift_lines
        As in `estimate_azimuth_shift`.
    blocks : int
        Parts along range, at least 1; equal up to one window.

    Returns
    -------
    BlockShifts
        Shift of the whole, exactly that of `estimate_azimuth_shift`, and of the parts.

    Raises
    ------
    ValueError
        If shapes differ or the interval, blocks, looks or limit are not positive.
    """
    if blocks < 1:
        raise ValueError(f"blocks must be at least 1, instead got {blocks}")
    windows = _average(images, doppler_difference_hz, azimuth_time_interval_s, looks)
    columns = windows.upper.shape[1]
    edges = np.round(np.linspace(0, columns, blocks + 1)).astype(np.int64)
    parts = []
    for left, right in pairwise(edges):
        part = windows._replace(
            upper=windows.upper[:, left:right],
            lower=windows.lower[:, left:right],
            sensitivity=windows.sensitivity[:, left:right],
        )
        parts.append(_best_fit(part, max_shift_lines))
    centre = np.asarray(0.5 * (edges[:-1] + edges[1:]) * windows.looks[1] - 0.5, np.float64)
    significant = np.array([item.status == "ok" for item in parts])
    return BlockShifts(
        _best_fit(windows, max_shift_lines),
        np.where(significant, [item.shift_lines for item in parts], 0.0),
        np.where(significant, [item.sigma_lines for item in parts], np.inf),
        centre,
    )


def _average(
    images: tuple[NDArray[np.complex64], ...],
    doppler_difference_hz: NDArray[np.floating[Any]],
    interval_s: float,
    looks: tuple[int, int],
) -> _Windows:
    shape = images[0].shape
    if len(images) != 4 or any(array.shape != shape for array in (*images, doppler_difference_hz)):
        raise ValueError(f"all arrays must have the shape {shape} of upper_reference")
    if min(interval_s, *looks) <= 0:
        raise ValueError(
            "azimuth_time_interval_s and looks must be positive, instead got "
            f"{interval_s} and {looks}"
        )
    window = (min(looks[0], max(shape[0], 1)), min(looks[1], max(shape[1], 1)))
    averages = []
    for reference, secondary in (images[:2], images[2:]):
        result = multilook_interferogram(reference, secondary, *window, 0.5, 0.0)
        averages.append(complex_coherence(result.interferogram, result.coherence))
    rows, columns = averages[0].shape
    difference = doppler_difference_hz[: rows * window[0], : columns * window[1]]
    blocks = difference.reshape(rows, window[0], columns, window[1])
    mean = blocks.mean(axis=(1, 3), dtype=np.float64)
    averages[0][~np.isfinite(mean)] = 0.0
    return _Windows(
        averages[0], averages[1], _TURN * interval_s * np.nan_to_num(mean, posinf=0.0), window
    )


def _best_fit(windows: _Windows, max_shift_lines: float) -> AzimuthShift:
    if max_shift_lines <= 0:
        raise ValueError(f"max_shift_lines must be positive, instead got {max_shift_lines}")
    candidates = []
    rows, columns = windows.upper.shape
    for factor in WINDOW_FACTORS:
        if factor > 1 and (rows // factor) * (columns // factor) < MINIMUM_WINDOWS:
            break
        arrays = [coarsen(array, factor) for array in windows[:3]]
        looks = (windows.looks[0] * factor, windows.looks[1] * factor)
        candidates.append(_fit(_Windows(arrays[0], arrays[1], arrays[2], looks), max_shift_lines))
    return min(candidates, key=lambda candidate: candidate.sigma_lines)


def _fit(windows: _Windows, max_shift_lines: float) -> AzimuthShift:
    product = windows.upper * np.conj(windows.lower)
    valid = product != 0
    count = int(np.count_nonzero(valid))
    if count < MINIMUM_WINDOWS:
        return AzimuthShift(0.0, np.inf, 0.0, 0, windows.looks, "no-overlap")
    # Half a period either side is all that a phase can tell.
    k = windows.sensitivity[valid]
    limit = min(max_shift_lines, np.pi / max(float(np.abs(k).max()), 1e-30))
    product /= 1.0 - np.minimum(np.abs(product), LARGEST_WEIGHTED_COHERENCE**2)
    shift = _maximise(product[valid], k, -limit, limit)
    product *= np.exp(-1j * windows.sensitivity * shift)
    curvature = float(np.sum(windows.sensitivity**2 * product.real))
    deviation = np.sqrt(score_variance(windows.sensitivity * product.imag))
    sigma = float(deviation / curvature) if curvature > 0.0 else np.inf
    if not sigma * np.sqrt(np.mean(k * k)) * MINIMUM_SIGNIFICANCE < 1.0:
        return AzimuthShift(0.0, np.inf, 0.0, count, windows.looks, "no-coherence")
    near_edge = abs(shift) > limit - max(4.0 * sigma, 0.1 * limit)
    ambiguous = near_edge or _alias_fits_better(product[valid], k)
    status = "ambiguous" if ambiguous else "ok"
    coherence = _mean_coherence(windows, shift, count)
    return AzimuthShift(shift, sigma, coherence, count, windows.looks, status)


def _mean_coherence(windows: _Windows, shift: float, count: int) -> float:
    product = windows.upper * np.conj(windows.lower) * np.exp(-1j * windows.sensitivity * shift)
    return float(np.sqrt(max(float(np.sum(product.real)), 0.0) / count))


def _maximise(
    product: NDArray[np.complex128], k: NDArray[np.float64], low: float, high: float
) -> float:
    # A grid of a sixteenth of a cycle finds the right hill, Newton its top.
    steps = 2 + int(np.ceil((high - low) * np.abs(k).max() / (_TURN / 16.0)))
    grid = np.linspace(low, high, steps)
    shift = float(grid[int(np.argmax([_likelihood(product, k, trial) for trial in grid]))])
    for _ in range(8):
        rotated = product * np.exp(-1j * k * shift)
        curvature = float(np.sum(k * k * rotated.real))
        if curvature <= 0.0:
            break
        step = float(np.sum(k * rotated.imag)) / curvature
        shift = min(max(shift + step, low), high)
        if abs(step) < 1e-10:
            break
    return shift


def _likelihood(product: NDArray[np.complex128], k: NDArray[np.float64], shift: float) -> float:
    return float(np.sum((product * np.exp(-1j * k * shift)).real))


def _alias_fits_better(derotated: NDArray[np.complex128], k: NDArray[np.float64]) -> bool:
    # Aliases differ only through the change of the Doppler difference over the overlap; demand
    # four standard errors of the difference.
    period = _TURN / float(np.mean(np.abs(k)))
    for centre in (-period, period):
        other = _maximise(derotated, k, centre - 0.25 * period, centre + 0.25 * period)
        change = derotated * np.exp(-1j * k * other) - derotated
        noise = np.abs(1.0 - np.exp(-1j * k * other)) * np.abs(derotated.imag)
        # With one difference everywhere the aliases tie: rounding must not decide.
        tie = 1e-9 * float(np.sum(np.abs(derotated)))
        if np.sum(change.real) > 4.0 * np.sqrt(np.sum(noise**2)) + tie:
            return True
    return False
