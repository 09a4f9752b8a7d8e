"""Bytes, completeness and atomicity of written StaMPS input trees."""

from __future__ import annotations

import errno
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bperp.stores import stamps as stamps_module
from bperp.stores.errors import ConfigurationError, StorageError
from bperp.stores.stamps import (
    StampsBaseline,
    StampsScene,
    StampsTree,
    StateVectors,
    stamps_tree_bytes,
)
from bperp.stores.stamps_par import image_parameters

LINES, SAMPLES = 7, 5
REFERENCE, SECONDARIES = "20230904", ("20230823", "20230916")
SCENE = StampsScene(
    reference_date=REFERENCE,
    sensor="SENTINEL-1A",
    lines=LINES,
    samples=SAMPLES,
    first_line_time_ns=1_693_809_451_250_000_000,  # 2023-09-04T06:37:31.25
    azimuth_time_interval_s=0.0020555563,
    heading_deg=-166.5,
    radar_frequency_hz=5.40500045433435e9,
    near_range_m=859_450.24,
    range_pixel_spacing_m=2.329562114715323,
    azimuth_pixel_spacing_m=13.94,
    sar_to_earth_center_m=7_071_759.5,
    earth_radius_below_sensor_m=6_371_524.2,
    center_latitude_deg=34.5,
    center_longitude_deg=-4.25,
    azimuth_bandwidth_hz=327.0,
)


def image(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    values = random.normal(size=(LINES, SAMPLES)) + 1j * random.normal(size=(LINES, SAMPLES))
    return values.astype(np.complex64)


def fill(tree: StampsTree, *, skip: str = "") -> None:
    for number, date in enumerate((REFERENCE, *SECONDARIES)):
        if skip != f"slc {date}":
            tree.write_rslc_rows(date, 0, image(number))
    for number, date in enumerate(SECONDARIES):
        if skip != f"diff {date}":
            tree.write_diff_rows(date, 0, image(10 + number))
        if skip != f"base {date}":
            tree.write_baseline(StampsBaseline(date, (0.0, 1.0, 2.0), (0.0, 0.0, 0.0)))
    if skip != "geometry":
        plane = np.arange(LINES * SAMPLES, dtype=np.float32).reshape(LINES, SAMPLES)
        tree.write_geometry_rows(0, plane, plane + 100, plane - 50)


def snapshot(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_file_names_are_those_of_the_format(tmp_path: Path) -> None:
    with StampsTree(tmp_path / "out", SCENE, SECONDARIES) as tree:
        fill(tree)
    rasters = [
        "rslc/20230823.rslc",
        "rslc/20230904.rslc",
        "rslc/20230916.rslc",
        "diff0/20230904_20230823.diff",
        "diff0/20230904_20230916.diff",
        "geo/elevation_dem.rdc",
        "geo/20230904.lon",
        "geo/20230904.lat",
    ]
    expected = {
        *rasters,
        *(f"{name}.par" for name in rasters),
        "diff0/20230904_20230823.base",
        "diff0/20230904_20230916.base",
        "geo/20230904.diff_par",
        "dem/projected_dem.par",
    }
    assert set(snapshot(tmp_path / "out")) == expected
    assert "diff0/20230904_20230904.diff" not in expected
    assert not (tmp_path / "out.partial").exists()


def test_samples_are_big_endian_with_azimuth_outside(tmp_path: Path) -> None:
    with StampsTree(tmp_path / "out", SCENE, SECONDARIES) as tree:
        fill(tree)
    slc, diff = image(0), image(11)
    raw = (tmp_path / "out/rslc/20230904.rslc").read_bytes()
    assert len(raw) == LINES * SAMPLES * 8
    line, sample = 3, 2
    real, imaginary = struct.unpack_from(">ff", raw, (line * SAMPLES + sample) * 8)
    assert (real, imaginary) == (slc[line, sample].real, slc[line, sample].imag)
    raw = (tmp_path / "out/diff0/20230904_20230916.diff").read_bytes()
    assert struct.unpack_from(">ff", raw, 8) == (diff[0, 1].real, diff[0, 1].imag)
    raw = (tmp_path / "out/geo/20230904.lat").read_bytes()
    assert struct.unpack_from(">f", raw, 4 * (SAMPLES + 1)) == (SAMPLES + 1 - 50.0,)
    raw = (tmp_path / "out/geo/elevation_dem.rdc").read_bytes()
    assert struct.unpack_from(">f", raw, 4 * 7) == (7.0,)


def test_rows_may_come_in_any_order_and_size(tmp_path: Path) -> None:
    with StampsTree(tmp_path / "whole", SCENE, SECONDARIES) as tree:
        fill(tree)
    with StampsTree(tmp_path / "parts", SCENE, SECONDARIES) as tree:
        plane = np.arange(LINES * SAMPLES, dtype=np.float32).reshape(LINES, SAMPLES)
        for first, stop in ((4, 7), (0, 1), (1, 4)):
            for number, date in enumerate((REFERENCE, *SECONDARIES)):
                # A window of a larger array, as a tile of a cube is: not contiguous.
                wide = np.repeat(image(number)[first:stop], 2, axis=1)[:, ::2]
                tree.write_rslc_rows(date, first, wide)
            for number, date in enumerate(SECONDARIES):
                tree.write_diff_rows(date, first, image(10 + number)[first:stop])
                tree.write_baseline(StampsBaseline(date, (0.0, 1.0, 2.0), (0.0, 0.0, 0.0)))
            rows = plane[first:stop]
            tree.write_geometry_rows(first, rows, rows + 100, rows - 50)
    assert snapshot(tmp_path / "parts") == snapshot(tmp_path / "whole")


def test_no_data_is_exactly_zero_and_never_nan(tmp_path: Path) -> None:
    diff = image(3)
    diff[2, 1] = complex(np.nan, 1.0)
    diff[2, 2] = complex(1.0, np.inf)
    height = np.ones((LINES, SAMPLES), dtype=np.float32)
    longitude = np.full_like(height, 10.0)
    height[4, 4] = longitude[5, 0] = np.nan
    with StampsTree(tmp_path / "out", SCENE, SECONDARIES) as tree:
        fill(tree)
        tree.write_diff_rows("20230823", 0, diff)
        tree.write_geometry_rows(0, height, longitude, height)
        assert tree.nonfinite_samples == 4
    raw = (tmp_path / "out/diff0/20230904_20230823.diff").read_bytes()
    assert raw[(2 * SAMPLES + 1) * 8 : (2 * SAMPLES + 3) * 8] == b"\0" * 16
    written = np.frombuffer(raw, ">c8").reshape(LINES, SAMPLES)
    assert np.isfinite(written).all()
    assert np.array_equal(written[3], diff[3])
    geo = tmp_path / "out/geo"
    dem = np.fromfile(geo / "elevation_dem.rdc", ">f4").reshape(LINES, SAMPLES)
    lon = np.fromfile(geo / "20230904.lon", ">f4").reshape(LINES, SAMPLES)
    lat = np.fromfile(geo / "20230904.lat", ">f4").reshape(LINES, SAMPLES)
    assert np.isfinite(dem).all()
    for raster in (lon, lat):
        assert np.argwhere(np.isnan(raster)).tolist() == [[4, 4], [5, 0]]


def test_text_files_use_colon_tab_and_line_feeds(tmp_path: Path) -> None:
    with StampsTree(tmp_path / "out", SCENE, SECONDARIES) as tree:
        fill(tree)
    texts = [path for path in (tmp_path / "out").rglob("*") if "par" in path.suffix]
    texts += list((tmp_path / "out").rglob("*.base"))
    assert len(texts) == 12
    for path in texts:
        raw = path.read_bytes()
        assert b"\r" not in raw
        assert raw.endswith(b"\n")
        assert all(b":\t" in line for line in raw.splitlines())
    base = (tmp_path / "out/diff0/20230904_20230823.base").read_text().splitlines()
    assert base[0] == "initial_baseline(TCN):\t0.0000000 1.0000000 2.0000000 m m m"
    assert base[1].startswith("initial_baseline_rate:\t0.000000000 ")


def test_defects_of_the_common_exporter_are_absent() -> None:
    """Integer spacings, repeated ranges and pulse rate in place of line rate (S1, S2, S6)."""
    text = image_parameters(SCENE, "FCOMPLEX")
    values = {line.split(":\t")[0]: line.split(":\t")[1].split() for line in text.splitlines()}
    assert values["range_pixel_spacing"] == ["2.329562114715323", "m"]
    assert values["azimuth_pixel_spacing"] == ["13.94", "m"]
    assert float(values["center_range_slc"][0]) == pytest.approx(859_450.24 + 2 * 2.32956, abs=1e-3)
    assert float(values["far_range_slc"][0]) == pytest.approx(859_450.24 + 4 * 2.32956, abs=1e-3)
    assert float(values["prf"][0]) == pytest.approx(486.4863103, abs=1e-6)
    seconds = 6 * 3600 + 37 * 60 + 31.25
    assert float(values["start_time"][0]) == pytest.approx(seconds, abs=1e-9)
    assert float(values["end_time"][0]) == pytest.approx(seconds + 6 * 0.0020555563, abs=1e-9)
    keys = [line.split(":")[0] for line in text.splitlines()]
    assert keys[:6] == ["title", "sensor", "date", "start_time", "center_time", "end_time"]


def test_times_stay_monotonic_across_midnight() -> None:
    late = replace(SCENE, first_line_time_ns=1_693_872_000_500_000_000)  # 2023-09-05T00:00:00.5
    text = image_parameters(late, "FCOMPLEX")
    start = next(line for line in text.splitlines() if line.startswith("start_time"))
    assert float(start.split()[1]) == pytest.approx(86_400.5)


@pytest.mark.parametrize(
    ("skip", "named"),
    [
        ("slc 20230904", "rslc/20230904.rslc"),
        ("diff 20230916", "diff0/20230904_20230916.diff"),
        ("base 20230823", "baseline of 20230823"),
        ("geometry", "geo/elevation_dem.rdc"),
    ],
)
def test_incomplete_trees_are_not_published(tmp_path: Path, skip: str, named: str) -> None:
    tree = StampsTree(tmp_path / "out", SCENE, SECONDARIES)
    fill(tree, skip=skip)
    with pytest.raises(StorageError, match=named) as caught:
        tree.close()
    assert caught.value.code == "R801"
    assert list(tmp_path.iterdir()) == []


def test_one_missing_row_is_noticed(tmp_path: Path) -> None:
    tree = StampsTree(tmp_path / "out", SCENE, SECONDARIES)
    fill(tree, skip="diff 20230823")
    tree.write_diff_rows("20230823", 0, image(1)[:3])
    tree.write_diff_rows("20230823", 4, image(1)[4:])
    with pytest.raises(StorageError, match="lacks 1 rows from row 3"):
        tree.close()


def test_exception_in_the_block_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with StampsTree(tmp_path / "out", SCENE, SECONDARIES) as tree:
            fill(tree)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_existing_tree_is_replaced_only_when_asked_and_only_when_complete(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with StampsTree(out, SCENE, SECONDARIES) as tree:
        fill(tree)
    before = snapshot(out)
    with pytest.raises(ConfigurationError) as caught:
        StampsTree(out, SCENE, SECONDARIES)
    assert caught.value.code == "C111"
    unfinished = StampsTree(out, SCENE, SECONDARIES, replace=True)
    unfinished.write_rslc_rows(REFERENCE, 0, image(99))
    assert snapshot(out) == before, "readers see the old tree while the new one is written"
    with pytest.raises(StorageError):
        unfinished.close()
    assert snapshot(out) == before
    with StampsTree(out, SCENE, SECONDARIES, replace=True) as tree:
        fill(tree)
        tree.write_rslc_rows(REFERENCE, 0, image(99))
    after = snapshot(out)
    assert after["rslc/20230904.rslc"] != before["rslc/20230904.rslc"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_results_of_a_stamps_run_are_never_removed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with StampsTree(out, SCENE, SECONDARIES) as tree:
        fill(tree)
    (out / "PATCH_1").mkdir()
    with pytest.raises(ConfigurationError, match="PATCH_1") as caught:
        StampsTree(out, SCENE, SECONDARIES, replace=True)
    assert caught.value.code == "C111"
    (out / "PATCH_1").rmdir()
    tree = StampsTree(out, SCENE, SECONDARIES, replace=True)
    fill(tree)
    (out / "PATCH_1").mkdir()  # StaMPS was started while the new tree was being written
    with pytest.raises(ConfigurationError):
        tree.close()
    assert (out / "PATCH_1").is_dir()
    tree.abandon()


def test_left_over_partial_folder_of_a_killed_run_is_ignored(tmp_path: Path) -> None:
    stale = tmp_path / "out.partial" / "rslc"
    stale.mkdir(parents=True)
    (stale / "20200101.rslc").write_bytes(b"old")
    with StampsTree(tmp_path / "out", SCENE, SECONDARIES) as tree:
        fill(tree)
    assert not (tmp_path / "out/rslc/20200101.rslc").exists()


def test_folder_that_only_looks_like_a_left_over_is_kept(tmp_path: Path) -> None:
    precious = tmp_path / "out.partial" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("mine")
    with pytest.raises(ConfigurationError, match=r"thesis\.txt"):
        StampsTree(tmp_path / "out", SCENE, SECONDARIES)
    assert precious.read_text() == "mine"


@pytest.mark.parametrize("name", ["with blank", "tab\there", "a$b", "star*", "quote'"])
def test_paths_that_the_scripts_cannot_read_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        StampsTree(tmp_path / name / "out", SCENE, SECONDARIES)
    assert caught.value.code == "C112"
    assert list(tmp_path.iterdir()) == []


def test_longest_path_may_have_255_bytes_but_not_256(tmp_path: Path) -> None:
    tail = len("/diff0/20230904_20230823.diff.par")
    length = 255 - tail - len(str(tmp_path)) - 1
    fitting = tmp_path / "/".join(["d" * 40] * 3).ljust(length, "x")
    assert len(str(fitting)) + tail == 255
    StampsTree(fitting, SCENE, SECONDARIES).abandon()
    with pytest.raises(ConfigurationError, match="256 bytes") as caught:
        StampsTree(f"{fitting}x", SCENE, SECONDARIES)
    assert caught.value.code == "C112"


def test_more_pixels_than_32_bits_are_refused(tmp_path: Path) -> None:
    big = replace(SCENE, lines=2**16, samples=2**15)
    with pytest.raises(ConfigurationError) as caught:
        StampsTree(tmp_path / "out", big, SECONDARIES)
    assert caught.value.code == "C113"


def test_too_small_a_disk_is_noticed_before_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = stamps_tree_bytes(LINES, SAMPLES, 2)
    assert needed == LINES * SAMPLES * (3 * 8 + 2 * 8 + 3 * 4)
    usage = type("Usage", (), {"free": needed - 1})()
    monkeypatch.setattr(stamps_module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StorageError) as caught:
        StampsTree(tmp_path / "out", SCENE, SECONDARIES)
    assert caught.value.code == "R804"
    assert list(tmp_path.iterdir()) == []


def test_full_disk_while_writing_is_a_typed_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = StampsTree(tmp_path / "out", SCENE, SECONDARIES)

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", full)
        with pytest.raises(StorageError) as caught:
            tree.write_rslc_rows(REFERENCE, 0, image(0))
    assert caught.value.code == "R804"
    tree.abandon()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dates", [[], ["20230904"], ["20230823", "20230823"]])
def test_dates_must_form_a_single_reference_stack(tmp_path: Path, dates: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        StampsTree(tmp_path / "out", SCENE, dates)
    assert caught.value.code == "C114"


def test_programming_errors_are_value_errors(tmp_path: Path) -> None:
    tree = StampsTree(tmp_path / "out", SCENE, SECONDARIES)
    with pytest.raises(ValueError, match="not a secondary"):
        tree.write_diff_rows(REFERENCE, 0, image(0))
    with pytest.raises(ValueError, match="not a date"):
        tree.write_rslc_rows("20200101", 0, image(0))
    with pytest.raises(ValueError, match="exceed"):
        tree.write_rslc_rows(REFERENCE, 1, image(0))
    with pytest.raises(ValueError, match="rows must be"):
        tree.write_rslc_rows(REFERENCE, 0, image(0)[:, 1:])
    with pytest.raises(ValueError, match="complex"):
        tree.write_rslc_rows(REFERENCE, 0, image(0).real)
    tree.abandon()
    with pytest.raises(ValueError, match="closed"):
        tree.write_rslc_rows(REFERENCE, 0, image(0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sensor": "heading: 5"}, "one upper-case word"),
        ({"reference_date": "2023-09-04"}, "YYYYMMDD"),
        ({"reference_date": "20230906"}, "not reference_date"),
        ({"range_pixel_spacing_m": float("nan")}, "range_pixel_spacing_m"),
        ({"lines": 0}, "positive"),
    ],
)
def test_scenes_that_cannot_be_written_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SCENE, **change)


def test_state_vectors_are_interpolated_and_never_extrapolated() -> None:
    rate, radius = 1.06e-3, 7.07e6
    times = tuple(10.0 * k for k in range(4))
    circle = tuple((radius * np.cos(rate * t), radius * np.sin(rate * t), 0.0) for t in times)
    speed = tuple((-rate * y, rate * x, 0.0) for x, y, _ in circle)
    vectors = StateVectors(times, circle, speed)
    for time in (0.0, 4.3, 15.0, 29.99):
        position, velocity = vectors.at(time)
        assert np.linalg.norm(position) == pytest.approx(radius, abs=3e-4)
        assert np.linalg.norm(velocity) == pytest.approx(rate * radius, abs=1e-3)
        angle = np.arctan2(position[1], position[0])
        assert angle == pytest.approx(rate * time, abs=1e-10)
    with pytest.raises(ValueError, match="time must be in"):
        vectors.at(30.01)
    with pytest.raises(ValueError, match="ascend"):
        StateVectors((0.0, 25.0, 10.0), circle[:3], speed[:3])


def test_orbit_with_a_gap_is_used_but_not_listed() -> None:
    """The file stores the first time and one interval; a wrong list is worse than none."""
    rate, radius, times = 1.06e-3, 7.07e6, (-10.0, 0.0, 10.0, 30.0)
    circle = tuple((radius * np.cos(rate * t), radius * np.sin(rate * t), 0.0) for t in times)
    speed = tuple((-rate * y, rate * x, 0.0) for x, y, _ in circle)
    vectors = StateVectors(times, circle, speed)
    assert np.linalg.norm(vectors.at(20.0)[0]) == pytest.approx(radius, abs=5e-3)
    text = image_parameters(replace(SCENE, state_vectors=vectors), "FCOMPLEX")
    assert "state_vector" not in text
    even = StateVectors(times[:3], circle[:3], speed[:3])
    text = image_parameters(replace(SCENE, state_vectors=even), "FCOMPLEX")
    assert "number_of_state_vectors:\t3\n" in text
    assert "state_vector_interval:\t10.000000 s\n" in text


def test_sensor_of_a_secondary_may_differ(tmp_path: Path) -> None:
    sensors = {"20230823": "SENTINEL-1B"}
    with StampsTree(tmp_path / "out", SCENE, SECONDARIES, sensors=sensors) as tree:
        fill(tree)
    assert "sensor:\tSENTINEL-1B\n" in (tmp_path / "out/rslc/20230823.rslc.par").read_text()
    assert "sensor:\tSENTINEL-1A\n" in (tmp_path / "out/rslc/20230916.rslc.par").read_text()
