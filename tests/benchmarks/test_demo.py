"""The demonstration as a benchmark: time, work and memory of the whole chain."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

import pytest

from bperp.flows.demo import run_demo

pytestmark = [pytest.mark.benchmark, pytest.mark.slow, pytest.mark.cluster]


def _cpu_seconds() -> float:
    own, children = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def test_demo(tmp_path: Path) -> None:
    """Twelve dates x two swaths x two bursts of full height, on two workers."""
    started, cpu = time.perf_counter(), _cpu_seconds()
    result = run_demo(tmp_path / "demo", "small", workers=2)
    wall, cpu = time.perf_counter() - started, _cpu_seconds() - cpu
    print(
        f"\ndemo on {os.cpu_count()} cores: {wall:.0f} s wall, {cpu:.0f} core-seconds "
        f"(simulation {result['simulation_s']} s, processing {result['processing_s']} s), "
        f"largest worker {result['peak_worker_mb']} MB, RMSE {result['rmse_mm_yr']:.2f} mm/yr, "
        f"implied floor {result['implied_floor_mm_yr']:.2f} mm/yr"
    )
    assert result["peak_worker_mb"] <= 1500
    assert result["rmse_mm_yr"] <= 1.1 * result["implied_floor_mm_yr"]
