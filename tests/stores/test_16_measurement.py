"""Measurements: bit-exact pixels, one range read, and faults A07, B13 to B17, I06, I19."""

from __future__ import annotations

import importlib.util
import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bperp.stores.byte_source import BytesSource
from bperp.stores.errors import BperpError, ProductError
from bperp.stores.measurement import MeasurementReader, open_measurement, read_measurement
from bperp.stores.safe import open_safe

_spec = importlib.util.spec_from_file_location(
    "safe_text", Path(__file__).with_name("test_10_safe_text.py")
)
text = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(text)

LINES, SAMPLES = text.LINES * text.BURSTS, text.SAMPLES


class CountingSource(BytesSource):
    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.reads: list[tuple[int, int]] = []

    def read(self, start: int, stop: int) -> bytes:
        self.reads.append((start, stop))
        return super().read(start, stop)


def reader_of(data: bytes, **options) -> MeasurementReader:
    return MeasurementReader(BytesSource(data), "s1a.tiff", **options)


def code_of(data: bytes, **options) -> str:
    def read() -> None:
        reader = reader_of(data, **options)
        reader.read(0, reader.lines)

    with pytest.raises(BperpError) as caught:
        read()
    assert "s1a.tiff" in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value.code


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(("rows", "gap"), [(1, 0), (5, 0), (1, 6), (5, 2), (LINES, 0)])
def test_b16_uncompressed_layouts_are_bit_exact(order, big, rows, gap):
    values = text.pixels()
    data = text.tiff_bytes(values, order, big, rows, gap)
    with tifffile.TiffFile(io.BytesIO(data)) as oracle:
        assert oracle.is_bigtiff == big
        page = oracle.pages[0]
        assert (page.imagelength, page.imagewidth, page.compression) == (LINES, SAMPLES, 1)
        assert page.dataoffsets[0] == reader_of(data).line_offset(0)
    reader = reader_of(data, expected_shape=(LINES, SAMPLES))
    assert (reader.lines, reader.samples) == (LINES, SAMPLES)
    for first, lines in ((0, LINES), (0, 1), (7, 9), (LINES - 1, 1)):
        block = reader.read(first, lines)
        assert block.dtype == np.int16
        assert np.array_equal(block, values[first : first + lines])


def test_a_block_of_lines_is_one_range_read():
    values = text.pixels()
    source = CountingSource(text.tiff_bytes(values))
    reader = MeasurementReader(source, "s1a.tiff")
    source.reads.clear()
    reader.read(5, 12)
    assert len(source.reads) == 1
    assert source.reads[0] == (reader.line_offset(5), reader.line_offset(5) + 12 * SAMPLES * 4)
    # The directory is not the whole file either.
    opened = CountingSource(text.tiff_bytes(values))
    MeasurementReader(opened, "s1a.tiff")
    assert sum(stop - start for start, stop in opened.reads) < 1000


def test_b15_line_offset_is_where_the_data_lie():
    values = text.pixels()
    data = text.tiff_bytes(values)
    offset = reader_of(data).line_offset(9)
    assert data[offset : offset + 4] == values[9, 0].astype("<i2").tobytes()


@pytest.mark.parametrize("options", [
    {}, {"rowsperstrip": 4}, {"tile": (16, 16)}, {"compression": "zlib"},
    {"compression": "zlib", "tile": (16, 16)}, {"byteorder": ">"}, {"bigtiff": True},
    {"compression": "zlib", "byteorder": ">", "rowsperstrip": 3},
])  # fmt: skip
def test_b16_b17_two_band_files_of_another_writer(options):
    values = np.random.default_rng(3).integers(-3000, 3000, (40, 50, 2), dtype=np.int16)
    stream = io.BytesIO()
    file_options = {k: options[k] for k in ("byteorder", "bigtiff") if k in options}
    rest = {k: v for k, v in options.items() if k not in file_options}
    with tifffile.TiffWriter(stream, **file_options) as writer:
        writer.write(values, photometric="minisblack", planarconfig="contig", **rest)
    reader = reader_of(stream.getvalue())
    assert np.array_equal(reader.read(0, 40), values)
    assert np.array_equal(reader.read(13, 9), values[13:22])
    assert (reader.line_offset(0) is None) == ("compression" in options or "tile" in options)


def tiff_of(values: np.ndarray, **options) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, values, photometric="minisblack", **options)
    return stream.getvalue()


def test_b17_other_pixels_are_refused():
    shape = (8, 10)
    assert code_of(tiff_of(np.zeros(shape, np.complex64))) == "D311"
    assert code_of(tiff_of(np.zeros(shape, np.uint16))) == "D311"
    assert code_of(tiff_of(np.zeros(shape, np.float32))) == "D311"
    planes = np.zeros((2, *shape), np.int16)
    assert code_of(tiff_of(planes, planarconfig="separate")) == "D311"
    packed = tiff_of(np.zeros((*shape, 2), np.int16), planarconfig="contig", compression="zlib")
    unknown = packed.replace(
        np.array([259, 3], "<u2").tobytes() + b"\1\0\0\0\x08\0",
        np.array([259, 3], "<u2").tobytes() + b"\1\0\0\0\x07\0",
    )
    assert unknown != packed
    assert code_of(unknown) == "D311"


def test_b13_size_against_annotation():
    with pytest.raises(ProductError, match=r"D308 .*expected 25 lines x 16.*found 24 x 16"):
        reader_of(text.tiff_bytes(text.pixels()), expected_shape=(25, 16))


def test_b14_truncation_names_the_first_bad_line():
    values = text.pixels()
    data = text.tiff_bytes(values)
    cut = data[: reader_of(data).line_offset(17) + 5]
    with pytest.raises(ProductError, match=r"D309 s1a\.tiff.*first bad line 17; .*fetch"):
        reader_of(cut)
    reader = reader_of(cut, allow_truncated=True)
    assert np.array_equal(reader.read(4, 13), values[4:17])
    with pytest.raises(ProductError, match=r"D309 .*first bad line 17"):
        reader.read(10, 10)
    strips = text.tiff_bytes(values, rows=5)
    cut = strips[: reader_of(strips).line_offset(13)]
    with pytest.raises(ProductError, match=r"D309 .*first bad line 13"):
        reader_of(cut)
    for size in (0, 5, 20, 100):
        assert code_of(data[:size]) in {"D309", "D310"}
    assert code_of(b"") == "D309"


def patched(data: bytes, old: bytes, new: bytes) -> bytes:
    assert data.count(old) >= 1
    return data.replace(old, new, 1)


def test_i19_b15_tables_that_contradict_themselves():
    data = text.tiff_bytes(text.pixels())
    offsets = np.frombuffer(data[134 : 134 + 4 * LINES], "<u4")
    assert offsets[0] == reader_of(data).line_offset(0)
    raw = offsets.tobytes()
    overlap = np.array([offsets[0], *offsets[:-1]], "<u4").tobytes()
    sparse = np.array([0, *offsets[1:]], "<u4").tobytes()
    assert code_of(patched(data, raw, overlap)) == "D310"
    assert code_of(patched(data, raw, sparse)) == "D310"
    sizes = np.full(LINES, SAMPLES * 4, "<u4").tobytes()
    assert code_of(patched(data, sizes, sizes[:-4] + b"\1\0\0\0")) == "D310"
    huge = patched(data, np.array([256, 3], "<u2").tobytes() + b"\1\0\0\0\x10\0",
                   np.array([256, 3], "<u2").tobytes() + b"\1\0\0\0\xff\xff")  # fmt: skip
    assert code_of(huge) == "D310"
    # A million strips, a directory of 60000 entries, a directory that points to itself.
    count = np.array([273, 4], "<u2").tobytes()
    many = patched(data, count + np.uint32(LINES).tobytes(), count + np.uint32(10**6).tobytes())
    assert code_of(many) in {"D309", "D310"}
    assert code_of(data[:8] + b"\x60\xea" + data[10:]) == "D310"
    assert code_of(b"II*\0\4\0\0\0") in {"D309", "D310"}
    assert code_of(b"<html>not a tiff</html>") == "D310"


def test_block_outside_the_image_is_a_bug_of_the_caller():
    reader = reader_of(text.tiff_bytes(text.pixels()))
    for first, lines in ((-1, 2), (0, 0), (20, 5)):
        with pytest.raises(ValueError, match="block must lie within the image"):
            reader.read(first, lines)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_pixels_from_zip_folder_and_product_agree(tmp_path, method):
    files, values = text.safe_files(), text.pixels(2)
    zipped = text.write_zip(tmp_path, files, method=method)
    folder = text.write_folder(tmp_path, files)
    product = open_safe(str(zipped))
    member = product.measurement("IW1", "VV")
    for place in (product, str(zipped), str(folder), folder.as_uri()):
        block = read_measurement(place, member, 3, 8, expected_shape=(LINES, SAMPLES))
        assert np.array_equal(block, values[3:11])
    with open_measurement(pickle.loads(pickle.dumps(product)), member) as reader:
        # Forward, backward, again.
        for first in (0, 12, 5, 5):
            assert np.array_equal(reader.read(first, 7), values[first : first + 7])


def test_a_compressed_member_is_decompressed_once(tmp_path, monkeypatch):
    zipped = text.write_zip(tmp_path, text.safe_files())
    product = open_safe(str(zipped))
    opened = []
    original = zipfile.ZipFile.open
    monkeypatch.setattr(
        zipfile.ZipFile, "open", lambda self, *a, **k: opened.append(a) or original(self, *a, **k)
    )
    with open_measurement(product, product.measurement("IW1", "VV")) as reader:
        before = len(opened)
        for first in range(0, LINES, 4):
            reader.read(first, 4)
        assert len(opened) - before <= 1


def test_a07_no_measurement(tmp_path):
    product = open_safe(str(text.write_folder(tmp_path, text.safe_files(measurement=None))))
    for member in (product.measurement("IW1", "VV"), "measurement/absent.tiff", ""):
        with pytest.raises(ProductError, match=r"D206 .*metadata remain usable"):
            read_measurement(product, member, 0, 1)
    zipped = open_safe(str(text.write_zip(tmp_path, text.safe_files(measurement=None))))
    with pytest.raises(ProductError, match="D206"):
        read_measurement(zipped, "measurement/absent.tiff", 0, 1)


def test_a02_damaged_member_is_found_at_the_first_read(tmp_path):
    zipped = text.write_zip(tmp_path, text.safe_files())
    product = open_safe(str(zipped))
    member = product.measurement("IW1", "VV")
    with zipfile.ZipFile(zipped) as archive:
        entry = archive.getinfo(f"{text.NAME}.SAFE/{member}")
    data = bytearray(zipped.read_bytes())
    place = entry.header_offset + 30 + len(entry.filename) + entry.compress_size - 200
    data[place : place + 8] = b"\xff" * 8
    zipped.write_bytes(bytes(data))
    with pytest.raises(ProductError, match=r"D202|D309"):
        read_measurement(product, member, 0, LINES)


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_mutated_files_give_pixels_or_a_typed_error(seed):
    random = np.random.default_rng(seed)
    order, big = str(random.choice(["<", ">"])), bool(random.random() < 0.3)
    data = bytearray(text.tiff_bytes(text.pixels(), order, big, int(random.choice([1, 5]))))
    for _ in range(int(random.integers(1, 5))):
        place = int(random.integers(min(400, len(data))))
        if random.random() < 0.2:
            del data[place : place + int(random.integers(1, 30))]
        else:
            data[place] = int(random.integers(256))
    code = "D300"
    try:
        reader = reader_of(bytes(data))
        block = reader.read(0, min(reader.lines, 24))
        code = "D300" if block.dtype == np.int16 else "wrong type"
    except BperpError as error:
        code = error.code
    assert code in {"D300", "D309", "D310", "D311"}


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(1, 6), st.integers(1, 7), st.integers(0, 9), st.sampled_from("<>"))
def test_any_small_image_round_trips_through_a_hand_written_file(rows, lines, gap, order):
    values = np.arange(lines * 3 * 2, dtype=np.int16).reshape(lines, 3, 2) * 991
    data = text.tiff_bytes(values, order, rows=rows, gap=gap)
    assert np.array_equal(reader_of(data).read(0, lines), values)


@pytest.mark.realdata
def test_real_zeros_are_read_or_refused_by_type(real_data):
    path = next(real_data.glob("eo_tools-morocco-2023/S1/*20230904*.SAFE"))
    product = open_safe(str(path))
    for swath in ("IW1", "IW2", "IW3"):
        annotation = product.annotation(swath, "VV")
        burst = annotation.bursts[4]
        shape = (annotation.number_of_lines, annotation.number_of_samples)
        block = read_measurement(
            product, product.measurement(swath, "VV"), burst.first_line, 40, expected_shape=shape
        )
        # Zstandard, one line per strip, all zero.
        assert block.shape == (40, annotation.samples_per_burst, 2)
        assert not block.any()


@pytest.mark.realdata
def test_real_measurements_that_are_none(real_data):
    cases = {"*20200511*.zip": "D309", "*20220828*.zip": "D310"}
    for pattern, code in cases.items():
        path = next(real_data.glob(f"s1-reader-safe-orbits/safe/{pattern}"))
        product = open_safe(str(path))
        member = product.measurement("IW2", "VV")
        with pytest.raises(ProductError, match=code):
            read_measurement(product, member, 0, 10)
    path = next(real_data.glob("single-safes/sarsen-rome/*.SAFE"))
    product = open_safe(str(path))
    with pytest.raises(ProductError, match="D311"):
        read_measurement(product, product.measurement("IW1", "VV"), 0, 10)
