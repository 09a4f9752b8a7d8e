"""Range filter to the band that two images have in common (wavenumber shift).

Two antennas see the ground at different incidence, hence through different windows of its
wavenumbers. After flattening, both images show the same ground spectrum, each through a band of
the chirp's width; the bands are shifted against each other by `wavenumber_shift_hz`. What lies
outside the common part is noise to the interferogram and is removed here.

Lines are filtered in overlapping blocks that begin on a grid fixed to the scene's first sample, so
a tile with a halo of `BLOCK` samples gives the bytes of the whole image.

References
----------
.. [1] Gatelli, Monti Guarnieri, Parizzi, Pasquali, Prati, Rocca, "The wavenumber shift in SAR
   interferometry", IEEE TGRS 32, 1994.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft

from bperp.kernels.window_sums import check_images

__all__ = ["BLOCK", "RangeBand", "filter_common_band", "wavenumber_shift_hz"]

SPEED_OF_LIGHT_M_S = 299_792_458.0

BLOCK = 512
"""Samples of a block. The edge of the band is met to half a bin, 0.1 % of the sampling rate; where
a block ends, the filter wraps around, which the triangular weights keep below 1e-3 of the power."""
HOP = BLOCK // 2

STRIP_LINES = 64
"""Lines transformed at a time: a block of them stays in the second-level cache."""

_ONE_F4 = np.float32(1.0)


class RangeBand(NamedTuple):
    """How the range spectrum of an image was sampled and weighted.

    Parameters
    ----------
    sampling_rate_hz : float, Hz
        Samples per second of (two-way) range time.
    bandwidth_hz : float, Hz
        Processed bandwidth, not above the sampling rate.
    window_coefficient : float
        Hamming coefficient of the spectral weight in (0.5, 1], 1 is a rectangle.
    """

    sampling_rate_hz: float
    bandwidth_hz: float
    window_coefficient: float


def wavenumber_shift_hz(
    perpendicular_baseline_m: ArrayLike,
    wavelength_m: float,
    slant_range_m: ArrayLike,
    incidence_rad: ArrayLike,
    slope_rad: ArrayLike = 0.0,
) -> NDArray[np.float64]:
    """Return by how much the secondary's band lies above that of the reference.

    Parameters
    ----------
    perpendicular_baseline_m : array_like, m
        Of the secondary relative to the reference, positive upwards and to the look side.
    wavelength_m : float, m
        Radar wavelength, positive.
    slant_range_m : array_like, m
        Distance of the ground, positive.
    incidence_rad : array_like, rad
        Incidence angle at the ellipsoid.
    slope_rad : array_like, rad, default 0
        Slope of the ground in range, positive where it faces the radar.

    Returns
    -------
    ndarray
        float64 of the broadcast shape, Hz, signed, for *flattened* images.

    Raises
    ------
    ValueError
        If wavelength or range are not positive, or the ground is seen edge on (the incidence on
        it is not within (0, pi / 2): layover and shadow).

    Notes
    -----
    A scatterer at ``R`` appears in a flattened image as ``exp(-4 pi j R / lambda) p(r - R)``, with
    the pulse of the secondary multiplied by ``exp(4 pi j d (r - R) / lambda)`` where ``d`` is the
    derivative of ``R_secondary - R_reference`` along the ground with respect to range. That shifts
    its band by ``c d / lambda``. A step ``dr`` turns the line of sight by ``dr / (R tan(theta -
    slope))``, and ``R_secondary - R_reference`` falls by the perpendicular baseline per radian:
    ``shift = -c B / (lambda R tan(theta - slope))`` [1]_.

    References
    ----------
    .. [1] Gatelli et al., "The wavenumber shift in SAR interferometry", IEEE TGRS 32, 1994.
    """
    incidence = np.asarray(incidence_rad, np.float64) - np.asarray(slope_rad, np.float64)
    distance = np.asarray(slant_range_m, np.float64)
    if wavelength_m <= 0.0 or np.any(distance <= 0.0):
        raise ValueError(
            "wavelength_m and slant_range_m must be positive, instead got "
            f"{wavelength_m} and {distance.min()}"
        )
    if np.any(incidence <= 0.0) or np.any(incidence >= 0.5 * np.pi):
        raise ValueError(
            "incidence_rad - slope_rad must be within (0, pi / 2), instead got "
            f"{incidence.min()} .. {incidence.max()}"
        )
    baseline = np.asarray(perpendicular_baseline_m, np.float64)
    shift = -SPEED_OF_LIGHT_M_S * baseline / (wavelength_m * distance * np.tan(incidence))
    return np.asarray(shift, np.float64)


def filter_common_band(
    reference: NDArray[np.complex64],
    secondary: NDArray[np.complex64],
    shift_hz: float | NDArray[np.float64],
    band: RangeBand,
    *,
    reference_center_hz: float | NDArray[np.float64] = 0.0,
    first_sample: int = 0,
) -> tuple[NDArray[np.complex64], NDArray[np.complex64]]:
    """Filter two coregistered, flattened images to the range band that they share.

    Parameters
    ----------
    reference, secondary : ndarray
        complex64 ``(azimuth, range)``; 0 + 0j and NaN mark missing pixels.
    shift_hz : float or ndarray, Hz
        Centre of the secondary's band minus that of the reference, see `wavenumber_shift_hz`; one
        number, or float64 ``(range,)``. A block of samples uses its mean.
    band : RangeBand
        Sampling and weight of the range spectrum, the same for both images.
    reference_center_hz : float or ndarray, Hz, default 0
        Centre of the reference's band; zero unless it was flattened itself, against a third date:
        then it is that pair's shift.
    first_sample : int, default 0
        Sample of the scene at which the arrays begin.

    Returns
    -------
    tuple of ndarray
        Both images, complex64, of the shape of the input; 0 + 0j at their missing pixels, and
        everywhere where the bands have nothing in common.

    Raises
    ------
    ValueError
        If shapes or types differ or the band makes no sense.

    Notes
    -----
    With the processor's weight ``W(f) = a + (1 - a) cos(2 pi f / B)``, the shift ``D`` and the
    common bandwidth ``B' = B - |D|``, the image with its band at ``c_i`` is multiplied by
    ``sqrt(B / B') W'(f - c) / W(f - c_i)``: ``c`` is the middle of both, and ``W'`` the same
    weight over ``B'``. Both spectra are then equal, and white reflectivity keeps its intensity.
    Resolution in range becomes coarser by ``B / B'``.
    """
    check_images(reference, secondary)
    _check_band(band)
    samples = reference.shape[1]
    centres = [_per_sample("reference_center_hz", reference_center_hz, samples)]
    centres.append(centres[0] + _per_sample("shift_hz", shift_hz, samples))
    valid = [np.abs(image) > 0.0 for image in (reference, secondary)]
    images = [
        np.where(mask, image, np.complex64(0.0))
        for mask, image in zip(valid, (reference, secondary), strict=True)
    ]
    results = (np.zeros_like(images[0]), np.zeros_like(images[1]))
    ramp = (np.arange(HOP, dtype=np.float32) + np.float32(0.5)) / np.float32(HOP)
    weight = np.concatenate([ramp, ramp[::-1]])
    # The first block that reaches the array: the grid is that of the scene.
    start = ((first_sample - BLOCK) // HOP + 1) * HOP - first_sample
    for left in range(start, samples, HOP):
        inside = slice(max(0, left), min(samples, left + BLOCK))
        first, second = (float(np.mean(centre[inside])) for centre in centres)
        responses = _responses(first, second, band)
        if responses is None:
            continue
        for image, response, result in zip(images, responses, results, strict=True):
            _filter_block(image, (left, inside), response, weight, result)
    for mask, result in zip(valid, results, strict=True):
        np.multiply(result, mask, out=result)
    return results


def _check_band(band: RangeBand) -> None:
    if not 0.0 < band.bandwidth_hz <= band.sampling_rate_hz:
        raise ValueError(
            "band.bandwidth_hz must be within (0, sampling_rate_hz], instead got "
            f"{band.bandwidth_hz} and {band.sampling_rate_hz}"
        )
    if not 0.5 < band.window_coefficient <= 1.0:
        raise ValueError(
            f"band.window_coefficient must be within (0.5, 1], got {band.window_coefficient}"
        )


def _per_sample(name: str, value: float | NDArray[np.float64], samples: int) -> NDArray[np.float64]:
    values = np.asarray(value, np.float64)
    if values.shape not in ((), (samples,)) or not np.isfinite(values).all():
        raise ValueError(
            f"{name} must be a finite number or one per sample ({samples},), instead got "
            f"{values.shape}"
        )
    return np.broadcast_to(values, (samples,))


def _responses(
    first_hz: float, second_hz: float, band: RangeBand
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Return the factors of both spectra, None where the bands have less than a bin in common."""
    common = band.bandwidth_hz - abs(second_hz - first_hz)
    if common < band.sampling_rate_hz / BLOCK:
        return None
    frequency = fft.fftfreq(BLOCK, 1.0 / band.sampling_rate_hz)

    def weight(centre_hz: float, width_hz: float) -> NDArray[np.float64]:
        a = band.window_coefficient
        return np.asarray(a + (1.0 - a) * np.cos(2.0 * np.pi * offset(centre_hz) / width_hz))

    def offset(centre_hz: float) -> NDArray[np.float64]:
        # Flattening may have pushed a band over the edge of the sampled spectrum: it is cyclic.
        turns = (frequency - centre_hz) / band.sampling_rate_hz
        return np.asarray((turns - np.rint(turns)) * band.sampling_rate_hz)

    middle = 0.5 * (first_hz + second_hz)
    inside = np.abs(offset(middle)) <= 0.5 * common
    wanted = np.where(inside, np.sqrt(band.bandwidth_hz / common) * weight(middle, common), 0.0)
    one, two = (
        (wanted / np.where(inside, weight(centre, band.bandwidth_hz), 1.0)).astype(np.float32)
        for centre in (first_hz, second_hz)
    )
    return one, two


def _filter_block(
    image: NDArray[np.complex64],
    place: tuple[int, slice],
    response: NDArray[np.float32],
    weight: NDArray[np.float32],
    result: NDArray[np.complex64],
) -> None:
    """Add one block of samples of all lines, a strip of lines at a time."""
    left, inside = place
    part = slice(inside.start - left, inside.stop - left)
    for top in range(0, image.shape[0], STRIP_LINES):
        lines = slice(top, top + STRIP_LINES)
        block = image[lines, inside]
        if block.shape[1] < BLOCK:
            block = np.pad(block, ((0, 0), (part.start, BLOCK - part.stop)))
        spectrum = fft.fft(block, axis=1)
        spectrum *= response
        block = fft.ifft(spectrum, axis=1, overwrite_x=True)
        block *= weight
        result[lines, inside] += block[:, part]
