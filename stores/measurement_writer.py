"""Write Sentinel-1 measurement files: complex 16-bit integers, uncompressed, one line per strip."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_SHORT, _LONG, _DOUBLE, _ASCII = 3, 4, 12, 2
_SIZE = {_SHORT: 2, _LONG: 4, _DOUBLE: 8, _ASCII: 1}
_LETTER = {_SHORT: "H", _LONG: "I", _DOUBLE: "d"}
_COMPLEX_INTEGER = 5
BYTES_PER_SAMPLE = 4


def _pack(kind: int, values: bytes | tuple[float, ...]) -> bytes:
    if isinstance(values, bytes):
        return values
    return struct.pack(f"<{len(values)}{_LETTER[kind]}", *values)


def create_measurement(
    path: Path,
    shape: tuple[int, int],
    tie_points: NDArray[np.float64],
    software: str,
    date_time: str,
) -> int:
    """Create a measurement file full of zeros.

    Parameters
    ----------
    path : pathlib.Path
        File to write; an existing file is replaced.
    shape : (lines, samples)
        All bursts of the swath stacked.
    tie_points : (n, 6) float64
        Sample, line, 0, longitude (deg), latitude (deg), height (m) of ground control points.
    software : str
        Text of the software tag.
    date_time : str
        ``YYYY:MM:DD HH:MM:SS``.

    Returns
    -------
    int
        Byte offset of the first sample; line ``i`` starts ``i * samples * 4`` bytes later.

    Raises
    ------
    ValueError
        If the file would pass 4 GiB, the limit of classic TIFF.
    """
    lines, samples = shape
    row_bytes = samples * BYTES_PER_SAMPLE
    keys = (1, 1, 0, 3, 1024, 0, 1, 2, 1025, 0, 1, 1, 2048, 0, 1, 4326)
    entries: list[tuple[int, int, bytes | tuple[float, ...]]] = [
        (256, _LONG, (samples,)),
        (257, _LONG, (lines,)),
        (258, _SHORT, (32,)),
        (259, _SHORT, (1,)),
        (262, _SHORT, (1,)),
        (273, _LONG, (0,) * lines),
        (277, _SHORT, (1,)),
        (278, _LONG, (1,)),
        (279, _LONG, (row_bytes,) * lines),
        (284, _SHORT, (1,)),
        (305, _ASCII, software.encode() + b"\0"),
        (306, _ASCII, date_time.encode() + b"\0"),
        (339, _SHORT, (_COMPLEX_INTEGER,)),
        (33922, _DOUBLE, tuple(float(v) for v in tie_points.ravel())),
        (34735, _SHORT, keys),
    ]
    header = _directory(entries, lines, row_bytes)
    total = len(header) + lines * row_bytes
    if total >= 2**32:
        raise ValueError(f"a classic TIFF holds 4 GiB, instead got {total} bytes")
    with path.open("wb") as file:
        file.write(header)
        file.truncate(total)
    return len(header)


def _directory(
    entries: list[tuple[int, int, bytes | tuple[float, ...]]], lines: int, row_bytes: int
) -> bytes:
    start = 8 + 2 + 12 * len(entries) + 4
    sizes = [len(values) * _SIZE[kind] for _, kind, values in entries]
    end = start + sum(size + (-size) % 8 for size in sizes if size > 4)
    data = end + (-end) % 8
    table, extra = b"", b""
    for (tag, kind, given), size in zip(entries, sizes, strict=True):
        values = given
        if tag == 273:
            values = tuple(data + i * row_bytes for i in range(lines))
        packed = _pack(kind, values)
        table += struct.pack("<HHI", tag, kind, len(values))
        if size <= 4:
            table += packed.ljust(4, b"\0")
        else:
            table += struct.pack("<I", start + len(extra))
            extra += packed + b"\0" * ((-size) % 8)
    head = struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", len(entries))
    return (head + table + struct.pack("<I", 0) + extra).ljust(data, b"\0")


def write_burst_samples(path: Path, offset: int, samples: NDArray[np.int16]) -> None:
    """Write the lines of one burst at their byte offset.

    Parameters
    ----------
    path : pathlib.Path
        File made by ``create_measurement``; bursts may be written in any order and at once from
        several threads.
    offset : int
        Byte offset of the burst.
    samples : (lines, samples, 2) int16
        Real and imaginary parts.
    """
    content = np.ascontiguousarray(samples, dtype="<i2").tobytes()
    descriptor = os.open(path, os.O_WRONLY)
    try:
        written = 0
        while written < len(content):
            written += os.pwrite(descriptor, content[written:], offset + written)
    finally:
        os.close(descriptor)
