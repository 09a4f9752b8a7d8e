"""Decode strips and tiles: deflate, Zstandard, LZW, PackBits, and the three predictors.

The plain wheels of tifffile decode neither LZW nor the floating point predictor, which is what
Copernicus and SRTM elevation models come in.

References
----------
TIFF 6.0 (Adobe 1992), sections 9, 13 and 14; Adobe Photoshop TIFF technical note 3.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bperp.stores.byte_source import ByteSource
from bperp.stores.tiff import TiffError, TiffPage

__all__ = ["read_region", "sample_dtype"]

_KINDS = {1: "u", 2: "i", 3: "f"}


def sample_dtype(page: TiffPage) -> np.dtype[np.generic]:
    """Return the native type of a real-valued sample (``unsupported`` for complex ones)."""
    kind = _KINDS.get(page.sample_format)
    if kind is None or page.bits not in {8, 16, 32, 64} or (kind == "f" and page.bits < 32):
        found = f"sample format {page.sample_format} with {page.bits} bits"
        raise TiffError("unsupported", found)
    return np.dtype(f"{kind}{page.bits // 8}")


def read_region(
    source: ByteSource,
    page: TiffPage,
    rows: tuple[int, int],
    columns: tuple[int, int],
    dtype: np.dtype[np.generic],
    fill: float | None,
) -> NDArray[np.generic]:
    """Read a region of the image.

    Parameters
    ----------
    source, page
        The file and its structure.
    rows, columns : tuple of int
        Start and stop within the image.
    dtype : dtype
        Native type of one scalar; a pixel has ``bits * samples_per_pixel / 8 / itemsize`` of
        them.
    fill : float or None
        Value of segments that the file leaves out; None: they are a fault.

    Returns
    -------
    ndarray (rows, columns, scalars) of ``dtype``

    Raises
    ------
    TiffError
    """
    scalars = page.bits * page.samples_per_pixel // 8 // dtype.itemsize
    if page.planar != 1 and page.samples_per_pixel > 1:
        raise TiffError("unsupported", "separate planes")
    out = np.empty((rows[1] - rows[0], columns[1] - columns[0], scalars), dtype=dtype)
    high, wide = page.segment_length, page.segment_width
    for down in range(rows[0] // high, -(-rows[1] // high)):
        for across in range(columns[0] // wide, -(-columns[1] // wide)):
            segment = _read_segment(source, page, down, across, dtype, fill)
            top, left = down * high, across * wide
            r0, r1 = max(rows[0], top), min(rows[1], top + segment.shape[0])
            c0, c1 = max(columns[0], left), min(columns[1], left + wide)
            block = segment[r0 - top : r1 - top, c0 - left : c1 - left]
            out[r0 - rows[0] : r1 - rows[0], c0 - columns[0] : c1 - columns[0]] = block
    return out


def _read_segment(
    source: ByteSource,
    page: TiffPage,
    down: int,
    across: int,
    dtype: np.dtype[np.generic],
    fill: float | None,
) -> NDArray[np.generic]:
    index, line = down * page.segments_across + across, down * page.segment_length
    high = page.segment_length if page.is_tiled else min(page.segment_length, page.length - line)
    scalars = page.bits * page.samples_per_pixel // 8 // dtype.itemsize
    shape = (high, page.segment_width, scalars)
    offset, count = int(page.offsets[index]), int(page.byte_counts[index])
    if offset == 0 and count == 0:
        if fill is None:
            raise TiffError("malformed", f"segment {index} is left out of the file", line)
        return np.full(shape, fill, dtype=dtype)
    if offset + count > page.file_size:
        raise TiffError("truncated", f"{page.file_size} bytes", line)
    size = high * page.segment_width * scalars * dtype.itemsize
    data = _decompress(source.read(offset, offset + count), page.compression, size, line)
    if len(data) < size:
        raise TiffError("truncated", f"segment {index} has {len(data)} of {size} bytes", line)
    return _unpredict(data[:size], page, shape, dtype)


def _decompress(data: bytes, compression: int, size: int, line: int) -> bytes:
    decoders: dict[int, Callable[[bytes, int], bytes]] = {
        1: lambda raw, _: raw,
        5: _lzw,
        8: _deflate,
        32946: _deflate,
        32773: _packbits,
        50000: _zstandard,
    }
    if compression not in decoders:
        raise TiffError("unsupported", f"compression {compression}")
    try:
        return decoders[compression](data, size)
    except (ValueError, RuntimeError, IndexError, EOFError, zlib.error) as error:
        raise TiffError("malformed", f"undecodable data: {str(error)[:60]}", line) from error


def _deflate(data: bytes, size: int) -> bytes:
    # Bounded, so that a small file cannot fill the memory.
    return zlib.decompressobj().decompress(data, size + 1)


def _zstandard(data: bytes, size: int) -> bytes:
    try:
        # Zarr requires numcodecs, so it is there.
        from numcodecs.zstd import Zstd  # type: ignore[import-untyped]
    except ImportError as error:
        raise TiffError("unsupported", "Zstandard without numcodecs") from error
    # The given buffer bounds the memory; GDAL's frames do not state their size.
    return bytes(Zstd().decode(data, out=bytearray(size)))


def _packbits(data: bytes, size: int) -> bytes:
    out, position = bytearray(), 0
    while position < len(data) and len(out) < size:
        control = data[position]
        if control < 128:
            out += data[position + 1 : position + 2 + control]
            position += 2 + control
        elif control > 128:
            out += data[position + 1 : position + 2] * (257 - control)
            position += 2
        else:
            position += 1
    return bytes(out)


def _lzw(data: bytes, size: int) -> bytes:
    """Decode TIFF LZW: most significant bit first, widths change one code early."""
    table: list[bytes] = [bytes([value]) for value in range(256)] + [b"", b""]
    initial = tuple(table)
    out: list[bytes] = []
    length = buffer = held = 0
    width, previous = 9, b""
    for byte in data:
        buffer, held = buffer << 8 | byte, held + 8
        if held < width:
            continue
        held -= width
        code, buffer = buffer >> held, buffer & (1 << held) - 1
        if code == 257 or length >= size:
            break
        if code == 256:
            table, width, previous = list(initial), 9, b""
            continue
        if code > len(table) or (code == len(table) and not previous):
            raise ValueError(f"LZW code {code} of {len(table)}")
        entry = table[code] if code < len(table) else previous + previous[:1]
        out.append(entry)
        length += len(entry)
        if previous:
            table.append(previous + entry[:1])
        previous = entry
        width = min(max((len(table) + 1).bit_length(), 9), 12)
    return b"".join(out)


def _unpredict(
    data: bytes, page: TiffPage, shape: tuple[int, int, int], dtype: np.dtype[np.generic]
) -> NDArray[np.generic]:
    if page.predictor == 3:
        return _float_predictor(data, shape, dtype)
    values = np.frombuffer(data, dtype=dtype.newbyteorder(page.byte_order)).reshape(shape)
    values = values.astype(dtype)
    if page.predictor == 2:
        if dtype.kind not in "iu":
            raise TiffError("unsupported", "horizontal predictor on floats")
        # Differences wrap around within the sample.
        return np.cumsum(values, axis=1, dtype=dtype)
    if page.predictor != 1:
        raise TiffError("unsupported", f"predictor {page.predictor}")
    return values


def _float_predictor(
    data: bytes, shape: tuple[int, int, int], dtype: np.dtype[np.generic]
) -> NDArray[np.generic]:
    if dtype.kind != "f":
        raise TiffError("unsupported", "floating point predictor on integers")
    high, wide, scalars = shape
    count, size = wide * scalars, dtype.itemsize
    raw = np.frombuffer(data, dtype=np.uint8).reshape(high, count * size // scalars, scalars)
    summed = np.cumsum(raw, axis=1, dtype=np.uint8).reshape(high, size, count)
    # Bytes of equal significance lie together, the most significant first.
    big_endian = np.ascontiguousarray(summed.transpose(0, 2, 1))
    return big_endian.view(dtype.newbyteorder(">")).reshape(shape).astype(dtype)
