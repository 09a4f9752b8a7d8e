"""Two stages of many tiny tasks: what is left of their cost is the engine's own.

Importable by worker processes through ``sys.path``. The first stage writes numbers that a formula
gives, the second adds each chunk to its neighbours, as stages with a halo do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bperp.pipeline.stage import (
    ArraySpec,
    Block,
    Computation,
    Context,
    Plan,
    Source,
    Stage,
    Task,
    Template,
)

CHUNK = 64
_SORTED_NUMBERS = 100_000


@dataclass(frozen=True)
class StubOptions:
    """What the stages are like.

    ``tasks`` is the number per stage, ``group`` how many of them share a group (1 for none),
    ``padding`` how many characters of parameters each has, ``inputs`` how many inputs those of the
    second stage name, ``work`` how often each of the first sorts 100 000 numbers (0.4 ms).
    """

    tasks: int = 100
    group: int = 1
    padding: int = 800
    inputs: int = 3
    work: int = 0


NUMBERS, SUMS = "stub/numbers", "stub/sums"


def numbers(first: int, stop: int) -> NDArray[np.int32]:
    """Return the planted numbers of some chunks, ``(chunk, CHUNK)``."""
    index = np.arange(first * CHUNK, stop * CHUNK, dtype=np.int64).reshape(-1, CHUNK)
    return ((7919 * index) % 65521).astype(np.int32)


def sums(tasks: int) -> NDArray[np.int32]:
    """Return what the second stage has to write."""
    padded = np.pad(numbers(0, tasks), ((1, 1), (0, 0)))
    return (padded[:-2] + padded[1:-1] + padded[2:]).ravel()


def _plan(context: Context, stage: str, product: str) -> Plan:
    options = StubOptions(**context.options["stub"])
    count, group = options.tasks, options.group
    spec = ArraySpec("x", ("range",), (count * CHUNK,), (CHUNK,), "int32", -1)
    tasks = []
    for index in range(count):
        first = max(0, min(index - 1, count - options.inputs))
        near = range(first, min(first + options.inputs, count)) if product == SUMS else ()
        tasks.append(
            Task(
                stage,
                _key(index),
                {
                    "index": index,
                    "count": count,
                    "padding": "x" * options.padding,
                    "work": options.work,
                },
                tuple(f"stub-numbers/{_key(other)}" for other in near),
                (product,),
                memory_bytes=1_000_000,
                pixels=CHUNK,
                batch="stub",
                group=f"group-{index // group}" if group > 1 else "",
            )
        )
    return Plan((Template(product, (spec,)),), tuple(tasks))


def _key(index: int) -> str:
    return f"tile-{index:06d}"


def _sort(times: int) -> None:
    numbers = np.random.default_rng(1).random(_SORTED_NUMBERS)
    for _ in range(times):
        np.sort(numbers)


def _compute_numbers(parameters: Mapping[str, Any], _source: Source) -> Computation:
    index = parameters["index"]
    _sort(parameters["work"])
    yield Block(NUMBERS, "x", (index * CHUNK,), numbers(index, index + 1)[0])
    return {}


def _compute_sums(parameters: Mapping[str, Any], source: Source) -> Computation:
    index, count = parameters["index"], parameters["count"]
    first, stop = max(index - 1, 0), min(index + 2, count)
    found = source.read(NUMBERS, "x", (slice(first * CHUNK, stop * CHUNK),))
    total = found.reshape(-1, CHUNK).sum(axis=0, dtype=np.int32)
    yield Block(SUMS, "x", (index * CHUNK,), total)
    return {}


NUMBERS_STAGE = Stage(
    "stub-numbers",
    "1",
    "stub_stages:NUMBERS_STAGE",
    lambda context: _plan(context, "stub-numbers", NUMBERS),
    _compute_numbers,
)
SUMS_STAGE = Stage(
    "stub-sums",
    "1",
    "stub_stages:SUMS_STAGE",
    lambda context: _plan(context, "stub-sums", SUMS),
    _compute_sums,
)
STAGES = (NUMBERS_STAGE, SUMS_STAGE)
