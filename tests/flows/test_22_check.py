"""The pre-flight check: each thing that would stop a run is found, with its code."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bperp.flows import check
from bperp.flows.check import CheckReport, Finding, check_stack, estimate_disk
from bperp.flows.check_elevation import Uncovered, sample_heights
from bperp.flows.config import StackConfig
from bperp.pipeline.burst import BurstImage, OrbitArc, PolynomialList
from bperp.pipeline.stack import Placement, Scene, Stack
from bperp.stores.elevation import ElevationModel
from bperp.stores.errors import (
    ElevationError,
    OrbitError,
    ProductError,
    SecurityError,
    StackError,
)
from bperp.stores.geotiff_writer import write_elevation

DATES = tuple(f"2020-{month:02d}-05" for month in range(1, 4))
BURSTS = ("t052_109876_iw1", "t052_109877_iw1")
LINES, SAMPLES = 1500, 20_000


@dataclass(frozen=True)
class Found:
    """What the index gives, without reading products."""

    stack: Stack
    notes: tuple[str, ...] = ()


def image(burst_id: str, date: str) -> BurstImage:
    polynomials = PolynomialList((0.0,), (0.005,), ((0.0,),))
    return BurstImage(
        burst_id=burst_id, swath="IW1", date=date, mission="S1A", polarization="VV",
        product="p", url="u", member="m", first_line=0, lines=LINES, samples=SAMPLES,
        valid=(20, 1480, 100, 19_900), first_line_time_ns=0, azimuth_time_interval_s=0.00205,
        slant_range_time_s=0.0053, range_sampling_rate_hz=64e6, radar_frequency_hz=5.4e9,
        azimuth_steering_rate_rad_s=0.027, prf_hz=1717.0, range_bandwidth_hz=56e6,
        range_window_coefficient=0.75, azimuth_bandwidth_hz=327.0,
        azimuth_window_coefficient=0.7, doppler_centroid=polynomials, fm_rate=polynomials,
        orbit=OrbitArc("AUX_POEORB", (), (), ()), ipf_version="003.61",
    )  # fmt: skip


def index(dates: tuple[str, ...] = DATES, notes: tuple[str, ...] = ()) -> Any:
    images = {(burst, date): image(burst, date) for burst in BURSTS for date in dates}
    placements = tuple(
        Placement(burst, "IW1", 1400 * i, 0, (0, 1, 0, 1), (0, 1, 0, 1))
        for i, burst in enumerate(BURSTS)
    )
    scene = Scene(2900, SAMPLES, (4, 20), placements)
    return Found(Stack(dates[0], dates, images, scene), notes)


@pytest.fixture
def values(tmp_path: Path) -> dict[str, Any]:
    """A project in which everything is in order."""
    (tmp_path / "a.zip").touch()
    (tmp_path / "orbits").mkdir()
    (tmp_path / "orbits" / "S1A_OPER_AUX_POEORB_x.EOF").touch()
    heights = np.full((30, 30), 100.0, np.float32)
    write_elevation(tmp_path / "dem.tif", heights, (42.0, 12.0), (0.1, 0.1))
    return {
        "root": str(tmp_path / "root"),
        "slc": [str(tmp_path / "*.zip")],
        "orbits": {"folders": [str(tmp_path / "orbits")]},
        "dem": {"path": str(tmp_path / "dem.tif")},
        "compute": {"workers": 1, "memory_per_worker": "256MB"},
    }


def report_of(
    values: dict[str, Any], found: Any | None = None, hole: Uncovered | None = None
) -> CheckReport:
    return check_stack(
        StackConfig.from_values(values),
        index=lambda config: found or index(),
        coverage=lambda model, image: hole,
    )


def only_error(report: CheckReport) -> Finding:
    errors = [item for item in report.findings if item.level == "error"]
    assert len(errors) == 1, errors
    return errors[0]


def test_a_project_in_order_passes(values: dict[str, Any]) -> None:
    many = tuple(f"2020-01-{day:02d}" for day in range(1, 20))
    report = report_of(values, index(many))
    assert {item.level for item in report.findings} == {"ok"}
    assert report.exit_code == 0
    assert not Path(values["root"]).exists()  # a check writes nothing


@pytest.mark.parametrize(
    ("change", "code", "exit_code", "where"),
    [
        ({"slc": ["/absent/*.zip"]}, "C104", 2, "slc[0]"),
        ({"orbits": {"folders": []}}, "O501", 3, "orbits.folders"),
        ({"dem": {"path": "/absent.tif"}}, "C104", 2, "dem.path"),
        ({"compute": {"workers": 1000, "memory_per_worker": "1TB"}}, "R805", 4, "compute"),
    ],
)
def test_each_fault_is_one_error_with_code_and_remedy(
    values: dict[str, Any], change: dict[str, Any], code: str, exit_code: int, where: str
) -> None:
    report = report_of({**values, **change})
    error = only_error(report)
    assert (error.code, error.where) == (code, where)
    assert error.remedy
    assert report.exit_code == exit_code


def test_missing_orbit_folder(values: dict[str, Any]) -> None:
    report = report_of({**values, "orbits": {"folders": ["/absent"]}})
    assert [item.code for item in report.findings if item.level == "error"] == ["C104", "O501"]


def test_predicted_orbits_are_a_warning_when_allowed(values: dict[str, Any]) -> None:
    report = report_of({**values, "orbits": {"folders": [], "policy": "allow_predicted"}})
    assert [i.code for i in report.findings if i.level == "warning"] == ["O501", "S407"]
    assert report.exit_code == 0


def test_empty_elevation_file(values: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "dem.tif").write_bytes(b"")
    assert only_error(report_of(values)).code == "E602"


def test_faults_of_the_elevation_model_keep_their_code(
    values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise ElevationError("E603", "no geoid grid", where="egm2008", remedy="give dem.geoid")

    monkeypatch.setattr(ElevationModel, "open", fail)
    error = only_error(report_of(values))
    assert (error.code, error.where, error.remedy) == ("E603", "egm2008", "give dem.geoid")


def test_declared_datum_must_agree_with_the_file(values: dict[str, Any]) -> None:
    # The file says heights above the ellipsoid; tens of metres would be added to them.
    values["dem"]["vertical_datum"] = "egm96"
    report = report_of(values)
    assert only_error(report).code in ("E603", "E604")
    assert report.exit_code == 3


def test_elevation_must_cover_the_bursts(values: dict[str, Any]) -> None:
    report = report_of(values, hole=Uncovered(3, 153, 41.25, 12.5))
    error = only_error(report)
    assert (error.code, report.exit_code) == ("E605", 3)
    assert f"3 of 153 points of burst {BURSTS[0]} have no height" in error.message
    assert "lat 41.2500, lon 12.5000" in error.message


def test_heights_are_looked_up_at_the_nearest_sample() -> None:
    heights = np.array([[1, 2, 3], [4, np.nan, 6]], np.float32)
    grid = (10.0, 179.5, -0.5, 0.5)
    latitude = np.array([10.1, 9.6, 9.5, 10.0, 10.3, 10.0])
    longitude = np.array([179.4, -179.6, 180.0, -179.5, 179.5, 179.0])
    found = sample_heights(heights, grid, latitude, longitude)
    np.testing.assert_array_equal(found, [1, 6, np.nan, 3, np.nan, np.nan])


def test_root_below_a_file(values: dict[str, Any], tmp_path: Path) -> None:
    report = report_of({**values, "root": str(tmp_path / "a.zip" / "root")})
    assert only_error(report).code == "R807"
    assert report.exit_code == 4


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_root_without_permission(values: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    assert only_error(report_of({**values, "root": str(folder / "root")})).code == "R807"


def test_a_full_disk_is_found_before_the_run(
    values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "free_disk_bytes", lambda folder: 1_000_000)
    report = report_of(values)
    assert only_error(report).code == "R804"
    assert "GB needed" in only_error(report).message
    assert report.exit_code == 4


def test_workers_must_fit_the_memory(
    values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "available_memory_bytes", lambda: 4_000_000_000)
    values["compute"] = {"workers": 2, "memory_per_worker": "2GB"}
    assert report_of(values).exit_code == 0
    values["compute"] = {"workers": 3, "memory_per_worker": "2GB"}
    assert "compute.workers: 2" in only_error(report_of(values)).remedy
    values["compute"] = {"workers": "auto", "memory_per_worker": "2GB"}
    assert report_of(values).exit_code == 0
    values["compute"] = {"workers": "auto", "memory_per_worker": "5GB"}
    assert only_error(report_of(values)).code == "R805"


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (StackError("S403", "mixed tracks", where="p", expected="a", found="b", remedy="r"), 3),
        (OrbitError("O502", "not covered", remedy="r"), 3),
        (ProductError("D201", "truncated", remedy="r"), 3),
        (SecurityError("X901", "doctype", remedy="r"), 6),
    ],
)
def test_faults_of_the_products_become_findings(
    values: dict[str, Any], error: Exception, exit_code: int
) -> None:
    def fail(config: StackConfig) -> Any:
        raise error

    report = check_stack(StackConfig.from_values(values), index=fail)
    finding = only_error(report)
    assert finding.code == error.args[0]
    assert finding.remedy == "r"
    assert report.exit_code == exit_code
    assert report.dates == ()


def test_bugs_are_not_hidden(values: dict[str, Any]) -> None:
    def fail(config: StackConfig) -> Any:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        check_stack(StackConfig.from_values(values), index=fail)


def test_without_products_the_index_is_not_asked(values: dict[str, Any]) -> None:
    def fail(config: StackConfig) -> Any:
        raise AssertionError("asked")

    assert check_stack(StackConfig.from_values({**values, "slc": ["/no"]}), index=fail).exit_code


def test_tables_show_holes_orbits_and_notes(values: dict[str, Any]) -> None:
    found = index(notes=("burst x comes twice",))
    images = dict(found.stack.images)
    del images[BURSTS[1], DATES[2]]
    late = images[BURSTS[0], DATES[1]]
    images[BURSTS[0], DATES[1]] = replace(
        late, orbit=OrbitArc("AUX_RESORB", (), (), ()), flags=("orbit-aux_resorb",), mission="S1C"
    )
    report = report_of(values, replace(found, stack=replace(found.stack, images=images)))
    assert [row["bursts"] for row in report.dates] == [2, 2, 1]
    assert [row["is_reference"] for row in report.dates] == [True, False, False]
    assert report.dates[1]["mission"] == "S1A S1C"
    assert report.dates[1]["orbit"] == "AUX_POEORB AUX_RESORB"
    assert report.dates[1]["flags"] == ["orbit-aux_resorb"]
    assert report.bursts[0]["missing"] == []
    assert report.bursts[1]["missing"] == [DATES[2]]
    assert report.summary["burst_dates"] == 5
    warnings = [item.message for item in report.findings if item.level == "warning"]
    assert warnings == ["3 dates are few for persistent scatterers", "burst x comes twice"]
    assert report.exit_code == 0


def test_disk_estimate_follows_the_pixels(values: dict[str, Any]) -> None:
    config = StackConfig.from_values(values)
    estimate = estimate_disk(config, index())
    pixels = len(BURSTS) * LINES * SAMPLES
    # Two bytes per pixel are the least that 16-bit pairs compress to; four are their raw size.
    assert 2 * pixels * len(DATES) < estimate.by_step["ingest"] <= 4 * pixels * len(DATES)
    double = estimate_disk(config, index((*DATES, *(f"2021-0{m}-05" for m in range(1, 4)))))
    assert double.by_step["ingest"] == pytest.approx(2 * estimate.by_step["ingest"])
    assert double.by_step["geometry"] == estimate.by_step["geometry"]
    # One reference: 2 pairs of 3 dates. Nearest 3 of 3 dates: all 3 pairs.
    near = StackConfig.from_values({**values, "interferogram": {"network": "nearest"}})
    ratio = (
        estimate_disk(near, index()).by_step["interferogram"] / estimate.by_step["interferogram"]
    )
    assert ratio == pytest.approx(1.5, rel=1e-6)
    assert estimate.total == sum(estimate.by_step.values())
