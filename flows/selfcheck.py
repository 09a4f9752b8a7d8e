"""Two tiny stages that prove storage and workers on the machine at hand.

``selfcheck-pattern`` writes numbers that a formula gives; ``selfcheck-sum`` reads them back with a
halo across chunk edges in other processes and compares its sums with the formula. ``bperp doctor``
runs both; so do the tests of the engine.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bperp.flows.engine import Executor, RunSummary, StageContext, run_stages
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
from bperp.stores.cube import CubeStore
from bperp.stores.verify import verify_store

PATTERN = "selfcheck/pattern"
SUM = "selfcheck/sum"
_FIRST_DAY = np.datetime64("2020-01-01", "D")
DEFAULTS: Mapping[str, Any] = {
    "dates": ["2020-01-01", "2020-01-13"],
    "lines": 300,
    "samples": 500,
    "chunk": 128,
    "delay_s": 0.0,
}


def pattern(number: int, rows: NDArray[Any], columns: NDArray[Any]) -> NDArray[np.int32]:
    """Return the planted numbers.

    Parameters
    ----------
    number : int
        Number of the date: cycles of 12 days since 2020-01-01.
    rows, columns : ndarray of int, shape (lines,), (samples,)
        Indices of lines and samples.

    Returns
    -------
    ndarray of int32, shape (lines, samples)
        ``(7919 row + 104729 column + 15485863 number) mod 65521``.
    """
    line = 7919 * rows.astype(np.int64)[:, None]
    sample = 104729 * columns.astype(np.int64)[None, :]
    return ((line + sample + 15485863 * number) % 65521).astype(np.int32)


def run_selfcheck(
    root: str, executor: Executor, storage_options: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Write, read back, repeat and verify a small product below a root, and remove it.

    Parameters
    ----------
    root : str
        Folder or URL that a run would use.
    executor : Executor
        Workers that a run would use; closed at the end.
    storage_options : mapping, optional
        Passed to fsspec.

    Returns
    -------
    dict
        ``tasks``, ``wrong`` (pixels that are not what the formula says), ``blocks`` verified,
        ``seconds``, ``megabytes_per_s`` and ``peak_rss_bytes``.

    Raises
    ------
    BperpError
        R8xx with the fault of storage or workers.
    """
    name = f"selfcheck-{uuid.uuid4().hex[:8]}"
    store = CubeStore(f"{root.rstrip('/')}/{name}", storage_options)
    context = StageContext(options={"selfcheck": DEFAULTS})
    try:
        summary = run_stages(STAGES, context, store, executor)
        verified = verify_store(store)
        for fault in verified.faults.values():
            raise fault
        wrong = sum(r["summary"]["wrong"] for r in context.receipts(SUM_STAGE.name).values())
    finally:
        with contextlib.suppress(OSError):
            CubeStore(root, storage_options).objects.remove_tree(name)
    return {**_speed(summary), "blocks": verified.blocks, "wrong": int(wrong)}


def _speed(summary: RunSummary) -> dict[str, Any]:
    seconds = sum(stage.seconds for stage in summary.stages)
    written = sum(stage.bytes_written for stage in summary.stages)
    return {
        "tasks": summary.tasks_run,
        "seconds": round(seconds, 2),
        "megabytes_per_s": round(written / max(seconds, 1e-6) / 1e6, 2),
        "peak_rss_bytes": summary.peak_rss_bytes,
    }


def _template(product: str, name: str, options: Mapping[str, Any]) -> Template:
    dates = np.array(options["dates"], dtype="datetime64[D]")
    chunk = int(options["chunk"])
    shape = (len(dates), int(options["lines"]), int(options["samples"]))
    array = ArraySpec(
        name,
        ("date", "azimuth", "range"),
        shape,
        (1, min(chunk, shape[1]), min(chunk, shape[2])),
        "int32",
        -1,
        {"units": "1", "long_name": f"self-check {name}"},
    )
    return Template(product, (array,), {"date": (("date",), dates, {"standard_name": "time"})})


def _tiles(options: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    lines, samples = int(options["lines"]), int(options["samples"])
    for date in options["dates"]:
        days = (np.datetime64(date, "D") - _FIRST_DAY) // np.timedelta64(12, "D")
        for first in range(0, lines, int(options["chunk"])):
            tile = {
                "date": date,
                "number": int(days),
                "first": first,
                "stop": min(first + int(options["chunk"]), lines),
                "shape": [lines, samples],
                "delay_s": float(options["delay_s"]),
            }
            yield date, f"{date}/{first}", tile


def _task(stage: str, product: str, date: str, key: str, tile: Any, inputs: Any) -> Task:
    pixels = (tile["stop"] - tile["first"]) * tile["shape"][1]
    outputs, memory = (product,), 64 * pixels
    return Task(stage, key, tile, tuple(inputs), outputs, memory, pixels, date, labels=(date,))


def _plan_pattern(context: Context) -> Plan:
    options = context.options["selfcheck"]
    tasks = [
        _task("selfcheck-pattern", PATTERN, date, key, tile, ())
        for date, key, tile in _tiles(options)
    ]
    return Plan((_template(PATTERN, "number", options),), tuple(tasks))


def _compute_pattern(parameters: Mapping[str, Any], _source: Source) -> Computation:
    rows = np.arange(parameters["first"], parameters["stop"])
    numbers = pattern(parameters["number"], rows, np.arange(parameters["shape"][1]))
    time.sleep(parameters["delay_s"])
    origin = (parameters["date"], parameters["first"], 0)
    yield Block(PATTERN, "number", origin, numbers[None])
    return {"total": int(numbers.sum())}


def _plan_sum(context: Context) -> Plan:
    options = context.options["selfcheck"]
    tiles = list(_tiles(options))
    tasks = []
    for date, key, tile in tiles:
        inputs = [f"selfcheck-pattern/{k}" for d, k, _ in tiles if d == date]
        tasks.append(_task("selfcheck-sum", SUM, date, key, tile, inputs))
    return Plan((_template(SUM, "sum", options),), tuple(tasks))


def _compute_sum(parameters: Mapping[str, Any], source: Source) -> Computation:
    lines, samples = parameters["shape"]
    first, stop = parameters["first"], parameters["stop"]
    top, bottom = max(first - 1, 0), min(stop + 1, lines)
    window = (parameters["date"], slice(top, bottom), slice(0, samples))
    numbers = source.read(PATTERN, "number", window)[0]
    sums = _sum_of_three(numbers)[first - top : first - top + stop - first]
    planted = _sum_of_three(
        pattern(parameters["number"], np.arange(top, bottom), np.arange(samples))
    )
    wrong = np.count_nonzero(sums != planted[first - top : first - top + stop - first])
    time.sleep(parameters["delay_s"])
    yield Block(SUM, "sum", (parameters["date"], first, 0), sums[None])
    return {"wrong": wrong}


def _sum_of_three(numbers: NDArray[np.int32]) -> NDArray[np.int32]:
    """Sum each line with its neighbours above and below, zero outside."""
    padded = np.pad(numbers, ((1, 1), (0, 0)))
    total: NDArray[np.int32] = padded[:-2] + padded[1:-1] + padded[2:]
    return total


PATTERN_STAGE = Stage(
    "selfcheck-pattern",
    "2",
    "bperp.flows.selfcheck:PATTERN_STAGE",
    _plan_pattern,
    _compute_pattern,
)
SUM_STAGE = Stage("selfcheck-sum", "2", "bperp.flows.selfcheck:SUM_STAGE", _plan_sum, _compute_sum)
STAGES = (PATTERN_STAGE, SUM_STAGE)
