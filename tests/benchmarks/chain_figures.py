"""Figures of the whole chain: a pair of full-size bursts, cost by number of bursts, memory.

Products are simulated once per run of the program, and not counted. Times are wall times on as many
workers as are asked for (2), cluster start included; they say what this machine does today.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from distributed import Client, LocalCluster
from measuring import Figure, figure, process_seconds

from bperp.flows.config import StackConfig
from bperp.flows.engine import DaskExecutor, RunSetup, Selection, run_stages
from bperp.flows.run import setup_run
from bperp.flows.simulation import SimulationOptions, simulate_stack
from bperp.pipeline.stack import Stack, arrange_scene
from bperp.stores.receipts import Ledger

WORKERS = 2
STEPS = ("ingest", "geometry", "misregistration", "alignment", "coregister", "interferogram")
FULL_SIZE = SimulationOptions(
    date_count=2, bursts_per_swath=2, lines_per_burst=1501, samples=21632, relief_m=900.0
)
FRAME = SimulationOptions(
    date_count=2,
    swaths=("IW1", "IW2", "IW3"),
    bursts_per_swath=9,
    lines_per_burst=1501,
    samples=1024,
)


@contextmanager
def _simulated(options: SimulationOptions) -> Iterator[Path]:
    """Give a folder with simulated products; it is removed at the end."""
    with tempfile.TemporaryDirectory() as folder:
        simulate_stack(Path(folder) / "input", options)
        yield Path(folder)


def _configuration(folder: Path) -> StackConfig:
    source = folder / "input"
    return StackConfig.from_values(
        {
            "root": str(folder / "root"),
            "slc": [str(source / "safe" / "*")],
            "orbits": {"folders": [str(source / "orbits")]},
            "dem": {"path": str(source / "dem.tif"), "vertical_datum": "ellipsoid"},
        }
    )


def _run(setup: RunSetup, executor: DaskExecutor, steps: tuple[str, ...] = STEPS) -> Any:
    return run_stages(
        setup.stages, setup.context, setup.store, executor, None, Selection(only=steps)
    )


def _task_seconds(setup: RunSetup) -> float:
    """Return what the tasks took by themselves, in all workers together."""
    ledger = Ledger(setup.store.objects)
    markers = ledger.markers()
    return sum(
        receipt.seconds
        for name, marker in markers.items()
        for receipt in ledger.load(name, marker.receipts).values()
    )


@figure("pair_2_bursts")
def pair_2_bursts() -> Iterator[Figure]:
    """Two full-size bursts on two dates: products in, interferogram and coherence out.

    The figure itself is the second run on a running cluster, as for anybody who processes more than
    one pair; ``cold`` starts the cluster, and its workers load the program, in a first run.
    """
    with _simulated(FULL_SIZE) as folder, ExitStack() as stack:
        start = time.perf_counter()
        cluster = stack.enter_context(
            LocalCluster(WORKERS, threads_per_worker=1, dashboard_address=None)
        )
        ready = time.perf_counter()
        for name in ("pair_2_bursts.cold", "pair_2_bursts"):
            shutil.rmtree(folder / "root", ignore_errors=True)
            begin, cpu = time.perf_counter(), _cluster_seconds(cluster)
            setup = setup_run(_configuration(folder), WORKERS)
            setup.scheduler_address = cluster.scheduler_address
            summary = _run(setup, setup.dask_executor())
            wall = time.perf_counter() - begin
            if name.endswith("cold"):
                yield Figure(name, wall + ready - start, "s", "with the start of the cluster")
                continue
            yield Figure(name, wall, "s", "on a running cluster")
            yield Figure(f"{name}.worker_cpu", _cluster_seconds(cluster) - cpu, "core-s")
            tasks = _task_seconds(setup)
            overhead = 100.0 * (WORKERS * wall - tasks) / tasks
            yield Figure(f"{name}.overhead", overhead, "%", "idle and orchestration over tasks")
            peak = max(stage.peak_rss_bytes for stage in summary.stages)
            yield Figure(f"{name}.peak_rss", peak / 1e6, "MB", "largest worker")
            for stage in summary.stages:
                yield Figure(f"{name}.{stage.name}", stage.seconds, "s")
        shutil.rmtree(folder / "root", ignore_errors=True)
        setup = setup_run(_configuration(folder), WORKERS)
        setup.scheduler_address = cluster.scheduler_address
        _run(setup, setup.dask_executor(), STEPS[:2])
        start = time.perf_counter()
        setup = setup_run(_configuration(folder), WORKERS)
        setup.scheduler_address = cluster.scheduler_address
        _run(setup, setup.dask_executor())
        yield Figure("pair_2_bursts.cached_geometry", time.perf_counter() - start, "s",
                     "bursts and geometry in the cube")  # fmt: skip


def _cluster_seconds(cluster: LocalCluster) -> float:
    """Return the processor time of all workers so far in s."""
    with Client(cluster) as client:
        return sum(client.run(time.process_time).values())


@figure("cost_exponent")
def cost_exponent() -> Iterator[Figure]:
    """Work by number of bursts, 1 to 9 in 1 to 3 swaths: exponent of a power law."""
    with _simulated(FRAME) as folder:
        numbers, costs = [], []
        for swaths, bursts in ((1, 1), (1, 3), (1, 9), (2, 9), (3, 9)):
            shutil.rmtree(folder / "root", ignore_errors=True)
            setup = setup_run(_configuration(folder), WORKERS)
            setup.context.stack = _part(setup.context.stack, swaths, bursts)
            executor = setup.dask_executor()
            executor.start()
            if not numbers:
                _run(setup, executor)  # compiles, reads files for the first time
                shutil.rmtree(folder / "root", ignore_errors=True)
                executor = setup.dask_executor()
                executor.start()
            start = time.perf_counter()
            _run(setup, executor)
            numbers.append(swaths * bursts)
            costs.append(time.perf_counter() - start)
            yield Figure(f"cost.{swaths}x{bursts}", costs[-1], "s", "swaths x bursts, no start")
        yield Figure("cost_exponent", float(np.polyfit(np.log(numbers), np.log(costs), 1)[0]), "1")
        last = np.log(costs[-1] / costs[-3]) / np.log(numbers[-1] / numbers[-3])
        yield Figure("cost_exponent.9_to_27", float(last), "1")


def _part(stack: Stack, swaths: int, bursts: int) -> Stack:
    """Return the first bursts of the first swaths of a stack."""
    kept: list[str] = []
    for swath in stack.swaths[:swaths]:
        kept += [p.burst_id for p in stack.scene.placements if p.swath == swath][:bursts]
    scene = arrange_scene([stack.reference(burst) for burst in kept], stack.scene.looks)
    images = {key: image for key, image in stack.images.items() if key[0] in kept}
    return replace(stack, images=images, scene=scene)


@figure("demo")
def demo() -> Iterator[Figure]:
    """The demonstration: twelve dates, two swaths of two bursts of full height."""
    from bperp.flows.demo import run_demo

    with tempfile.TemporaryDirectory() as folder:
        start, cpu = time.perf_counter(), process_seconds()
        result = run_demo(Path(folder) / "demo", "small", workers=WORKERS)
        yield Figure("demo", time.perf_counter() - start, "s", "simulation included")
        yield Figure("demo.cpu", process_seconds() - cpu, "core-s")
        yield Figure("demo.peak_rss", result["peak_worker_mb"], "MB", "largest worker")
        yield Figure("demo.rmse", result["rmse_mm_yr"], "mm/yr")
        yield Figure("demo.implied_floor", result["implied_floor_mm_yr"], "mm/yr")
