"""The chain in order: the one list of all stages."""

from __future__ import annotations

from bperp.pipeline import (
    alignment,
    amplitude,
    coregister,
    filtering,
    geocode,
    geometry,
    ingest,
    interferogram,
    misregistration,
    publish,
    scatterers,
    seams,
    timeseries,
)
from bperp.pipeline.stage import Stage

STAGES: tuple[Stage, ...] = (
    ingest.STAGE,
    geometry.STAGE,
    misregistration.STAGE,
    alignment.STAGE,
    coregister.STAGE,
    seams.STAGE,
    interferogram.STAGE,
    filtering.STAGE,
    geocode.STAGE,
    amplitude.STAGE,
    scatterers.STAGE,
    timeseries.STAGE,
    publish.STAGE,
)

LAST_STEP_BY_DATE = geocode.STAGE.name
"""Up to this step a further date only adds tasks; the steps after it take all dates together."""
