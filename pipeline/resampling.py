"""Bring a window of one date onto the reference geometry: shared by alignment and coregister."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from bperp.kernels.carrier import CarrierModel
from bperp.kernels.chebyshev import OffsetPolynomial
from bperp.kernels.resample import TapTables
from bperp.kernels.taps import design_taps
from numpy.typing import NDArray

from bperp.pipeline.burst import BurstImage
from bperp.pipeline.radar import burst_carrier
from bperp.pipeline.stage import Source

Window = tuple[int, int, int, int]
"""``(first line, stop line, first sample, stop sample)`` in burst indices."""


@dataclass(frozen=True)
class Resampler:
    """Everything that stays the same over the windows of one burst and date."""

    reference: BurstImage
    secondary: BurstImage
    azimuth_offset: OffsetPolynomial
    range_offset: OffsetPolynomial
    azimuth_shift_lines: float
    range_shift_samples: float
    carrier: CarrierModel
    taps: TapTables
    date_index: int
    shape: tuple[int, int]

    @classmethod
    def prepare(
        cls,
        reference: BurstImage,
        secondary: BurstImage,
        offsets: tuple[OffsetPolynomial, OffsetPolynomial],
        shifts: tuple[float, float],
        date_index: int,
        shape: tuple[int, int],
    ) -> Resampler:
        """Design the filters and the carrier of a burst and date."""
        taps = design_taps(
            range_sampling_rate_hz=secondary.range_sampling_rate_hz,
            range_bandwidth_hz=secondary.range_bandwidth_hz,
            range_window_coefficient=secondary.range_window_coefficient,
            azimuth_sampling_rate_hz=1.0 / secondary.azimuth_time_interval_s,
            azimuth_bandwidth_hz=secondary.azimuth_bandwidth_hz,
            azimuth_window_coefficient=secondary.azimuth_window_coefficient,
        )
        return cls(
            reference,
            secondary,
            *offsets,
            *shifts,
            burst_carrier(secondary),
            taps,
            date_index,
            shape,
        )

    def window(
        self, source: Source, window: Window, height_m: NDArray[np.float32]
    ) -> NDArray[np.complex64]:
        """Return the flattened secondary in a window of the reference burst.

        Parameters
        ----------
        source : Source
            Reader of the running task.
        window : tuple of int
            Lines and samples of the reference burst.
        height_m : ndarray of float32, (lines, samples)
            Ellipsoidal heights of the window, NaN where unknown (result 0 there).
        """
        raise NotImplementedError
