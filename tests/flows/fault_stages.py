"""Stages that go wrong on demand, importable by worker processes through ``sys.path``.

``context.options["faults"]`` gives ``keys``, ``fault`` (key to kind), ``flag`` (a folder in which
``...-once`` faults leave a trace) and ``memory_bytes``.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np

from bperp.pipeline.stage import ArraySpec, Block, Plan, Stage, Task, Template
from bperp.stores.errors import NetworkError, ProductError

PRODUCT = "scene/faults"


def _plan(context):
    options = context.options["faults"]
    keys = options["keys"]
    spec = ArraySpec("x", ("pair", "range"), (len(keys), 8), (1, 4), "float32", float("nan"))
    tasks = []
    for index, key in enumerate(keys):
        fault = options.get("fault", {}).get(key, "")
        parameters = {"index": index, "fault": fault, "flag": options.get("flag", "")}
        memory = options.get("memory_bytes", 1000)
        if fault != "no-task":
            tasks.append(Task("faults", key, parameters, (), (PRODUCT,), memory, batch=key[:1]))
    return Plan((Template(PRODUCT, (spec,)),), tuple(tasks))


def _compute(parameters, source):
    fault, index = parameters["fault"], parameters["index"]
    if fault.endswith("-once"):
        trace = Path(parameters["flag"]) / f"{index}"
        fault = "" if trace.exists() else fault.removesuffix("-once")
        trace.touch()
    _go_wrong(fault, source)
    width = 4 if fault == "gap" else 8
    target = "scene/strange" if fault == "strange" else PRODUCT
    value = random.random() if fault == "random" else index
    yield Block(target, "x", (index, 0), np.full((1, width), value, np.float32))
    if fault == "twice":
        yield Block(target, "x", (index, 0), np.full((1, 8), index, np.float32))
    return {"index": np.int64(index), "nan": float("nan")}


def _go_wrong(fault, source):
    if fault == "data":
        raise ProductError("D306", "burst holds only zeros", where="S1A.SAFE", remedy="fetch again")
    if fault == "bug":
        raise ZeroDivisionError("a bug")
    if fault == "network":
        raise NetworkError("R810", "no answer", remedy="wait")
    if fault == "disk":
        raise OSError(5, "input/output error")
    if fault == "memory":
        raise MemoryError
    if fault == "hog":
        hoard = [np.ones(50_000_000 // 8) for _ in range(200)]
        raise AssertionError(f"10 GB fit into the limit: {len(hoard)}")
    if fault == "die":
        os._exit(9)
    if fault == "peek":
        source.read("selfcheck/pattern", "number", ())


STAGE = Stage("faults", "1", "fault_stages:STAGE", _plan, _compute)
