"""Pixels of SLC measurements: int16 I and Q, bit-exact, by range reads.

The agency writes uncompressed classic TIFF, one complex int16 line per strip, all lines in one
piece; that is one range read for any block of lines. Every other layout goes through the decoder,
or is refused.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bperp.stores.archive import StorageOptions, open_archive
from bperp.stores.byte_source import ByteSource
from bperp.stores.errors import ProductError
from bperp.stores.safe import SafeProduct
from bperp.stores.tiff import TiffError, open_page
from bperp.stores.tiff_decode import read_region

__all__ = ["MeasurementReader", "open_measurement", "read_measurement"]

_COMPLEX_INTEGER, _SIGNED_INTEGER = 5, 2


class MeasurementReader:
    """An open measurement; use it as a context manager.

    Reads that go forward decompress a zipped measurement only once.

    Parameters
    ----------
    source : ByteSource
        Bytes of the TIFF file; closed with the reader.
    where : str
        Name of the file for error messages.
    expected_shape : tuple of int, optional
        (lines, samples) according to the annotation.
    allow_truncated : bool, default False
        Read the lines before the cut of a truncated file.

    Raises
    ------
    ProductError
        D308 other size than annotated, D309 truncated, D310 implausible structure, D311 layout
        not supported.
    """

    def __init__(
        self,
        source: ByteSource,
        where: str,
        expected_shape: tuple[int, int] | None = None,
        *,
        allow_truncated: bool = False,
    ) -> None:
        self._source, self.where = source, where
        try:
            self._page = open_page(source)
            self._check_layout()
            self._check_shape(expected_shape)
            self._check_length(allow_truncated)
        except TiffError as error:
            raise self._fault(error) from error
        self._has_plain_lines = self._page.compression == 1 and not self._page.is_tiled
        if self._has_plain_lines:
            self._check_plain()

    @property
    def lines(self) -> int:
        """Lines of the image."""
        return self._page.length

    @property
    def samples(self) -> int:
        """Samples per line."""
        return self._page.width

    def line_offset(self, line: int) -> int | None:
        """Return the file offset of a line in bytes, or None for compressed or tiled files.

        It is what ``Burst.byte_offset`` should be; where they differ the TIFF table is right.
        """
        if not self._has_plain_lines:
            return None
        return int(self._line_offsets(line, 1)[0])

    def read(self, first_line: int, lines: int) -> NDArray[np.int16]:
        """Read a block of lines.

        Parameters
        ----------
        first_line, lines : int
            Within the image.

        Returns
        -------
        ndarray (lines, samples, 2) int16
            In-phase and quadrature, as stored. Read-only when no conversion was needed.

        Raises
        ------
        ProductError
            D202 damaged zip member, D309 truncated, D310 undecodable, D311 not supported.
        """
        if first_line < 0 or lines < 1 or first_line + lines > self.lines:
            message = f"lines {first_line}..{first_line + lines} of {self.lines}"
            raise ValueError(f"block must lie within the image, instead got {message}")
        try:
            if self._has_plain_lines:
                return self._read_plain(first_line, lines)
            rows, columns = (first_line, first_line + lines), (0, self.samples)
            pixels = read_region(self._source, self._page, rows, columns, np.dtype(np.int16), None)
        except TiffError as error:
            raise self._fault(error) from error
        return pixels.astype(np.int16, copy=False)

    def _line_offsets(self, first_line: int, lines: int) -> NDArray[np.int64]:
        page = self._page
        line = np.arange(first_line, first_line + lines, dtype=np.int64)
        strip = line // page.segment_length
        return page.offsets[strip] + (line - strip * page.segment_length) * page.line_bytes

    def _read_plain(self, first_line: int, lines: int) -> NDArray[np.int16]:
        offsets, width = self._line_offsets(first_line, lines), self._page.line_bytes
        breaks = np.flatnonzero(np.diff(offsets) != width) + 1
        parts = []
        for run in np.split(np.arange(lines), breaks):
            start, size = int(offsets[run[0]]), run.size * width
            data = self._source.read(start, start + size)
            if len(data) != size:
                line = first_line + int(run[0]) + len(data) // width
                raise TiffError("truncated", f"{start + len(data)} bytes", line)
            parts.append(np.frombuffer(data, dtype=self._page.byte_order + "i2"))
        pixels = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return pixels.astype(np.int16, copy=False).reshape(lines, self.samples, 2)

    def _check_layout(self) -> None:
        page = self._page
        is_complex = page.sample_format == _COMPLEX_INTEGER and page.bits == 32
        is_pair = page.sample_format == _SIGNED_INTEGER and page.bits == 16
        samples = 1 if is_complex else 2
        good = (is_complex or is_pair) and page.samples_per_pixel == samples and page.planar == 1
        if not good or page.predictor != 1:
            found = (
                f"sample format {page.sample_format}, {page.bits} bits, "
                f"{page.samples_per_pixel} samples per pixel, predictor {page.predictor}"
            )
            raise TiffError("unsupported", found)

    def _check_shape(self, expected: tuple[int, int] | None) -> None:
        if expected is None or expected == (self.lines, self.samples):
            return
        raise ProductError(
            "D308",
            "size of the measurement differs from its annotation",
            where=self.where,
            expected=f"{expected[0]} lines x {expected[1]} samples",
            found=f"{self.lines} x {self.samples}",
            remedy="fetch the product again",
        )

    def _check_length(self, allow_truncated: bool) -> None:
        line = self._page.first_line_beyond()
        if line is not None and not allow_truncated:
            raise TiffError("truncated", f"{self._page.file_size} bytes", line)

    def _check_plain(self) -> None:
        page = self._page
        first = np.arange(page.offsets.size, dtype=np.int64) * page.segment_length
        rows = np.minimum(page.segment_length, page.length - first)
        short = np.flatnonzero((page.byte_counts != rows * page.line_bytes) | (page.offsets < 8))
        if short.size:
            strip = int(short[0])
            found = f"strip {strip} of {int(page.byte_counts[strip])} bytes"
            found += f" at {int(page.offsets[strip])}"
            raise self._fault(TiffError("malformed", found, strip * page.segment_length))
        order = np.argsort(page.offsets, kind="stable")
        ends = (page.offsets + page.byte_counts)[order]
        if (ends[:-1] > page.offsets[order][1:]).any():
            raise self._fault(TiffError("malformed", "strips that overlap"))

    def _fault(self, error: TiffError) -> ProductError:
        codes = {
            "truncated": ("D309", "measurement is truncated", "all lines within the file"),
            "malformed": ("D310", "measurement has an implausible structure", "a TIFF of lines"),
            "unsupported": ("D311", "layout of the measurement is not supported", "complex int16"),
        }
        code, cause, expected = codes[error.kind]
        at_line = "" if error.line is None else f"; first bad line {error.line}"
        return ProductError(
            code,
            cause + at_line,
            where=self.where,
            expected=expected,
            found=error.found,
            remedy="fetch the product again, or leave this date out",
        )

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def open_measurement(
    url_or_product: str | SafeProduct,
    member: str | None,
    *,
    expected_shape: tuple[int, int] | None = None,
    allow_truncated: bool = False,
    storage_options: StorageOptions = None,
) -> MeasurementReader:
    """Open a measurement of a product.

    Parameters
    ----------
    url_or_product : str or SafeProduct
        Product, or its path or URL.
    member : str or None
        As ``SafeProduct.measurement`` returns it; None or empty: there is none.
    expected_shape : tuple of int, optional
        (lines, samples) according to the annotation.
    allow_truncated : bool, default False
        Read the lines before the cut of a truncated file.
    storage_options : mapping, optional
        For the fsspec file system of a URL.

    Raises
    ------
    ProductError
        D206 when there is no such member; else as ``MeasurementReader``.
    """
    if isinstance(url_or_product, SafeProduct):
        archive = url_or_product.archive
    else:
        archive = open_archive(url_or_product, storage_options)
    if not member:
        raise _absent(archive.label, "no measurement for this swath")
    where = f"{archive.label}/{member}"
    try:
        source = archive.source(member)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise _absent(where, "no such member") from error
    try:
        return MeasurementReader(source, where, expected_shape, allow_truncated=allow_truncated)
    except BaseException:
        source.close()
        raise


def _absent(where: str, found: str) -> ProductError:
    return ProductError(
        "D206",
        "measurement is missing; metadata remain usable",
        where=where,
        expected="a TIFF below measurement/",
        found=found,
        remedy="fetch the product with its pixels",
    )


def read_measurement(
    url_or_product: str | SafeProduct,
    member: str | None,
    first_line: int,
    lines: int,
    *,
    expected_shape: tuple[int, int] | None = None,
    storage_options: StorageOptions = None,
) -> NDArray[np.int16]:
    """Read a block of lines of a measurement: shape (lines, samples, 2) int16, I and Q.

    See ``open_measurement`` and ``MeasurementReader.read`` for parameters and errors. Several
    blocks of one zipped measurement are quicker through one reader.
    """
    with open_measurement(
        url_or_product, member, expected_shape=expected_shape, storage_options=storage_options
    ) as reader:
        return reader.read(first_line, lines)
