"""Point tables as CSV: one line per scatterer, units in the header, the same bytes everywhere.

Numbers are written with a fixed count of decimals and a point, whatever the locale; a value that is
not finite is an empty field, which spreadsheets, QGIS and pandas read as missing.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bperp.stores.errors import ConfigurationError, ProductError
from bperp.stores.replace_file import replacing

VELOCITY_HEADER = "lon,lat,height_m,velocity_mm_yr,sigma_mm_yr,coherence"
DISPLACEMENT_HEADER = "pid,lon,lat,height,mean_velocity,mean_velocity_std"

_VELOCITY_DECIMALS = (7, 7, 3, 3, 3, 4)
_DISPLACEMENT_DECIMALS = (7, 7, 3, 3, 3)
_ROWS_PER_BLOCK = 4096


@dataclass(frozen=True)
class VelocityTable:
    """Columns of a velocity table: float64 arrays of equal length, NaN = missing.

    ``velocity_mm_yr`` is along the line of sight, positive towards the satellite.
    """

    lon: NDArray[np.float64]
    lat: NDArray[np.float64]
    height_m: NDArray[np.float64]
    velocity_mm_yr: NDArray[np.float64]
    sigma_mm_yr: NDArray[np.float64]
    coherence: NDArray[np.float64]


def write_velocity_csv(
    path: Path | str,
    lon: ArrayLike,
    lat: ArrayLike,
    height_m: ArrayLike,
    velocity_mm_yr: ArrayLike,
    sigma_mm_yr: ArrayLike,
    coherence: ArrayLike,
) -> None:
    """Write one line per scatterer.

    Parameters
    ----------
    path : Path or str
        File to write; it appears or is replaced when it is whole.
    lon, lat : array_like of shape (scatterer,)
        Degrees, 7 decimals (1 cm).
    height_m : array_like of shape (scatterer,)
        Ellipsoidal height in m.
    velocity_mm_yr, sigma_mm_yr : array_like of shape (scatterer,)
        Line-of-sight velocity, positive towards the satellite, and its standard deviation, mm/yr.
    coherence : array_like of shape (scatterer,)
        Temporal coherence, 0 to 1.

    Raises
    ------
    ValueError
        Columns of different length, or more than one dimension.
    StorageError
        ``R804``, ``R807``.
    """
    columns = _columns(
        [lon, lat, height_m, velocity_mm_yr, sigma_mm_yr, coherence], VELOCITY_HEADER.split(",")
    )
    with replacing(path) as partial, _open_text(partial) as stream:
        stream.write(VELOCITY_HEADER + "\n")
        for first in range(0, len(columns[0]), _ROWS_PER_BLOCK):
            rows = [column[first : first + _ROWS_PER_BLOCK] for column in columns]
            texts = map(_texts, rows, _VELOCITY_DECIMALS)
            stream.writelines(",".join(row) + "\n" for row in zip(*texts, strict=True))


def read_velocity_csv(path: Path | str) -> VelocityTable:
    """Read a table written by `write_velocity_csv`.

    Parameters
    ----------
    path : Path or str
        CSV file.

    Returns
    -------
    VelocityTable
        Empty fields become NaN.

    Raises
    ------
    ProductError
        ``D213``: another header, a line with another number of fields, or a field that is not a
        number; the line is named.
    """
    names = VELOCITY_HEADER.split(",")
    rows = []
    with Path(path).open(encoding="utf-8", newline="") as stream:
        if stream.readline().rstrip("\r\n") != VELOCITY_HEADER:
            raise _table_error(path, 1, VELOCITY_HEADER, "another header")
        for number, line in enumerate(stream, start=2):
            fields = line.rstrip("\r\n").split(",")
            try:
                rows.append([float(field) if field else np.nan for field in fields])
            except ValueError as error:
                raise _table_error(path, number, "numbers", str(error)) from error
            if len(fields) != len(names):
                raise _table_error(path, number, f"{len(names)} fields", str(len(fields)))
    table = np.array(rows, dtype=np.float64).reshape(len(rows), len(names))
    return VelocityTable(*(np.ascontiguousarray(column) for column in table.T))


@dataclass(frozen=True)
class DisplacementColumns:
    """What `write_displacement_csv` writes before the dates; arrays of shape (scatterer,).

    ``pid`` are text identifiers; ``lon``, ``lat`` degrees; ``height`` ellipsoidal, m;
    ``mean_velocity`` and its standard deviation in mm/yr, positive towards the satellite.
    """

    pid: Sequence[str]
    lon: ArrayLike
    lat: ArrayLike
    height: ArrayLike
    mean_velocity: ArrayLike
    mean_velocity_std: ArrayLike


def write_displacement_csv(
    path: Path | str,
    points: DisplacementColumns,
    dates: Sequence[str],
    displacement_mm: NDArray[np.floating],
) -> None:
    """Write time series in the style of the European Ground Motion Service.

    Parameters
    ----------
    path : Path or str
        File to write; it appears or is replaced when it is whole.
    points : DisplacementColumns
        Identifier, place and velocity of every scatterer.
    dates : sequence of str
        ``YYYYMMDD`` in ascending order; they become column names.
    displacement_mm : array of shape (scatterer, date)
        Line-of-sight displacement in mm, positive towards the satellite, 2 decimals. Any object
        that is sliced by rows like an array; it is read block by block.

    Raises
    ------
    ConfigurationError
        ``C115`` dates that are not ascending ``YYYYMMDD``.
    ValueError
        Shapes that do not agree.
    StorageError
        ``R804``, ``R807``.

    Notes
    -----
    An identifier that a spreadsheet would take for a formula (it starts with one of ``= + - @``)
    gets a leading apostrophe; control characters become blanks.
    """
    _check_dates(path, dates)
    names = DISPLACEMENT_HEADER.split(",")[1:]
    numbers = _columns(
        [points.lon, points.lat, points.height, points.mean_velocity, points.mean_velocity_std],
        names,
    )
    count = len(numbers[0])
    if len(points.pid) != count or tuple(displacement_mm.shape) != (count, len(dates)):
        raise ValueError(
            f"{count} points need as many identifiers and displacement_mm ({count}, {len(dates)}), "
            f"instead got {len(points.pid)} and {displacement_mm.shape}"
        )
    with replacing(path) as partial, _open_text(partial) as stream:
        stream.write(",".join([DISPLACEMENT_HEADER, *dates]) + "\n")
        writer = csv.writer(stream, lineterminator="\n")
        for first in range(0, count, _ROWS_PER_BLOCK):
            rows = slice(first, first + _ROWS_PER_BLOCK)
            series = np.asarray(displacement_mm[rows], dtype=np.float64)
            fields = [
                [_harmless(identifier) for identifier in points.pid[rows]],
                *map(_texts, (column[rows] for column in numbers), _DISPLACEMENT_DECIMALS),
                *(_texts(column, 2) for column in series.T),
            ]
            writer.writerows(zip(*fields, strict=True))


def _columns(values: Sequence[ArrayLike], names: Sequence[str]) -> list[NDArray[np.float64]]:
    columns = [np.asarray(value, dtype=np.float64) for value in values]
    for name, column in zip(names, columns, strict=True):
        if column.ndim != 1 or column.size != columns[0].size:
            raise ValueError(f"{name} must have shape {columns[0].shape}, got {column.shape}")
    return columns


def _texts(values: NDArray[np.float64], decimals: int) -> list[str]:
    # Adding zero turns the -0.0 of a rounded small negative number into 0.0.
    rounded = np.round(values, decimals) + 0.0
    finite = np.isfinite(rounded)
    form = f"%.{decimals}f"
    return [form % value if good else "" for value, good in zip(rounded, finite, strict=True)]


def _harmless(text: str) -> str:
    text = re.sub(r"[\x00-\x1f\x7f]+", " ", text).strip()
    return f"'{text}" if text[:1] in {"=", "+", "-", "@"} else text


def _check_dates(path: Path | str, dates: Sequence[str]) -> None:
    good = all(re.fullmatch(r"[0-9]{8}", date) for date in dates)
    if good and list(dates) == sorted(set(dates)):
        return
    raise ConfigurationError(
        "C115",
        "the dates cannot become column names",
        where=str(path),
        expected="different dates YYYYMMDD in ascending order",
        found=", ".join(map(repr, dates[:5])),
        remedy="sort the dates of the series",
    )


def _open_text(path: Path) -> TextIO:
    return path.open("w", encoding="utf-8", newline="")


def _table_error(path: Path | str, line: int, expected: str, found: str) -> ProductError:
    return ProductError(
        "D213",
        "not a velocity table",
        where=f"{path} line {line}",
        expected=expected,
        found=found,
        remedy="export the table again",
    )
