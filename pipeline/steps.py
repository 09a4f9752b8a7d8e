"""The chain in order: the one list of all stages."""

from __future__ import annotations

from bperp.pipeline import (
    alignment,
    amplitude,
    coregister,
    geometry,
    ingest,
    interferogram,
    scatterers,
    timeseries,
)
from bperp.pipeline.stage import Stage

STAGES: tuple[Stage, ...] = (
    ingest.STAGE,
    geometry.STAGE,
    alignment.STAGE,
    coregister.STAGE,
    interferogram.STAGE,
    amplitude.STAGE,
    scatterers.STAGE,
    timeseries.STAGE,
)
