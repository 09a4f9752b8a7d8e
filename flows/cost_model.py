"""What a stack will cost: objects, requests, bytes, core-seconds, memory, hours and money.

Loads are counted from the plans of the stages (``cost_loads``). Here they meet a machine and a
price list, whose defaults are examples: replace them by your own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from bperp.flows.cost_loads import StageLoad
from bperp.flows.cost_plan import Assumptions
from bperp.flows.executors import BASELINE_BYTES, USABLE_SHARE
from bperp.stores.errors import ConfigurationError

__all__ = [
    "Cost",
    "Extent",
    "Machine",
    "Prices",
    "StageCost",
    "Terms",
    "estimate_cost",
    "extent_of",
]

_ROOT_PUTS = 12
"""Record of the stack, log, lock, probes."""
_LIST_PAGE, _LISTINGS = 1000, 3
_LOCK_READS = 2
"""Of the run lock, before and after each task."""
_STATE_READS, _OPENING_READS = 3, 2
"""Of each product, before and while it is made; of each array, by workers that write it and by
workers that read it."""
_BYTES_PER_GB = 1e9
_DELIVERED = ("timeseries", "publish")


@dataclass(frozen=True)
class Machine:
    """Workers and what lies between them and the store."""

    workers: int = 16
    memory_bytes: int = 4_000_000_000
    """Of each worker."""
    network_mb_s: float = 100.0
    """Of each worker, to and from the store."""
    request_s: float = 0.03
    """Time to the first byte of a request."""
    requests_at_once: float = 4.0
    """Of one worker: Zarr asks for the chunks of a window together."""
    order_ms: float = 3.3
    """Client and scheduler for a task on its own: ``make bench ONLY=scheduler_overhead``."""
    grouped_order_ms: float = 0.4
    """The same for a task that travels in a bundle."""
    puts_per_s: float = 3500.0
    gets_per_s: float = 5500.0
    """Per prefix, as Amazon states for S3."""


@dataclass(frozen=True)
class Prices:
    """Dollars, examples from a public price list of 2025 without any discount."""

    storage_gb_month: float = 0.023
    put_1000: float = 0.005
    get_1000: float = 0.0004
    core_hour: float = 0.05
    egress_gb: float = 0.09
    months: float = 1.0
    """How long everything is kept."""


@dataclass(frozen=True)
class Terms:
    """All that can be set by ``--set name=value``."""

    machine: Machine = field(default_factory=Machine)
    prices: Prices = field(default_factory=Prices)
    assumed: Assumptions = field(default_factory=Assumptions)

    def changed(self, settings: Mapping[str, float]) -> Terms:
        """Return the terms with some numbers replaced.

        Raises
        ------
        ConfigurationError
            C102 for a name that is not known.
        """
        parts = {part.name: getattr(self, part.name) for part in fields(self)}
        for name, value in settings.items():
            owner = next((k for k, part in parts.items() if name in _numbers(part)), None)
            if owner is None:
                known = sorted(n for part in parts.values() for n in _numbers(part))
                raise ConfigurationError(
                    "C102",
                    "no such number",
                    where="--set",
                    expected=f"one of {', '.join(known)}",
                    found=name,
                    remedy="choose one of them",
                )
            kind = type(getattr(parts[owner], name))
            parts[owner] = replace(parts[owner], **{name: kind(value)})
        return Terms(**parts)


@dataclass(frozen=True)
class Extent:
    """How much is processed: frames of bursts, and where their number comes from."""

    name: str
    frames: float
    derivation: str


@dataclass(frozen=True)
class StageCost:
    """A stage of one frame on a machine."""

    stage: str
    tasks: int
    objects: int
    puts: int
    gets: int
    stored_bytes: int
    moved_bytes: int
    """Over the network, both ways."""
    core_s: float
    worker_memory_bytes: int
    """Peak of a worker: largest task and the process itself."""
    wall_s: float
    limit: str


@dataclass(frozen=True)
class Cost:
    """The sum over the stages and frames, and what it is made of."""

    extent: Extent
    terms: Terms
    stages: tuple[StageCost, ...]

    def total(self, name: str) -> float:
        """Return a sum over the stages and frames."""
        return self.extent.frames * sum(float(getattr(stage, name)) for stage in self.stages)

    @property
    def wall_hours(self) -> float:
        """Time of all frames, one after the other on all workers."""
        return self.total("wall_s") / 3600.0

    def dollars(self) -> dict[str, float]:
        """Return what everything costs, by what it is paid for."""
        prices = self.terms.prices
        delivered = sum(s.stored_bytes for s in self.stages if s.stage in _DELIVERED)
        parts = {
            "workers": self.wall_hours * self.terms.machine.workers * prices.core_hour,
            "storage": self.total("stored_bytes")
            / _BYTES_PER_GB
            * prices.storage_gb_month
            * prices.months,
            "puts": self.total("puts") / 1e3 * prices.put_1000,
            "gets": self.total("gets") / 1e3 * prices.get_1000,
            "egress": self.extent.frames * delivered / _BYTES_PER_GB * prices.egress_gb,
        }
        return {**parts, "total": sum(parts.values())}

    def too_large(self) -> list[str]:
        """Return the stages whose tasks do not fit into a worker."""
        usable = self.terms.machine.memory_bytes * USABLE_SHARE
        return [stage.stage for stage in self.stages if stage.worker_memory_bytes > usable]

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        names = ("tasks", "objects", "puts", "gets", "stored_bytes", "moved_bytes")
        return {
            "extent": asdict(self.extent),
            "stages_of_a_frame": [asdict(stage) for stage in self.stages],
            "total": {
                **{name: round(self.total(name)) for name in names},
                "core_hours": self.total("core_s") / 3600.0,
                "wall_hours": self.wall_hours,
                "worker_memory_bytes": max((s.worker_memory_bytes for s in self.stages), default=0),
                "dollars": self.dollars(),
            },
            "too_large": self.too_large(),
            "terms": asdict(self.terms),
        }


def estimate_cost(loads: Sequence[StageLoad], extent: Extent, terms: Terms) -> Cost:
    """Put the loads of a frame on a machine.

    Parameters
    ----------
    loads : sequence of StageLoad
        From ``count_loads``.
    extent : Extent
        How many such frames.
    terms : Terms
        Machine, prices, and the assumptions that the loads were counted with.

    Returns
    -------
    Cost
    """
    return Cost(extent, terms, tuple(_stage_cost(load, terms.machine) for load in loads))


def _stage_cost(load: StageLoad, machine: Machine) -> StageCost:
    puts = load.objects + 1  # the log is written anew when a stage ends
    metadata = load.metadata_objects + _STATE_READS * load.products
    metadata += _OPENING_READS * load.arrays * min(machine.workers, load.tasks)
    lists = _LISTINGS * max(1, -(-load.tasks // _LIST_PAGE))
    task_gets = load.reads + load.data_objects + _LOCK_READS * load.tasks
    receipts = load.tasks * (2 if load.is_reloaded else 1)
    gets = task_gets + metadata + receipts + lists
    moved = load.input_bytes + load.read_bytes + 2 * load.data_bytes
    moved += 2 * load.receipt_bytes + load.metadata_bytes
    wall, limit = _wall(load, machine, (task_gets, load.data_objects + load.tasks, moved))
    return StageCost(
        stage=load.stage,
        tasks=load.tasks,
        objects=load.objects,
        puts=puts,
        gets=gets,
        stored_bytes=load.data_bytes + load.receipt_bytes + load.metadata_bytes,
        moved_bytes=moved,
        core_s=load.core_s,
        worker_memory_bytes=load.memory_bytes + BASELINE_BYTES if load.tasks else 0,
        wall_s=wall,
        limit=limit,
    )


def _wall(load: StageLoad, machine: Machine, traffic: tuple[int, int, int]) -> tuple[float, str]:
    """Return the time of a stage and what sets it."""
    gets, puts, moved = traffic
    parts = {
        "cores": load.core_s,
        "network": moved / (machine.network_mb_s * 1e6),
        "requests": (gets + puts) * machine.request_s / machine.requests_at_once,
    }
    # A worker reads, computes and writes in turn; no stage begins before the last one ends.
    busy = sum(parts.values())
    share = busy / load.core_s if load.core_s else 1.0
    order_ms = machine.grouped_order_ms if load.grouped else machine.order_ms
    bounds = {
        max(parts, key=lambda name: parts[name]): busy / machine.workers,
        "one task": load.longest_s * share,
        "scheduler": load.tasks * order_ms * 1e-3,
        "requests per prefix": max(gets / machine.gets_per_s, puts / machine.puts_per_s),
    }
    limit = max(bounds, key=lambda name: bounds[name])
    return bounds[limit], limit


def extent_of(preset: str, frames: float | None, bursts_per_frame: int = 27) -> Extent:
    """Return how many frames a preset means.

    Parameters
    ----------
    preset : {"frame", "country", "europe"}
        One frame; a country of 357 600 km2 at 51 degrees north (Germany); the land of the 39
        countries of the European Environment Agency and the United Kingdom, 5.8 million km2 at 50
        degrees. One orbit direction.
    frames : float, optional
        Overrides the number.
    bursts_per_frame : int
        Bursts of a frame.

    Notes
    -----
    A beam cycle of 2.758 s is 18.7 km on the ground, a swath of 250 km has three bursts side by
    side: a burst adds 1560 km2. Tracks lie 229 km apart at the equator (40 075 km over 175 orbits)
    and ``cos(latitude)`` of it elsewhere, so swaths see places ``250 / (229 cos)`` times.
    ``_BORDER`` accounts for bursts that reach beyond the border or the coast.
    """
    if frames is not None or preset == "frame":
        return Extent(preset, frames or 1.0, "as given" if frames is not None else "one frame")
    area_km2, latitude_deg = _AREAS[preset]
    seen = _SWATH_KM / (_TRACKS_KM * math.cos(math.radians(latitude_deg)))
    bursts = area_km2 * seen * _BORDER / _BURST_KM2
    return Extent(
        preset,
        round(bursts / bursts_per_frame, 1),
        f"{area_km2:.0f} km2 seen {seen:.2f} times by ascending tracks, x {_BORDER} for borders "
        f"and coasts, over {_BURST_KM2:.0f} km2 per burst: {bursts:.0f} bursts",
    )


_AREAS = {"country": (357_600.0, 51.0), "europe": (5_800_000.0, 50.0)}
_SWATH_KM, _TRACKS_KM, _BURST_KM2 = 250.0, 229.0, 1560.0
_BORDER = 1.2


def _numbers(part: Any) -> list[str]:
    return [f.name for f in fields(part) if isinstance(getattr(part, f.name), int | float)]
