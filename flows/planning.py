"""From a stage to the tasks that are left to do: ids, comparison with the store, reasons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bperp.flows.worker import ElevationSettings, TaskOrder, load_stage
from bperp.pipeline.stage import Plan, Stage, Task, Template
from bperp.stores.cube import CubeStore, TemplateState
from bperp.stores.errors import ConfigurationError
from bperp.stores.layout import layout_digest, template_digest
from bperp.stores.receipts import Ledger, Marker, task_id


class UpstreamPendingError(ConfigurationError):
    """C109: a stage needs the receipts of one that is not finished."""

    def __init__(self, stage: str) -> None:
        super().__init__(
            "C109",
            "an earlier step is not finished or no longer up to date",
            where=stage,
            remedy=f"run it first: leave out --from/--only, or use --from {stage}",
        )
        self.stage = stage

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.stage,))


@dataclass(frozen=True)
class PlannedStage:
    """What later stages may know of an earlier one."""

    ids: Mapping[str, str]
    """Key to id of every task."""
    outputs: Mapping[str, tuple[str, ...]]
    """Key to the products that the task writes."""
    finished: bool


@dataclass
class StageContext:
    """What a stage sees when it plans.

    Parameters
    ----------
    stack : Any
        Acquisitions, bursts and grid of the run.
    options : mapping
        Options of each step by name, JSON values only.
    elevation : ElevationSettings, optional
        Where the tasks get heights from; a stage puts what matters of it into its parameters.
    """

    stack: Any = None
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    elevation: ElevationSettings | None = None
    planned: dict[str, PlannedStage] = field(default_factory=dict)
    ledger: Ledger | None = None
    _loaded: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict, repr=False)

    def receipts(self, stage: str) -> Mapping[str, Mapping[str, Any]]:
        """Return the receipts of a finished earlier stage by key, as plain JSON.

        The stage's own results are under ``"summary"``.

        Raises
        ------
        UpstreamPendingError
            C109 when that stage is not finished for the present options.
        """
        known = self.planned.get(stage)
        if known is None or not known.finished or self.ledger is None:
            raise UpstreamPendingError(stage)
        if stage not in self._loaded:
            receipts = self.ledger.load(stage, known.ids)
            if len(receipts) < len(known.ids):
                raise UpstreamPendingError(stage)
            self._loaded[stage] = {key: receipt.as_dict() for key, receipt in receipts.items()}
        return self._loaded[stage]

    def remember(self, stage: str, planned: PlannedStage) -> None:
        """Make a stage known to those after it."""
        self.planned[stage] = planned
        self._loaded.pop(stage, None)


@dataclass(frozen=True)
class StagePlan:
    """A stage compared with the store: what there is and what is left to do."""

    name: str
    version: str
    templates: tuple[Template, ...]
    orders: tuple[TaskOrder, ...]
    states: Mapping[str, TemplateState]
    """State of each product before the run."""
    reasons: Mapping[str, str]
    """Key to why the task has to run; keys that are done are absent."""
    stale: int
    """Receipts on record that the plan no longer contains."""
    marked: bool
    """Whether the marker vouches for exactly this plan."""

    @property
    def ids(self) -> dict[str, str]:
        """Key to id of every task."""
        return {order.key: order.id for order in self.orders}

    @property
    def pending(self) -> tuple[TaskOrder, ...]:
        """Tasks without a valid receipt, in the order of the plan."""
        return tuple(order for order in self.orders if order.key in self.reasons)

    @property
    def done(self) -> dict[str, str]:
        """Key to id of the tasks with a valid receipt."""
        return {key: value for key, value in self.ids.items() if key not in self.reasons}

    @property
    def is_current(self) -> bool:
        """Whether nothing at all is left to do."""
        return self.marked and not self.reasons

    def as_planned(self, *, finished: bool) -> PlannedStage:
        """Return what later stages may know."""
        return PlannedStage(self.ids, {o.key: o.outputs for o in self.orders}, finished)

    def batches(self) -> dict[str, tuple[TaskOrder, ...]]:
        """Return the pending tasks by their batch, in the order of the plan."""
        groups: dict[str, list[TaskOrder]] = {}
        for order in self.pending:
            groups.setdefault(order.batch, []).append(order)
        return {batch: tuple(orders) for batch, orders in groups.items()}


def plan_stage(
    stage: Stage, context: StageContext, store: CubeStore, *, allow_unfinished: bool = False
) -> StagePlan:
    """Plan a stage, compute the ids of its tasks and compare them with the store.

    Parameters
    ----------
    stage : Stage
        Stage to be planned.
    context : StageContext
        Knows the stages before it.
    store : CubeStore
        Only read: one listing, and one small read per product.
    allow_unfinished : bool, default False
        Accept inputs that are planned but not done (for ``--dry-run``).

    Returns
    -------
    StagePlan
        Tasks, and for each pending one the reason.

    Raises
    ------
    UpstreamPendingError
        C109 when an input is not finished.
    ValueError
        The plan contradicts itself: a fault of the stage.
    """
    if load_stage(stage.path) is not stage:
        raise ValueError(f"path of stage {stage.name} must lead to it, instead got {stage.path!r}")
    plan = stage.plan(context)
    _require_consistent(stage.name, plan)
    layouts = {template.product: layout_digest(template) for template in plan.templates}
    orders = tuple(
        _order(stage, task, context, layouts, allow_unfinished=allow_unfinished)
        for task in plan.tasks
    )
    ledger = Ledger(store.objects)
    states = {template.product: store.state(template) for template in plan.templates}
    recorded = ledger.recorded(stage.name)
    reasons = {order.key: _reason(order, states, recorded) for order in orders}
    reasons = {key: reason for key, reason in reasons.items() if reason}
    done = {order.key: order.id[:12] for order in orders if order.key not in reasons}
    return StagePlan(
        name=stage.name,
        version=stage.version,
        templates=plan.templates,
        orders=orders,
        states=states,
        reasons=reasons,
        stale=sum(len(ids - {done.get(key)}) for key, ids in recorded.items()),
        marked=_is_marked(ledger.marker(stage.name), stage, plan, orders),
    )


def _order(
    stage: Stage,
    task: Task,
    context: StageContext,
    layouts: Mapping[str, str],
    *,
    allow_unfinished: bool,
) -> TaskOrder:
    inputs: dict[str, str] = {}
    readable: set[str] = set()
    for name in task.inputs:
        upstream, _, key = name.partition("/")
        known = context.planned.get(upstream)
        if known is None or not (known.finished or allow_unfinished):
            raise UpstreamPendingError(upstream)
        if key not in known.ids:
            raise ValueError(f"input {name} of {task.stage}/{task.key} is not planned")
        inputs[name] = known.ids[key]
        readable.update(known.outputs[key])
    try:
        identity = task_id(
            stage=stage.name,
            version=stage.version,
            key=task.key,
            parameters=task.parameters,
            inputs=inputs,
            layouts={product: layouts[product] for product in task.outputs},
        )
    except ValueError as error:
        raise ValueError(f"parameters of {task.stage}/{task.key}: {error}") from error
    return TaskOrder(
        id=identity,
        path=stage.path,
        stage=stage.name,
        version=stage.version,
        key=task.key,
        parameters=task.parameters,
        inputs=inputs,
        readable=tuple(sorted(readable)),
        outputs=task.outputs,
        memory_bytes=task.memory_bytes,
        pixels=task.pixels,
        batch=task.batch,
    )


def _require_consistent(name: str, plan: Plan) -> None:
    twice = [key for key, count in Counter(task.key for task in plan.tasks).items() if count > 1]
    if twice:
        raise ValueError(f"keys of stage {name} must be unique, instead got {twice[0]!r} twice")
    products = {template.product for template in plan.templates}
    for task in plan.tasks:
        strange = set(task.outputs) - products
        if strange or task.stage != name or not task.key:
            raise ValueError(
                f"task {task.stage}/{task.key} of stage {name} must write to planned products, "
                f"instead got {sorted(strange)}"
            )


def _reason(
    order: TaskOrder, states: Mapping[str, TemplateState], recorded: Mapping[str, set[str]]
) -> str:
    for product in order.outputs:
        if states[product] is TemplateState.DIFFERENT:
            return f"layout of {product} changed"
    known = recorded.get(order.key, set())
    if order.id[:12] in known:
        absent = [p for p in order.outputs if states[p] is TemplateState.ABSENT]
        return f"{absent[0]} is gone" if absent else ""
    return "options, version or inputs changed" if known else "new"


def _is_marked(
    marker: Marker | None, stage: Stage, plan: Plan, orders: Sequence[TaskOrder]
) -> bool:
    if marker is None or marker.version != stage.version:
        return False
    templates = {t.product: template_digest(t) for t in plan.templates}
    vouched = {product: entry.get("template") for product, entry in marker.products.items()}
    return vouched == templates and dict(marker.receipts) == {o.key: o.id for o in orders}
