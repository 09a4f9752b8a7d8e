"""Throughput of interferograms, as ratios to plain numpy and scipy in the same run.

Ratios are asserted at about half of what was measured on a quiet machine, so that a lost
vectorisation (a factor of 5) fails and a busy neighbour does not. Run with ``-s`` to see figures.
"""

import time

import numpy as np
import pytest
from scipy import ndimage

from bperp.kernels.interferogram import (
    multilook_interferogram,
    multilook_pairs,
    sliding_coherence,
)

pytestmark = pytest.mark.benchmark

LINES, SAMPLES = 512, 4096


def cpu_seconds(function, repeats=5):
    function()  # compile
    best = np.inf
    for _ in range(repeats):
        start = time.process_time()
        function()
        best = min(best, time.process_time() - start)
    return best


def report(name, seconds, baseline_s, pixels=LINES * SAMPLES):
    ratio = baseline_s / seconds
    print(f"\n{name}: {pixels / seconds / 1e6:.0f} Mpx per core-second, {ratio:.1f} x baseline")
    return ratio


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    samples = rng.standard_normal((3, LINES, 2 * SAMPLES), dtype=np.float32)
    return samples.view(np.complex64)


def test_multilook_is_much_faster_than_numpy(images):
    reference, secondary, _ = images

    def numpy_multilook():
        def looks(values):
            blocks = values[:, : SAMPLES // 20 * 20].reshape(LINES // 4, 4, SAMPLES // 20, 20)
            return blocks.mean(axis=(1, 3))

        cross = looks(reference * secondary.conj())
        return abs(cross) / np.sqrt(looks(abs(reference) ** 2) * looks(abs(secondary) ** 2))

    ours = cpu_seconds(lambda: multilook_interferogram(reference, secondary, 4, 20))
    ratio = report("multilook 4 x 20", ours, cpu_seconds(numpy_multilook, 2))
    assert ratio > 2.5


def test_pairs_share_the_work_on_dates(images):
    pairs = np.array([[0, 1], [1, 2], [0, 2], [1, 0], [2, 1], [2, 0]])

    def one_by_one():
        for first, second in pairs:
            multilook_interferogram(images[first], images[second], 4, 20)

    together = cpu_seconds(lambda: multilook_pairs(images, pairs, 4, 20))
    pixels = len(pairs) * LINES * SAMPLES
    assert report("pairs 4 x 20", together, cpu_seconds(one_by_one), pixels) > 0.9


def test_sliding_box_is_much_faster_than_scipy(images):
    reference, secondary, _ = images

    def scipy_box():
        cross = reference * secondary.conj()
        parts = (cross.real, cross.imag, abs(reference) ** 2, abs(secondary) ** 2)
        re, im, power, other = (ndimage.uniform_filter(part, (5, 15)) for part in parts)
        return np.hypot(re, im) / np.sqrt(power * other)

    ours = cpu_seconds(lambda: sliding_coherence(reference, secondary, 5, 15))
    assert report("sliding box 5 x 15", ours, cpu_seconds(scipy_box, 2)) > 5
