"""The run as a Prefect flow: one Prefect task per stage and batch, Dask underneath.

Prefect gives schedule, history, retries and a picture; it never sees an array, and a batch holds
many Dask tasks because a Prefect task costs 100 ms. The plain runner of ``bperp.flows.engine``
calls the same functions without any server.

Deployments use the entrypoint ``bperp.flows.prefect_flow:stack_flow``.
"""

# ruff: noqa: E402 (Prefect reads its settings when it is imported)

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from bperp.flows.prefect_server import has_profile, prepare_environment, temporary_server

prepare_environment()

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import task_run
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings
from prefect.task_runners import ThreadPoolTaskRunner

from bperp.flows.engine import (
    DaskExecutor,
    RunSetup,
    RunSite,
    RunSummary,
    Selection,
    Session,
    StagePlan,
    TaskOrder,
    TaskResult,
    drive_stages,
    open_session,
)
from bperp.flows.progress import Mode, NullProgress, Progress, open_progress
from bperp.flows.worker import is_transient
from bperp.stores.cube import CubeStore
from bperp.stores.receipts import Ledger

_BATCHES_AT_ONCE = 8
_RETRIES = 2


def _task_runner() -> Any:
    return ThreadPoolTaskRunner(max_workers=_BATCHES_AT_ONCE)


async def _is_worth_retrying(_task: Any, _run: Any, state: Any) -> bool:
    try:
        await state.aresult()
    except Exception as error:
        return is_transient(error)
    return False


@task(
    name="batch",
    task_run_name="{stage}: {batch}",
    retries=_RETRIES,
    retry_delay_seconds=5,
    retry_condition_fn=_is_worth_retrying,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def run_batch(
    stage: str, batch: str, scheduler: str, site_text: str, order_texts: list[str]
) -> list[dict[str, Any]]:
    """Run the tasks of one batch in Dask workers.

    Parameters
    ----------
    stage, batch : str
        For the name of the Prefect task.
    scheduler : str
        Address of the Dask scheduler.
    site_text : str
        ``RunSite`` as JSON.
    order_texts : list of str
        ``TaskOrder`` as JSON.

    Returns
    -------
    list of dict
        Fields of ``TaskResult``, a few hundred bytes each.
    """
    del stage, batch
    site = RunSite.from_json(site_text)
    orders = [TaskOrder.from_json(text) for text in order_texts]
    if task_run.run_count and task_run.run_count > 1:
        orders = _without_receipts(site, orders)
    with contextlib.closing(DaskExecutor(address=scheduler)) as executor:
        return [asdict(result) for result in executor.run(site, orders)]


@flow(
    name="bperp-stack",
    task_runner=_task_runner(),
    persist_result=False,
    validate_parameters=True,
)
def stack_flow(
    config: str,
    first: str | None = None,
    last: str | None = None,
    only: list[str] | None = None,
    progress: Mode = "plain",
) -> dict[str, Any]:
    """Bring a stack up to date.

    Parameters
    ----------
    config : str
        Path or URL of ``stack.yaml``.
    first, last : str, optional
        First and last step; default all.
    only : list of str, optional
        Exactly these steps.
    progress : {"auto", "rich", "plain", "json", "none"}
        Display.

    Returns
    -------
    dict
        ``RunSummary`` as plain JSON.
    """
    from bperp.flows.run import prepare

    selection = Selection(first, last, tuple(only or ()))
    summary = run_in_flow(prepare(config), selection, open_progress(progress))
    return summary.as_dict()


def run_with_prefect(
    setup: RunSetup, selection: Selection | None = None, progress: Progress | None = None
) -> RunSummary:
    """Run stages as a Prefect flow now, with the user's Prefect server or else a temporary one.

    Parameters
    ----------
    setup : RunSetup
        Stages, context, store and cluster.
    selection : Selection, optional
        Which steps; default all.
    progress : Progress, optional
        Display; closed at the end.

    Returns
    -------
    RunSummary
        As from ``run_stages``.

    Raises
    ------
    BperpError
        As from ``run_stages``, and R815 when no Prefect server starts.
    """

    # A closure, because a flow's parameters have to be JSON and a setup is not.
    @flow(name="bperp-stack", task_runner=_task_runner(), persist_result=False)
    def run_now() -> RunSummary:
        return run_in_flow(setup, selection or Selection(), progress or NullProgress())

    with prefect_api():
        summary: RunSummary = run_now()
        return summary


@contextlib.contextmanager
def prefect_api() -> Iterator[None]:
    """Have a Prefect server to talk to: the user's own, else one for the time being."""
    if PREFECT_API_URL.value() or has_profile():
        yield
        return
    with temporary_server() as url:
        # Nobody reads the log of a server that is about to end, and its sender complains then.
        settings = {PREFECT_API_URL: url, PREFECT_LOGGING_TO_API_ENABLED: False}
        with temporary_settings(settings):
            yield


def run_in_flow(setup: RunSetup, selection: Selection, progress: Progress) -> RunSummary:
    """Run stages inside a Prefect flow run, one Prefect task per stage and batch.

    Parameters
    ----------
    setup : RunSetup
        Stages, context, store and cluster.
    selection : Selection
        Which steps.
    progress : Progress
        Display; closed at the end.

    Returns
    -------
    RunSummary
        As from ``run_stages``.
    """
    chosen = selection.resolve(setup.stages)
    executor = setup.dask_executor()

    def perform(session: Session, plan: StagePlan) -> None:
        scheduler = executor.start()
        waiting = deque(plan.batches().items())
        running: deque[Any] = deque()
        while waiting or running:
            while waiting and len(running) < _BATCHES_AT_ONCE:
                batch, orders = waiting.popleft()
                texts = [order.as_json() for order in orders]
                site = session.site.as_json()
                running.append(run_batch.submit(plan.name, batch, scheduler, site, texts))
            for result in running.popleft().result():
                session.report(TaskResult(**result))

    with contextlib.closing(executor), open_session(setup.store, setup.context, progress) as run:
        drive_stages(run, setup.stages, chosen, executor, perform)
        return run.summary


def _without_receipts(site: RunSite, orders: list[TaskOrder]) -> list[TaskOrder]:
    """Return what a first attempt at a batch has left undone."""
    ledger = Ledger(CubeStore(site.root, site.storage_options).objects)
    recorded = ledger.recorded(orders[0].stage) if orders else {}
    return [order for order in orders if order.record[:12] not in recorded.get(order.key, set())]
