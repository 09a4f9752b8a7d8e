"""Figures of scale: the scheduler's share, two workers beside one, memory, and the rates of stages.

The tables of ``bperp.flows.cost_loads`` and ``docs/scale.md`` hold what these print.
"""

from __future__ import annotations

import multiprocessing
import shutil
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from measuring import Figure, figure
from stub_run import OpenExecutor, StubAccount, run_stub, run_stub_stages
from stub_stages import StubOptions

from bperp.flows.config import StackConfig
from bperp.flows.engine import (
    DaskExecutor,
    Executor,
    RunSetup,
    RunSite,
    Selection,
    SerialExecutor,
    TaskOrder,
    TaskResult,
    run_stages,
)
from bperp.flows.run import setup_run
from bperp.flows.simulation import SimulationOptions, simulate_stack
from bperp.stores.receipts import Ledger

SHARED_MEMORY = Path("/dev/shm")
RATED = SimulationOptions(
    date_count=4, bursts_per_swath=2, lines_per_burst=1501, samples=21632, relief_m=900.0
)
GROWING = SimulationOptions(
    date_count=24, bursts_per_swath=2, lines_per_burst=1501, samples=6000, relief_m=900.0,
    coherence_initial=0.8, coherence_long_term=0.3, persistent_per_km2=150.0,
)  # fmt: skip
PARALLEL = SimulationOptions(
    date_count=6, bursts_per_swath=2, lines_per_burst=1501, samples=8000, relief_m=900.0
)
PARALLEL_STEPS = ("coregister", "interferogram", "amplitude")
EVERYTHING = {step: {"enabled": True} for step in ("filter", "geocode", "publish")}
TRIALS = 3
DISPERSION = {6: 0.15, 12: 0.25, 24: 0.33}
"""Limit of amplitude dispersion by number of dates: some percent of the pixels are candidates."""
SMALLEST_BYTES = 100_000
"""Of an array, for it to tell how well its kind packs."""


@contextmanager
def simulated(options: SimulationOptions) -> Iterator[Path]:
    """Give a folder with simulated products in ``input``; it is removed at the end."""
    with tempfile.TemporaryDirectory() as folder:
        simulate_stack(Path(folder) / "input", options)
        yield Path(folder)


def configuration(folder: Path, root: str = "root", **sections: Any) -> StackConfig:
    """Return the configuration of products that ``simulated`` made."""
    source = folder / "input"
    return StackConfig.from_values(
        {
            "root": str(folder / root),
            "slc": [str(source / "safe" / "*")],
            "orbits": {"folders": [str(source / "orbits")]},
            "dem": {"path": str(source / "dem.tif"), "vertical_datum": "ellipsoid"},
            **sections,
        }
    )


@figure("scheduler_overhead")
def scheduler_overhead() -> Iterator[Figure]:
    """Cost of orchestration per task: alone, in groups, and with as many inputs as a frame has."""
    yield from _stub("scheduler_overhead", StubOptions(tasks=2500))
    yield from _stub("scheduler_overhead.grouped", StubOptions(tasks=2500, group=60))
    yield from _stub("scheduler_overhead.many_inputs", StubOptions(tasks=800, inputs=800))


@figure("scheduler_50000")
def scheduler_50000() -> Iterator[Figure]:
    """Fifty thousand tasks one by one, as no stage of a year has them."""
    yield from _stub("scheduler_50000", StubOptions(tasks=25_000))


def _stub(name: str, options: StubOptions) -> Iterator[Figure]:
    # In memory where there is such a place: the figure is not the disk's.
    place = str(SHARED_MEMORY) if SHARED_MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=place) as folder:
        found = run_stub(Path(folder), options)
    yield Figure(name, found.client_cpu_ms, "ms/task", "client and scheduler, processor time")
    yield from _stub_details(name, found)


def _stub_details(name: str, found: StubAccount) -> Iterator[Figure]:
    yield Figure(f"{name}.tasks", found.tasks, "1")
    yield Figure(f"{name}.wall", found.wall_s, "s", "two workers")
    yield Figure(f"{name}.worker_cpu", 1e3 * found.worker_cpu_s / found.tasks, "ms/task")
    yield Figure(f"{name}.client_growth", found.client_growth_bytes / found.tasks, "B/task")
    yield Figure(f"{name}.client_peak", found.client_peak_bytes / 1e6, "MB", "of bench.py so far")
    yield Figure(f"{name}.worker_peak", found.worker_peak_bytes / 1e6, "MB")
    yield Figure(f"{name}.again", found.again_s, "s", "a second run with nothing to do")
    yield Figure(f"{name}.plan", found.plan_s, "s", "half of the tasks")
    yield Figure(f"{name}.finish", found.finish_s, "s", "half of the tasks")
    yield Figure(f"{name}.receipts", found.receipt_bytes / found.tasks, "B/task")
    yield Figure(f"{name}.marker", found.marker_bytes / 1e6, "MB", "both stages")
    yield Figure(f"{name}.wrong", found.wrong, "1", "numbers that are not what they should be")


@figure("two_workers")
def two_workers() -> Iterator[Figure]:
    """Wall time with one worker over that with two: best of several, in turn, on quiet cores.

    First for tasks that only compute, then for steps on bursts, which move more memory than one
    core alone can: ``memory`` tells what two cores gain where there is nothing but memory.
    """
    with simulated(PARALLEL) as folder, ExitStack() as ending:
        _run(setup_run(configuration(folder)), SerialExecutor())
        executors = {workers: OpenExecutor(workers, 2_000_000_000) for workers in (1, 2)}
        walls: dict[tuple[str, int], list[float]] = defaultdict(list)
        for executor in executors.values():
            ending.callback(executor.end)
            _repeat(folder, executor)  # starts the workers, which load what they need
        for trial in range(TRIALS):
            for workers in (1, 2) if trial % 2 else (2, 1):
                root = folder / f"stub-{trial}-{workers}"
                start = time.perf_counter()
                run_stub_stages(root, executors[workers], StubOptions(tasks=60, work=120))
                walls["", workers].append(time.perf_counter() - start)
                for stage in _repeat(folder, executors[workers]).stages:
                    walls[f".{stage.name}", workers].append(stage.seconds)
                walls[".memory", workers].append(_memory_seconds(workers))
        for name in dict.fromkeys(name for name, _ in walls):
            best = min(walls[name, 1]) / min(walls[name, 2])
            gain = 2.0 * best if name == ".memory" else best
            note = f"{min(walls[name, 1]):.2f} s and {min(walls[name, 2]):.2f} s"
            yield Figure(f"two_workers{name}", gain, "x", note)


def _repeat(folder: Path, executor: Executor) -> Any:
    """Do the parallel steps once more; return the summary of the run."""
    setup = setup_run(configuration(folder))
    ledger = Ledger(setup.store.objects)
    for step in PARALLEL_STEPS:
        ledger.remove_marker(step)
        ledger.retire(step, keep={})
    summary = _run(setup, executor, PARALLEL_STEPS)
    assert summary.tasks_run > len(PARALLEL_STEPS), "everything was to be done again"
    return summary


def _memory_seconds(processes: int) -> float:
    """Return how long so many processes at once take to add to 64 MB, over and over."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes) as pool:
        pool.map(add_in_memory, [1] * processes, chunksize=1)
        return max(pool.map(add_in_memory, [400] * processes, chunksize=1))


def add_in_memory(times: int) -> float:
    """Add one to eight million numbers; return the seconds it took."""
    numbers = np.ones(8_000_000)
    start = time.perf_counter()
    for _ in range(times):
        numbers += 1.0
    return time.perf_counter() - start


def _run(setup: RunSetup, executor: Executor, steps: Sequence[str] = ()) -> Any:
    chosen = Selection(only=tuple(steps)) if steps else Selection(last=PARALLEL_STEPS[-1])
    return run_stages(setup.stages, setup.context, setup.store, executor, None, chosen)


@figure("stage_memory")
def stage_memory() -> Iterator[Figure]:
    """Peak of a fresh worker per stage beside the prediction, for 6, 12 and 24 dates."""
    with simulated(GROWING) as folder:
        for count in DISPERSION:
            for stage, predicted, measured in stage_peaks(folder, count):
                name = f"stage_memory.{count}.{stage}"
                yield Figure(name, measured / 1e6, "MB", "peak of the worker process")
                yield Figure(f"{name}.predicted", predicted / 1e6, "MB", "arrays of the tasks")


def stage_peaks(folder: Path, count: int) -> Iterator[tuple[str, int, int]]:
    """Run each stage in a worker of its own.

    Parameters
    ----------
    folder : pathlib.Path
        Products of ``GROWING`` in ``input``.
    count : int
        How many of its dates to take.

    Yields
    ------
    stage : str
    predicted, measured : int
        Bytes of the largest task, and of the worker process at its peak.
    """
    dates = [str(date) for date in GROWING.date_list()]
    sections = {
        "dates": {"last": dates[count - 1]},
        "reference_date": dates[2],
        "amplitude": {"max_amplitude_dispersion": DISPERSION[count]},
    }
    config = configuration(folder, root=f"root-{count}", **EVERYTHING, **sections)
    for stage in setup_run(config).stages:
        setup = setup_run(config)
        summary = _run(setup, DaskExecutor(1, 12_000_000_000), (stage.name,)).stages[0]
        if summary.run:
            yield stage.name, summary.predicted_memory_bytes, summary.peak_rss_bytes


class _Timed(SerialExecutor):
    """Takes the processor time of the tasks of each stage."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: Counter[str] = Counter()
        self.pixels: Counter[str] = Counter()

    def run(self, site: RunSite, orders: Sequence[TaskOrder]) -> Iterator[TaskResult]:
        """Yield a result for each order, in order."""
        start = time.process_time()
        for result in super().run(site, orders):
            self.seconds[result.stage] += time.process_time() - start
            self.pixels[result.stage] += result.pixels
            yield result
            start = time.process_time()


@figure("stage_rates")
def stage_rates() -> Iterator[Figure]:
    """Pixels per core-second of whole tasks, and how well their products pack: full-size bursts."""
    sections = {
        **EVERYTHING,
        # Of four dates many pixels look stable by chance: as many candidates as in a long stack.
        "amplitude": {"max_amplitude_dispersion": 0.1},
        "scatterers": {"min_phase_stability": 0.98},
    }
    with simulated(RATED) as folder:
        for attempt in ("first", "second"):
            setup, executor = setup_run(configuration(folder, root=attempt, **sections)), _Timed()
            run_stages(setup.stages, setup.context, setup.store, executor)
            if attempt == "first":  # loads compiled code, reads files for the first time
                shutil.rmtree(folder / attempt)
        for stage, seconds in executor.seconds.items():
            rate = executor.pixels[stage] / seconds / 1e6
            yield Figure(f"stage_rates.{stage}", rate, "Mpx/core-s", f"{seconds:.2f} s")
        yield from _packed(folder / "second")


def _packed(root: Path) -> Iterator[Figure]:
    """Yield the share of its bytes that each kind of product takes on disk."""
    raw: Counter[str] = Counter()
    stored: Counter[str] = Counter()
    for document in root.rglob("zarr.json"):
        node = zarr.open(str(document.parent), mode="r", zarr_format=3)
        if isinstance(node, zarr.Array) and node.nbytes >= SMALLEST_BYTES:
            kind = document.parent.parent.name
            raw[kind] += node.nbytes
            stored[kind] += sum(file.stat().st_size for file in document.parent.rglob("*")
                                if file.is_file())  # fmt: skip
    for kind, size in raw.items():
        yield Figure(f"stage_rates.packed.{kind}", stored[kind] / size, "1", "stored over raw")
