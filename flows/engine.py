"""The engine: plans stages, runs what is missing, vouches for the results.

Every stage goes through the same four steps, which the Prefect flow calls one by one as well:
``plan_stage`` (what is missing and why), ``begin_stage`` (refuse early, prepare products), tasks in
an ``Executor`` (each leaves a receipt), ``finish_stage`` (check and write the marker). Resuming is
the same as running.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bperp.flows.executors import DaskExecutor, Executor, SerialExecutor
from bperp.flows.interruption import terminable
from bperp.flows.planning import (
    PlannedStage,
    StageContext,
    StagePlan,
    UpstreamPendingError,
    plan_stage,
)
from bperp.flows.progress import NullProgress, Progress
from bperp.flows.runlog import RunLog
from bperp.flows.selection import Selection
from bperp.flows.staging import begin_stage, finish_stage
from bperp.flows.summary import RunSummary, StageSummary, summarise_plan
from bperp.flows.worker import (
    ElevationSettings,
    RunSite,
    TaskFailedError,
    TaskOrder,
    TaskResult,
    TaskSource,
    require_current_run,
    run_task,
)
from bperp.pipeline.stage import Stage
from bperp.stores.cube import CubeStore
from bperp.stores.errors import BperpError
from bperp.stores.locks import run_lock
from bperp.stores.objects import LocalObjects, require_exclusive_create
from bperp.stores.receipts import Ledger

if TYPE_CHECKING:
    from bperp.flows.config_sections import ClusterOptions

__all__ = [
    "DaskExecutor",
    "ElevationSettings",
    "Executor",
    "PlannedStage",
    "RunSetup",
    "RunSite",
    "RunSummary",
    "Selection",
    "SerialExecutor",
    "Session",
    "StageContext",
    "StagePlan",
    "StageSummary",
    "TaskFailedError",
    "TaskOrder",
    "TaskResult",
    "TaskSource",
    "UpstreamPendingError",
    "begin_stage",
    "drive_stages",
    "explain_stages",
    "finish_stage",
    "open_session",
    "plan_stage",
    "run_stages",
    "run_task",
]


@dataclass
class RunSetup:
    """Everything that a run needs, as ``bperp.flows.run.prepare`` builds it from ``stack.yaml``.

    ``workers``, ``memory_limit_bytes``, ``scheduler_address`` and ``cluster`` go to
    ``DaskExecutor``; ``None`` leaves them to it.
    """

    stages: Sequence[Stage]
    context: StageContext
    store: CubeStore
    workers: int | None = None
    memory_limit_bytes: int | None = None
    scheduler_address: str | None = None
    cluster: ClusterOptions | None = None

    def dask_executor(self) -> DaskExecutor:
        """Return an executor for this setup; nothing is started yet."""
        return DaskExecutor(
            self.workers, self.memory_limit_bytes, self.scheduler_address, cluster=self.cluster
        )


class Session:
    """One run that holds the lock of its store; made by ``open_session``.

    Parameters
    ----------
    store : CubeStore
        Store of the run.
    context : StageContext
        What stages see; learns of each finished stage.
    progress : Progress
        Display.
    log : RunLog
        Record of the run.
    token : str
        Token of the run lock.
    """

    def __init__(
        self, store: CubeStore, context: StageContext, progress: Progress, log: RunLog, token: str
    ) -> None:
        self.store, self.context, self.progress, self.log = store, context, progress, log
        self.site = RunSite(store.root, store.storage_options, context.elevation, token)
        self.summary = RunSummary(store.objects.url, log=log.name)
        self._current: StageSummary | None = None
        self._started = 0.0

    def look_at(self, stage: Stage) -> None:
        """Learn whether a stage that is not to be run is up to date."""
        try:
            plan = plan_stage(stage, self.context, self.store)
        except UpstreamPendingError:
            return
        self.context.remember(stage.name, plan.as_planned(finished=plan.is_current))

    def begin(self, stage: Stage, executor: Executor) -> StagePlan | None:
        """Plan a stage and prepare its products; ``None`` when it is up to date."""
        plan = plan_stage(stage, self.context, self.store)
        summary = summarise_plan(plan, "current" if plan.is_current else "failed")
        self.summary.stages.append(summary)
        if plan.is_current:
            self.context.remember(stage.name, plan.as_planned(finished=True))
            self.log.event("stage_current", stage=plan.name, tasks=len(plan.orders))
            self.progress.note(f"{plan.name}: up to date, {len(plan.orders)} tasks")
            return None
        plan = begin_stage(plan, self.store, executor.memory_limit_bytes)
        self._current, self._started = summary, time.perf_counter()
        self.log.event(
            "stage_started",
            stage=plan.name,
            tasks=len(plan.orders),
            pending=len(plan.pending),
            reasons=dict(Counter(plan.reasons.values())),
        )
        pixels = sum(order.pixels for order in plan.pending)
        self.progress.stage_started(plan.name, len(plan.orders), len(plan.done), pixels)
        return plan

    def run(self, executor: Executor, orders: Sequence[TaskOrder]) -> Iterator[TaskResult]:
        """Run some tasks of the stage that was begun, reporting each."""
        for result in executor.run(self.site, orders):
            self.report(result)
            yield result

    def report(self, result: TaskResult) -> None:
        """Count a finished task in the display, the log and the summary."""
        self.log.event("task_finished", **asdict(result))
        self.progress.task_finished(result.stage, result.pixels, result.bytes_written)
        summary = self._current
        if summary is not None:
            summary.run += 1
            summary.bytes_written += result.bytes_written
            summary.pixels += result.pixels
            summary.peak_rss_bytes = max(summary.peak_rss_bytes, result.peak_rss_bytes)

    def finish(self, plan: StagePlan) -> None:
        """Write the marker of a stage whose tasks are all done."""
        # A paused process may find that another run took the store over meanwhile.
        require_current_run(self.site, self.store)
        marker = finish_stage(plan, self.store)
        self.context.remember(plan.name, plan.as_planned(finished=True))
        summary = self._current
        assert summary is not None, "begin comes before finish"
        summary.status, summary.seconds = "done", time.perf_counter() - self._started
        summary.holes = sum(len(entry["holes"]) for entry in marker.products.values())
        self.log.event("stage_finished", **{**asdict(summary), "reasons": len(summary.reasons)})
        self.log.flush()
        self.progress.stage_finished(plan.name, summary.seconds)


@contextlib.contextmanager
def open_session(
    store: CubeStore,
    context: StageContext,
    progress: Progress | None = None,
) -> Iterator[Session]:
    """Lock a store, open the log of the run, and leave both in order whatever happens.

    Parameters
    ----------
    store : CubeStore
        Store of the run.
    context : StageContext
        What stages see.
    progress : Progress, optional
        Display; closed at the end.

    Yields
    ------
    Session
        For ``begin``, ``run`` and ``finish``.

    Raises
    ------
    StorageError
        R806 locked by another run, R807 not permitted, R814 no conditional writes.
    """
    display = progress or NullProgress()
    context.ledger = Ledger(store.objects)
    if not isinstance(store.objects, LocalObjects):
        require_exclusive_create(store.objects)
    with contextlib.closing(display), run_lock(store.objects) as owner:
        session = Session(store, context, display, RunLog(store.objects), owner.token)
        session.log.event("run_started", root=store.objects.url, owner=str(owner))
        try:
            yield session
        except BaseException as error:
            session.log.event("run_failed", **_error_fields(error))
            raise
        else:
            session.log.event("run_finished", tasks=session.summary.tasks_run)
        finally:
            with contextlib.suppress(BperpError):
                session.log.flush()


def run_stages(
    stages: Sequence[Stage],
    context: StageContext,
    store: CubeStore,
    executor: Executor,
    progress: Progress | None = None,
    selection: Selection | None = None,
    *,
    dry_run: bool = False,
) -> RunSummary:
    """Run what is missing of the selected stages, in order.

    Parameters
    ----------
    stages : sequence of Stage
        The whole chain in order.
    context : StageContext
        Stack and options.
    store : CubeStore
        Where products, receipts and markers lie.
    executor : Executor
        Runs the tasks; closed at the end.
    progress : Progress, optional
        Display; closed at the end.
    selection : Selection, optional
        Default all stages. Stages before the selection must be up to date if they are needed.
    dry_run : bool, default False
        Only tell what would run and why; nothing is written, no lock is taken.

    Returns
    -------
    RunSummary
        Per stage: status, tasks run and why, seconds, bytes, predicted and measured memory.

    Raises
    ------
    BperpError
        Typed faults of configuration, data, storage or memory.
    TaskFailedError
        A fault of the program in a task.
    KeyboardInterrupt
        SIGINT or SIGTERM; everything that has a receipt counts when the run is repeated.
    """
    chosen = (selection or Selection()).resolve(stages)
    if dry_run:
        return explain_stages(stages, context, store, chosen)

    def perform(session: Session, plan: StagePlan) -> None:
        for _ in session.run(executor, plan.pending):
            pass

    with terminable(), contextlib.closing(executor), open_session(store, context, progress) as run:
        drive_stages(run, stages, chosen, executor, perform)
        return run.summary


def drive_stages(
    session: Session,
    stages: Sequence[Stage],
    chosen: Sequence[str],
    executor: Executor,
    perform: Callable[[Session, StagePlan], None],
) -> None:
    """Bring the chosen stages up to date one after the other.

    Parameters
    ----------
    session : Session
        Open session.
    stages : sequence of Stage
        The whole chain in order.
    chosen : sequence of str
        Names of the stages to run; those before them are only looked at.
    executor : Executor
        Gives the memory limit.
    perform : callable
        Runs the pending tasks of a stage and reports each to the session.
    """
    for stage in _up_to(stages, chosen):
        if stage.name not in chosen:
            session.look_at(stage)
            continue
        plan = session.begin(stage, executor)
        if plan is not None:
            perform(session, plan)
            session.finish(plan)


def explain_stages(
    stages: Sequence[Stage], context: StageContext, store: CubeStore, chosen: Sequence[str]
) -> RunSummary:
    """Return what a run would do and why, without writing anything."""
    context.ledger = Ledger(store.objects)
    summary = RunSummary(store.objects.url, dry_run=True)
    for stage in _up_to(stages, chosen):
        try:
            plan = plan_stage(stage, context, store, allow_unfinished=True)
        except UpstreamPendingError as pending:
            if stage.name in chosen:
                waiting = StageSummary(stage.name, "waiting", waiting_for=pending.stage)
                summary.stages.append(waiting)
            continue
        context.remember(stage.name, plan.as_planned(finished=plan.is_current))
        if stage.name in chosen:
            status = "current" if plan.is_current else "planned"
            summary.stages.append(summarise_plan(plan, status))
    return summary


def _up_to(stages: Sequence[Stage], chosen: Sequence[str]) -> list[Stage]:
    names = [stage.name for stage in stages]
    if len(set(names)) != len(names):
        raise ValueError(f"stage names must be unique, instead got {names}")
    return list(stages[: max((names.index(name) + 1 for name in chosen), default=0)])


def _error_fields(error: BaseException) -> dict[str, Any]:
    if isinstance(error, BperpError):
        return {"error": error.as_dict()}
    if isinstance(error, KeyboardInterrupt):
        return {"error": {"cause": "interrupted", "exit_code": 130}}
    details = error.details if isinstance(error, TaskFailedError) else type(error).__name__
    return {"error": {"cause": str(error), "details": details, "exit_code": 1}}
