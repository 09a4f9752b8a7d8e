"""A run from its configuration: index the products, run the stages, export, draw, report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from bperp.flows.config import STEPS, StackConfig, differences, load_config
from bperp.flows.elevation_contents import elevation_contents, stage_options
from bperp.flows.engine import (
    ElevationSettings,
    Executor,
    RunSetup,
    Selection,
    SerialExecutor,
    StageContext,
    run_stages,
)
from bperp.flows.export import export_product
from bperp.flows.progress import Progress
from bperp.flows.root import Root, write_root_record
from bperp.flows.root_report import write_pictures_and_report
from bperp.flows.stack_index import index_stack
from bperp.flows.status import steps_behind
from bperp.pipeline.stack import Stack
from bperp.pipeline.steps import STAGES
from bperp.stores.cube import CubeStore
from bperp.stores.errors import BperpError

__all__ = [
    "changed_options",
    "prepare",
    "recorded_setup",
    "run_stack",
    "setup_run",
    "stack_status",
]


def prepare(config_path: str) -> RunSetup:
    """Read ``stack.yaml``, index its products and return what the engine needs.

    Raises
    ------
    BperpError
        Faults of configuration, products and orbits.
    """
    return setup_run(load_config(Path(config_path)))


def setup_run(config: StackConfig, workers: int | None = None, *, record: bool = True) -> RunSetup:
    """Index the products of a configuration.

    Parameters
    ----------
    config : StackConfig
        Validated configuration.
    workers : int, optional
        Overrides ``compute.workers``.
    record : bool, default True
        Write the stack and the options to the root; a dry run does not.
    """
    store = CubeStore(config.root)
    before = Root.find(store)
    index = index_stack(config, before.stack.reference_date if before else None)
    heights = elevation_contents(config)
    if record:
        write_root_record(store, config, index, heights)
    return recorded_setup(config, index.stack, store, heights, workers)


def recorded_setup(
    config: StackConfig,
    stack: Stack,
    store: CubeStore,
    heights: Mapping[str, Mapping[str, Any]],
    workers: int | None = None,
) -> RunSetup:
    """Return what the engine needs for a stack that was indexed, now or by the last run.

    Parameters
    ----------
    config : StackConfig
        Options.
    stack : Stack
        Acquisitions and scene.
    store : CubeStore
        Root.
    heights : mapping
        ``elevation_contents``.
    workers : int, optional
        Overrides ``compute.workers``.
    """
    absent: Literal["mask", "sea"] = "sea" if config.geometry.missing_elevation == "sea" else "mask"
    elevation = ElevationSettings(
        config.dem.path,
        config.dem.vertical_datum,
        config.dem.geoid,
        absent,
        content_id=str(heights.get("geometry")),
    )
    context = StageContext(stack, stage_options(config, heights), elevation)
    number = workers or (None if config.compute.workers == "auto" else config.compute.workers)
    memory = config.compute.memory_per_worker_bytes
    return RunSetup(STAGES, context, store, number, memory, cluster=config.compute.cluster)


def run_stack(
    config: StackConfig,
    *,
    first: str | None = None,
    last: str | None = None,
    only: str | None = None,
    dry_run: bool = False,
    engine: str = "local",
    workers: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run the chain, or a part of it, and what belongs to it: exports, pictures, report.

    Parameters
    ----------
    config : StackConfig
        Validated configuration.
    first, last, only : str, optional
        Steps as in ``STEPS``; default all.
    dry_run : bool
        Only tell what would run and why.
    engine : {"local", "serial", "prefect"}
        Dask workers on this machine, this process, or a Prefect flow.
    workers : int, optional
        Number of worker processes.
    progress : Progress, optional
        Display.

    Returns
    -------
    dict
        JSON values: summary of the stages, ``exports``, ``pictures``, ``report``, and
        ``changed_options``, before and after, where they differ from the last run.
    """
    chosen = Selection(first, last, (only,) if only else ()).among(STEPS)
    stages = tuple(step for step in chosen if step != "export")
    changed = changed_options(config)
    setup = setup_run(config, workers, record=not dry_run)
    summary: dict[str, Any] = {"root": config.root, "dry_run": dry_run, "stages": []}
    if changed:
        summary["changed_options"] = {name: list(values) for name, values in changed.items()}
    if stages:
        selection = Selection(only=stages)
        summary |= _run_stages(setup, selection, engine, progress, dry_run=dry_run)
    if dry_run:
        return summary
    summary["exports"] = _export(config) if "export" in chosen else []
    return summary | write_pictures_and_report(Root.open(config.root))


def changed_options(config: StackConfig) -> dict[str, tuple[Any, Any]]:
    """Return the options that differ from those of the last run of the root, before and after."""
    root = Root.find(CubeStore(config.root))
    if root is None:
        return {}
    try:
        before = StackConfig.from_values(root.config)
    except BperpError:
        return {}  # written by a version with other options
    return differences(before, config)


def _run_stages(
    setup: RunSetup,
    selection: Selection,
    engine: str,
    progress: Progress | None,
    *,
    dry_run: bool,
) -> dict[str, Any]:
    if engine == "prefect" and not dry_run:
        from bperp.flows.prefect_flow import run_with_prefect

        return run_with_prefect(setup, selection, progress).as_dict()
    executor: Executor = SerialExecutor() if engine == "serial" else setup.dask_executor()
    return run_stages(
        setup.stages,
        setup.context,
        setup.store,
        executor,
        progress,
        selection,
        dry_run=dry_run,
    ).as_dict()


def _export(config: StackConfig) -> list[dict[str, Any]]:
    return [export_product(config.root, name) for name in config.export.formats]


def stack_status(root: str) -> dict[str, Any]:
    """Return what is finished in a root.

    Parameters
    ----------
    root : str
        Folder or URL.

    Returns
    -------
    dict
        ``reference_date``, ``dates``, ``bursts``, ``steps`` (name to ``finished``, number of tasks
        and whether the step is ``behind``: made before dates or options changed), ``notes``,
        ``flags`` by date.
    """
    opened = Root.open(root)
    markers = opened.ledger.markers()
    behind = steps_behind(opened)
    flags = {
        date: item["flags"]
        for date, item in opened.summaries.get("alignment", {}).items()
        if item["flags"]
    }
    return {
        "root": opened.store.objects.url,
        "reference_date": opened.stack.reference_date,
        "dates": list(opened.stack.dates),
        "bursts": list(opened.stack.burst_ids),
        "steps": {
            stage.name: {
                "finished": stage.name in markers,
                "behind": stage.name in behind,
                "tasks": len(markers[stage.name].receipts) if stage.name in markers else 0,
            }
            for stage in STAGES
        },
        "notes": list(opened.notes),
        "flags": flags,
    }
