"""Shapes, chunks and metadata that several products share: declared once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bperp.pipeline.stack import Stack
from bperp.pipeline.stage import ArraySpec

CHUNK_LINES = 512
CHUNK_SAMPLES = 2048
"""A chunk is one object, one writer: 512 x 2048 pixels of int16 pairs are 4.2 MB raw."""

SCATTERER_CHUNK = 65536
"""Rows of point tables in a chunk."""

Coordinate = tuple[tuple[str, ...], NDArray[Any], Mapping[str, Any]]


def burst_sizes(stack: Stack, burst_id: str) -> tuple[int, int, int]:
    """Return ``(lines, samples, 2)``, large enough for every date of a burst.

    Rounded up: bursts of one track differ by a few lines and some hundred samples from date to
    date, and a larger one must not change the layout of all others.
    """
    images = [stack.images[burst_id, date] for date in stack.dates_of(burst_id)]
    lines = _rounded(max(image.lines for image in images), CHUNK_LINES)
    return lines, _rounded(max(image.samples for image in images), CHUNK_SAMPLES), 2


def _rounded(size: int, chunk: int) -> int:
    """Round up to whole chunks, small sizes to the next multiple of 64."""
    step = chunk if size > chunk else min(64, chunk)
    return -(-size // step) * step


def slc_array(shape: tuple[int, ...], long_name: str, units: str) -> ArraySpec:
    """Describe an int16 pair cube ``(date, azimuth, range, iq)``."""
    return ArraySpec(
        "slc",
        ("date", "azimuth", "range", "iq"),
        shape,
        (1, min(CHUNK_LINES, shape[1]), min(CHUNK_SAMPLES, shape[2]), 2),
        "int16",
        0,
        {"long_name": long_name, "units": units, "scale_factor_note": "value = i + 1j q"},
    )


def raster(
    name: str,
    shape: tuple[int, ...],
    *,
    dtype: str,
    units: str,
    long_name: str,
    dims: tuple[str, ...] = ("azimuth", "range"),
    chunks: tuple[int, ...] | None = None,
    **attributes: Any,
) -> ArraySpec:
    """Describe an image or a stack of images; leading dimensions have chunk length one.

    Floating point arrays are NaN, integer arrays 0 where nothing was written.
    """
    leading = (1,) * (len(shape) - 2)
    edges = (min(CHUNK_LINES, shape[-2]), min(CHUNK_SAMPLES, shape[-1]))
    return ArraySpec(
        name,
        dims,
        shape,
        chunks or (*leading, *edges),
        dtype,
        float("nan") if np.dtype(dtype).kind == "f" else 0,
        {"units": units, "long_name": long_name, **attributes},
    )


def column(
    name: str, length: int, *, dtype: str, units: str, long_name: str, **attributes: Any
) -> ArraySpec:
    """Describe one column of a point table."""
    chunk = attributes.pop("chunk", min(SCATTERER_CHUNK, max(length, 1)))
    return ArraySpec(
        name,
        ("scatterer",),
        (length,),
        (chunk,),
        dtype,
        float("nan") if np.dtype(dtype).kind == "f" else 0,
        {"units": units, "long_name": long_name, **attributes},
    )


def series(
    name: str, shape: tuple[int, int], *, dtype: str, units: str, long_name: str, **attributes: Any
) -> ArraySpec:
    """Describe a point table with one value per date."""
    chunk = attributes.pop("chunk", min(SCATTERER_CHUNK, max(shape[0], 1)))
    return ArraySpec(
        name,
        ("scatterer", "date"),
        shape,
        (chunk, shape[1]),
        dtype,
        float("nan"),
        {"units": units, "long_name": long_name, **attributes},
    )


def date_coordinate(stack: Stack) -> Coordinate:
    """Return the date coordinate, days since 1970-01-01."""
    days = np.array(stack.dates, "datetime64[D]").astype(np.int64)
    return (
        ("date",),
        days,
        {
            "standard_name": "time",
            "axis": "T",
            "units": "days since 1970-01-01",
            "calendar": "proleptic_gregorian",
        },
    )


def image_memory(shape: tuple[int, ...], bytes_per_pixel: int) -> int:
    """Return the bytes of an image of ``shape`` lines by samples."""
    return shape[0] * shape[1] * bytes_per_pixel
