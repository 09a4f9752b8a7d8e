"""What a run did, or would do: figures for people, JSON and the log."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from bperp.flows.planning import StagePlan


@dataclass
class StageSummary:
    """What happened to one stage.

    ``status`` is ``current`` (nothing to do), ``done``, ``planned`` (dry run), ``waiting`` (dry
    run: cannot be planned before an earlier stage is done) or ``failed``. ``reasons`` maps the keys
    that ran, or would run, to why; ``moved`` tasks only changed position along the dates.
    """

    name: str
    status: str
    tasks: int = 0
    run: int = 0
    reasons: dict[str, str] = field(default_factory=dict)
    stale: int = 0
    moved: int = 0
    holes: int = 0
    seconds: float = 0.0
    bytes_written: int = 0
    pixels: int = 0
    predicted_memory_bytes: int = 0
    peak_rss_bytes: int = 0
    waiting_for: str = ""


@dataclass
class RunSummary:
    """What a run did, or would do."""

    root: str
    dry_run: bool = False
    log: str = ""
    stages: list[StageSummary] = field(default_factory=list)

    @property
    def tasks_run(self) -> int:
        """Number of tasks computed; 0 when everything was up to date."""
        return sum(stage.run for stage in self.stages)

    @property
    def peak_rss_bytes(self) -> int:
        """Largest resident memory of any worker."""
        return max((stage.peak_rss_bytes for stage in self.stages), default=0)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON for ``--json``."""
        return {**asdict(self), "tasks_run": self.tasks_run, "peak_rss_bytes": self.peak_rss_bytes}


def summarise_plan(plan: StagePlan, status: str) -> StageSummary:
    """Return the summary of a stage before any of its tasks ran."""
    return StageSummary(
        plan.name,
        status,
        tasks=len(plan.orders),
        reasons=dict(plan.reasons),
        stale=plan.stale,
        moved=len(plan.moved),
        predicted_memory_bytes=max((order.memory_bytes for order in plan.pending), default=0),
    )
