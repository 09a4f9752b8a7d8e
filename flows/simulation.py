"""Simulate Sentinel-1 stacks: SAFE products, orbits and elevation model with known truth.

The pixels follow from a ground-fixed scene and the orbit of every date by physics (zero-Doppler
geometry, TOPS carrier, band-limited response). What it does not do: antenna patterns and
scalloping (the processor of the real products has removed them), ionosphere, solid tides, bistatic
delays, stop-and-go effects, radio interference, moving targets.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from bperp.flows.simulation_options import PRESETS, SimulationOptions
from bperp.flows.simulation_plan import DatePlan, ScenePlan, SwathPlan, plan_scene
from bperp.flows.simulation_products import (
    product_record,
    swath_record,
    write_orbit,
    write_terrain,
)
from bperp.flows.simulation_render import PersistentTruth, persistent_truth, render_burst
from bperp.flows.simulation_truth import burst_names, implied_velocity_floor, write_truth
from bperp.kernels.simulation.phases import PhaseStack, PhaseStackOptions, simulate_phases
from bperp.stores.safe_writer import (
    SwathRecord,
    annotate_product,
    image_files,
    seal_product,
    write_burst_samples,
)

__all__ = [
    "PRESETS",
    "PhaseStack",
    "PhaseStackOptions",
    "SimulatedStack",
    "SimulationOptions",
    "implied_velocity_floor",
    "simulate_phases",
    "simulate_stack",
]

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class SimulatedStack:
    """Where a simulated stack lies."""

    folder: Path
    products: tuple[Path, ...]
    """``.SAFE`` folders or ``.zip`` files, one per date."""
    orbits: tuple[Path, ...]
    elevation: Path
    truth: Path
    """Zarr group, see its attributes."""
    burst_ids: tuple[str, ...]


def simulate_stack(
    out: Path, options: SimulationOptions | None = None, progress: Progress | None = None
) -> SimulatedStack:
    """Simulate a stack of Sentinel-1 IW SLC products with truth.

    Parameters
    ----------
    out : pathlib.Path
        Folder to write to: ``safe/``, ``orbits/``, ``dem.tif``, ``truth.zarr``.
    options : SimulationOptions, optional
        Default: ``PRESETS["tiny"]``.
    progress : callable, optional
        Called with (burst-dates done, burst-dates in all, text).

    Returns
    -------
    SimulatedStack

    Raises
    ------
    ConfigurationError
        C102 for options out of range.
    """
    plan = plan_scene(options or PRESETS["tiny"])
    products, orbits = out / "safe", out / "orbits"
    for folder in (products, orbits):
        folder.mkdir(parents=True, exist_ok=True)
    write_terrain(plan, out / "dem.tif")
    orbit_files = tuple(write_orbit(plan, date, orbits) for date in plan.dates)
    folders = {date.index: products / f"unsealed-{date.date}" for date in plan.dates}
    images = {date.index: _annotate(plan, date, folders[date.index]) for date in plan.dates}
    persistent = persistent_truth(plan)
    report = _Counter(plan, progress)

    def render(task: tuple[SwathPlan, int]) -> None:
        _render(plan, task, persistent, (folders, images), report)

    tasks = [(swath, b) for swath in plan.swaths for b in range(len(swath.first_lines))]
    workers = plan.options.workers
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(render, tasks):
            pass
        sealed = list(pool.map(lambda date: _seal(plan, date, folders, images), plan.dates))
    write_truth(plan, persistent, out / "truth.zarr")
    return SimulatedStack(
        out,
        tuple(sealed),
        orbit_files,
        out / "dem.tif",
        out / "truth.zarr",
        tuple(burst_names(plan)),
    )


class _Counter:
    """Progress over burst-dates, called from several threads."""

    def __init__(self, plan: ScenePlan, progress: Progress | None) -> None:
        bursts = sum(len(swath.first_lines) for swath in plan.swaths)
        self._total, self._done = bursts * len(plan.dates), 0
        self._progress, self._lock = progress, Lock()

    def step(self, text: str) -> None:
        with self._lock:
            self._done += 1
            if self._progress is not None:
                self._progress(self._done, self._total, text)


def _annotate(plan: ScenePlan, date: DatePlan, folder: Path) -> list[SwathRecord]:
    product = product_record(plan, date)
    records = [swath_record(plan, date, swath, product) for swath in plan.swaths]
    return annotate_product(folder, records)


def _render(
    plan: ScenePlan,
    task: tuple[SwathPlan, int],
    persistent: PersistentTruth,
    targets: tuple[dict[int, Path], dict[int, list[SwathRecord]]],
    report: _Counter,
) -> None:
    swath, burst = task
    position = [s.name for s in plan.swaths].index(swath.name)
    pixels = render_burst(plan, swath, burst, persistent)
    for date, samples in zip(plan.dates, pixels, strict=True):
        record = targets[1][date.index][position]
        path = image_files(targets[0][date.index], record)["measurement"]
        write_burst_samples(path, record.bursts[burst].byte_offset, samples)
        report.step(f"{swath.name} burst {burst + 1} {date.date}")


def _seal(
    plan: ScenePlan,
    date: DatePlan,
    folders: dict[int, Path],
    images: dict[int, list[SwathRecord]],
) -> Path:
    return seal_product(folders[date.index], images[date.index], archive=plan.options.archive)
