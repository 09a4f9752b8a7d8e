"""Plans of all stages before anything has run: what earlier stages will say is assumed.

Stages ask for the receipts of earlier ones while they plan (heights, baselines, candidates). Here
plausible values stand in for them, so the plans themselves, and all that is counted from them, are
those of the stages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from bperp.pipeline.radar import ground_spacing_m
from bperp.pipeline.stack import Stack
from bperp.pipeline.stage import Plan, Stage, Task

__all__ = ["Assumptions", "plan_stages"]

_HISTOGRAM_BINS = 100


@dataclass(frozen=True)
class Assumptions:
    """What the ground is assumed to give.

    ``candidates_per_km2`` are pixels below the limit of amplitude dispersion, and
    ``scatterers_per_km2`` those of them that are kept, on the average over land and water.
    ``height_m`` are the lowest and highest ground, ``baseline_m`` the largest perpendicular
    baseline on either side.
    """

    candidates_per_km2: float = 500.0
    scatterers_per_km2: float = 100.0
    height_m: tuple[float, float] = (0.0, 1500.0)
    baseline_m: float = 150.0


@dataclass
class _Expected:
    """A planning context in which every earlier stage is finished.

    Of earlier stages only keys and summaries are kept: the plans of a year hold millions of inputs.
    """

    stack: Stack
    options: Mapping[str, Mapping[str, Any]]
    assumed: Assumptions
    summaries: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)

    def tasks(self, stage: str) -> Sequence[str]:
        """Return the keys of the tasks of an earlier stage."""
        return tuple(self.summaries[stage])

    def receipts(self, stage: str) -> Mapping[str, Mapping[str, Any]]:
        """Return a receipt with an assumed summary for every task of an earlier stage."""
        self.asked.add(stage)
        return self.summaries[stage]

    def remember(self, stage: str, plan: Plan) -> None:
        """Assume what the tasks of a stage will say."""
        summarise = _SUMMARIES.get(stage, _silent)
        self.summaries[stage] = {
            task.key: {"summary": summarise(self, task)} for task in plan.tasks
        }

    def tile_km2(self, task: Task) -> float:
        """Return the ground below the window of a task in single-look pixels."""
        top, bottom, left, right = task.parameters["window"]
        return float((bottom - top) * (right - left) * self.pixel_km2)

    @cached_property
    def pixel_km2(self) -> float:
        """Ground below a single-look pixel."""
        line_m, sample_m = ground_spacing_m(self.stack.reference(self.stack.burst_ids[0]))
        return line_m * sample_m * 1e-6


def plan_stages(
    stages: Sequence[Stage],
    stack: Stack,
    options: Mapping[str, Mapping[str, Any]],
    assumed: Assumptions,
) -> Iterator[tuple[Stage, Plan, frozenset[str]]]:
    """Plan stage after stage.

    Parameters
    ----------
    stages : sequence of Stage
        The chain in order.
    stack : Stack
        Indexed or imagined stack.
    options : mapping
        Options of each step by name.
    assumed : Assumptions
        What the ground gives.

    Yields
    ------
    stage : Stage
    plan : Plan
    asked : frozenset of str
        Stages whose receipts were needed so far, this one included.
    """
    # How many scatterers are kept is assumed: no threshold may come between.
    open_gate = {**options.get("scatterers", {}), "max_percent_random": 100.0}
    context = _Expected(stack, {**options, "scatterers": open_gate}, assumed)
    for stage in stages:
        plan = stage.plan(context)
        context.remember(stage.name, plan)
        yield stage, plan, frozenset(context.asked)


def _silent(_expected: _Expected, _task: Task) -> dict[str, Any]:
    return {}


def _geometry(expected: _Expected, _task: Task) -> dict[str, Any]:
    low, high = expected.assumed.height_m
    return {"height_min_m": low, "height_max_m": high, "invalid_share": 0.0}


def _alignment(expected: _Expected, task: Task) -> dict[str, Any]:
    # Half the dates lie on either side of the reference orbit.
    side = 1.0 if expected.stack.dates.index(task.key) % 2 else -1.0
    value = 0.0 if task.key == expected.stack.reference_date else side * expected.assumed.baseline_m
    return {"perpendicular_baseline_m": dict.fromkeys(expected.stack.burst_ids, value)}


def _coregister(_expected: _Expected, _task: Task) -> dict[str, Any]:
    return {"amplitude_sum": 1.0, "amplitude_count": 1, "clipped": 0, "flags": []}


def _amplitude(expected: _Expected, task: Task) -> dict[str, Any]:
    return {"candidates": round(expected.tile_km2(task) * expected.assumed.candidates_per_km2)}


def _scatterers(expected: _Expected, task: Task) -> dict[str, Any]:
    count = round(expected.tile_km2(task) * expected.assumed.scatterers_per_km2)
    bins = [0] * (_HISTOGRAM_BINS - 1) + [count]
    return {"candidates": count, "gamma_histogram": bins, "kept_histogram": bins}


def _timeseries(expected: _Expected, task: Task) -> dict[str, Any]:
    return {"scatterers": task.parameters["count"]}


_SUMMARIES: Mapping[str, Callable[[_Expected, Task], dict[str, Any]]] = {
    "geometry": _geometry,
    "alignment": _alignment,
    "coregister": _coregister,
    "amplitude": _amplitude,
    "scatterers": _scatterers,
    "timeseries": _timeseries,
}
