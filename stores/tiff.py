"""Strict TIFF structure: classic and BigTIFF, both byte orders, strips and tiles.

Files come from strangers, so counts and offsets are checked against the size of the file before
anything is allocated. Only what Sentinel-1 measurements and elevation models use is decoded.

References
----------
TIFF 6.0 (Adobe 1992); BigTIFF (libtiff); Adobe Photoshop TIFF technical note 3 (floating point
predictor).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from bperp.stores.byte_source import ByteSource

__all__ = ["TiffError", "TiffPage", "open_page"]

Fault = Literal["truncated", "malformed", "unsupported"]
ByteOrder = Literal["<", ">"]
TagValue = NDArray[np.generic] | bytes

_TYPES: Mapping[int, str] = {
    1: "u1",
    2: "S1",
    3: "u2",
    4: "u4",
    6: "i1",
    7: "S1",
    8: "i2",
    9: "i4",
    11: "f4",
    12: "f8",
    13: "u4",
    16: "u8",
    17: "i8",
    18: "u8",
}
_SIZES = {kind: np.dtype(code).itemsize for kind, code in _TYPES.items()} | {5: 8, 10: 8}
_ENTRY_LIMIT = 512
_VALUE_LIMIT_BYTES = 64 * 2**20
_PIXEL_LIMIT = 2**40
(
    WIDTH,
    LENGTH,
    BITS,
    COMPRESSION,
    STRIP_OFFSETS,
    SAMPLES_PER_PIXEL,
    ROWS_PER_STRIP,
    STRIP_BYTES,
    PLANAR,
    PREDICTOR,
    TILE_WIDTH,
    TILE_LENGTH,
    TILE_OFFSETS,
    TILE_BYTES,
    SAMPLE_FORMAT,
) = (256, 257, 258, 259, 273, 277, 278, 279, 284, 317, 322, 323, 324, 325, 339)


class TiffError(Exception):
    """A file that is no TIFF, ends early, or uses what is not supported.

    The readers turn it into an error with the code of their family.

    Parameters
    ----------
    kind : {"truncated", "malformed", "unsupported"}
    found : str
        What was met.
    line : int, optional
        First image line that cannot be read.
    """

    def __init__(self, kind: Fault, found: str, line: int | None = None) -> None:
        super().__init__(kind, found, line)
        self.kind, self.found, self.line = kind, found, line


@dataclass(frozen=True, eq=False)
class TiffPage:
    """The first image of a TIFF file.

    Parameters
    ----------
    byte_order : {"<", ">"}
    width, length : int
        Samples and lines of the image.
    bits, sample_format, samples_per_pixel : int
        As in the tags; all samples of a pixel have equal size.
    compression, predictor, planar : int
        As in the tags.
    segment_width, segment_length : int
        Size of a strip or tile.
    is_tiled : bool
    offsets, byte_counts : ndarray (segments,) int64
        Place of every strip or tile; both 0 where the file leaves it out (sparse).
    tags : mapping
        All tags by number; text as bytes.
    file_size : int
    """

    byte_order: ByteOrder
    width: int
    length: int
    bits: int
    sample_format: int
    samples_per_pixel: int
    compression: int
    predictor: int
    planar: int
    segment_width: int
    segment_length: int
    is_tiled: bool
    offsets: NDArray[np.int64]
    byte_counts: NDArray[np.int64]
    tags: Mapping[int, TagValue]
    file_size: int

    @cached_property
    def segments_across(self) -> int:
        """Number of tiles side by side (1 for strips)."""
        return -(-self.width // self.segment_width)

    @property
    def line_bytes(self) -> int:
        """Bytes of one uncompressed image line."""
        return self.width * self.samples_per_pixel * self.bits // 8

    def first_line_beyond(self) -> int | None:
        """Return the first line whose segment ends beyond the end of the file, or None."""
        beyond = np.flatnonzero(self.offsets + self.byte_counts > self.file_size)
        if not beyond.size:
            return None
        first = int(beyond[0])
        line = first // self.segments_across * self.segment_length
        if self.compression == 1 and not self.is_tiled:
            # An uncompressed strip is good up to the line that is cut.
            line += max(self.file_size - int(self.offsets[first]), 0) // self.line_bytes
        return line


@dataclass(frozen=True)
class _Layout:
    byte_order: ByteOrder
    is_big: bool
    directory: int

    @property
    def entry(self) -> struct.Struct:
        return struct.Struct(self.byte_order + ("HHQ8s" if self.is_big else "HHI4s"))

    @property
    def inline(self) -> int:
        return 8 if self.is_big else 4

    def number(self, data: bytes) -> int:
        code = {2: "H", 4: "I", 8: "Q"}[len(data)]
        return int(struct.unpack(self.byte_order + code, data)[0])


def open_page(source: ByteSource) -> TiffPage:
    """Read the structure of the first image.

    Raises
    ------
    TiffError
        When the file is no TIFF, ends early, or its tables contradict themselves.
    """
    layout = _read_header(source)
    tags = _read_directory(source, layout)
    return _build_page(tags, layout.byte_order, source.size)


def _read_header(source: ByteSource) -> _Layout:
    head = source.read(0, 16)
    if not head:
        raise TiffError("truncated", "empty file", 0)
    orders: dict[bytes, ByteOrder] = {b"II": "<", b"MM": ">"}
    if len(head) < 8 or head[:2] not in orders:
        raise TiffError("malformed", f"a file that starts with {head[:8]!r}")
    order = orders[head[:2]]
    version = struct.unpack(order + "H", head[2:4])[0]
    if version == 42:
        return _Layout(order, False, struct.unpack(order + "I", head[4:8])[0])
    if version == 43 and len(head) == 16 and struct.unpack(order + "HH", head[4:8]) == (8, 0):
        return _Layout(order, True, struct.unpack(order + "Q", head[8:16])[0])
    raise TiffError("malformed", f"TIFF version {version}")


def _exact(source: ByteSource, start: int, count: int) -> bytes:
    data = source.read(start, start + count) if start + count <= source.size else b""
    if len(data) != count:
        raise TiffError("truncated", f"directory beyond the end at {source.size} bytes", 0)
    return data


def _read_directory(source: ByteSource, layout: _Layout) -> dict[int, TagValue]:
    width = 8 if layout.is_big else 2
    count = layout.number(_exact(source, layout.directory, width))
    if not 0 < count <= _ENTRY_LIMIT:
        raise TiffError("malformed", f"{count} directory entries")
    entry = layout.entry
    table = _exact(source, layout.directory + width, count * entry.size)
    tags: dict[int, TagValue] = {}
    budget = _VALUE_LIMIT_BYTES
    for tag, kind, number, inline in entry.iter_unpack(table):
        if kind not in _SIZES:
            continue
        length = _SIZES[kind] * number
        budget -= length
        if budget < 0:
            raise TiffError("malformed", f"tag {tag} with {number} values")
        is_inline = length <= layout.inline
        raw = inline[:length] if is_inline else _exact(source, layout.number(inline), length)
        tags[tag] = _decode_value(kind, raw, layout.byte_order)
    return tags


def _decode_value(kind: int, raw: bytes, byte_order: str) -> TagValue:
    if kind in {2, 7}:
        return raw
    if kind in {5, 10}:
        pairs = np.frombuffer(raw, dtype=byte_order + ("u4" if kind == 5 else "i4")).reshape(-1, 2)
        return pairs[:, 0] / np.where(pairs[:, 1] == 0, 1, pairs[:, 1])
    code = np.dtype(byte_order + _TYPES[kind])
    return np.frombuffer(raw, dtype=code).astype(code.newbyteorder("="))


def _scalar(tags: Mapping[int, TagValue], tag: int, default: int | None = None) -> int:
    value = tags.get(tag)
    if value is None and default is not None:
        return default
    if not isinstance(value, np.ndarray) or value.size == 0 or value.dtype.kind not in "iu":
        raise TiffError("malformed", f"no usable tag {tag}")
    if np.any(value != value.flat[0]):
        raise TiffError("unsupported", f"different values of tag {tag} per sample")
    return int(cast(int, value.flat[0]))


def _table(tags: Mapping[int, TagValue], tag: int) -> NDArray[np.int64]:
    value = tags.get(tag)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iu" or value.size == 0:
        raise TiffError("malformed", f"no usable tag {tag}")
    if int(value.max()) > 2**62 or int(value.min()) < 0:
        raise TiffError("malformed", f"offsets beyond reason in tag {tag}")
    return value.astype(np.int64)


def _build_page(tags: dict[int, TagValue], byte_order: ByteOrder, file_size: int) -> TiffPage:
    width, length = _scalar(tags, WIDTH), _scalar(tags, LENGTH)
    bits, samples = _scalar(tags, BITS, 1), _scalar(tags, SAMPLES_PER_PIXEL, 1)
    if not 0 < width * length <= _PIXEL_LIMIT or width <= 0 or not 0 < samples <= 16:
        raise TiffError("malformed", f"image of {length} x {width} x {samples}")
    is_tiled = TILE_OFFSETS in tags
    if is_tiled:
        segment_width, segment_length = _scalar(tags, TILE_WIDTH), _scalar(tags, TILE_LENGTH)
    else:
        segment_width = width
        segment_length = min(_scalar(tags, ROWS_PER_STRIP, 2**32 - 1), length)
    if segment_width <= 0 or segment_length <= 0 or segment_width * segment_length > 2**28:
        raise TiffError("malformed", f"segments of {segment_length} x {segment_width}")
    page = TiffPage(
        byte_order=byte_order,
        width=width,
        length=length,
        bits=bits,
        sample_format=_scalar(tags, SAMPLE_FORMAT, 1),
        samples_per_pixel=samples,
        compression=_scalar(tags, COMPRESSION, 1),
        predictor=_scalar(tags, PREDICTOR, 1),
        planar=_scalar(tags, PLANAR, 1) if samples > 1 else 1,
        segment_width=segment_width,
        segment_length=segment_length,
        is_tiled=is_tiled,
        offsets=_table(tags, TILE_OFFSETS if is_tiled else STRIP_OFFSETS),
        byte_counts=_table(tags, TILE_BYTES if is_tiled else STRIP_BYTES),
        tags=tags,
        file_size=file_size,
    )
    down = -(-length // segment_length)
    planes = samples if page.planar == 2 else 1
    expected = page.segments_across * down * planes
    if page.offsets.size != expected or page.byte_counts.size != expected:
        found = (
            f"{page.offsets.size} offsets and {page.byte_counts.size} sizes for {expected} segments"
        )
        raise TiffError("malformed", found)
    return page
