"""The doctor finds what was broken on purpose."""

from __future__ import annotations

import socket
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from bperp.flows import doctor
from bperp.flows.doctor import Diagnosis, Symptom, examine, installed_grid


def by_name(diagnosis: Diagnosis) -> dict[str, Symptom]:
    return {symptom.name: symptom for symptom in diagnosis.symptoms}


def test_this_installation_is_fit() -> None:
    diagnosis = examine(thorough=False)
    found = by_name(diagnosis)
    assert diagnosis.exit_code == 0, [s for s in diagnosis.symptoms if s.level == "error"]
    assert found["loopback port"].level == "ok"
    # The two pins that pip check does not notice.
    assert found["fastapi"].expected == "<0.151"
    assert found["sqlalchemy"].expected == "<2.1"
    assert len(found) == len(diagnosis.symptoms)


@pytest.mark.cluster
@pytest.mark.slow
def test_a_worker_compiles_writes_and_reads_back(tmp_path: Path) -> None:
    found = by_name(examine(str(tmp_path)))
    assert found["compiler"].level == "ok"
    assert found["storage and workers"].level == "ok"
    assert "0 wrong pixels" in found["storage and workers"].found
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("package", "version", "level"),
    [
        ("fastapi", "0.151.0", "error"),
        ("fastapi", "0.150.9", "ok"),
        ("SQLAlchemy", "2.1.0", "error"),
        ("prefect", "4.0.0", "error"),
        ("zarr", "3.4.2", "ok"),
    ],
)
def test_drifted_versions_are_errors(
    monkeypatch: pytest.MonkeyPatch, package: str, version: str, level: str
) -> None:
    real = metadata.version

    def pretend(name: str) -> str:
        return version if name.lower() == package.lower() else real(name)

    monkeypatch.setattr(metadata, "version", pretend)
    diagnosis = examine(thorough=False)
    symptom = by_name(diagnosis)[package.lower()]
    assert (symptom.level, symptom.found) == (level, version)
    assert diagnosis.exit_code == (4 if level == "error" else 0)
    assert ("pip install" in symptom.remedy) == (level == "error")


def test_missing_package_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version

    def pretend(name: str) -> str:
        if name == "numba":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", pretend)
    assert by_name(examine(thorough=False))["numba"].found == "not installed"


def test_unwritable_temporary_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path / "absent"))
    diagnosis = examine(thorough=False)
    assert by_name(diagnosis)["temporary folder"].level == "error"
    assert diagnosis.exit_code == 4


def test_blocked_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise PermissionError("blocked")

    monkeypatch.setattr(socket, "create_connection", refuse)
    symptom = by_name(examine(thorough=False))["loopback port"]
    assert symptom.level == "error"
    assert "serial" in symptom.remedy


def test_little_memory_and_disk_are_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "available_memory_bytes", lambda: 10**9)
    monkeypatch.setattr(doctor, "free_disk_bytes", lambda folder: 10**9)
    diagnosis = examine(thorough=False)
    assert by_name(diagnosis)["memory"].level == "warning"
    assert by_name(diagnosis)["disk"].level == "warning"
    assert diagnosis.exit_code == 0


def test_a_check_that_crashes_is_a_symptom(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash() -> int:
        raise RuntimeError("no processors")

    monkeypatch.setattr(doctor, "usable_processors", crash)
    symptom = by_name(examine(thorough=False))["processors"]
    assert (symptom.level, symptom.found) == ("error", "RuntimeError: no processors")


def test_installed_grid_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import pyproj

    monkeypatch.setattr(pyproj.datadir, "get_user_data_dir", lambda: str(tmp_path))
    assert installed_grid("egm96") is None
    (tmp_path / "us_nga_egm96_15.tif").touch()
    assert installed_grid("egm96") == tmp_path / "us_nga_egm96_15.tif"


def test_thread_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "all")
    assert by_name(examine(thorough=False))["OMP_NUM_THREADS"].level == "warning"
