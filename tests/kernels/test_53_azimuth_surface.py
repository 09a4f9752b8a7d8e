"""Surfaces of azimuth shifts against polynomials and noise that the test has drawn."""

import numpy as np
import pytest

from bperp.kernels.azimuth_surface import evaluate_azimuth_surface, fit_azimuth_surface

LINE, SAMPLE = (
    axis.ravel()
    for axis in np.meshgrid(1342.0 * np.arange(1, 10), np.linspace(1300, 20200, 8), indexing="ij")
)
"""Nine overlaps of one swath in eight parts."""
Y, X = 2 * (LINE - LINE.mean()) / np.ptp(LINE), 2 * (SAMPLE - SAMPLE.mean()) / np.ptp(SAMPLE)


def draw(seed, surface):
    rng = np.random.default_rng(seed)
    sigma = rng.uniform(2e-4, 8e-4, LINE.size)
    return 3.1e-3 + surface + sigma * rng.standard_normal(LINE.size), sigma


def test_a_ramp_of_the_ionosphere_is_recovered():
    errors, scores = [], []
    for seed in range(50):
        shift, sigma = draw(seed, 2e-3 * Y)
        fit = fit_azimuth_surface(LINE, SAMPLE, shift, sigma)
        assert fit.significant
        found = evaluate_azimuth_surface(fit, LINE, SAMPLE)
        assert abs(found.mean()) < 1e-12
        errors.append(found - 2e-3 * Y)
        scores.append(
            [
                (fit.constant_lines - 3.1e-3) / fit.sigma_lines,
                (fit.coefficients[0] - 2e-3) / fit.coefficient_sigmas[0],
            ]
        )
    assert np.sqrt(np.mean(np.square(errors))) < 1e-4
    assert (np.abs(np.mean(scores, axis=0)) < 4 / np.sqrt(50)).all()
    assert ((np.std(scores, axis=0) > 0.75) & (np.std(scores, axis=0) < 1.25)).all()


def test_noise_has_no_surface():
    fits = [fit_azimuth_surface(LINE, SAMPLE, *draw(seed, 0.0)) for seed in range(200)]
    assert np.mean([fit.significant for fit in fits]) <= 0.05
    flat = next(fit for fit in fits if not fit.significant)
    assert (flat.degree, flat.coefficients.any(), flat.coefficient_sigmas.any()) == (
        0,
        False,
        False,
    )
    assert (evaluate_azimuth_surface(flat, LINE, SAMPLE) == 0).all()
    scores = [(fit.constant_lines - 3.1e-3) / fit.sigma_lines for fit in fits]
    assert 0.8 < np.std(scores) < 1.25


def test_noise_larger_than_sigma_has_no_surface_either():
    results = []
    for seed in range(100):
        shift, sigma = draw(seed, 0.0)
        fit = fit_azimuth_surface(LINE, SAMPLE, shift, sigma / 3)
        assert fit.chi2 > 4
        results.append((fit.significant, (fit.constant_lines - 3.1e-3) / fit.sigma_lines))
    assert np.mean([significant for significant, _ in results]) <= 0.05
    assert 0.75 < np.std([score for _, score in results]) < 1.25


def test_curvature_takes_the_second_degree():
    truth = 1e-3 * Y**2 - 7e-4 * X * Y
    shift, sigma = draw(1, truth)
    fit = fit_azimuth_surface(LINE, SAMPLE, shift, sigma)
    assert (fit.degree, fit.significant) == (2, True)
    found = evaluate_azimuth_surface(fit, LINE, SAMPLE)
    assert np.sqrt(np.mean((found - truth + truth.mean()) ** 2)) < 2e-4
    assert fit.constant_lines == pytest.approx(3.1e-3 + truth.mean(), abs=4 * fit.sigma_lines)
    line_only = fit_azimuth_surface(LINE, SAMPLE, shift, sigma, degree=1)
    assert line_only.degree < 2
    assert fit_azimuth_surface(LINE, SAMPLE, shift, sigma, degree=0).chance == 1.0


def test_outliers_and_missing_blocks_are_left_out():
    shift, sigma = draw(2, 2e-3 * Y)
    clean = fit_azimuth_surface(LINE, SAMPLE, shift, sigma)
    shift[[3, 17, 40, 71]] += 0.03
    shift[5], sigma[9] = np.nan, np.inf
    fit = fit_azimuth_surface(LINE, SAMPLE, shift, sigma)
    assert fit.used == LINE.size - 6
    assert fit.chi2 < 2
    assert fit.coefficients[0] == pytest.approx(clean.coefficients[0], abs=2e-4)
    assert fit.constant_lines == pytest.approx(clean.constant_lines, abs=1e-4)


def test_unit_and_origin_of_positions_do_not_matter():
    shift, sigma = draw(3, 2e-3 * Y + 1e-3 * X)
    fit = fit_azimuth_surface(LINE, SAMPLE, shift, sigma)
    other = fit_azimuth_surface(5e5 + 0.1 * LINE, 3 * SAMPLE - 100, shift, sigma)
    np.testing.assert_allclose(other.coefficients, fit.coefficients, atol=1e-12)
    here = evaluate_azimuth_surface(fit, LINE[:, None], SAMPLE[None, :5])
    there = evaluate_azimuth_surface(other, 5e5 + 0.1 * LINE[:, None], 3 * SAMPLE[None, :5] - 100)
    assert here.shape == (72, 5)
    np.testing.assert_allclose(there, here, atol=1e-12)


def test_outside_the_blocks_the_surface_stays_level():
    shift, sigma = draw(4, 2e-3 * Y)
    fit = fit_azimuth_surface(LINE, SAMPLE, shift, sigma)
    last = evaluate_azimuth_surface(fit, LINE.max(), 9000.0)
    assert evaluate_azimuth_surface(fit, LINE.max() + 1342, 9000.0) == last


def test_terms_that_the_blocks_cannot_tell_are_left_out():
    shift, sigma = draw(5, 2e-3 * X)
    row = LINE[0] == LINE  # one overlap: nothing along the line
    fit = fit_azimuth_surface(LINE[row], SAMPLE[row], shift[row], sigma[row] / 10)
    assert fit.coefficients[0] == 0
    shift, sigma = draw(6, 2e-3 * Y)
    column = SAMPLE[0] == SAMPLE  # one block per overlap
    fit = fit_azimuth_surface(LINE[column], SAMPLE[column], shift[column], sigma[column])
    assert fit.significant
    assert not fit.coefficients[[1, 3, 4]].any()


def test_few_blocks_make_a_constant():
    for count in (1, 2, 5):
        fit = fit_azimuth_surface(
            LINE[:count], SAMPLE[:count], np.full(count, 2e-3), np.full(count, 1e-4)
        )
        assert fit.constant_lines == pytest.approx(2e-3)
        assert fit.sigma_lines == pytest.approx(1e-4 / np.sqrt(count))
        assert not fit.significant
    none = fit_azimuth_surface(LINE, SAMPLE, 0 * LINE, np.full(LINE.size, np.inf))
    assert none[:2] == (0.0, np.inf)
    assert none.used == 0
    assert evaluate_azimuth_surface(none, 3.0, 4.0) == 0


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="one length"):
        fit_azimuth_surface(LINE, SAMPLE[1:], LINE, LINE)
    with pytest.raises(ValueError, match="positive"):
        fit_azimuth_surface(LINE, SAMPLE, LINE, -LINE)
    with pytest.raises(ValueError, match="degree"):
        fit_azimuth_surface(LINE, SAMPLE, LINE, LINE, degree=3)
