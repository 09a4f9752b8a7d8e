"""Limits of containers, read from a copy of the files the kernel shows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bperp.flows.machine import (
    available_memory_bytes,
    existing_parent,
    free_disk_bytes,
    total_memory_bytes,
    usable_processors,
)

GIB = 1 << 30


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


HOST = {"proc/meminfo": "MemTotal: 16777216 kB\nMemFree: 100 kB\nMemAvailable: 8388608 kB\n"}


def test_without_limits_the_machine_counts(tmp_path: Path) -> None:
    root = write(tmp_path, HOST)
    assert total_memory_bytes(root) == 16 * GIB
    assert available_memory_bytes(root) == 8 * GIB
    assert usable_processors(root) == len(os.sched_getaffinity(0))


def test_second_version_of_control_groups(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            **HOST,
            "proc/self/cgroup": "0::/user.slice/job\n",
            "sys/fs/cgroup/user.slice/memory.max": f"{4 * GIB}\n",
            "sys/fs/cgroup/user.slice/memory.current": f"{3 * GIB}\n",
            "sys/fs/cgroup/user.slice/memory.stat": f"anon 1\ninactive_file {GIB}\n",
            "sys/fs/cgroup/user.slice/job/memory.max": "max\n",
            "sys/fs/cgroup/user.slice/job/cpu.max": "100000 100000\n",
        },
    )
    assert total_memory_bytes(root) == 4 * GIB
    # 3 GiB used, of which 1 GiB is file cache that the kernel gives back.
    assert available_memory_bytes(root) == 2 * GIB
    assert usable_processors(root) == 1


def test_first_version_of_control_groups(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            **HOST,
            "proc/self/cgroup": "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2 * GIB}\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{GIB}\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
    )
    assert total_memory_bytes(root) == 2 * GIB
    assert available_memory_bytes(root) == GIB
    assert usable_processors(root) == 1


@pytest.mark.parametrize("text", ["9223372036854771712\n", "max\n", "garbage\n"])
def test_no_limit_is_no_limit(tmp_path: Path, text: str) -> None:
    root = write(tmp_path, {**HOST, "sys/fs/cgroup/memory/memory.limit_in_bytes": text})
    assert total_memory_bytes(root) == 16 * GIB


def test_unknown_systems_say_so(tmp_path: Path) -> None:
    assert total_memory_bytes(tmp_path) is None
    assert available_memory_bytes(tmp_path) is None


def test_this_machine_has_figures() -> None:
    total, available = total_memory_bytes(), available_memory_bytes()
    assert total is None or available is None or 0 < available <= total


def test_free_disk_of_a_folder_that_is_still_to_be_made(tmp_path: Path) -> None:
    assert existing_parent(tmp_path / "a" / "b") == tmp_path
    assert free_disk_bytes(tmp_path / "a" / "b") > 0
