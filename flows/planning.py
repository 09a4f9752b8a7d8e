"""From a stage to the tasks that are left to do: ids, comparison with the store, reasons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bperp.flows.worker import ElevationSettings, TaskOrder, load_stage
from bperp.pipeline.stage import Plan, Stage, Task, Template
from bperp.stores.axes import PAIR_COORDINATES, date_labels, pair_labels
from bperp.stores.cube import CubeStore, TemplateState
from bperp.stores.errors import ConfigurationError
from bperp.stores.layout import layout_digest, template_digest
from bperp.stores.receipts import Ledger, Marker, Receipt, task_id

CHANGED = "options, version or inputs changed"


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
    records: Mapping[str, str]
    """Key to the id of its receipt."""
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

    def tasks(self, stage: str) -> Sequence[str]:
        """Return the keys of the tasks of an earlier stage, whether or not they are done."""
        if stage not in self.planned:
            raise UpstreamPendingError(stage)
        return tuple(self.planned[stage].ids)

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
            receipts = self.ledger.load(stage, known.records)
            if len(receipts) < len(known.records):
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
    moved: Mapping[str, Receipt]
    """Key to the receipt of the same work at another position of its dates."""
    stale: int
    """Receipts on record that the plan no longer contains."""
    marked: bool
    """Whether the marker vouches for exactly this plan."""

    @property
    def ids(self) -> dict[str, str]:
        """Key to id of every task."""
        return {order.key: order.id for order in self.orders}

    @property
    def records(self) -> dict[str, str]:
        """Key to the id of the receipt that proves the task done."""
        return {order.key: order.record for order in self.orders}

    @property
    def pending(self) -> tuple[TaskOrder, ...]:
        """Tasks without a valid receipt, in the order of the plan."""
        return tuple(order for order in self.orders if order.key in self.reasons)

    @property
    def done(self) -> dict[str, str]:
        """Key to the id of the receipt, of the tasks that have a valid one."""
        return {key: value for key, value in self.records.items() if key not in self.reasons}

    @property
    def is_current(self) -> bool:
        """Whether nothing at all is left to do."""
        return self.marked and not self.reasons

    def as_planned(self, *, finished: bool) -> PlannedStage:
        """Return what later stages may know."""
        outputs = {order.key: order.outputs for order in self.orders}
        return PlannedStage(self.ids, self.records, outputs, finished)

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
    axes = {template.product: _growing_axis(template) for template in plan.templates}
    orders = tuple(
        _order(stage, task, context, (layouts, axes), allow_unfinished=allow_unfinished)
        for task in plan.tasks
    )
    ledger = Ledger(store.objects)
    states = {template.product: store.state(template) for template in plan.templates}
    recorded = ledger.recorded(stage.name)
    reasons = {order.key: _reason(order, states, recorded) for order in orders}
    reasons = {key: reason for key, reason in reasons.items() if reason}
    moved = _moved(
        stage.name, [o for o in orders if reasons.get(o.key) == CHANGED], recorded, ledger
    )
    reasons.update(dict.fromkeys(moved, "moved along the dates"))
    done = {o.key: o.record[:12] for o in orders if o.key not in reasons}
    done |= {key: receipt.record[:12] for key, receipt in moved.items()}
    return StagePlan(
        name=stage.name,
        version=stage.version,
        templates=plan.templates,
        orders=orders,
        states=states,
        reasons=reasons,
        moved=moved,
        stale=sum(len(ids - {done.get(key)}) for key, ids in recorded.items()),
        marked=_is_marked(ledger.marker(stage.name), stage, plan, orders),
    )


def _order(
    stage: Stage,
    task: Task,
    context: StageContext,
    described: tuple[Mapping[str, str], Mapping[str, Mapping[str, int]]],
    *,
    allow_unfinished: bool,
) -> TaskOrder:
    layouts, axes = described
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
        places=_places(task, [axes[product] for product in task.outputs]),
        locations=task.locations,
        group=task.group,
    )


def _growing_axis(template: Template) -> dict[str, int]:
    """Return the positions of the dates or pairs of a product."""
    values = {name: np.asarray(item[1]) for name, item in template.coordinates.items()}
    if "date" in values:
        labels = date_labels(values["date"])
    elif all(name in values for name in PAIR_COORDINATES):
        labels = pair_labels(*(values[name] for name in PAIR_COORDINATES))
    else:
        labels = []
    return {label: index for index, label in enumerate(labels)}


def _places(task: Task, axes: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Return where on the growing axis a task writes: at equal positions in all its products."""
    found = [{label: axis.get(label, -1) for label in task.labels} for axis in axes]
    if any(places != found[0] or -1 in places.values() for places in found):
        raise ValueError(
            f"labels of {task.stage}/{task.key} must lie at equal positions in its products, "
            f"instead got {found}"
        )
    return found[0] if found else {}


def _moved(
    stage: str,
    changed: Sequence[TaskOrder],
    recorded: Mapping[str, set[str]],
    ledger: Ledger,
) -> dict[str, Receipt]:
    """Return the receipts of work that was done for other positions of the same dates."""
    candidates = {order.key: order for order in changed if order.places}
    rounds = max((len(recorded[key]) for key in candidates), default=0)
    found: dict[str, Receipt] = {}
    for number in range(rounds):
        asked = {
            key: sorted(recorded[key])[number] for key in candidates if number < len(recorded[key])
        }
        for key, receipt in ledger.load(stage, asked).items():
            if receipt.id == candidates[key].id:
                found[key] = receipt
    return found


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
    if order.record[:12] in known:
        absent = [p for p in order.outputs if states[p] is TemplateState.ABSENT]
        return f"{absent[0]} is gone" if absent else ""
    return CHANGED if known else "new"


def _is_marked(
    marker: Marker | None, stage: Stage, plan: Plan, orders: Sequence[TaskOrder]
) -> bool:
    if marker is None or marker.version != stage.version:
        return False
    templates = {t.product: template_digest(t) for t in plan.templates}
    vouched = {product: entry.get("template") for product, entry in marker.products.items()}
    return vouched == templates and dict(marker.receipts) == {o.key: o.record for o in orders}
