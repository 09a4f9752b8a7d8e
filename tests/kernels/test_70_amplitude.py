"""Amplitude statistics against plain numpy in float64 and against Rayleigh and Rice theory."""

from __future__ import annotations

import time

import numpy as np
import pytest

from bperp.kernels import amplitude
from bperp.kernels.amplitude import accumulate_calibration, amplitude_statistics


def clutter(shape, seed=0):
    rng = np.random.default_rng(seed)
    parts = rng.standard_normal((*shape, 2), np.float32)
    return parts.view(np.complex64)[..., 0]


def test_equals_float64_definition():
    stack = clutter((13, 7, 19)) * 300
    constant = np.random.default_rng(1).uniform(0.5, 2.0, 13)
    dispersion, mean = amplitude_statistics(stack, constant)
    reference = np.abs(stack.astype(np.complex128)) / constant[:, None, None]
    np.testing.assert_allclose(mean, reference.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(
        dispersion, reference.std(axis=0) / reference.mean(axis=0), rtol=2e-6
    )


def test_python_body_equals_compiled():
    stack = clutter((3, 2, 5))
    samples = stack.view(np.float32).reshape(3, 2, 5, 2)
    compiled = amplitude_statistics(stack, np.ones(3))
    plain = (np.full((2, 5), np.nan, np.float32), np.full((2, 5), np.nan, np.float32))
    amplitude._dispersion_kernel.py_func(samples, np.ones(3), *plain)
    np.testing.assert_allclose(plain[0], compiled[0], rtol=1e-6)
    np.testing.assert_allclose(plain[1], compiled[1], rtol=1e-6)


def test_calibration_removes_a_gain_per_date():
    stack = clutter((20, 40, 50), seed=2)
    gain = np.random.default_rng(3).uniform(0.2, 5.0, 20).astype(np.float32)
    total, count = accumulate_calibration(stack * gain[:, None, None])
    dispersion, mean = amplitude_statistics(stack * gain[:, None, None], total / count)
    plain, _ = amplitude_statistics(stack, np.ones(20))
    raw, _ = amplitude_statistics(stack * gain[:, None, None], np.ones(20))
    assert abs(np.mean(dispersion) - np.mean(plain)) < 0.005
    assert np.mean(raw) > np.mean(plain) + 0.1
    assert np.mean(mean) == pytest.approx(1.0, abs=1e-5)


def test_rayleigh_clutter_has_its_dispersion():
    dispersion, _ = amplitude_statistics(clutter((300, 40, 50), seed=4), np.ones(300))
    assert np.mean(dispersion) == pytest.approx(np.sqrt(4.0 / np.pi - 1.0), abs=0.005)


@pytest.mark.parametrize("ratio_db", [15.0, 20.0])
def test_point_target_has_dispersion_of_its_signal_to_clutter_ratio(ratio_db):
    signal = 10.0 ** (ratio_db / 10.0)
    stack = clutter((300, 20, 50), seed=5) / np.sqrt(2.0) + np.complex64(np.sqrt(signal))
    dispersion, _ = amplitude_statistics(stack.astype(np.complex64), np.ones(300))
    assert np.mean(dispersion) == pytest.approx(1.0 / np.sqrt(2.0 * signal), rel=0.05)


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf, complex(0.0, np.nan)])
def test_one_invalid_date_voids_the_dispersion_but_not_the_mean(bad):
    stack = np.full((4, 2, 3), 2.0 + 0.0j, np.complex64)
    stack[1, 0, 2] = bad
    stack[:, 1, 1] = bad
    dispersion, mean = amplitude_statistics(stack, np.ones(4))
    assert np.isnan(dispersion[0, 2])
    assert mean[0, 2] == 2.0
    assert np.isnan(dispersion[1, 1])
    assert np.isnan(mean[1, 1])
    assert np.all(dispersion[0, :2] == 0.0)


def test_counts_give_the_same_as_complex_samples():
    counts = np.round(clutter((5, 6, 7), seed=6).view(np.float32).reshape(5, 6, 7, 2) * 200)
    stack = counts.view(np.complex64)[..., 0]
    for function in (lambda a: amplitude_statistics(a, np.ones(5)), accumulate_calibration):
        for left, right in zip(function(counts.astype(np.int16)), function(stack), strict=True):
            np.testing.assert_array_equal(left, right)


def test_large_counts_do_not_overflow():
    counts = np.full((2, 1, 1, 2), -32768, np.int16)
    dispersion, mean = amplitude_statistics(counts, np.ones(2))
    assert mean[0, 0] == pytest.approx(32768 * np.sqrt(2.0))
    assert dispersion[0, 0] < 1e-3


def test_calibration_sums_are_the_same_for_any_tiling():
    stack = clutter((2, 200, 300), seed=7) * np.float32(731.7)
    total, count = accumulate_calibration(stack)
    rows = np.array_split(np.arange(200), 7)
    parts = [accumulate_calibration(stack[:, row]) for row in reversed(rows)]
    np.testing.assert_array_equal(sum(part[0] for part in parts), total)
    np.testing.assert_array_equal(sum(part[1] for part in parts), count)
    exact = np.abs(stack.astype(np.complex128)).sum(axis=(1, 2))
    np.testing.assert_allclose(total, exact, rtol=1e-7)


def test_calibration_leaves_out_no_data():
    stack = np.array([[[0.0, 0.0005, 2.0, np.nan, np.inf]]], np.complex64)
    total, count = accumulate_calibration(stack)
    assert (total[0], count[0]) == (2.0, 1)


def test_wrong_calls_are_refused():
    stack = clutter((3, 2, 2))
    with pytest.raises(ValueError, match="one constant per date"):
        amplitude_statistics(stack, np.ones(2))
    with pytest.raises(ValueError, match="positive"):
        amplitude_statistics(stack, np.array([1.0, 0.0, 1.0]))
    with pytest.raises(ValueError, match="complex64"):
        amplitude_statistics(stack.astype(np.complex128), np.ones(3))


@pytest.mark.benchmark
def test_rate():
    stack = clutter((20, 200, 2048))
    amplitude_statistics(stack[:, :1], np.ones(20))
    accumulate_calibration(stack[:, :1])
    for function in (
        lambda: amplitude_statistics(stack, np.ones(20)),
        lambda: accumulate_calibration(stack),
    ):
        times = []
        for _ in range(3):
            start = time.process_time()
            function()
            times.append(time.process_time() - start)
        print(f"{stack.size / 1e6 / min(times):.0f} Mpx*dates per core-second")
        assert stack.size / 1e6 / min(times) > 100.0  # goal 400 on an idle core
