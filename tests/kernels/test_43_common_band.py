"""The common band: ground seen from two orbits, and white reflectivity through shifted bands."""

import numpy as np
import pytest

from bperp.kernels.common_band import BLOCK, RangeBand, filter_common_band, wavenumber_shift_hz

LIGHT = 299_792_458.0
WAVELENGTH = 0.05546576
IW1 = RangeBand(64.345238e6, 56.5e6, 0.75)
PLAIN = RangeBand(64.345238e6, 56.5e6, 1.0)
INNER = np.s_[:, BLOCK:-BLOCK]


def white_pair(band, shift_hz, shape=(48, 6144), seed=1, center_hz=0.0):
    """Return two images of one white reflectivity through bands centred `shift_hz` apart.

    Made at twice the sampling rate: a band that leaves the sampled spectrum comes back with
    another part of the ground than what is there already.
    """
    rng = np.random.default_rng(seed)
    lines, samples = shape
    frequency = np.fft.fftfreq(2 * samples, 0.5 / band.sampling_rate_hz)
    ground = rng.standard_normal((lines, 2 * samples)) + 1j * rng.standard_normal(
        (lines, 2 * samples)
    )

    def seen(centre):
        away = frequency - centre
        a = band.window_coefficient
        weight = a + (1 - a) * np.cos(2 * np.pi * away / band.bandwidth_hz)
        weight[np.abs(away) > band.bandwidth_hz / 2] = 0
        return (500 * np.fft.ifft(ground * weight, axis=1)[:, ::2]).astype(np.complex64)

    return seen(center_hz), seen(center_hz + shift_hz)


def coherence(one, two):
    cross = np.vdot(two.astype(np.complex128), one)
    return abs(cross) / np.sqrt(np.vdot(one, one).real * np.vdot(two, two).real)


def intensity(image):
    return float(np.mean(np.abs(image.astype(np.complex128)) ** 2))


@pytest.mark.parametrize("share", [-0.6, -0.2, 0.05, 0.3])
def test_coherence_is_lost_by_the_shift_and_recovered(share):
    shift = share * PLAIN.bandwidth_hz
    one, two = white_pair(PLAIN, shift)
    assert coherence(one, two) == pytest.approx(1 - abs(share), abs=0.01)
    first, second = filter_common_band(one, two, shift, PLAIN)
    assert coherence(first[INNER], second[INNER]) > 0.97
    # The wrong sign leaves at most 1 - 2 s of the band in common, and 1 - s of the reference.
    wrong = filter_common_band(one, two, -shift, PLAIN)
    left = np.sqrt(max(0.0, 1 - 2 * abs(share)) / (1 - abs(share)))
    assert coherence(wrong[0][INNER], wrong[1][INNER]) < left + 0.01
    for before, after in ((one, first), (two, second)):
        assert intensity(after[INNER]) == pytest.approx(intensity(before[INNER]), rel=0.03)


@pytest.mark.parametrize("share", [-0.3, 0.15])
@pytest.mark.parametrize("center_hz", [0.0, 9e6])
def test_weighted_bands_are_recovered_wherever_they_lie(share, center_hz):
    shift = share * IW1.bandwidth_hz
    one, two = white_pair(IW1, shift, center_hz=center_hz)
    # Overlap of two Hamming weights, integrated over the common part.
    f = np.linspace(-0.5 + abs(share), 0.5, 20001)
    weights = [0.75 + 0.25 * np.cos(2 * np.pi * x) for x in (f, f - abs(share))]
    expected = np.mean(weights[0] * weights[1]) * (1 - abs(share)) / (0.75**2 + 0.25**2 / 2)
    assert coherence(one, two) == pytest.approx(expected, abs=0.01)
    first, second = filter_common_band(one, two, shift, IW1, reference_center_hz=center_hz)
    assert coherence(first[INNER], second[INNER]) > 0.985
    assert intensity(first[INNER]) == pytest.approx(intensity(one[INNER]), rel=0.03)
    assert intensity(second[INNER]) == pytest.approx(intensity(two[INNER]), rel=0.03)


def test_phase_of_the_interferogram_stays():
    shift = 0.2 * IW1.bandwidth_hz
    one, two = white_pair(IW1, shift, seed=2)
    two *= np.complex64(np.exp(-0.7j))
    first, second = filter_common_band(one, two, shift, IW1)
    assert np.angle(np.vdot(second[INNER], first[INNER])) == pytest.approx(0.7, abs=1e-3)


def test_zero_shift_changes_nothing_within_the_band():
    one, other = white_pair(IW1, 0.0, seed=3)[0], white_pair(IW1, 0.0, seed=4)[0]
    two = (0.8 * one + 0.6 * other).astype(np.complex64)
    first, second = filter_common_band(one, two, 0.0, IW1)
    before, after = coherence(one[INNER], two[INNER]), coherence(first[INNER], second[INNER])
    assert after == pytest.approx(before, abs=1e-3)
    assert intensity((first - one)[INNER]) < 1e-3 * intensity(one)


def test_nothing_is_left_beyond_the_critical_baseline():
    one, two = white_pair(PLAIN, 1.2 * PLAIN.bandwidth_hz, shape=(3, 2048))
    for image in filter_common_band(one, two, 1.2 * PLAIN.bandwidth_hz, PLAIN):
        assert (image == 0).all()


def test_shift_may_change_along_range():
    # The left and the right half are different pairs; each is filtered by its own shift.
    shifts = (0.25 * PLAIN.bandwidth_hz, -0.15 * PLAIN.bandwidth_hz)
    pairs = [white_pair(PLAIN, shift, seed=7) for shift in shifts]
    middle = 3072
    one, two = (np.hstack([a[:, :middle], b[:, middle:]]) for a, b in zip(*pairs, strict=True))
    shift = np.where(np.arange(one.shape[1]) < middle, *shifts)
    first, second = filter_common_band(one, two, shift, PLAIN)
    for part in (np.s_[:, BLOCK : middle - BLOCK], np.s_[:, middle + BLOCK : -BLOCK]):
        assert coherence(first[part], second[part]) > 0.97


def test_missing_pixels_stay_missing():
    one, two = white_pair(IW1, 5e6, shape=(8, 2048))
    one[2, 300:700] = 0
    two[:, -100:] = np.nan
    two[5] = 0
    first, second = filter_common_band(one, two, 5e6, IW1)
    assert np.isfinite(first).all()
    assert np.isfinite(second).all()
    assert np.array_equal(first == 0, one == 0)
    assert np.array_equal(second == 0, ~(np.abs(two) > 0))


@pytest.mark.parametrize("kind", ["number", "array"])
def test_tiles_with_a_halo_give_the_bytes_of_the_whole(kind):
    one, two = white_pair(IW1, 4e6, shape=(70, 4000))
    one[10:20, 900:1500] = 0
    shift = 4e6 if kind == "number" else np.linspace(2e6, 7e6, 4000)
    whole = filter_common_band(one, two, shift, IW1)
    for height, width in [(70, 1000), (13, 777), (1, 2048)]:
        for top in range(0, 70, max(height, 23)):
            for left in range(0, 4000, width):
                first, stop = max(0, left - BLOCK), left + width + BLOCK
                lines, samples = slice(top, top + height), slice(first, stop)
                part = filter_common_band(
                    one[lines, samples],
                    two[lines, samples],
                    shift if kind == "number" else shift[samples],
                    IW1,
                    first_sample=first,
                )
                for large, small in zip(whole, part, strict=True):
                    expected = large[lines, left : left + width]
                    found = small[:, left - first : left - first + width]
                    assert found.tobytes() == expected.tobytes()


def orbits(baseline_m, look_rad=0.6, range_m=850e3):
    """Return antennas above flat ground, the second displaced across the line of sight."""
    height = range_m * np.cos(look_rad)
    first = np.array([0.0, height])
    across = np.array([np.cos(look_rad), np.sin(look_rad)])  # to the look side and upwards
    return first, first + baseline_m * across, range_m * np.sin(look_rad)


@pytest.mark.parametrize("slope", [0.0, 0.3, -0.2])
@pytest.mark.parametrize("baseline", [150.0, -400.0])
def test_shift_follows_from_distances_over_sloping_ground(baseline, slope):
    first, second, ground = orbits(baseline)
    step = np.array([-10.0, 0.0, 10.0])
    # Ground that faces the radar rises away from it.
    points = np.stack([ground + step * np.cos(slope), step * np.sin(slope)], axis=1)
    near, far = (np.hypot(*(points - place).T) for place in (first, second))
    derivative = np.diff((far - near)[[0, 2]]) / np.diff(near[[0, 2]])
    expected = LIGHT / WAVELENGTH * derivative.item()
    found = wavenumber_shift_hz(baseline, WAVELENGTH, 850e3, 0.6, slope)
    assert found == pytest.approx(expected, rel=2e-3)


def test_ground_seen_from_two_orbits_becomes_coherent():
    # Random scatterers, exact distances, pulses in the frequency domain; nothing is assumed
    # about spectra.
    baseline, samples = 1500.0, 2560
    first, second, ground = orbits(baseline)
    rng = np.random.default_rng(9)
    spacing = 0.5 * LIGHT / PLAIN.sampling_rate_hz
    count = 4 * samples
    place = ground + (rng.uniform(0, samples, count) - samples / 2) * spacing / np.sin(0.6)
    strength = rng.standard_normal(count) + 1j * rng.standard_normal(count)
    points = np.stack([place, np.zeros(count)], axis=1)
    near, far = (np.hypot(*(points - antenna).T) for antenna in (first, second))
    start = near.min()
    frequency = np.fft.fftfreq(samples, 1 / PLAIN.sampling_rate_hz)
    grid = start + spacing * np.arange(samples)
    # The secondary is coregistered (pulses stand at the reference's range), then flattened.
    side = np.sqrt(grid**2 - first[1] ** 2)
    flat = np.hypot(side - second[0], second[1]) - grid
    phasors = strength * np.exp(-4j * np.pi * np.stack([near, far]) / WAVELENGTH)
    spectra = np.zeros((samples, 2), np.complex128)
    inside = np.abs(frequency) <= PLAIN.bandwidth_hz / 2
    for part in np.array_split(np.arange(count), 16):
        delay = 2 * (near[part] - start) / LIGHT
        turns = np.outer(frequency[inside], delay)
        spectra[inside] += np.exp(-2j * np.pi * turns) @ phasors[:, part].T
    turned = np.exp(4j * np.pi * np.stack([np.zeros(samples), flat]) / WAVELENGTH)
    images = [row[None] for row in (np.fft.ifft(spectra.T) * turned).astype(np.complex64)]
    shift = wavenumber_shift_hz(baseline, WAVELENGTH, 850e3, 0.6)
    expected = 1 - abs(shift) / PLAIN.bandwidth_hz
    assert expected < 0.8
    assert coherence(images[0][INNER], images[1][INNER]) == pytest.approx(expected, abs=0.04)
    filtered = filter_common_band(*images, float(shift), PLAIN)
    assert coherence(filtered[0][INNER], filtered[1][INNER]) > 0.97
    wrong = filter_common_band(*images, -float(shift), PLAIN)
    assert coherence(wrong[0][INNER], wrong[1][INNER]) < 0.9


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"secondary": np.ones((4, 9), np.complex64)}, "one shape"),
        ({"shift_hz": np.zeros(3)}, "shift_hz"),
        ({"shift_hz": float("nan")}, "shift_hz"),
        ({"reference_center_hz": np.zeros((4, 8))}, "reference_center_hz"),
        ({"band": RangeBand(50e6, 56e6, 0.75)}, "bandwidth_hz"),
        ({"band": RangeBand(64e6, 56e6, 0.5)}, "window_coefficient"),
    ],
)
def test_nonsense_is_refused(changes, words):
    image = np.ones((4, 8), np.complex64)
    arguments = {"reference": image, "secondary": image, "shift_hz": 0.0, "band": IW1}
    with pytest.raises(ValueError, match=words):
        filter_common_band(**(arguments | changes))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((100.0, 0.0, 8e5, 0.6), "wavelength_m"),
        ((100.0, 0.05, -1.0, 0.6), "slant_range_m"),
        ((100.0, 0.05, 8e5, 0.6, 0.6), "slope_rad"),
        ((100.0, 0.05, 8e5, 0.6, -1.0), "slope_rad"),
    ],
)
def test_impossible_geometry_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        wavenumber_shift_hz(*arguments)
