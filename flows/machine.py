"""What this machine offers: processors, memory and disk, within the limits of its container."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

__all__ = [
    "available_memory_bytes",
    "existing_parent",
    "free_disk_bytes",
    "total_memory_bytes",
    "usable_processors",
]

# Version 1 of cgroups writes "no limit" as the largest multiple of the page size.
_NO_LIMIT = 1 << 60


def usable_processors(root: Path = Path("/")) -> int:
    """Return the number of processors this process may use, at least 1.

    The smaller of the affinity mask and the CPU quota of the control group.

    Parameters
    ----------
    root : pathlib.Path
        Root of the file system with ``sys/fs/cgroup`` (for tests).
    """
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        count = os.cpu_count() or 1
    for folder in _cgroup_folders(root, "cpu"):
        quota = _cpu_quota(folder)
        if quota is not None:
            count = min(count, max(1, int(quota)))
    return max(1, count)


def total_memory_bytes(root: Path = Path("/")) -> int | None:
    """Return the memory this process may use in bytes: the machine's or the container's limit."""
    limits = [_meminfo(root, "MemTotal")]
    for folder in _cgroup_folders(root, "memory"):
        limits.append(_first_number(folder, ("memory.max", "memory.limit_in_bytes")))
    known = [limit for limit in limits if limit is not None and limit < _NO_LIMIT]
    return min(known) if known else None


def available_memory_bytes(root: Path = Path("/")) -> int | None:
    """Return the memory that can be taken now without swapping, in bytes; None if unknown."""
    free = [_meminfo(root, "MemAvailable")]
    for folder in _cgroup_folders(root, "memory"):
        limit = _first_number(folder, ("memory.max", "memory.limit_in_bytes"))
        used = _first_number(folder, ("memory.current", "memory.usage_in_bytes"))
        if limit is not None and limit < _NO_LIMIT:
            # Cached file pages count as used although the kernel gives them back.
            cached = _statistic(folder / "memory.stat", ("inactive_file", "total_inactive_file"))
            free.append(max(0, limit - max(0, (used or 0) - cached)))
    known = [amount for amount in free if amount is not None]
    return min(known) if known else None


def free_disk_bytes(folder: Path) -> int:
    """Return the free bytes where ``folder`` is or would be created."""
    return shutil.disk_usage(existing_parent(folder)).free


def existing_parent(folder: Path) -> Path:
    """Return the folder itself or its closest parent that exists."""
    for candidate in (folder, *folder.parents):
        if candidate.exists():
            return candidate
    return Path()


def _cgroup_folders(root: Path, controller: str) -> Iterator[Path]:
    """Yield the control group folders of this process, from its own up to the top."""
    base = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, names, path = [*line.split(":", 2), "", ""][:3]
        if names and controller not in names.split(","):
            continue
        top = base / controller if names else base
        own = top / path.lstrip("/")
        yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(top))
    # Inside a container the own path may not be visible; the top folder then is the container's.
    yield base
    yield base / controller


def _cpu_quota(folder: Path) -> float | None:
    words = _words(folder / "cpu.max")
    if len(words) == 2 and words[0].isdigit() and int(words[1]) > 0:
        return int(words[0]) / int(words[1])
    quota = _first_number(folder, ("cpu.cfs_quota_us",))
    period = _first_number(folder, ("cpu.cfs_period_us",))
    return quota / period if quota and period else None


def _first_number(folder: Path, names: tuple[str, ...]) -> int | None:
    for name in names:
        words = _words(folder / name)
        if words and words[0].isdigit():
            return int(words[0])
    return None


def _statistic(path: Path, names: tuple[str, ...]) -> int:
    words = _words(path)
    pairs = dict(zip(words[::2], words[1::2], strict=False))
    return max((int(pairs[name]) for name in names if pairs.get(name, "").isdigit()), default=0)


def _meminfo(root: Path, name: str) -> int | None:
    words = _words(root / "proc/meminfo")
    label = f"{name}:"
    return int(words[words.index(label) + 1]) * 1024 if label in words else None


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except (OSError, UnicodeDecodeError):
        return []
