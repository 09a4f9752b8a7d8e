"""Figures: how they are registered, measured and printed.

A figure is one line ``name value unit``. A figure with a stated baseline measures it in the same
run and prints it beside it, as ``name.baseline``: on a busy machine only the ratio counts.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

REPEATS = 5


@dataclass(frozen=True)
class Figure:
    """One measured figure; ``note`` says against what or under which conditions."""

    name: str
    value: float
    unit: str
    note: str = ""

    def __str__(self) -> str:
        text = f"{self.name} {self.value:.4g} {self.unit}"
        return f"{text}  # {self.note}" if self.note else text


Measurement = Callable[[], Iterator[Figure]]
REGISTERED: dict[str, Measurement] = {}


def figure(name: str) -> Callable[[Measurement], Measurement]:
    """Register a measurement under the name that ``make bench ONLY=name`` selects."""

    def register(measurement: Measurement) -> Measurement:
        if name in REGISTERED:
            raise ValueError(f"figure {name} is registered twice")
        REGISTERED[name] = measurement
        return measurement

    return register


def cpu_seconds(function: Callable[[], object], repeats: int = REPEATS) -> float:
    """Return the least processor time of a call in s; the first call only compiles."""
    function()
    best = np.inf
    for _ in range(repeats):
        start = time.process_time()
        function()
        best = min(best, time.process_time() - start)
    return best


def throughput(name: str, pixels: int, seconds: float, note: str = "") -> Figure:
    """Return megapixels per core-second."""
    return Figure(name, pixels / seconds / 1e6, "Mpx/core-s", note)


def compared(
    name: str, pixels: int, ours_s: float, baseline: tuple[int, float, str]
) -> Iterator[Figure]:
    """Yield a throughput, its baseline (pixels, seconds, what it is) and their ratio."""
    base_pixels, base_s, what = baseline
    yield throughput(name, pixels, ours_s)
    yield throughput(f"{name}.baseline", base_pixels, base_s, what)
    yield Figure(f"{name}.ratio", (pixels / ours_s) / (base_pixels / base_s), "x")


def process_seconds() -> float:
    """Return the processor time of this process and its finished children in s."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(item.ru_utime + item.ru_stime for item in usage)
