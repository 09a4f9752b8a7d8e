"""What each stage of a planned chain writes, reads, sends and computes: counted, not estimated.

Objects, tasks, pixels and memory come from the plans. What plans do not know is in tables below:
how well arrays pack, and how many pixels a core gets through. Both were measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bperp.flows.cost_plan import Assumptions, plan_stages
from bperp.flows.cost_reads import READERS, count_reads
from bperp.flows.worker import GROUP_CACHE_BYTES, TaskOrder
from bperp.pipeline import filtering, ingest
from bperp.pipeline.stack import Stack
from bperp.pipeline.stage import ArraySpec, Plan, Stage, Task
from bperp.stores.layout import render_product

__all__ = ["PACKED_SHARE", "RATES", "Rate", "StageLoad", "count_loads"]

PACKED_SHARE: Mapping[str, float] = {
    "slc": 0.63,
    "coregistered": 0.63,
    "geometry": 0.45,
    "interferogram": 0.67,
    "filtered": 0.78,
    "geocoded": 0.43,
    "amplitude": 0.84,
    "scatterers": 0.58,
    "timeseries": 0.73,
    "displacement": 0.36,
    "series": 0.36,
    "overviews": 0.29,
}
"""Stored over raw bytes by kind of product: figures ``packed`` of ``make bench ONLY=stage_rates``.

Simulated speckle of 100 digital numbers rms packs as real one does: 16 to 18 bits per pixel of 32.
"""
PACKED_SHARE_OTHERWISE: Mapping[str, float] = {"f": 1.0, "i": 1.0, "u": 1.0}
"""The same of small tables, by kind of number: packing does not pay."""


@dataclass(frozen=True)
class Rate:
    """What a core gets through: pixels of tasks, tasks whatever their size, and items.

    Items are bursts (alignment, and with each of their dates misregistration), candidates with
    those in the halo (scatterers), or scatterers (timeseries, publish).
    """

    megapixels_per_s: float
    task_s: float = 0.01
    item_s: float = 0.0


RATES: Mapping[str, Rate] = {
    "ingest": Rate(67.0),
    "geometry": Rate(9.0),
    "misregistration": Rate(12.0, item_s=0.02),
    "alignment": Rate(math.inf, item_s=0.04),
    "coregister": Rate(34.0),
    "seams": Rate(75.0),
    "interferogram": Rate(83.0),
    "filter": Rate(7.0),
    "geocode": Rate(3.8),
    "amplitude": Rate(64.0),
    "scatterers": Rate(100.0, item_s=4.5e-6),
    "timeseries": Rate(2.0, item_s=1.1e-4),
    "publish": Rate(10.0, item_s=3e-7),
}
"""Whole tasks, reading, packing and reading back included: ``make bench ONLY=stage_rates``."""

_RECEIPT_BYTES, _BLOCK_BYTES, _INPUT_BYTES = 900, 290, 75
"""A receipt as JSON: its frame, each block, and each input besides its name."""
_FILTER_OBJECTS = 16
"""Chunks of a tile of the filter."""
_SAMPLE_BYTES = 4
_ORDERS_SAMPLED = 24
_IDENTITY = "0" * 64


@dataclass(frozen=True)
class StageLoad:
    """What a stage does from beginning to end. Bytes are stored bytes unless they say otherwise."""

    stage: str
    tasks: int
    products: int
    arrays: int
    data_objects: int
    metadata_objects: int
    raw_bytes: int
    data_bytes: int
    metadata_bytes: int
    receipt_bytes: int
    message_bytes: int
    """Orders as they leave the client, before packing."""
    reads: int
    """Chunks that tasks read."""
    read_bytes: int
    unpacked_bytes: int
    """What these chunks are in memory."""
    input_bytes: int
    """Of measurement files."""
    pixels: int
    memory_bytes: int
    """Of the largest task, what its group remembers included."""
    core_s: float
    longest_s: float
    grouped: bool
    is_reloaded: bool = False
    """Whether a later stage loads the receipts again."""

    @property
    def objects(self) -> int:
        """Objects that the stage leaves behind, its marker included."""
        return self.data_objects + self.metadata_objects + self.tasks + 1


def count_loads(
    stages: Sequence[Stage],
    stack: Stack,
    options: Mapping[str, Mapping[str, Any]],
    assumed: Assumptions,
) -> list[StageLoad]:
    """Count the loads of all stages.

    Parameters
    ----------
    stages : sequence of Stage
        The chain in order.
    stack : Stack
        Indexed or imagined.
    options : mapping
        Options of each step by name.
    assumed : Assumptions
        What the ground gives.

    Returns
    -------
    list of StageLoad
        In the order of the chain.
    """
    arrays: dict[tuple[str, str], ArraySpec] = {}
    loads: list[StageLoad] = []
    reloaded: set[str] = set()
    for stage, plan, asked in plan_stages(stages, stack, options, assumed):
        reloaded |= asked
        arrays.update({(t.product, s.name): s for t in plan.templates for s in t.arrays})
        loads.append(_load(stage, plan, arrays, assumed))
    return [replace(load, is_reloaded=load.stage in reloaded) for load in loads]


def _load(
    stage: Stage,
    plan: Plan,
    arrays: Mapping[tuple[str, str], ArraySpec],
    assumed: Assumptions,
) -> StageLoad:
    specs = [(t.product, spec) for t in plan.templates for spec in t.arrays]
    rendered = [len(data) for t in plan.templates for data in render_product(t).values()]
    objects = sum(_objects(spec) for _, spec in specs)
    reads, raw_read, read_bytes = _reads(stage, plan, arrays)
    grouped = any(task.group for task in plan.tasks)
    seconds = _core_seconds(stage.name, plan.tasks, assumed)
    pixels = sum(task.pixels for task in plan.tasks)
    input_bytes = _SAMPLE_BYTES * pixels if stage.name == ingest.STAGE.name else 0
    inputs = sum(len(name) + _INPUT_BYTES for task in plan.tasks for name in task.inputs)
    blocks = sum(-(-_objects(spec) // _objects_per_block(stage.name, spec)) for _, spec in specs)
    return StageLoad(
        stage=stage.name,
        tasks=len(plan.tasks),
        products=len(plan.templates),
        arrays=len(specs),
        data_objects=objects,
        metadata_objects=len(rendered),
        raw_bytes=sum(_raw_bytes(spec) for _, spec in specs),
        data_bytes=_stored_bytes(specs, input_bytes),
        metadata_bytes=sum(rendered),
        receipt_bytes=inputs + round(_RECEIPT_BYTES * len(plan.tasks) + _BLOCK_BYTES * blocks),
        message_bytes=_message_bytes(stage, plan.tasks),
        reads=reads,
        unpacked_bytes=raw_read,
        read_bytes=read_bytes,
        input_bytes=input_bytes,
        pixels=pixels,
        memory_bytes=max((task.memory_bytes for task in plan.tasks), default=0)
        + grouped * GROUP_CACHE_BYTES,
        core_s=sum(seconds),
        longest_s=max(seconds, default=0.0),
        grouped=grouped,
    )


def _objects(spec: ArraySpec) -> int:
    edges = zip(spec.shape, spec.shards or spec.chunks, strict=True)
    return math.prod(-(-size // edge) for size, edge in edges)


def _objects_per_block(stage: str, spec: ArraySpec) -> int:
    """Return how many objects one entry of a receipt stands for: a strip, or a large tile."""
    if stage == ingest.STAGE.name:
        return -(-spec.shape[2] // spec.chunks[2])
    return _FILTER_OBJECTS if stage == filtering.STAGE.name else 1


def _raw_bytes(spec: ArraySpec) -> int:
    return math.prod(spec.shape) * np.dtype(spec.dtype).itemsize


def _stored_bytes(specs: Sequence[tuple[str, ArraySpec]], input_bytes: int) -> int:
    """Return the bytes of data objects; what bursts are padded with packs to nothing."""
    if input_bytes:
        return round(input_bytes * PACKED_SHARE["slc"])
    return round(sum(_raw_bytes(spec) * _packed_share(name, spec) for name, spec in specs))


def _packed_share(product: str, spec: ArraySpec) -> float:
    otherwise = PACKED_SHARE_OTHERWISE[np.dtype(spec.dtype).kind]
    return PACKED_SHARE.get(product.rpartition("/")[2], otherwise)


def _reads(
    stage: Stage, plan: Plan, arrays: Mapping[tuple[str, str], ArraySpec]
) -> tuple[int, int, int]:
    """Return chunks that the tasks read, their bytes unpacked and as stored."""
    found = count_reads(plan, arrays, READERS[stage.name])
    unpacked = sum(item.bytes for item in found.values())
    stored = sum(item.bytes * _packed_share(name[0], arrays[name]) for name, item in found.items())
    return sum(item.chunks for item in found.values()), unpacked, round(stored)


def _message_bytes(stage: Stage, tasks: Sequence[Task]) -> int:
    """Return the bytes of all orders, from the mean of some of them."""
    some = tasks[:: max(1, len(tasks) // _ORDERS_SAMPLED)]
    orders = [
        TaskOrder(
            id=_IDENTITY,
            path=stage.path,
            stage=stage.name,
            version=stage.version,
            key=task.key,
            parameters=task.parameters,
            inputs=dict.fromkeys(task.inputs, _IDENTITY),
            readable=(),
            outputs=task.outputs,
            memory_bytes=task.memory_bytes,
            locations=task.locations,
            group=task.group,
        )
        for task in some
    ]
    sizes = [len(order.as_json()) for order in orders]
    return round(sum(sizes) / max(1, len(sizes)) * len(tasks))


def _core_seconds(name: str, tasks: Sequence[Task], assumed: Assumptions) -> list[float]:
    """Return what each task takes on one core."""
    rate = RATES[name]
    items = _ITEMS.get(name, _none)
    return [
        rate.task_s
        + task.pixels * (1e-6 / rate.megapixels_per_s)
        + items(task, assumed) * rate.item_s
        for task in tasks
    ]


def _none(_task: Task, _assumed: Assumptions) -> float:
    return 0.0


def _candidates(task: Task, assumed: Assumptions) -> float:
    """Return the candidates that a task judges, those in its halo included."""
    line_m, sample_m = task.parameters["spacing_m"]
    pixels = task.pixels / max(1, len(task.parameters["dates"]))
    return float(pixels * line_m * sample_m * 1e-6 * assumed.candidates_per_km2)


def _burst_dates(task: Task, _assumed: Assumptions) -> float:
    return float(sum(len(dates) for dates in task.parameters["bursts"].values()))


_ITEMS: Mapping[str, Callable[[Task, Assumptions], float]] = {
    "misregistration": _burst_dates,
    "alignment": lambda task, _assumed: float(len(task.parameters["bursts"])),
    "scatterers": _candidates,
    "timeseries": lambda task, _assumed: float(task.parameters["count"]),
    "publish": lambda task, _assumed: float(task.parameters["scatterers"]),
}
