"""Compute again exactly what is damaged in a root.

Repair plans with the stack and the options that the root records, so it needs no index of the
products: only what the damaged tasks themselves read.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from bperp.flows.config import StackConfig
from bperp.flows.engine import (
    Executor,
    RunSetup,
    SerialExecutor,
    Session,
    StagePlan,
    TaskOrder,
    UpstreamPendingError,
    open_session,
    plan_stage,
)
from bperp.flows.interruption import terminable
from bperp.flows.progress import NullProgress, Progress
from bperp.flows.root import Root
from bperp.flows.run import recorded_setup
from bperp.pipeline.stage import Stage, Template
from bperp.stores.cube import CubeStore
from bperp.stores.errors import StorageError
from bperp.stores.inventory import partial_files
from bperp.stores.layout import render_product
from bperp.stores.receipts import Ledger, Marker
from bperp.stores.verify import (
    StageDamage,
    Verification,
    metadata_hash,
    verify_store,
    withdraw,
)

__all__ = ["Repair", "repair_root", "repair_store"]

T = TypeVar("T")
_ROUNDS = 3
"""A lost marker may hide damaged blocks: they are found when the step has a marker again."""


@dataclass
class Repair:
    """What a repair did.

    ``damaged`` are the objects that were found, ``recomputed`` the tasks by stage, ``restored`` the
    metadata objects that were written again without a task, ``removed`` left-over files.
    """

    root: str
    damaged: list[str] = field(default_factory=list)
    recomputed: dict[str, list[str]] = field(default_factory=dict)
    restored: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)

    @property
    def tasks_run(self) -> int:
        """Number of tasks computed."""
        return sum(len(keys) for keys in self.recomputed.values())


def repair_root(
    root: str, *, workers: int | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Compute again what is damaged in a root, with the options that it records.

    Parameters
    ----------
    root : str
        Folder or URL.
    workers : int, optional
        Number of worker processes; default as configured.
    progress : Progress, optional
        Display.

    Returns
    -------
    dict
        Fields of ``Repair`` as JSON values, ``tasks_run`` and ``seconds``.

    Raises
    ------
    BperpError
        As from ``repair_store``.
    """
    started = time.perf_counter()
    setup, engine = _recorded_setup(Root.open(root), workers)
    executor: Executor = SerialExecutor() if engine == "serial" else setup.dask_executor()
    done = repair_store(setup, executor, progress)
    seconds = round(time.perf_counter() - started, 2)
    return {**vars(done), "tasks_run": done.tasks_run, "seconds": seconds}


def _recorded_setup(opened: Root, workers: int | None) -> tuple[RunSetup, str]:
    config = StackConfig.from_values(opened.config)
    setup = recorded_setup(config, opened.stack, opened.store, opened.elevation, workers)
    return setup, config.compute.engine


def repair_store(setup: RunSetup, executor: Executor, progress: Progress | None = None) -> Repair:
    """Verify a store, and compute again what is damaged and nothing else.

    Parameters
    ----------
    setup : RunSetup
        Stages and options that the store was made with.
    executor : Executor
        Runs the tasks; closed at the end.
    progress : Progress, optional
        Display; closed at the end.

    Returns
    -------
    Repair
        What was done; afterwards everything that a marker vouches for was read again.

    Raises
    ------
    StorageError
        R806 locked, R808 the stages or options are not those the store was made with, R812 the
        recomputed data differ from those that were lost.
    BperpError
        What hinders a task: inputs that are gone, memory, disk. Steps without damage keep their
        markers.
    """
    display = progress or NullProgress()
    done = Repair(setup.store.objects.url)
    with (
        terminable(),
        contextlib.closing(executor),
        open_session(setup.store, setup.context, display) as session,
    ):
        done.removed = partial_files(setup.store)
        setup.store.remove_partials("")
        found = _verify(setup.store, display)
        for _ in range(_ROUNDS):
            touched = _mend(session, setup.stages, found, executor, done)
            if not touched:
                break
            found = _verify(setup.store, display, touched)
        for fault in found.faults.values():
            raise fault
    return done


def _verify(store: CubeStore, display: Progress, only: Sequence[str] | None = None) -> Verification:
    # A store of its own: descriptions that turn out to be wrong must not stay in memory.
    fresh = CubeStore(store.root, store.storage_options)
    return verify_store(fresh, watcher=_Verifying(display), only=only)


class _Verifying:
    """Shows verification next to the run of the same step."""

    def __init__(self, display: Progress) -> None:
        self._display = display

    def stage_started(self, stage: str, total: int, done: int, pixels: int) -> None:
        self._display.stage_started(f"verify {stage}", total, done, pixels)

    def task_finished(self, stage: str, pixels: int, bytes_written: int) -> None:
        self._display.task_finished(f"verify {stage}", pixels, bytes_written)

    def stage_finished(self, stage: str, seconds: float) -> None:
        self._display.stage_finished(f"verify {stage}", seconds)


def _mend(
    session: Session,
    stages: Sequence[Stage],
    found: Verification,
    executor: Executor,
    done: Repair,
) -> list[str]:
    """Mend the damaged stages in order; return their names."""
    done.damaged += [name for name in found.faults if name not in done.damaged]
    unmarked = [name for name in found.faults if name.startswith("markers/")]
    touched = [s.name for s in stages if s.name in found.damage or _marker(s.name) in unmarked]
    for stage in stages[: _last(stages, touched)]:
        damage = found.damage.get(stage.name)
        if damage is not None:
            _mend_stage(session, stage, damage, executor, done)
            if _marker(stage.name) not in unmarked:
                _require_same_result(session.store, damage)
        elif stage.name in touched:
            _mend_unmarked(session, stage, executor, done)
        else:
            session.look_at(stage)
    return touched


def _marker(stage: str) -> str:
    return f"markers/{stage}.json"


def _last(stages: Sequence[Stage], names: Sequence[str]) -> int:
    return max((i + 1 for i, stage in enumerate(stages) if stage.name in names), default=0)


def _mend_stage(
    session: Session, stage: Stage, damage: StageDamage, executor: Executor, done: Repair
) -> None:
    """Restore metadata, then withdraw and compute what is damaged still."""
    store, name = session.store, stage.name
    templates = _planned(stage, lambda: stage.plan(session.context)).templates
    restored = _restore_metadata(store, templates, damage.marker)
    done.restored += restored
    for product in sorted(damage.products):
        _remove_unreadable(store, product)
    if restored:
        again = _verify(store, NullProgress(), [name]).damage.get(name)
        if again is None:
            session.look_at(stage)
            return
        damage = again
    plan = _planned(stage, lambda: plan_stage(stage, session.context, store))
    damage = _as_planned(store, plan, damage)
    _require_inputs([order for order in plan.orders if order.key in damage.keys], session)
    withdraw(store, damage)
    _compute(session, stage, executor, done)


def _mend_unmarked(session: Session, stage: Stage, executor: Executor, done: Repair) -> None:
    """Make the marker of a stage again: nothing else tells what of the stage is damaged.

    Descriptions are written again. Receipts that cannot be read are discarded: a run knows them by
    their names only. Blocks are verified when the stage has a marker.
    """
    store = session.store
    plan = _planned(stage, lambda: stage.plan(session.context))
    products = {template.product for template in plan.templates}
    withdraw(store, StageDamage(Marker(stage.name, stage.version, {}), products=products))
    ledger, known = Ledger(store.objects), plan_stage(stage, session.context, store).done
    for key in known.keys() - ledger.load(stage.name, known).keys():
        ledger.discard(stage.name, key, known[key])
    _compute(session, stage, executor, done)


def _compute(session: Session, stage: Stage, executor: Executor, done: Repair) -> None:
    plan = session.begin(stage, executor)
    if plan is None:
        return
    for result in session.run(executor, plan.pending):
        done.recomputed.setdefault(stage.name, []).append(result.key)
    session.finish(plan)


def _restore_metadata(store: CubeStore, templates: Sequence[Template], marker: Marker) -> list[str]:
    """Write damaged metadata objects again where their right bytes are known; return their names.

    They are rendered from the template and compared with the hash in the marker.
    """
    restored = []
    for template in templates:
        entry = marker.products.get(template.product, {})
        rendered = render_product(template)
        for name, expected in entry.get("metadata", {}).items():
            full = f"{template.product}/{name}"
            data = store.objects.read(full)
            if data is not None and metadata_hash(name, data) == expected:
                continue
            if metadata_hash(name, rendered.get(name, b"")) == expected:
                store.objects.write(full, rendered[name])
                restored.append(full)
                if name == "zarr.json":
                    store.seal(template.product, entry["content"])
    return restored


def _remove_unreadable(store: CubeStore, product: str) -> None:
    """Remove a description that nobody can read, so that its product counts as absent."""
    try:
        store.attributes(product)
    except StorageError as fault:
        if fault.code == "R808":
            raise
        store.objects.remove(f"{product}/zarr.json")


def _planned(stage: Stage, plan: Callable[[], T]) -> T:
    try:
        return plan()
    except UpstreamPendingError as pending:
        raise _other_work(pending.stage) from pending


def _as_planned(store: CubeStore, plan: StagePlan, damage: StageDamage) -> StageDamage:
    """Return the damage in terms of the plan; refuse it if the marker vouches for other work.

    Where they differ, the marker is damaged itself if the receipts that lie there are the plan's.
    """
    ours, theirs = plan.records, damage.marker.receipts
    there = Ledger(store.objects).recorded(plan.name)
    for key in ours.keys() | theirs.keys():
        if ours.get(key) != theirs.get(key):
            found = there.get(key, set())
            if ours.get(key, "")[:12] not in found and (key in ours or found):
                raise _other_work(plan.name)
    marker = replace(damage.marker, stage=plan.name, receipts=ours)
    return replace(damage, marker=marker, keys=damage.keys & ours.keys())


def _other_work(stage: str) -> StorageError:
    return StorageError(
        "R808",
        "the step is not finished, or was made by another version or with other options",
        where=stage,
        expected="the version and the options that the root records to be those of its products",
        remedy="finish it by 'bperp run' with the configuration file, then verify and repair again",
    )


def _require_inputs(orders: Sequence[TaskOrder], session: Session) -> None:
    """Open what the tasks read besides products, before anything is withdrawn for them."""
    from bperp.stores.elevation import ElevationModel
    from bperp.stores.measurement import open_measurement

    inputs = [{**order.parameters, **order.locations} for order in orders]
    files = {(item["url"], item["member"]) for item in inputs if {"url", "member"} <= item.keys()}
    for url, member in sorted(files):
        open_measurement(url, member).close()
    settings = session.context.elevation
    if settings is not None and any("elevation" in item for item in inputs):
        datum: Any = settings.vertical_datum  # checked by the model
        ElevationModel.open(settings.url, datum, settings.geoid, absent=settings.absent)


def _require_same_result(store: CubeStore, damage: StageDamage) -> None:
    """Take back what was computed unless it is what was there before the damage."""
    ledger, marker = Ledger(store.objects), damage.marker
    now = ledger.marker(marker.stage)
    if now is not None and _contents(now) == _contents(marker):
        return
    withdraw(store, damage)
    raise StorageError(
        "R812",
        "what was computed again differs from what was lost",
        where=marker.stage,
        expected="the digests of the marker before the damage",
        found="others: inputs were replaced, or another version of a library computes otherwise",
        remedy="restore the inputs and repeat the repair, or run everything into a new root",
    )


def _contents(marker: Marker) -> dict[str, Any]:
    return {product: entry["content"] for product, entry in marker.products.items()}
