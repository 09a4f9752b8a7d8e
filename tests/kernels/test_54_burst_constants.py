"""Burst constants from phases written down, and seam phases from simulated speckle."""

import numpy as np
import pytest

from bperp.kernels.burst_constants import seam_phase, solve_burst_constants

SWATHS, BURSTS = 3, 4


def grid_seams():
    """Return the seams of 3 swaths x 4 bursts: next burst, and next swath."""
    number = np.arange(SWATHS * BURSTS).reshape(SWATHS, BURSTS)
    along = np.stack([number[:, :-1].ravel(), number[:, 1:].ravel()], axis=1)
    across = np.stack([number[:-1].ravel(), number[1:].ravel()], axis=1)
    return np.concatenate([along, across])


def wrap(phase):
    return np.angle(np.exp(1j * np.asarray(phase)))


def interferogram_pair(rng, coherence, phase, shape=(60, 900)):
    """Return interferograms of two bursts: same fringes, independent speckle."""
    fringes = np.exp(1j * np.linspace(0, 6, shape[1]))
    parts = []
    for constant in (phase, 0.0):
        first, noise = (
            rng.standard_normal(shape) + 1j * rng.standard_normal(shape) for _ in range(2)
        )
        second = coherence * first + np.sqrt(1 - coherence**2) * noise
        part = first * second.conj() * fringes * np.exp(1j * constant)
        parts.append(part.astype(np.complex64))
    return parts


@pytest.mark.parametrize("phase", [0.0, 1.5, -3.1, 3.1])
def test_seam_phase_of_noisy_interferograms(phase):
    result = seam_phase(*interferogram_pair(np.random.default_rng(0), 0.5, phase))
    assert abs(wrap(result.phase_rad - phase)) < 4 * result.sigma_rad
    # Cramer-Rao for two interferograms of 54000 independent looks.
    bound = np.sqrt(1 - 0.25) / (0.5 * np.sqrt(60 * 900))
    assert 0.85 * bound < result.sigma_rad < 1.4 * bound
    assert result.looks == 60 * 900


def test_seam_sigma_is_calibrated():
    rng = np.random.default_rng(1)
    scores = []
    for coherence in (0.2, 0.8):
        for _ in range(60):
            pair = interferogram_pair(rng, coherence, 1.0, (50, 300))
            result = seam_phase(*pair)
            scores.append((result.phase_rad - 1.0) / result.sigma_rad)
    assert 0.8 < np.std(scores) < 1.25


def test_seam_of_averaged_interferograms():
    single = interferogram_pair(np.random.default_rng(2), 0.4, 1.5, (200, 1500))
    averaged = [
        part.reshape(50, 4, 150, 10).mean(axis=(1, 3)).astype(np.complex64) for part in single
    ]
    result = seam_phase(*averaged, looks=(2, 3))
    assert result.phase_rad == pytest.approx(1.5, abs=4 * result.sigma_rad)
    assert result.sigma_rad < 1.3 * np.sqrt(1 - 0.16) / (0.4 * np.sqrt(3e5))


def test_seam_without_coherence_or_pixels_has_no_phase():
    rng = np.random.default_rng(3)
    for _ in range(40):
        result = seam_phase(*interferogram_pair(rng, 0.0, 0.0, (40, 300)))
        assert (result.phase_rad, result.sigma_rad) == (0.0, np.inf)
    for shape in ((0, 10), (10, 0), (3, 4), (60, 900)):
        empty = np.zeros(shape, np.complex64)
        assert seam_phase(empty, empty) == (0.0, 0.0, np.inf, 0)


def test_seam_counts_common_pixels_only():
    upper, lower = interferogram_pair(np.random.default_rng(4), 0.9, 0.7)
    upper[:20], lower[:, 600:] = 0, np.nan
    result = seam_phase(upper, lower)
    assert result.looks == 40 * 600
    assert result.phase_rad == pytest.approx(0.7, abs=4 * result.sigma_rad)


def test_one_bright_target_does_not_decide_a_seam():
    upper, lower = interferogram_pair(np.random.default_rng(5), 0.5, 0.0)
    clean = seam_phase(upper, lower)
    upper[30, 400] = 1e6j
    lower[30, 400] = 1e6
    assert seam_phase(upper, lower).phase_rad == pytest.approx(clean.phase_rad, abs=0.03)


def test_constants_of_a_grid_without_noise():
    rng = np.random.default_rng(6)
    seams = grid_seams()
    for _ in range(20):
        truth = rng.uniform(-np.pi, np.pi, SWATHS * BURSTS)
        phase = wrap(truth[seams[:, 0]] - truth[seams[:, 1]])
        result = solve_burst_constants(seams, phase, np.full(len(seams), 0.05), truth.size)
        np.testing.assert_allclose(result.residual_rad, 0, atol=1e-9)
        difference = wrap(result.constant_rad - truth)
        np.testing.assert_allclose(wrap(difference - difference[0]), 0, atol=1e-9)
        assert ((result.constant_rad > -np.pi) & (result.constant_rad <= np.pi)).all()
        assert (result.component == 0).all()


def test_cross_sensor_offsets_with_noise():
    # Offsets of 1.4 to 1.65 rad as between different satellites; a mean of zero is the convention.
    rng = np.random.default_rng(7)
    seams = grid_seams()
    scores, chi2 = [], []
    for _ in range(200):
        truth = rng.uniform(1.4, 1.65, SWATHS * BURSTS) * rng.integers(0, 2, SWATHS * BURSTS)
        truth -= np.angle(np.exp(1j * truth).sum())
        sigma = rng.uniform(0.02, 0.15, len(seams))
        phase = truth[seams[:, 0]] - truth[seams[:, 1]] + sigma * rng.standard_normal(len(seams))
        result = solve_burst_constants(seams, wrap(phase), sigma, truth.size)
        scores.append(wrap(result.constant_rad - truth) / result.sigma_rad)
        chi2.append(result.chi2)
        assert abs(np.angle(np.exp(1j * result.constant_rad).sum())) < 1e-9
    assert np.abs(scores).max() < 6
    assert 0.8 < np.std(scores) < 1.25
    assert np.mean(chi2) == pytest.approx(1.0, abs=0.15)


def test_a_loop_shares_its_misclosure_by_precision():
    seams = np.array([[0, 1], [1, 2], [2, 0]])
    sigma = np.array([0.1, 0.1, 0.2])
    result = solve_burst_constants(seams, np.array([0.3, 0.3, 0.0]), sigma, 3)
    np.testing.assert_allclose(result.residual_rad, [0.1, 0.1, 0.4], atol=1e-12)
    np.testing.assert_allclose(result.constant_rad, [0.2, 0.0, -0.2], atol=1e-12)
    assert result.chi2 == pytest.approx(1 + 1 + 4)


def test_whole_turns_and_directions_of_seams_do_not_matter():
    rng = np.random.default_rng(8)
    seams = grid_seams()
    phase, sigma = rng.normal(0, 0.3, len(seams)), rng.uniform(0.1, 0.3, len(seams))
    result = solve_burst_constants(seams, phase, sigma, 12)
    turned = solve_burst_constants(
        seams[::-1, ::-1],
        -phase[::-1] + 2 * np.pi * rng.integers(-3, 4, len(seams)),
        sigma[::-1],
        12,
    )
    np.testing.assert_allclose(turned.constant_rad, result.constant_rad, atol=1e-9)
    np.testing.assert_allclose(turned.residual_rad[::-1], -result.residual_rad, atol=1e-9)


def test_parts_without_a_seam_between_them():
    seams = np.array([[0, 1], [3, 4], [1, 5]])
    phase, sigma = np.array([1.0, -2.0, 0.4]), np.array([0.1, 0.1, np.inf])
    result = solve_burst_constants(seams, phase, sigma, 6)
    assert result.component.tolist() == [0, 0, 1, 2, 2, 3]
    np.testing.assert_allclose(result.constant_rad, [0.5, -0.5, 0, -1, 1, 0], atol=1e-12)
    np.testing.assert_allclose(
        result.sigma_rad, [0.05, 0.05, np.inf, 0.05, 0.05, np.inf], atol=1e-9
    )
    assert np.isnan(result.residual_rad[2])
    assert np.isnan(result.chi2)
    alone = solve_burst_constants(np.zeros((0, 2)), np.zeros(0), np.zeros(0), 1)
    assert (alone.constant_rad.tolist(), alone.sigma_rad.tolist()) == ([0.0], [0.0])


def test_nonsense_is_refused():
    image = np.ones((10, 20), np.complex64)
    with pytest.raises(ValueError, match="one shape"):
        seam_phase(image, image[1:])
    with pytest.raises(ValueError, match="looks"):
        seam_phase(image, image, looks=(0, 3))
    one = np.ones(1)
    with pytest.raises(ValueError, match="seams must be"):
        solve_burst_constants(np.array([[0, 1]]), np.ones(2), one, 2)
    with pytest.raises(ValueError, match="seams must lie"):
        solve_burst_constants(np.array([[0, 2]]), one, one, 2)
    with pytest.raises(ValueError, match="different"):
        solve_burst_constants(np.array([[1, 1]]), one, one, 2)
    with pytest.raises(ValueError, match="positive"):
        solve_burst_constants(np.array([[0, 1]]), one, 0 * one, 2)
