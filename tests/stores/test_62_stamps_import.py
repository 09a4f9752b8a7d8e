"""Reading existing StaMPS input trees, and saying what is wrong with them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bperp.stores.errors import ConfigurationError
from bperp.stores.stamps import (
    StampsBaseline,
    StampsScene,
    StampsTree,
    read_stamps_tree,
    validate_stamps_tree,
)

LINES, SAMPLES = 6, 4
PARAMETERS = """title: INSAR stack
sensor: SENTINEL-1A
date: 2018 01 06
range_samples:   4
azimuth_lines:   6
image_format:    FCOMPLEX
heading: 349.9  degrees
range_pixel_spacing: 2.3296 m
radar_frequency: 5.4050005e+09 Hz
prf: 486.486 Hz
sar_to_earth_center: 7071759.5 m
earth_radius_below_sensor: 6370000.0 m
near_range_slc: 800000.0 m
center_range_slc: 800004.0 m
"""
BASE = """initial_baseline(TCN):  0.1  12.5  -30.25  m  m  m
initial_baseline_rate:  0.0  0.01  0.02  m/s m/s m/s
"""


@pytest.fixture(name="foreign")
def fixture_foreign(tmp_path: Path) -> Path:
    """Build a tree by hand, in the looser text style that another program would use."""
    root = tmp_path / "INSAR_20180106"
    for name in ("rslc", "diff0", "geo"):
        (root / name).mkdir(parents=True)
    random = np.random.default_rng(5)
    for date in ("20180106", "20180118", "20180130"):
        random.normal(size=(LINES, SAMPLES, 2)).astype(">f4").tofile(root / f"rslc/{date}.rslc")
    for date in ("20180118", "20180130"):
        stem = root / f"diff0/20180106_{date}"
        random.normal(size=(LINES, SAMPLES, 2)).astype(">f4").tofile(f"{stem}.diff")
        Path(f"{stem}.base").write_text(BASE)
    for name in ("elevation_dem.rdc", "20180106.lon", "20180106.lat"):
        random.normal(size=(LINES, SAMPLES)).astype(">f4").tofile(root / "geo" / name)
    (root / "rslc/20180106.rslc.par").write_text(PARAMETERS)
    return root


def test_foreign_tree_is_read(foreign: Path) -> None:
    assert validate_stamps_tree(foreign) == []
    stack = read_stamps_tree(foreign)
    assert stack.reference_date == "20180106"
    assert stack.secondaries == ("20180118", "20180130")
    assert (stack.lines, stack.samples) == (LINES, SAMPLES)
    assert stack.number("heading") == 349.9
    assert stack.baselines["20180118"].tcn_m == (0.1, 12.5, -30.25)
    assert stack.baselines["20180118"].tcn_rate_m_s == (0.0, 0.01, 0.02)
    raw = np.fromfile(foreign / "diff0/20180106_20180130.diff", ">f4").reshape(LINES, SAMPLES, 2)
    rows = stack.read_interferogram_rows("20180130", 2, 5)
    assert rows.dtype == np.complex64
    assert np.array_equal(rows.real, raw[2:5, :, 0])
    assert np.array_equal(rows.imag, raw[2:5, :, 1])
    slc = np.fromfile(foreign / "rslc/20180106.rslc", ">c8").reshape(LINES, SAMPLES)
    assert np.array_equal(stack.read_slc_rows("20180106", 0, LINES), slc)
    height, longitude, latitude = stack.read_geometry_rows(1, 2)
    expected = np.fromfile(foreign / "geo/20180106.lat", ">f4").reshape(LINES, SAMPLES)
    assert np.array_equal(latitude, expected[1:2])
    assert height.shape == longitude.shape == (1, SAMPLES)
    with pytest.raises(ValueError, match="exceed"):
        stack.read_slc_rows("20180106", 0, LINES + 1)


def test_short_integer_images_are_read(foreign: Path) -> None:
    (foreign / "rslc/20180106.rslc.par").write_text(PARAMETERS.replace("FCOMPLEX", "SCOMPLEX"))
    numbers = np.arange(LINES * SAMPLES * 2, dtype=">i2").reshape(LINES, SAMPLES, 2) - 20
    for path in (foreign / "rslc").glob("*.rslc"):
        numbers.astype(">i2").tofile(path)
    rows = read_stamps_tree(foreign).read_slc_rows("20180118", 1, 3)
    assert rows.dtype == np.complex64
    assert np.array_equal(rows, numbers[1:3, :, 0] + 1j * numbers[1:3, :, 1].astype(np.float32))


def _remove(name: str) -> Callable[[Path], None]:
    return lambda root: (root / name).unlink()


def _rewrite(name: str, old: str, new: str) -> Callable[[Path], None]:
    def edit(root: Path) -> None:
        text = (root / name).read_text()
        assert old in text
        (root / name).write_text(text.replace(old, new))

    return edit


def _copy(source: str, target: str) -> Callable[[Path], None]:
    return lambda root: (shutil.copy(root / source, root / target), None)[1]


FIRST = "diff0/20180106_20180118"
PAR = "rslc/20180106.rslc.par"
BREAKS: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "no base": (_remove(f"{FIRST}.base"), f"{FIRST}.base", "missing"),
    "no diff": (_remove(f"{FIRST}.diff"), f"{FIRST}.diff", "missing"),
    "no reference image": (_remove("rslc/20180106.rslc"), "rslc/20180106.rslc", "missing"),
    "no secondary image": (_remove("rslc/20180130.rslc"), "rslc/20180130.rslc", "missing"),
    "no parameters": (_remove(PAR), PAR, "found 0"),
    "no height": (_remove("geo/elevation_dem.rdc"), "geo/*dem.rdc", "missing"),
    "no longitude": (_remove("geo/20180106.lon"), "geo/*.lon", "missing"),
    "two heights": (_copy("geo/elevation_dem.rdc", "geo/old_dem.rdc"), "geo/*dem.rdc", "found 2"),
    "self pair": (
        _copy(f"{FIRST}.diff", "diff0/20180106_20180106.diff"),
        "20180106_20180106",
        "self",
    ),
    "two references": (
        _copy(f"{FIRST}.diff", "diff0/20180118_20180130.diff"),
        "diff0",
        "one reference",
    ),
    "odd name": (_copy(f"{FIRST}.diff", "diff0/filtered.diff"), "filtered.diff", "name must be"),
    "truncated image": (
        lambda root: (root / "rslc/20180130.rslc").write_bytes(b"\0" * 100),
        "rslc/20180130.rslc",
        "100 bytes",
    ),
    "empty height": (
        lambda root: (root / "geo/elevation_dem.rdc").write_bytes(b""),
        "geo/elevation_dem.rdc",
        "0 bytes",
    ),
    "title starts with a key": (
        _rewrite(PAR, "title: INSAR", "title: prf-corrected"),
        PAR,
        "'prf' starts 2",
    ),
    "no blank after colon": (_rewrite(PAR, "heading: 349.9", "heading:349.9"), PAR, "no blank"),
    "key missing": (
        _rewrite(PAR, "near_range_slc", "near_range"),
        PAR,
        "'near_range_slc' is missing",
    ),
    "size not a number": (
        _rewrite(PAR, "azimuth_lines:   6", "azimuth_lines:   six"),
        PAR,
        "unreadable",
    ),
    "baseline not a number": (_rewrite(f"{FIRST}.base", "12.5", "NaN"), f"{FIRST}.base", "finite"),
    "baseline without rate": (
        _rewrite(f"{FIRST}.base", "initial_baseline_rate", "rate"),
        f"{FIRST}.base",
        "missing",
    ),
    "no folder": (lambda root: shutil.rmtree(root / "geo"), "geo", "folder is missing"),
}


@pytest.mark.parametrize("fault", BREAKS)
def test_half_exported_trees_are_listed_and_refused(foreign: Path, fault: str) -> None:
    damage, where, message = BREAKS[fault]
    damage(foreign)
    findings = validate_stamps_tree(foreign)
    message = message.replace("self", "itself")
    hits = [f for f in findings if where in f.where and message in f.message]
    assert hits, [str(finding) for finding in findings]
    assert {finding.code for finding in findings} == {"C110"}
    with pytest.raises(ConfigurationError) as caught:
        read_stamps_tree(foreign)
    assert caught.value.code == "C110"
    assert caught.value.exit_code == 2
    assert message in str(caught.value)


def test_several_faults_are_all_listed(foreign: Path) -> None:
    for name in (f"{FIRST}.base", "rslc/20180130.rslc", "geo/20180106.lat"):
        (foreign / name).unlink()
    places = {finding.where for finding in validate_stamps_tree(foreign)}
    assert places == {f"{FIRST}.base", "rslc/20180130.rslc", "geo/*.lat"}


def test_absent_folder_is_a_finding_not_a_crash(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_stamps_tree(tmp_path / "nothing")
    assert caught.value.code == "C110"


def test_inherited_defects_are_warnings_and_do_not_stop_the_import(foreign: Path) -> None:
    text = PARAMETERS.replace("2.3296", "2").replace("800004.0", "800000.0")
    (foreign / PAR).write_text(text)
    shutil.copy(foreign / "geo/20180106.lon", foreign / "geo/20180118.lon")
    findings = validate_stamps_tree(foreign)
    assert [finding.severity for finding in findings] == ["warning"] * 3
    assert "whole number" in " ".join(finding.message for finding in findings)
    assert "repeats" in " ".join(finding.message for finding in findings)
    assert "reads the first" in " ".join(finding.message for finding in findings)
    assert read_stamps_tree(foreign).number("range_pixel_spacing") == 2.0


def test_written_tree_is_sound_and_read_back(tmp_path: Path) -> None:
    scene = StampsScene(
        reference_date="20180106",
        sensor="SENTINEL-1B",
        lines=LINES,
        samples=SAMPLES,
        first_line_time_ns=1_515_218_400_000_000_000,
        azimuth_time_interval_s=0.0020555563,
        heading_deg=349.9,
        radar_frequency_hz=5.405e9,
        near_range_m=800_000.5,
        range_pixel_spacing_m=2.3295621,
        azimuth_pixel_spacing_m=13.9,
        sar_to_earth_center_m=7_071_759.5,
        earth_radius_below_sensor_m=6_370_000.0,
        center_latitude_deg=45.0,
        center_longitude_deg=9.0,
        azimuth_bandwidth_hz=327.0,
    )
    random = np.random.default_rng(8)
    pixels = (
        random.normal(size=(3, LINES, SAMPLES, 2)).astype(np.float32).view(np.complex64)[..., 0]
    )
    plane = random.normal(size=(3, LINES, SAMPLES)).astype(np.float32)
    with StampsTree(tmp_path / "out", scene, ["20180118"]) as tree:
        tree.write_rslc_rows("20180106", 0, pixels[0])
        tree.write_rslc_rows("20180118", 0, pixels[1])
        tree.write_diff_rows("20180118", 0, pixels[2])
        tree.write_geometry_rows(0, *plane)
        tree.write_baseline(StampsBaseline("20180118", (0.0, 12.5, -30.25), (0.0, 0.01, 0.02)))
    assert validate_stamps_tree(tmp_path / "out") == []
    stack = read_stamps_tree(tmp_path / "out")
    assert np.array_equal(stack.read_slc_rows("20180118", 0, LINES), pixels[1])
    assert np.array_equal(stack.read_interferogram_rows("20180118", 0, LINES), pixels[2])
    assert np.array_equal(np.stack(stack.read_geometry_rows(0, LINES)), plane)
    assert stack.baselines["20180118"].tcn_m == (0.0, 12.5, -30.25)
    assert stack.number("near_range_slc") == 800_000.5
    assert stack.number("range_pixel_spacing") == 2.3295621
