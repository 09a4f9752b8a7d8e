"""The adaptive filter against scipy.fft, on fringes of known frequency, and cut into tiles."""

import numpy as np
import pytest
from scipy import fft, ndimage

from bperp.kernels.goldstein import filter_goldstein
from bperp.kernels.patch_fourier import LANES, transform, transform_back, turning_factors


def noisy_fringes(shape, seed, scatter=1.0, cycles=(0.031, 0.047)):
    """Return multilook-like samples: fringes of modulus 2 plus circular noise, and their truth."""
    rng = np.random.default_rng(seed)
    line, sample = np.mgrid[0 : shape[0], 0 : shape[1]]
    truth = 2 * np.pi * (cycles[0] * line + cycles[1] * sample)
    noise = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    return (2 * np.exp(1j * truth) + scatter * noise).astype(np.complex64), truth


def plain_filter(image, strength, window, overlap, unit_modulus):
    """Filter patch by patch with scipy in double precision."""
    valid = np.isfinite(image) & (image != 0)
    samples = np.where(valid, image, 0).astype(np.complex128)
    if unit_modulus:
        samples[valid] /= np.abs(samples[valid])
    known = valid & np.isfinite(strength)
    exponent = np.broadcast_to(strength, image.shape)
    step = round(window * (1 - overlap))
    samples, exponent, known = (np.pad(a, window) for a in (samples, exponent, known))
    ramp = 1 - np.abs((np.arange(window) + 0.5) / (window / 2) - 1)
    weight = np.outer(ramp, ramp) * (2 * step / window) ** 2
    result = np.zeros_like(samples)
    for top in range(0, samples.shape[0] - window + 1, step):
        for left in range(0, samples.shape[1] - window + 1, step):
            part = (slice(top, top + window), slice(left, left + window))
            if not samples[part].any():
                continue
            spectrum = fft.fft2(samples[part])
            level = ndimage.uniform_filter(np.abs(spectrum), 3, mode="wrap")
            alpha = strength
            if np.ndim(strength):
                alpha = 1 - exponent[part][known[part]].mean() if known[part].any() else 0
            gain = (level / level.max()) ** alpha
            result[part] += weight * fft.ifft2(spectrum * gain)
    inside = result[window:-window, window:-window]
    return np.where(valid, inside, 0)


@pytest.mark.parametrize("points", [16, 32, 64])
def test_transforms_agree_with_scipy(points):
    rng = np.random.default_rng(1)
    values = rng.standard_normal((2, points, LANES)).astype(np.float32)
    column, spectrum, back = values.ravel().copy(), *np.zeros((2, values.size), np.float32)
    scratch = (np.zeros_like(column), np.zeros_like(column), turning_factors(points))
    zero = np.uint64(0)
    transform(column, zero, spectrum, zero, points, scratch)
    expected = fft.fft(values[0] + 1j * values[1].astype(np.float64), axis=0)
    parts = spectrum.reshape(2, points, LANES)
    assert np.abs(parts[0] + 1j * parts[1] - expected).max() < 1e-6 * np.abs(expected).max()
    transform_back(spectrum, zero, back, zero, points, scratch)
    assert np.allclose(back / points, column, atol=2e-6)
    # Source and target may be one.
    transform(column, zero, column, zero, points, scratch)
    assert np.array_equal(column, spectrum)


@pytest.mark.parametrize("window", [16, 32, 64])
@pytest.mark.parametrize("overlap", [0.5, 0.75])
@pytest.mark.parametrize("kind", ["mild", "full", "coherence"])
@pytest.mark.parametrize("unit_modulus", [True, False])
def test_agrees_with_the_plain_filter(window, overlap, kind, unit_modulus):
    image, _ = noisy_fringes((70, 330), 2)
    image[10:22, 40:70] = 0
    image[50, 3] = complex(np.nan, 1.0)
    strength = {"mild": 0.3, "full": 1.0}.get(kind)
    if strength is None:
        rng = np.random.default_rng(3)
        strength = np.clip(rng.normal(0.5, 0.3, image.shape), 0, 1).astype(np.float32)
        strength[:30, 300:] = 0.99
        strength[60, 8] = np.nan
    found = filter_goldstein(
        image, strength, window=window, overlap=overlap, unit_modulus=unit_modulus
    )
    expected = plain_filter(image, strength, window, overlap, unit_modulus)
    assert found.dtype == np.complex64
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    assert np.abs(expected).max() > 0.8


@pytest.mark.parametrize("overlap", [0.5, 0.75])
def test_zero_strength_changes_nothing(overlap):
    image, _ = noisy_fringes((83, 101), 4)
    image[5:9, 7:30] = 0
    found = filter_goldstein(image, 0.0, overlap=overlap, unit_modulus=False)
    assert np.abs(found - image).max() < 1e-6 * np.abs(image).max()
    phasor = filter_goldstein(image, 0.0, overlap=overlap)
    valid = image != 0
    assert np.abs(phasor[valid] - image[valid] / np.abs(image[valid])).max() < 1e-6
    # Full coherence is zero strength.
    assert np.array_equal(
        phasor, filter_goldstein(image, np.ones(image.shape, np.float32), overlap=overlap)
    )


@pytest.mark.parametrize("window", [16, 32, 64])
@pytest.mark.parametrize("unit_modulus", [True, False])
def test_fringes_keep_their_phase_and_lose_their_noise(window, unit_modulus):
    image, truth = noisy_fringes((256, 256), 5)
    found = filter_goldstein(image, 1.0, window=window, unit_modulus=unit_modulus)
    before = np.angle(image * np.exp(-1j * truth))
    after = np.angle(found * np.exp(-1j * truth))
    assert np.abs(after.mean()) < 0.02
    assert after.std() < 0.5 * before.std()
    # Nor is any quarter of the image, or its border, biased.
    for part in (np.s_[:128, :128], np.s_[128:, :128], np.s_[:, 128:], np.s_[:4], np.s_[:, -4:]):
        assert np.abs(after[part].mean()) < 0.03


def test_filter_is_stronger_where_coherence_is_low():
    image, truth = noisy_fringes((128, 512), 6)
    coherence = np.full(image.shape, 0.9, np.float32)
    coherence[:, 256:] = 0.1
    error = np.angle(filter_goldstein(image, coherence) * np.exp(-1j * truth))
    left, right = error[:, 32:224], error[:, 288:480]
    assert right.std() < 0.7 * left.std()


def test_modulus_tells_fringes_from_noise():
    fringes, _ = noisy_fringes((128, 256), 7, scatter=0.0)
    noise, _ = noisy_fringes((128, 256), 8, scatter=50.0)
    inner = np.s_[32:-32, 32:-32]
    assert np.median(np.abs(filter_goldstein(fringes, 0.8))[inner]) > 0.95
    assert np.median(np.abs(filter_goldstein(noise, 0.8))[inner]) < 0.8
    assert np.median(np.abs(filter_goldstein(noise, 1.0))[inner]) < 0.7


def test_bright_scatterer_switches_the_filter_off_only_without_unit_modulus():
    image, truth = noisy_fringes((96, 96), 9)
    image[48, 48] *= 1e4
    around = np.ones(image.shape, bool)
    around[46:51, 46:51] = False
    around[:32], around[-32:], around[:, :32], around[:, -32:] = False, False, False, False
    turn = np.exp(-1j * truth)
    phasors = np.angle(filter_goldstein(image, 1.0) * turn)[around].std()
    samples = np.angle(filter_goldstein(image, 1.0, unit_modulus=False) * turn)[around].std()
    assert phasors < 0.5 * samples


def test_conjugate_of_the_image_gives_the_conjugate():
    image, _ = noisy_fringes((64, 300), 10)
    one = filter_goldstein(image, 0.7).conj()
    two = filter_goldstein(image.conj(), 0.7)
    assert np.abs(one - two).max() < 2e-6


def test_missing_pixels_stay_zero_and_count_as_zero():
    image, _ = noisy_fringes((64, 128), 11)
    holes = [np.s_[10:20, 30:50], np.s_[40, 60], np.s_[:, -5:]]
    results = []
    for filling in (0, complex(np.nan, 0), complex(0, np.nan), complex(np.inf, 1)):
        spoilt = image.copy()
        for hole in holes:
            spoilt[hole] = filling
        results.append(filter_goldstein(spoilt, 0.8))
    assert np.isfinite(results[0]).all()
    missing = np.zeros(image.shape, bool)
    for hole in holes:
        missing[hole] = True
    assert (results[0][missing] == 0).all()
    assert (results[0][~missing] != 0).all()
    for other in results[1:]:
        assert results[0].tobytes() == other.tobytes()
    nothing = np.full((40, 50), np.nan, np.complex64)
    assert (filter_goldstein(nothing, 0.5) == 0).all()
    assert (filter_goldstein(nothing, np.zeros((40, 50), np.float32)) == 0).all()


TILINGS = [(64, 64), (40, 333), (17, 91), (130, 7)]


@pytest.mark.parametrize(("window", "overlap"), [(32, 0.5), (32, 0.75), (16, 0.75), (64, 0.5)])
@pytest.mark.parametrize("kind", ["number", "coherence"])
def test_tiles_with_a_halo_give_the_bytes_of_the_whole(window, overlap, kind):
    image, _ = noisy_fringes((131, 700), 12)
    image[60:75, 200:260] = 0
    image[:, :9] = np.nan
    rng = np.random.default_rng(13)
    strength = 0.6 if kind == "number" else rng.uniform(0, 1, image.shape).astype(np.float32)
    options = {"window": window, "overlap": overlap, "unit_modulus": kind == "number"}
    whole = filter_goldstein(image, strength, **options)
    for height, width in TILINGS:
        tiles = np.zeros_like(whole)
        for top in range(0, image.shape[0], height):
            for left in range(0, image.shape[1], width):
                bottom, right = top + height, left + width
                first, start = max(0, top - window), max(0, left - window)
                part = np.s_[first : bottom + window, start : right + window]
                lines, samples = image[part].shape
                found = filter_goldstein(
                    image[part],
                    strength if kind == "number" else strength[part],
                    origin=(first, start),
                    interior=(top - first, min(lines, bottom - first),
                              left - start, min(samples, right - start)),
                    **options,
                )  # fmt: skip
                tiles[top:bottom, left:right] = found
        assert tiles.tobytes() == whole.tobytes(), (height, width)


def test_interior_is_the_part_of_the_whole_and_origin_moves_the_patches():
    image, _ = noisy_fringes((90, 400), 14)
    whole = filter_goldstein(image, 0.5)
    part = filter_goldstein(image, 0.5, interior=(13, 77, 250, 301))
    assert part.tobytes() == whole[13:77, 250:301].tobytes()
    assert filter_goldstein(image, 0.5, interior=(5, 5, 0, 9)).shape == (0, 9)
    # The grid repeats every step: 16 lines and samples.
    assert np.allclose(filter_goldstein(image, 0.5, origin=(-16, 48)), whole, atol=1e-5)
    assert not np.allclose(filter_goldstein(image, 0.5, origin=(5, 0)), whole, atol=1e-3)


def test_strided_images_are_accepted():
    image, _ = noisy_fringes((80, 160), 15)
    coherence = np.linspace(0, 1, image.size, dtype=np.float32).reshape(image.shape)
    one = filter_goldstein(image[::2, ::2], coherence[::2, ::2])
    two = filter_goldstein(image[::2, ::2].copy(), coherence[::2, ::2].copy())
    assert one.tobytes() == two.tobytes()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"interferogram": np.ones((4, 4), np.complex128)}, "complex64"),
        ({"interferogram": np.ones(4, np.complex64)}, "azimuth, range"),
        ({"strength": 1.5}, "strength"),
        ({"strength": float("nan")}, "strength"),
        ({"strength": np.ones((4, 5), np.float32)}, "strength"),
        ({"strength": np.ones((4, 4))}, "float32"),
        ({"window": 24}, "window"),
        ({"overlap": 0.6}, "overlap"),
        ({"interior": (0, 5, 0, 4)}, "interior"),
    ],
)
def test_nonsense_is_refused(changes, words):
    arguments = {"interferogram": np.ones((4, 4), np.complex64), "strength": 0.5}
    with pytest.raises(ValueError, match=words):
        filter_goldstein(**(arguments | changes))
