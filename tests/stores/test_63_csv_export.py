"""Point tables: exact header and bytes, safe identifiers, atomic replacement."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from bperp.stores import csv_export
from bperp.stores.csv_export import (
    DisplacementColumns,
    read_velocity_csv,
    write_displacement_csv,
    write_velocity_csv,
)
from bperp.stores.errors import ConfigurationError, ProductError, StorageError


def test_velocity_table_is_written_to_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "velocity.csv"
    write_velocity_csv(
        path,
        [-4.25, 179.99999996],
        [34.5, -0.00000001],
        np.array([1234.5678, np.nan], dtype=np.float32),
        [-12.3456, 1e3],
        [0.5, np.inf],
        [0.98765, 0.0],
    )
    assert path.read_bytes() == (
        b"lon,lat,height_m,velocity_mm_yr,sigma_mm_yr,coherence\n"
        b"-4.2500000,34.5000000,1234.568,-12.346,0.500,0.9876\n"
        b"180.0000000,0.0000000,,1000.000,,0.0000\n"
    )


def test_velocity_table_is_read_by_the_standard_reader_and_by_ours(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    count = 3 * 4096 + 17  # several blocks and a rest
    columns = [random.normal(scale=50.0, size=count) for _ in range(6)]
    columns[3][5] = np.nan
    path = tmp_path / "deep" / "velocity.csv"
    write_velocity_csv(path, *columns)
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == count
    assert rows[5]["velocity_mm_yr"] == ""
    assert float(rows[12_300]["velocity_mm_yr"]) == pytest.approx(columns[3][12_300], abs=5.1e-4)
    table = read_velocity_csv(path)
    names = ("lon", "lat", "height_m", "velocity_mm_yr", "sigma_mm_yr", "coherence")
    for name, column, half in zip(
        names, columns, (5e-8, 5e-8, 5e-4, 5e-4, 5e-4, 5e-5), strict=True
    ):
        read = getattr(table, name)
        assert read.dtype == np.float64
        np.testing.assert_allclose(read, column, rtol=0, atol=half * 1.0001)


def test_empty_table_has_a_header_and_is_read(tmp_path: Path) -> None:
    path = tmp_path / "none.csv"
    write_velocity_csv(path, *([np.zeros(0)] * 6))
    assert path.read_text().count("\n") == 1
    assert read_velocity_csv(path).lon.shape == (0,)


def test_columns_must_agree(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sigma_mm_yr"):
        write_velocity_csv(tmp_path / "x.csv", [1.0], [1.0], [1.0], [1.0], [1.0, 2.0], [1.0])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("lon;lat;height_m;velocity_mm_yr;sigma_mm_yr;coherence\n", "line 1"),
        (csv_export.VELOCITY_HEADER + "\n1,2,3,4,5\n", "line 2"),
        (csv_export.VELOCITY_HEADER + "\n1,2,3,4,5,6\n1,2,3,=1+1,5,6\n", "line 3"),
        ("", "line 1"),
    ],
)
def test_other_files_are_refused_with_the_line(tmp_path: Path, text: str, place: str) -> None:
    path = tmp_path / "velocity.csv"
    path.write_text(text)
    with pytest.raises(ProductError, match=place) as caught:
        read_velocity_csv(path)
    assert caught.value.code == "D213"


def points(pid: list[str]) -> DisplacementColumns:
    ones = np.ones(len(pid))
    return DisplacementColumns(pid, 4.9 * ones, 52.3 * ones, 45.0 * ones, -3.25 * ones, 0.4 * ones)


def test_displacement_table_has_one_column_per_date(tmp_path: Path) -> None:
    path = tmp_path / "series.csv"
    series = np.array([[0.0, -1.234, 2.5], [0.0, np.nan, -0.001]], dtype=np.float32)
    write_displacement_csv(path, points(["A1", "A2"]), ["20230823", "20230904", "20230916"], series)
    assert path.read_bytes() == (
        b"pid,lon,lat,height,mean_velocity,mean_velocity_std,20230823,20230904,20230916\n"
        b"A1,4.9000000,52.3000000,45.000,-3.250,0.400,0.00,-1.23,2.50\n"
        b"A2,4.9000000,52.3000000,45.000,-3.250,0.400,0.00,,0.00\n"
    )


@pytest.mark.parametrize(
    ("pid", "expected"),
    [
        ("=cmd()", "'=cmd()"),
        ("+1", "'+1"),
        ("-2", "'-2"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=x", "'=x"),
        ("\r=1", "'=1"),
        ('a"b', 'a"b'),
        ("a,b", "a,b"),
        ("a\nb", "a b"),
    ],
)
def test_identifiers_cannot_become_formulas_or_break_the_table(
    tmp_path: Path, pid: str, expected: str
) -> None:
    path = tmp_path / "series.csv"
    write_displacement_csv(path, points([pid, "plain"]), ["20230823"], np.zeros((2, 1)))
    with path.open(newline="") as stream:
        rows = list(csv.reader(stream))
    assert len(rows) == 3
    assert {len(row) for row in rows} == {7}
    assert rows[1][0] == expected
    assert rows[2][0] == "plain"


def test_displacement_is_read_block_by_block(tmp_path: Path) -> None:
    class Lazy:
        shape = (10_000, 2)
        largest = 0

        def __getitem__(self, rows: slice) -> np.ndarray:
            index = np.arange(*rows.indices(self.shape[0]))
            Lazy.largest = max(Lazy.largest, index.size)
            return np.stack([index, -index], axis=1)

    path = tmp_path / "series.csv"
    pid = [f"P{number}" for number in range(10_000)]
    write_displacement_csv(path, points(pid), ["20230823", "20230904"], Lazy())  # type: ignore[arg-type]
    lines = path.read_text().splitlines()
    assert len(lines) == 10_001
    assert lines[9_000].startswith("P8999,")
    assert lines[9_000].endswith(",8999.00,-8999.00")
    assert Lazy.largest <= 4096


@pytest.mark.parametrize("dates", [["20230904", "20230823"], ["2023-08-23"], ["20230823"] * 2])
def test_dates_must_be_ascending(tmp_path: Path, dates: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        write_displacement_csv(tmp_path / "x.csv", points(["A"]), dates, np.zeros((1, len(dates))))
    assert caught.value.code == "C115"


def test_shapes_of_the_series_must_agree(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="displacement_mm"):
        write_displacement_csv(tmp_path / "x.csv", points(["A"]), ["20230823"], np.zeros((2, 1)))


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "velocity.csv"
    write_velocity_csv(path, *([np.zeros(3)] * 6))
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError) as caught:
        write_velocity_csv(path, *([np.ones(3)] * 6))
    assert caught.value.code == "R804"
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["velocity.csv"]


def test_unwritable_place_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError) as caught:
        write_velocity_csv(tmp_path / "file" / "velocity.csv", *([np.zeros(1)] * 6))
    assert caught.value.code == "R807"
