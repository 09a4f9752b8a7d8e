"""How much the products of a stack will take, known before pixels are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bperp.flows.config import StackConfig

if TYPE_CHECKING:
    from bperp.flows.stack_index import StackIndex

# Stored bytes per pixel. Integer pairs compress to 16 bit per pixel (measured on simulated
# bursts); resampled ones less, and geometry is smooth in floating point.
_SLC_BYTES, _COREGISTERED_BYTES, _GEOMETRY_BYTES = 2.5, 3.5, 30.0
_AMPLITUDE_BYTES, _INTERFEROGRAM_BYTES = 8.0, 12.0
_SCATTERER_SHARE, _SCATTERER_DATE_BYTES = 0.03, 24.0
_MARGIN = 1.2


@dataclass(frozen=True)
class DiskEstimate:
    """Predicted size of the products in bytes, by step."""

    by_step: Mapping[str, int]

    @property
    def total(self) -> int:
        """Sum of all steps in bytes."""
        return sum(self.by_step.values())


def estimate_disk(config: StackConfig, found: StackIndex) -> DiskEstimate:
    """Predict the size of all products from the pixels of the stack, with 20 % margin."""
    stack = found.stack
    pixels = float(sum(image.lines * image.samples for image in stack.images.values()))
    references = (stack.reference(burst) for burst in stack.burst_ids)
    reference_pixels = float(sum(image.lines * image.samples for image in references))
    looks = config.interferogram.looks[0] * config.interferogram.looks[1]
    dates = len(stack.dates)
    pairs = dates - 1
    if config.interferogram.network == "nearest":
        pairs = sum(min(config.interferogram.neighbours, dates - 1 - i) for i in range(dates))
    scatterers = reference_pixels * _SCATTERER_SHARE * dates * _SCATTERER_DATE_BYTES
    sizes = {
        "ingest": pixels * _SLC_BYTES,
        "geometry": reference_pixels * _GEOMETRY_BYTES,
        "coregister": pixels * _COREGISTERED_BYTES,
        "interferogram": reference_pixels / looks * pairs * _INTERFEROGRAM_BYTES,
        "amplitude": reference_pixels * _AMPLITUDE_BYTES,
        "scatterers": scatterers,
        "timeseries": scatterers / 2,
    }
    return DiskEstimate({step: round(_MARGIN * size) for step, size in sizes.items()})
