"""Pairs filtered to the range band that both dates share, for wide baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bperp.kernels.chebyshev import evaluate_points
from bperp.kernels.common_band import BLOCK, RangeBand, filter_common_band, wavenumber_shift_hz
from bperp.kernels.geometry import look_vectors
from bperp.kernels.zero_doppler import rdr2geo_at_height
from bperp.pipeline.burst import BurstImage
from bperp.pipeline.pairs import Pair
from bperp.pipeline.radar import burst_duration_s, burst_orbit
from bperp.pipeline.registration import read_baseline
from bperp.pipeline.scene import SceneReader, Window
from bperp.pipeline.stack import Stack
from bperp.pipeline.stage import Context, Source

LARGEST_SHIFT = 0.05
"""Share of the bandwidth by which bands may differ before ``auto`` filters a pair."""


def pairs_to_filter(context: Context, pairs: Sequence[Pair]) -> list[Pair]:
    """Return the pairs that the option ``interferogram.common_band`` means."""
    choice = context.options["interferogram"]["common_band"]
    if choice != "auto":
        return list(pairs) if choice == "always" else []
    stack: Stack = context.stack
    receipts = context.receipts("alignment")
    baselines = {
        date: receipts[date]["summary"]["perpendicular_baseline_m"] for date in stack.dates
    }
    chosen = []
    for first, second in pairs:
        shared = baselines[first].keys() & baselines[second].keys()
        shares = [
            _share(stack.reference(burst), baselines[second][burst] - baselines[first][burst])
            for burst in sorted(shared)
        ]
        if max(shares, default=0.0) > LARGEST_SHIFT:
            chosen.append((first, second))
    return chosen


def _share(image: BurstImage, baseline_m: float) -> float:
    """Return the shift of the band over the bandwidth at near range, where it is largest."""
    shift = band_shift_hz(image, np.array([0.0]), np.array([baseline_m]))
    return float(np.abs(shift[0])) / image.range_bandwidth_hz


def band_shift_hz(
    image: BurstImage, sample: NDArray[np.float64], baseline_m: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the shift of the range band for flat ground below the middle of a burst.

    Parameters
    ----------
    image : BurstImage
        The burst on the reference date.
    sample : ndarray (n,), float64
        Samples of the burst.
    baseline_m : ndarray (n,), float64, m
        Perpendicular baseline there.
    """
    orbit, middle_s = burst_orbit(image), np.array([0.5 * burst_duration_s(image)])
    distance = image.near_range_m + sample * image.range_spacing_m
    level = np.zeros(sample.size)
    latitude, longitude = rdr2geo_at_height(
        orbit, np.broadcast_to(middle_s, sample.shape), distance, level
    )
    row = (np.newaxis, slice(None))
    _, incidence = look_vectors(
        orbit, middle_s, latitude[row], longitude[row], level[row].astype(np.float32)
    )
    return wavenumber_shift_hz(baseline_m, image.wavelength_m, distance, incidence[0])


class CommonBandReader:
    """Read both dates of a pair, filtered to their common band.

    The filter works along range within a burst, on blocks that are fixed to the burst's samples,
    with the baseline amid the burst: pixels do not depend on the window.

    Parameters
    ----------
    source : Source
        Reader of the running task.
    scene : mapping
        ``Scene.as_dict()``.
    images : mapping
        Burst id to the burst on the reference date, as JSON.
    """

    def __init__(
        self, source: Source, scene: Mapping[str, Any], images: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self._source, self._reader = source, SceneReader(source, scene)
        self._images = {name: BurstImage.from_dict(record) for name, record in images.items()}
        self._centres: dict[tuple[str, str], NDArray[np.float64]] = {}

    def pair(
        self, window: Window, pair: Pair
    ) -> tuple[NDArray[np.complex64], NDArray[np.complex64]]:
        """Return reference and secondary, ``(lines, samples)``, zero where invalid."""
        shape = (window[1] - window[0], window[3] - window[2])
        result = (np.zeros(shape, np.complex64), np.zeros(shape, np.complex64))
        for piece in self._reader.pieces(window):
            rows, columns = piece.origin
            image = self._images[piece.burst_id]
            wide = slice(max(0, columns.start - BLOCK), min(image.samples, columns.stop + BLOCK))
            slc = [self._reader.burst_slc(piece.burst_id, date, rows, wide) for date in pair]
            centres = [self._centre_hz(piece.burst_id, date)[wide] for date in pair]
            filtered = filter_common_band(
                slc[0],
                slc[1],
                centres[1] - centres[0],
                _band(image),
                reference_center_hz=centres[0],
                first_sample=wide.start,
            )
            inner = slice(columns.start - wide.start, columns.stop - wide.start)
            for target, part in zip(result, filtered, strict=True):
                target[piece.target] = part[:, inner]
        return result

    def _centre_hz(self, burst: str, date: str) -> NDArray[np.float64]:
        """Return the centre of a date's band per sample of a burst: zero on the reference date."""
        key = (burst, date)
        if key not in self._centres:
            image = self._images[burst]
            sample = np.arange(image.samples, dtype=np.float64)
            baseline = read_baseline(self._source, burst, date)
            middle = (np.full(1, 0.5 * image.lines), sample, np.full(1, baseline.domain[2, 0]))
            self._centres[key] = band_shift_hz(image, sample, evaluate_points(baseline, *middle))
        return self._centres[key]


def _band(image: BurstImage) -> RangeBand:
    return RangeBand(
        image.range_sampling_rate_hz, image.range_bandwidth_hz, image.range_window_coefficient
    )
