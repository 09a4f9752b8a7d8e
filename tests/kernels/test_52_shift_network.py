"""Networks of pairs whose true shifts, errors and outliers the test itself has drawn."""

import time

import numpy as np
import pytest

from bperp.kernels.shift_network import solve_shift_network


def draw(seed, dates=40, extra=20, outlier_share=0.0, largest=20.0):
    """Return pairs, measurements, sigmas, true shifts and which pairs are wrong."""
    rng = np.random.default_rng(seed)
    near = [(first, first + lag) for lag in (1, 2, 3, 4) for first in range(dates - lag)]
    far = [rng.choice(dates, 2, replace=False) for _ in range(extra)]
    pairs = np.concatenate([np.array(near), np.array(far, int).reshape(-1, 2)])
    truth = rng.normal(0, 5e-3, dates)
    truth -= truth[0]
    sigma = rng.uniform(1.5e-4, 3e-4, len(pairs))
    shift = truth[pairs[:, 1]] - truth[pairs[:, 0]] + sigma * rng.standard_normal(len(pairs))
    wrong = rng.random(len(pairs)) < outlier_share
    size = rng.uniform(5, largest, wrong.sum()) * rng.choice([-1, 1], wrong.sum())
    shift[wrong] += sigma[wrong] * size
    return pairs, shift, sigma, truth, wrong


def test_without_errors_it_is_the_plain_weighted_solution():
    pairs, shift, sigma, _, _ = draw(0, dates=12, extra=5)
    result = solve_shift_network(pairs, shift, sigma, 12, reference=3, outlier_threshold=1e6)
    design = np.zeros((len(pairs), 12))
    design[np.arange(len(pairs)), pairs[:, 1]] = 1
    design[np.arange(len(pairs)), pairs[:, 0]] = -1
    design = np.delete(design, 3, axis=1) / sigma[:, None]
    expected, squares = np.linalg.lstsq(design, shift / sigma, rcond=None)[:2]
    np.testing.assert_allclose(np.delete(result.shift, 3), expected, atol=1e-9)
    assert result.shift[3] == 0
    assert result.sigma[3] == 0
    covariance = np.linalg.inv(design.T @ design)
    np.testing.assert_allclose(np.delete(result.sigma, 3), np.sqrt(np.diag(covariance)), rtol=1e-5)
    freedom = len(pairs) - 11
    assert result.chi2 == pytest.approx(squares[0] / freedom, rel=1e-5)
    assert result.redundancy.sum() == pytest.approx(freedom)
    assert not result.outlier.any()


def test_shifts_are_good_to_2e_4_line_and_outliers_are_flagged():
    flags = np.zeros((2, 2))
    errors, scores = [], []
    for seed in range(30):
        pairs, shift, sigma, truth, wrong = draw(seed, outlier_share=0.1)
        result = solve_shift_network(pairs, shift, sigma, 40)
        for kind in (False, True):
            of_kind = result.outlier[wrong == kind]
            flags[int(kind)] += of_kind.sum(), of_kind.size
        errors.append((result.shift - truth)[1:])
        scores.append(errors[-1] / result.sigma[1:])
    assert np.sqrt(np.mean(np.square(errors))) < 2e-4
    assert flags[1, 0] >= 0.95 * flags[1, 1]
    assert flags[0, 0] <= 0.05 * flags[0, 1]
    assert 0.8 < np.std(scores) < 1.25


def test_sigma_chi2_and_flags_of_good_networks():
    results = []
    for seed in range(40):
        pairs, shift, sigma, truth, _ = draw(seed, dates=20, extra=0)
        results.append((solve_shift_network(pairs, shift, sigma, 20), truth))
    scores = [(result.shift - truth)[1:] / result.sigma[1:] for result, truth in results]
    assert 0.8 < np.std(scores) < 1.25
    assert np.mean([result.chi2 for result, _ in results]) == pytest.approx(1.0, abs=0.1)
    assert np.mean([result.outlier.mean() for result, _ in results]) < 0.01


def test_gross_errors_do_not_lead_into_a_wrong_valley():
    # Errors of up to hundreds of sigmas; sigma must own up where two of three pairs are wrong.
    bad = 0
    for seed in range(60):
        pairs, shift, sigma, truth, wrong = draw(seed, 24, 0, outlier_share=0.1, largest=400.0)
        result = solve_shift_network(pairs, shift, sigma, 24)
        error = np.abs(result.shift - truth)[1:]
        bad += bool(np.any(error > 6 * result.sigma[1:]))
        assert np.median(error) < 8e-4
        assert np.count_nonzero(result.outlier & ~wrong) <= 4
    assert bad <= 1


def test_dates_without_a_link_to_the_reference_have_no_shift():
    pairs = np.array([[0, 1], [1, 2], [0, 2], [3, 4], [2, 5]])
    shift = np.array([1e-3, 2e-3, 3e-3, 7e-3, 5e-3])
    sigma = np.array([1e-4, 1e-4, 1e-4, 1e-4, np.inf])
    result = solve_shift_network(pairs, shift, sigma, 7)
    assert result.connected.tolist() == [True, True, True, False, False, False, False]
    np.testing.assert_allclose(result.shift, [0, 1e-3, 3e-3, 0, 0, 0, 0], atol=1e-12)
    assert np.isinf(result.sigma[3:]).all()
    assert np.isnan(result.residual[3:]).all()
    assert not result.outlier.any()
    # Seen from the other part.
    other = solve_shift_network(pairs, shift, sigma, 7, reference=4)
    assert other.shift[3] == pytest.approx(-7e-3)
    assert other.connected.sum() == 2


def test_one_pair_is_believed_and_cannot_be_tested():
    result = solve_shift_network(np.array([[0, 1]]), np.array([0.02]), np.array([3e-4]), 2)
    assert result.shift.tolist() == [0, pytest.approx(0.02)]
    assert result.sigma.tolist() == [0, pytest.approx(3e-4)]
    assert result.redundancy[0] == 0
    assert not result.outlier[0]
    assert np.isnan(result.chi2)


def test_a_pair_without_checks_is_never_flagged():
    pairs, shift, sigma, _, _ = draw(3, dates=10, extra=0)
    pairs = np.concatenate([pairs, [[9, 10]]])
    result = solve_shift_network(pairs, np.append(shift, 0.5), np.append(sigma, 1e-4), 11)
    assert not result.outlier[-1]
    assert result.redundancy[-1] == 0
    assert result.shift[10] - result.shift[9] == pytest.approx(0.5)


def test_a_loop_that_does_not_close_accuses_all_its_pairs():
    pairs = np.array([[0, 1], [1, 2], [0, 2]])
    result = solve_shift_network(pairs, np.array([0.0, 0.0, 1e-2]), np.full(3, 2e-4), 3)
    assert result.outlier.all()
    np.testing.assert_allclose(np.abs(result.residual), 1e-2 / 3, rtol=1e-6)
    # Whichever of the three is wrong, the truth is 0 or 0.01 for each date.
    assert (result.sigma[1:] > 1e-3).all()
    assert result.chi2 > 100


def test_nothing_measured():
    for pairs, count in ((np.array([[0, 1], [1, 2]]), 2), (np.zeros((0, 2), int), 0)):
        result = solve_shift_network(pairs, np.zeros(count), np.full(count, np.inf), 3)
        assert result.shift.tolist() == [0, 0, 0]
        assert result.sigma.tolist() == [0, np.inf, np.inf]
        assert result.connected.tolist() == [True, False, False]
        assert not result.outlier.any()
    assert solve_shift_network(np.zeros((0, 2)), np.zeros(0), np.zeros(0), 1).shift.tolist() == [0]


def test_order_and_direction_of_pairs_do_not_matter():
    pairs, shift, sigma, _, _ = draw(4, outlier_share=0.1)
    result = solve_shift_network(pairs, shift, sigma, 40)
    order = np.random.default_rng(5).permutation(len(pairs))
    shuffled = solve_shift_network(pairs[order], shift[order], sigma[order], 40)
    turned = solve_shift_network(pairs[:, ::-1], -shift, sigma, 40)
    for other in (shuffled, turned):
        np.testing.assert_allclose(other.shift, result.shift, atol=1e-10)
        np.testing.assert_allclose(other.sigma, result.sigma, rtol=1e-6)
    assert (shuffled.outlier == result.outlier[order]).all()
    names = np.random.default_rng(6).permutation(40)
    renamed = solve_shift_network(names[pairs], shift, sigma, 40, reference=int(names[0]))
    np.testing.assert_allclose(renamed.shift[names], result.shift, atol=1e-10)


def test_too_small_sigmas_are_found_out():
    scores = []
    for seed in range(20):
        pairs, shift, sigma, truth, _ = draw(seed)
        result = solve_shift_network(pairs, shift, sigma / 4, 40)
        assert result.outlier.mean() < 0.05
        scores.append((result.shift - truth)[1:] / result.sigma[1:])
    assert 0.8 < np.std(scores) < 1.25


def test_large_networks_are_quick():
    pairs, shift, sigma, _, _ = draw(7, dates=300, extra=810, outlier_share=0.1)
    assert len(pairs) > 1990
    spent = []
    for _ in range(2):
        start = time.process_time()
        solve_shift_network(pairs, shift, sigma, 300)
        spent.append(time.process_time() - start)
    # Measured 0.13 s; a solution per round is cheap, dense matrices of pairs would take seconds.
    assert min(spent) < 2.0


def test_nonsense_is_refused():
    pairs, one = np.array([[0, 1]]), np.ones(1)
    with pytest.raises(ValueError, match="pairs must be"):
        solve_shift_network(pairs, np.ones(2), one, 2)
    with pytest.raises(ValueError, match="pairs must lie"):
        solve_shift_network(pairs, one, one, 1)
    with pytest.raises(ValueError, match="reference"):
        solve_shift_network(pairs, one, one, 2, reference=2)
    with pytest.raises(ValueError, match="two different"):
        solve_shift_network(np.array([[1, 1]]), one, one, 2)
    with pytest.raises(ValueError, match="positive"):
        solve_shift_network(pairs, one, -one, 2)
