"""Write an elevation model as GeoTIFF: float32, WGS84 ellipsoidal heights (EPSG:4979)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

NODATA = -32768.0
_WGS84_3D = 4979
_DEGREE = 9102
_METRE = 9001


def write_elevation(
    path: Path,
    heights_m: NDArray[np.float32],
    north_west_deg: tuple[float, float],
    posting_deg: tuple[float, float],
) -> None:
    """Write heights on a geographic grid whose samples are points.

    Parameters
    ----------
    path : pathlib.Path
        File to write; an existing file is replaced.
    heights_m : (rows, columns) float32
        Ellipsoidal heights in m, north up; NaN becomes the nodata value -32768.
    north_west_deg : (latitude, longitude)
        Position of the first sample itself (PixelIsPoint), in degrees.
    posting_deg : (latitude, longitude)
        Positive distances between rows and between columns in degrees.

    Raises
    ------
    ValueError
        If the array is not two-dimensional or a posting is not positive.

    References
    ----------
    OGC 19-008r4, GeoTIFF 1.1: with PixelIsPoint the tie point is the sample, not a pixel corner.
    """
    if heights_m.ndim != 2 or min(posting_deg) <= 0.0:
        raise ValueError(
            f"need a 2-D array and positive postings, instead got {heights_m.shape}, {posting_deg}"
        )
    keys = [
        *(1, 1, 1, 5),
        *(1024, 0, 1, 2),  # geographic coordinates
        *(1025, 0, 1, 2),  # samples are points
        *(2048, 0, 1, _WGS84_3D),
        *(2054, 0, 1, _DEGREE),
        *(4099, 0, 1, _METRE),
    ]
    tie = (0.0, 0.0, 0.0, north_west_deg[1], north_west_deg[0], 0.0)
    tifffile.imwrite(
        path,
        np.where(np.isnan(heights_m), np.float32(NODATA), heights_m).astype(np.float32),
        photometric="minisblack",
        rowsperstrip=64,
        software=False,
        metadata=None,
        extratags=[
            (33550, "d", 3, (posting_deg[1], posting_deg[0], 0.0), True),
            (33922, "d", 6, tie, True),
            (34735, "H", len(keys), tuple(keys), True),
            (42113, "s", 0, f"{NODATA:g}", True),
        ],
    )
