"""Bring a window of one date onto the reference geometry: for misregistration and coregister."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bperp.kernels.chebyshev import evaluate_offsets, exact_offsets
from bperp.kernels.resample import (
    HALO_SAMPLES,
    ResamplePlan,
    SourceWindow,
    plan_resampling,
    resample_burst_points,
    resample_burst_tile,
    source_window,
)
from bperp.kernels.taps import choose_taps, design_taps
from bperp.pipeline.burst import BurstImage
from bperp.pipeline.geometry import product as geometry_product
from bperp.pipeline.ingest import product as slc_product
from bperp.pipeline.radar import burst_carrier, burst_grid, burst_orbit
from bperp.pipeline.registration import Offsets
from bperp.pipeline.stage import Source

Window = tuple[int, int, int, int]
"""``(first line, stop line, first sample, stop sample)`` in burst indices."""


@dataclass(frozen=True)
class Resampler:
    """What stays the same over the windows of one burst and date."""

    reference: BurstImage
    secondary: BurstImage
    offsets: Offsets
    plan: ResamplePlan

    @classmethod
    def prepare(
        cls,
        images: tuple[BurstImage, BurstImage],
        offsets: Offsets,
        range_taps: int | Literal["auto"] = "auto",
    ) -> Resampler:
        """Design filters and carrier for the reference and secondary burst ``images``."""
        reference, secondary = images
        line_rate = 1.0 / secondary.azimuth_time_interval_s
        azimuth = _taps(
            line_rate, secondary.azimuth_bandwidth_hz, secondary.azimuth_window_coefficient, "auto"
        )
        distance = _taps(
            secondary.range_sampling_rate_hz,
            secondary.range_bandwidth_hz,
            secondary.range_window_coefficient,
            range_taps,
        )
        plan = plan_resampling(
            (offsets.azimuth, offsets.range),
            (offsets.azimuth_shift, offsets.range_shift),
            (azimuth, distance),
            burst_carrier(secondary),
            burst_grid(reference),
            burst_grid(secondary),
            secondary.wavelength_m,
        )
        return cls(reference, secondary, offsets, plan)

    def window(self, source: Source, window: Window) -> NDArray[np.complex64]:
        """Return the flattened secondary in a window of the reference burst.

        Parameters
        ----------
        source : Source
            Reader of the running task.
        window : tuple of int
            Lines and samples of the reference burst; results do not depend on the tiling if the
            samples start at a multiple of 32 or the edge of the burst.

        Returns
        -------
        ndarray of complex64, (lines, samples)
            Zero where the secondary or the height is missing.
        """
        top, bottom, left, right = window
        first = max(0, left - HALO_SAMPLES)
        last = min(self.reference.samples, right + HALO_SAMPLES)
        height = source.read(
            geometry_product(self.reference.burst_id),
            "height",
            (slice(top, bottom), slice(first, last)),
        )
        shape = (bottom - top, right - left)
        if not np.isfinite(height).any():
            return np.zeros(shape, np.complex64)
        limits = (float(np.nanmin(height)), float(np.nanmax(height)))
        size = (self.secondary.lines, self.secondary.samples)
        rows, columns = source_window(self.plan, (top, left), shape, limits, size)
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return np.zeros(shape, np.complex64)
        numbers = read_numbers(source, self.secondary.burst_id, self.secondary.date, rows, columns)
        pixels = SourceWindow(numbers, rows.start, columns.start, self.secondary.valid)
        if self.offsets.is_exact:
            return resample_burst_tile(pixels, self.plan, height, (top, left), shape, first)
        positions = self._solve_positions(source, window)
        return resample_burst_points(pixels, self.plan, *positions).astype(np.complex64)

    def _solve_positions(
        self, source: Source, window: Window
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Solve source line, source sample and flattening (turns) of every pixel.

        The polynomial in azimuth is kept: its misfit moves the carrier with the data.
        """
        top, bottom, left, right = window
        name = geometry_product(self.reference.burst_id)
        height = source.read(name, "height", (slice(top, bottom), slice(left, right)))
        line, sample = np.meshgrid(
            np.arange(top, bottom, dtype=np.float64),
            np.arange(left, right, dtype=np.float64),
            indexing="ij",
        )
        images = [(burst_orbit(image), burst_grid(image)) for image in self._images]
        place = (line.ravel(), sample.ravel(), height.ravel().astype(np.float64))
        moved = exact_offsets(images[0], images[1], place)[:, 1].reshape(line.shape)
        azimuth = evaluate_offsets(self.offsets.azimuth, top, left, height)
        # Turns of 2 (R_date - R_reference) / lambda, as the plan has them for the polynomials.
        start, per_sample, per_offset = self.plan.flattening
        return (
            line + azimuth + self.offsets.azimuth_shift,
            sample + moved + self.offsets.range_shift,
            start + per_sample * sample + per_offset * moved,
        )

    @property
    def _images(self) -> tuple[BurstImage, BurstImage]:
        return self.reference, self.secondary


@lru_cache(maxsize=16)
def _taps(
    sampling_hz: float, bandwidth_hz: float, coefficient: float, taps: int | Literal["auto"]
) -> NDArray[np.float32]:
    if taps == "auto":
        taps = choose_taps(bandwidth_hz, sampling_hz)
    return design_taps(sampling_hz, bandwidth_hz, coefficient, taps)


def read_numbers(
    source: Source, burst_id: str, date: str, rows: slice, columns: slice
) -> NDArray[np.int16]:
    """Return digital numbers of a burst and date, ``(lines, samples, 2)`` int16."""
    region = (date, rows, columns, slice(0, 2))
    numbers: NDArray[np.int16] = source.read(slc_product(burst_id), "slc", region)[0]
    return numbers


def complex_numbers(numbers: NDArray[np.int16]) -> NDArray[np.complex64]:
    """Convert int16 pairs ``(..., 2)`` to complex64 ``(...)``."""
    floats = np.ascontiguousarray(numbers, np.float32)
    return floats.view(np.complex64)[..., 0]
