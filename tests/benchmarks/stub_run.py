"""Run the stub stages by the real engine on Dask workers, and account for time and memory.

The client's process holds the scheduler and the nannies of the local cluster, so its processor time
is what orchestration costs.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import stub_stages
from distributed import Client
from stub_stages import StubOptions

from bperp.flows.engine import (
    DaskExecutor,
    Executor,
    RunSummary,
    SerialExecutor,
    StageContext,
    finish_stage,
    plan_stage,
    run_stages,
)
from bperp.stores.cube import CubeStore


@dataclass(frozen=True)
class StubAccount:
    """What a run cost. ``tasks`` are those of both stages."""

    tasks: int
    wall_s: float
    client_cpu_s: float
    worker_cpu_s: float
    client_growth_bytes: int
    client_peak_bytes: int
    worker_peak_bytes: int
    again_s: float
    """Another run that finds nothing to do."""
    plan_s: float
    """To plan the second stage and compare it with the store."""
    finish_s: float
    """To load the receipts of the second stage and vouch for its product."""
    receipt_bytes: int
    marker_bytes: int
    wrong: int

    @property
    def client_cpu_ms(self) -> float:
        """Processor time of client and scheduler per task."""
        return 1e3 * self.client_cpu_s / self.tasks


class OpenExecutor(DaskExecutor):
    """Stays open after a run: its workers serve the next, and can be asked what they used."""

    def close(self) -> None:
        """Do nothing; see ``end``."""

    def end(self) -> None:
        """Stop the workers."""
        super().close()

    def worker_seconds(self) -> float:
        """Return the processor time of all workers so far."""
        with Client(self.start(), set_as_default=False) as client:
            return float(sum(client.run(time.process_time).values()))


def run_stub(folder: Path, options: StubOptions, workers: int = 2) -> StubAccount:
    """Run both stages, and again with nothing left to do.

    Parameters
    ----------
    folder : pathlib.Path
        Empty folder; the root is made in it.
    options : StubOptions
        What the stages are like.
    workers : int
        Worker processes.
    """
    root = folder / "root"
    executor = OpenExecutor(workers, 2_000_000_000)
    with contextlib.ExitStack() as ending:
        ending.callback(executor.end)
        executor.start()
        # The first tasks import what there is to import, in the workers and here.
        run_stub_stages(folder / "warm", executor, StubOptions(tasks=2 * workers))
        resident, used = _memory("VmRSS"), executor.worker_seconds()
        cpu, wall = time.process_time(), time.perf_counter()
        summary = run_stub_stages(root, executor, options)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        growth, worker_cpu = _memory("VmRSS") - resident, executor.worker_seconds() - used
    again = time.perf_counter()
    repeated = run_stub_stages(root, SerialExecutor(), options)
    again = time.perf_counter() - again
    assert repeated.tasks_run == 0, "the second run has nothing to do"
    plan_s, finish_s = _plan_and_finish(root, options)
    found = CubeStore(str(root)).read(stub_stages.SUMS, "x")
    return StubAccount(
        tasks=summary.tasks_run,
        wall_s=wall,
        client_cpu_s=cpu,
        worker_cpu_s=worker_cpu,
        client_growth_bytes=growth,
        client_peak_bytes=_memory("VmHWM"),
        worker_peak_bytes=summary.peak_rss_bytes,
        again_s=again,
        plan_s=plan_s,
        finish_s=finish_s,
        receipt_bytes=_stored(root / "receipts"),
        marker_bytes=_stored(root / "markers"),
        wrong=int(np.count_nonzero(found != stub_stages.sums(options.tasks))),
    )


def run_stub_stages(root: Path, executor: Executor, options: StubOptions) -> RunSummary:
    """Run what is missing of both stages in a root."""
    context = StageContext(options={"stub": asdict(options)})
    return run_stages(stub_stages.STAGES, context, CubeStore(str(root)), executor)


def _plan_and_finish(root: Path, options: StubOptions) -> tuple[float, float]:
    """Return the wall time of planning and of finishing the second stage."""
    store, context = CubeStore(str(root)), StageContext(options={"stub": asdict(options)})
    first, second = stub_stages.STAGES
    context.remember(first.name, plan_stage(first, context, store).as_planned(finished=True))
    start = time.perf_counter()
    plan = plan_stage(second, context, store)
    planned = time.perf_counter()
    finish_stage(plan, store)
    return planned - start, time.perf_counter() - planned


def _memory(field: str) -> int:
    """Return a figure of this process in bytes: ``VmRSS`` now, ``VmHWM`` at most."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{field}:")).split()[1])


def _stored(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
